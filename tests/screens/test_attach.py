"""The attach screen against a real WebSocket on loopback: live, refused, not ready, broken, ended."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

import pytest

from lapconsole.client.errors import PlatformError, Unreachable
from lapconsole.client.tty_messages import DRIVE
from lapconsole.terminal import attachment
from lapconsole.terminal.attachment import Phase, Seat
from tests.screens.attaching import NOTICE, attached, ready_session
from tests.waiting import until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachment, "FIRST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(attachment, "LAST_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(attachment, "NOT_READY_SECONDS", 0.02)


@pytest.mark.parametrize("size", [(80, 24), (120, 35), (200, 50)])
async def test_live(size: tuple[int, int]) -> None:
    async with attached(size=size) as it:
        await it.until_phase(Phase.LIVE)
        columns, lines = size[0], size[1] - 1
        await until(lambda: it.harness.sizes == [(columns, lines)], "the size is told")
        await it.pilot.press("h", "i", "enter", "ctrl+q", "ctrl+p", "q", "ctrl+c", "1", "question_mark", "tab")
        await until(lambda: it.harness.typed == b"hi\r\x11\x10q\x031?\t", "the keys arrive")
        await it.until_shown("?")
        assert it.pilot.app.screen is it.screen
        assert it.notice == ""
        assert "payments-api  5e550000  Idem" in it.line
        assert f"{columns}x{lines}  ● driving  original protocol" in it.line
        assert len(it.line) == columns


async def test_control_frames_cannot_be_typed() -> None:
    async with attached() as it:
        await it.until_phase(Phase.LIVE)
        it.view._type(b'{"type":"resize","cols":1,"rows":1}')
        await until(lambda: it.harness.typed == b'{"type":"resize","cols":1,"rows":1}', "it arrives as keys")
        assert it.harness.sizes == [(80, 23)]


async def test_resize_is_sent() -> None:
    async with attached() as it:
        await it.until_phase(Phase.LIVE)
        await it.pilot.resize_terminal(100, 30)
        await until(lambda: it.harness.sizes == [(80, 23), (100, 29)], "the new size")


async def test_detach() -> None:
    async with attached() as it:
        await it.until_phase(Phase.LIVE)
        await it.pilot.press("ctrl+right_square_bracket")
        assert "d detach" in it.line
        await it.pilot.press("d")
        await until(lambda: it.pilot.app.screen is not it.screen, "the screen is left")
        await until(lambda: it.harness.connections[0].state.name != "OPEN", "the connection is closed")
        assert it.harness.typed == b""


async def test_title_of_the_program() -> None:
    async with attached() as it:
        await it.until_phase(Phase.LIVE)
        await until(lambda: it.harness.connections, "a connection")
        await it.harness.show("\x1b]0;refactor \x07")
        await until(lambda: it.view._title == "refactor ", "the title")
        it.screen._forget_news()
        assert "refactor" in it.line


async def test_refused_token() -> None:
    async with attached(ready_session(), prepare=lambda harness: setattr(harness, "refuse", HTTPStatus(401))) as it:
        await it.until_phase(Phase.STOPPED)
        assert "401: the terminal token was refused" in it.notice
        assert "Restart the session" in it.notice
        it.harness.refuse = None
        await it.pilot.press("enter")
        await it.until_phase(Phase.LIVE)
        assert it.notice == ""


async def test_not_ready_attaches_by_itself() -> None:
    coming = ready_session(status="creating", phase="installing_deps", phase_detail="41 of 96 packages")
    async with attached(coming) as it:
        await it.until_phase(Phase.NOT_READY)
        assert f"phase installing_deps ({coming.step}/10): 41 of 96 packages" in it.notice
        it.platform.script["session"] = ready_session()
        await it.until_phase(Phase.LIVE)


@pytest.mark.parametrize(
    ("answer", "phase", "told"),
    [
        (ready_session(status="failed", failure_reason="clone failed"), Phase.STOPPED, "is failed: clone failed"),
        (ready_session(status="dead"), Phase.STOPPED, "The session is dead"),
        (ready_session(supports_tui=False), Phase.STOPPED, "has no terminal"),
        (PlatformError(404, "NOT_FOUND", "not found"), Phase.STOPPED, "404: there is no such session"),
        (PlatformError(401, "UNAUTHORIZED", "unauthorized"), Phase.STOPPED, "401: the platform refused the key"),
        (PlatformError(500, "INTERNAL", "oops"), Phase.LOST, "500: oops"),
        (Unreachable("http://lap", "connection refused"), Phase.LOST, "Cannot reach http://lap: connection refused"),
        (RuntimeError("a fault of ours"), Phase.STOPPED, "Internal error: RuntimeError"),
    ],
)
async def test_what_stands_in_the_way_is_told(answer: Any, phase: Phase, told: str) -> None:
    async with attached(answer) as it:
        await it.until_phase(phase)
        assert told in it.notice
        await it.pilot.press("ctrl+right_square_bracket", "d")
        await until(lambda: it.pilot.app.screen is not it.screen, "the screen is left")


async def test_comes_back_after_a_break_and_types_nothing_of_before() -> None:
    async with attached() as it:
        await it.until_phase(Phase.LIVE)
        await it.pilot.press("a")
        await it.until_shown("a")
        await it.harness.stop()
        await it.until_phase(Phase.LOST)
        await it.pilot.press("b", "escape", "enter")
        assert "a" in it.view.emulator.text()[0]
        await it.harness.start()
        await it.until_phase(Phase.LIVE)
        await it.pilot.press("c")
        await until(lambda: it.harness.typed.endswith(b"c"), "the next key")
        assert it.harness.typed == b"ac"
        assert it.harness.sizes == [(80, 23)] * 2


async def test_a_half_sent_sequence_does_not_spoil_the_next_connection() -> None:
    async with attached() as it:
        await it.until_phase(Phase.LIVE)
        await until(lambda: it.harness.connections, "a connection")
        await it.harness.show("\x1b]0;never ended")
        await it.harness.connections[0].close(1012)
        await until(lambda: len(it.harness.connections) == 2, "a new connection")
        await it.harness.show("fresh")
        await it.until_shown("fresh")


async def test_the_end_of_the_agent_and_a_new_start() -> None:
    async with attached() as it:
        await it.until_phase(Phase.LIVE)
        await until(lambda: it.harness.connections, "a connection")
        await it.harness.end()
        await it.until_phase(Phase.ENDED)
        assert "The agent has ended (exit code 7)" in it.notice
        assert "Enter start it again   Esc leave" in it.notice
        await it.pilot.press("x", "enter")
        await until(lambda: len(it.harness.connections) == 2, "a new attachment")
        await it.until_phase(Phase.LIVE)
        await it.harness.end(NOTICE.replace("code=7, signal=0", "code=0, signal=9"))
        await until(lambda: "killed by signal 9" in it.notice, "the signal")
        await it.pilot.press("escape")
        await until(lambda: it.pilot.app.screen is not it.screen, "the screen is left")


async def test_an_old_notice_on_the_screen_is_not_the_end() -> None:
    async with attached() as it:
        await it.until_phase(Phase.LIVE)
        await until(lambda: it.harness.connections, "a connection")
        await it.harness.end(NOTICE + "$ started again", code=1012)
        await until(lambda: len(it.harness.connections) == 2, "a new connection")
        await it.until_phase(Phase.LIVE)


async def test_a_burst_of_output_arrives_whole() -> None:
    async with attached() as it:
        await it.until_phase(Phase.LIVE)
        await until(lambda: it.harness.connections, "a connection")
        for start in range(0, 5000, 100):
            await it.harness.show("".join(f"line {n}\r\n" for n in range(start, start + 100)))
        await it.until_shown("line 4999")
        assert it.view.emulator.scrollback_lines == 5001 - 23


async def test_clipboard_only_when_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async with attached() as it:
        copied: list[str] = []
        monkeypatch.setattr(it.pilot.app, "copy_to_clipboard", copied.append)
        await it.until_phase(Phase.LIVE)
        await until(lambda: it.harness.connections, "a connection")
        await it.harness.show("\x1b]52;c;aGVsbG8=\x07")
        await until(lambda: it.view.offered, "the offer")
        it.screen._forget_news()
        assert "Ctrl+] y copy 5 characters" in it.line
        assert copied == []
        await it.pilot.press("ctrl+right_square_bracket", "y")
        assert copied == ["hello"]
        it.screen._forget_news()
        assert "detach" in it.line


async def test_input_beyond_a_stalled_link_is_refused() -> None:
    stalled = attachment.Attachment(lambda: None, "s", (80, 24), None)
    assert not stalled.type(b"x")
    stalled.seat = Seat(DRIVE)
    stalled._outbox = attachment._Outbox()
    assert stalled.type(b"x" * attachment.UNSENT_BYTES)
    assert not stalled.type(b"x")


async def test_leaving_while_connecting() -> None:
    hanging = await asyncio.start_server(lambda reader, writer: reader.read(), "127.0.0.1", 0)
    port = hanging.sockets[0].getsockname()[1]
    async with attached(ready_session(tty_url=f"ws://127.0.0.1:{port}/tty")) as it:
        await it.until_phase(Phase.CONNECTING)
        await it.pilot.press("ctrl+right_square_bracket", "d")
        await until(lambda: it.pilot.app.screen is not it.screen, "the screen is left")
    hanging.close()

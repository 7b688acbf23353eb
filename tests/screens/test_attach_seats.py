"""The attach screen with the protocol that knows who drives: watching, taking over, sizes, repaints, what is copied."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from textual import events

from lapconsole.screens.confirm import Confirm
from lapconsole.screens.links import LinksDialog, opener
from lapconsole.terminal import attachment, widget
from lapconsole.terminal.attachment import Phase
from lapconsole.terminal.emulator import Emulator
from tests.screens.attaching import Attached, Harness, attached
from tests.waiting import until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachment, "FIRST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(attachment, "LAST_RETRY_SECONDS", 0.05)


def alice_drives(harness: Harness) -> None:
    harness.alice = "drive"


def shown(it: Attached) -> list[str]:
    return [it.view.render_line(y).text.rstrip() for y in range(it.view.size.height)]


async def driving(it: Attached) -> None:
    """Attached, driving, and shown at our own size."""
    await it.until_line("driving")
    await until(lambda: it.view.emulator.columns == it.view.size.width, "our size")


def lines(count: int) -> str:
    return "\r\n".join(f"line {n}" for n in range(count))


@pytest.mark.parametrize("size", [(80, 24), (120, 35), (200, 50)])
async def test_alone_one_drives_at_once(size: tuple[int, int]) -> None:
    async with attached(size=size, two_way=True) as it:
        await driving(it)
        columns, rows = size[0], size[1] - 1
        assert it.harness.told[0] == {
            "type": "hello",
            "name": attachment.viewer_name(),
            "mode": "offer",
            "cols": columns,
            "rows": rows,
            "scrollback": 0,
        }
        assert f"{columns}x{rows}  ● driving  Ctrl+] d detach" in it.line
        await it.pilot.press("h", "i", "enter")
        await until(lambda: it.harness.typed == b"hi\r", "the keys")
        it.view._type(b'{"type":"watch"}')
        await until(lambda: it.harness.typed.endswith(b'{"type":"watch"}'), "it arrives as keys")
        assert it.view.driving


@pytest.mark.parametrize("size", [(80, 24), (120, 35), (200, 50)])
async def test_while_another_drives_one_watches_and_nothing_is_typed(size: tuple[int, int]) -> None:
    async with attached(size=size, two_way=True, prepare=alice_drives) as it:
        await it.until_line("○ watching")
        await it.until_line("alice@host")
        assert it.line.endswith(" Ctrl+] t takes over ")
        await it.pilot.press("x", "enter", "ctrl+c")
        await it.until_line("nothing typed: Ctrl+] t takes over")
        it.view.post_message(events.Paste("secret"))
        await it.command("right_square_bracket")
        await it.command("t")
        await driving(it)
        await it.pilot.press("y")
        await until(lambda: it.harness.typed, "the first key")
        assert it.harness.typed == b"y"
        await it.until_line("2 viewers")
        assert len(it.line) == size[0]


@pytest.mark.parametrize("size", [(80, 24), (120, 35), (200, 50)])
async def test_who_attaches_watches_and_is_told_the_key_that_lets_one_type(size: tuple[int, int]) -> None:
    async with attached(size=size, two_way=True, own=False) as it:
        await it.until_line("○ watching")
        assert it.line.endswith(" Ctrl+] t lets you type ")
        await it.pilot.press("x")
        await it.until_line("nothing typed: Ctrl+] t lets you type")
        await it.command("t")
        await driving(it)
        await it.command("w")
        await it.until_line("○ watching")
        await it.pilot.press("z")
        await it.until_line("nothing typed")
        assert it.harness.typed == b""


async def test_who_prefers_to_drive_drives_unless_somebody_does() -> None:
    drive = {"attach_mode": "drive"}
    async with attached(two_way=True, own=False, preferences=drive) as it:
        await driving(it)
    async with attached(two_way=True, own=False, preferences=drive, prepare=alice_drives) as it:
        await it.until_line("○ watching")
        assert "alice@host" in it.line


async def test_who_attaches_types_nothing_in_the_original_protocol_either() -> None:
    async with attached(own=False) as it:
        await it.until_line("○ watching")
        await it.pilot.press("x")
        await it.command("t")
        await it.until_line("● driving")
        await it.pilot.press("y")
        await until(lambda: it.harness.typed, "the key")
        assert it.harness.typed == b"y"


async def test_a_key_that_commands_nothing_is_named_and_leads_nowhere() -> None:
    async with attached(two_way=True) as it:
        await driving(it)
        await it.command("x")
        await it.until_line("x does nothing here")
        assert "d detach" in it.line
        await it.pilot.press("f5")
        await it.until_line("f5 does nothing here")
        await it.pilot.press("escape", "y")
        await until(lambda: it.harness.typed, "the key")
        assert it.harness.typed == b"y"


async def test_being_taken_over() -> None:
    async with attached(two_way=True) as it:
        await driving(it)
        await it.harness.alice_takes_over(60, 15)
        await it.until_line("alice@host took over")
        await it.pilot.press("x")
        await it.until_line("nothing typed: Ctrl+] t takes over")
        assert it.harness.typed == b""
        # What it had is what it asks for after a break.
        await it.harness.connections[-1].close(1012)
        await until(lambda: len(it.harness.connections) == 2, "a new connection")
        it.harness.alice = None
        await it.until_line("watching")
        assert all(told["type"] != "drive" for told in it.harness.told[-2:])


async def test_a_driver_drives_again_after_a_break_though_its_old_connection_seems_alive() -> None:
    async with attached(two_way=True) as it:
        await driving(it)
        await it.harness.stop()
        await it.until_phase(Phase.LOST)
        await it.pilot.press("b")
        ghost = {"id": "1", "name": "me", "mode": "drive"}
        real = it.harness.viewers
        it.harness.viewers = lambda: [ghost, *real()]  # type: ignore[method-assign]
        await it.harness.start()
        await it.until_line("driving")
        await it.pilot.press("c")
        await until(lambda: it.harness.typed, "the next key")
        assert it.harness.typed == b"c"


# Sizes and repaints


async def test_a_smaller_terminal_stands_within_an_edge() -> None:
    async with attached(two_way=True, prepare=alice_drives) as it:
        await it.harness_resized(60, 10)
        await it.harness.show("\x1b[2J\x1b[Hhello")
        await until(lambda: shown(it)[0] == "hello".ljust(60) + "┊", "the row and the edge")
        assert shown(it)[10].startswith("┈┈ 60x10 of alice@host ┈┈")
        assert shown(it)[11] == ""
        await it.command("t")
        await driving(it)
        assert "┊" not in "".join(shown(it))


async def test_a_larger_terminal_is_cut_off_and_its_cursor_stays_in_sight() -> None:
    async with attached(two_way=True, prepare=alice_drives) as it:
        await it.harness_resized(100, 40)
        await it.harness.show(f"\x1b[2J\x1b[H{'x' * 99}")
        await until(lambda: shown(it)[0] == "x" * 79 + "┊", "the cut row")
        await it.harness.show("\x1b[40;1Hprompt")
        await until(lambda: shown(it)[-1] == "prompt", "the last row")
        await it.harness.show("\x1b[?25l\x1b[1;1Htop")
        await it.until_shown("top")
        assert shown(it)[-1] == "prompt"
        await it.pilot.resize_terminal(120, 35)
        await it.until_line("100x40  ○ watching, alice@host drives")


async def test_the_size_of_a_driver_is_told() -> None:
    async with attached(two_way=True) as it:
        await driving(it)
        await it.pilot.resize_terminal(100, 30)
        await until(lambda: (it.view.emulator.columns, it.view.emulator.lines) == (100, 29), "the new size")
        sizes = [(told["cols"], told["rows"]) for told in it.harness.told if told["type"] == "resize"]
        assert sizes == [(100, 29)]


async def test_scrollback_is_there_from_the_start() -> None:
    async with attached(two_way=True, prepare=lambda harness: harness.emulator.feed(lines(500))) as it:
        await until(lambda: it.view.emulator.scrollback_lines > 400, "the scrollback")
        await driving(it)
        assert it.view.emulator.text()[-1] == "line 499"
        await it.pilot.press("shift+pageup")
        assert shown(it)[-1] == "line 477"


async def test_over_a_slow_link_scrollback_comes_when_somebody_looks_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachment, "QUICK_SECONDS", -1)
    async with attached(two_way=True, prepare=lambda harness: harness.emulator.feed(lines(500))) as it:
        await driving(it)
        assert it.view.emulator.scrollback_lines < 20
        await it.command("s")
        await it.until_line("back of 500 lines")
        await it.pilot.press("home")
        assert shown(it)[0] == "line 0"


async def test_what_is_searched_for_is_found_in_scrollback_that_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachment, "QUICK_SECONDS", -1)
    async with attached(two_way=True, prepare=lambda harness: harness.emulator.feed(lines(500))) as it:
        await driving(it)
        fetch, asked = it.harness.repaint, asyncio.Event()

        async def late(*given: Any, **more: Any) -> None:
            await asked.wait()
            await fetch(*given, **more)

        it.harness.repaint = late  # type: ignore[method-assign]
        await it.command("slash")
        await it.pilot.press(*"line 77", "enter")
        await it.until_line("not found")
        asked.set()
        await it.until_line("1/1")
        assert any(row == "line 77" for row in shown(it))


async def test_scrollback_that_comes_between_two_letters_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachment, "QUICK_SECONDS", -1)
    async with attached(two_way=True, prepare=lambda harness: harness.emulator.feed(lines(500))) as it:
        await driving(it)
        it.view._begin_search()
        await it.pilot.press(*"line 4")
        await it.until_line("/line 4")
        await until(lambda: it.view.emulator.scrollback_lines > 400, "the scrollback")
        await it.pilot.press("backspace", *"77", "enter")
        await it.until_line("/")
        assert any(row == "line 77" for row in shown(it))


async def test_skipped_ahead() -> None:
    async with attached(two_way=True) as it:
        await driving(it)
        it.harness.emulator = Emulator(80, 23)
        it.harness.emulator.feed("\x1b[?1000h\x1b]0;now\x07present")
        await it.harness.repaint(skipped=300_000)
        await it.until_line("skipped ahead")
        await it.until_shown("present")
        assert it.view.emulator.text()[0] == "present"
        assert it.view.emulator.modes.mouse == 1000


async def test_the_end_of_the_agent() -> None:
    async with attached(two_way=True) as it:
        await driving(it)
        await it.harness.say(type="exit", code=None, signal=9)
        await it.harness.connections[-1].close(1000)
        await it.until_phase(Phase.ENDED)
        assert "killed by signal 9" in it.notice
        await it.pilot.press("enter")
        await until(lambda: len(it.harness.connections) == 2, "a new attachment")


async def test_unknown_and_broken_control_messages_change_nothing() -> None:
    async with attached(two_way=True) as it:
        await driving(it)
        for text in ("nonsense", "[]", '{"type":"later"}', '{"type":"viewers","viewers":"many"}', '{"type":"size"}'):
            await it.harness.connections[-1].send(text)
        await it.harness.show("still here")
        await it.until_shown("still here")


async def test_a_harness_that_does_not_answer_the_greeting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachment, "WELCOME_SECONDS", 0.05)

    def deaf(harness: Harness) -> None:
        async def nothing(**message: Any) -> None:
            return None

        harness.say = nothing  # type: ignore[method-assign]

    async with attached(two_way=True, prepare=deaf) as it:
        await until(lambda: "did not answer the greeting" in it.notice, "the notice")


# Copy, paste, links


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr("lapconsole.app.LapConsole.copy_to_clipboard", lambda app, text: texts.append(text))
    return texts


def toasts(it: Attached) -> list[str]:
    return [toast.message for toast in it.pilot.app._notifications]


async def test_a_drag_copies(copied: list[str]) -> None:
    async with attached(two_way=True) as it:
        await driving(it)
        await it.harness.show("\x1b[2J\x1b[Hone two three")
        await it.until_shown("three")
        await it.pilot.mouse_down(it.view, offset=(4, 0))
        await it.pilot.hover(it.view, offset=(6, 0))
        await it.pilot.mouse_up(it.view, offset=(6, 0))
        await until(lambda: copied == ["two"], "the copy")
        assert "Copied 3 bytes." in toasts(it)
        assert it.harness.typed == b""


async def test_too_much_is_not_copied(copied: list[str]) -> None:
    async with attached(two_way=True) as it:
        await driving(it)
        it.view.copy("x" * 80_000)
        await until(lambda: toasts(it) == ["Not copied: terminals take at most 74,994 bytes."], "the toast")
        assert copied == []


@pytest.mark.parametrize(("setting", "taken"), [("allow", ["hello"]), ("deny", [])])
async def test_the_clipboard_as_it_is_set(copied: list[str], setting: str, taken: list[str]) -> None:
    async with attached(two_way=True, preferences={"agent_clipboard": setting}) as it:
        await driving(it)
        await it.harness.show("\x1b]52;c;aGVsbG8=\x07after")
        await it.until_shown("after")
        await until(lambda: copied == taken, "the clipboard")
        assert it.view.offered == ""


async def test_who_watches_is_asked_even_where_agents_may_copy(copied: list[str]) -> None:
    async with attached(two_way=True, prepare=alice_drives, preferences={"agent_clipboard": "allow"}) as it:
        await it.until_line("watching")
        await it.harness.show("\x1b]52;c;aGVsbG8=\x07")
        await until(lambda: it.view.offered == "hello", "the offer")
        assert copied == []


async def test_a_long_paste_is_confirmed() -> None:
    async with attached(two_way=True) as it:
        await driving(it)
        text = "\n".join(f"line {n}" for n in range(9))
        for answer, typed in (("n", b""), ("y", text.replace("\n", "\r").encode())):
            it.view.post_message(events.Paste(text))
            await until(lambda: isinstance(it.pilot.app.screen, Confirm), "the question")
            words = " ".join(str(line.render()) for line in it.pilot.app.screen.query(".effect"))
            assert "line 5" in words and "3 more lines" in words
            await it.pilot.press(answer)
            await until(lambda: it.pilot.app.screen is it.screen, "back")
            await it.pilot.pause()
            await until(lambda typed=typed: it.harness.typed == typed, "what is typed")


async def test_a_paste_with_control_characters_is_confirmed() -> None:
    async with attached(two_way=True) as it:
        await driving(it)
        it.view.post_message(events.Paste("ls\x1b[201~\x03"))
        await until(lambda: isinstance(it.pilot.app.screen, Confirm), "the question")
        await it.pilot.press("y")
        await until(lambda: it.harness.typed == b"ls", "the rest")


async def test_links_are_listed_and_copied(copied: list[str]) -> None:
    async with attached(two_way=True) as it:
        await driving(it)
        await it.command("o")
        await it.until_line("no links to be seen")
        await it.harness.show("see https://a.example/x. and \x1b]8;;https://b.example/\x1b\\this\x1b]8;;\x1b\\")
        await it.until_shown("this")
        await it.command("o")
        await until(lambda: isinstance(it.pilot.app.screen, LinksDialog), "the list")
        await it.pilot.press("down", "enter")
        await until(lambda: copied, "the copy")
        assert copied == ["https://a.example/x"]


def test_nothing_is_opened_over_ssh_or_without_a_screen() -> None:
    assert opener({"DISPLAY": ":0", "SSH_CONNECTION": "1 2 3 4"}) is None
    assert opener({}) is None


async def test_search_and_select_by_keys(copied: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(widget, "LINGER_SECONDS", 0.01)
    async with attached(two_way=True) as it:
        await driving(it)
        await it.harness.show("\x1b[2J\x1b[H" + lines(100))
        await it.until_shown("line 99")
        await it.command("slash")
        await it.pilot.press(*"line 4")
        await it.until_line("/line 4▏ 1/11")
        await it.pilot.press("enter", "n")
        await it.until_line("2/11")
        assert any("line 48" in row for row in shown(it))
        await it.pilot.press("v", "v", "end", "y")
        await until(lambda: copied, "the copy")
        assert copied == ["line 48"]
        assert it.view.review is None
        assert it.harness.typed == b""

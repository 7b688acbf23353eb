"""What a session's terminal tells, shows and leaves behind, with the real harness."""

import asyncio
import contextlib
import json
import os
import signal
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from tests.e2e.programs import API, Platform, attached, processes_of
from tests.waiting import until

pytestmark = pytest.mark.e2e


async def until_it_is(platform: Platform, session: dict[str, Any], **facts: Any) -> dict[str, Any]:
    """The session once its `terminal` has these."""

    async def told() -> dict[str, Any] | None:
        now = await platform.session(session["id"])
        return now if facts.items() <= (now["terminal"] or {}).items() else None

    return await until(told, f"the terminal tells {facts}")


async def test_what_the_program_tells_reaches_record_and_feed(platform: Platform) -> None:
    session = await platform.ready(await platform.create_agent())
    async with attached(session) as viewer:
        await viewer.type(r"printf '\033]0;busy\007\033]9;4;1;40\007\033]777;notify;Claude;needs you\007'" + "\r")
        seen = await until_it_is(platform, session, title="busy", progress={"state": "normal", "value": 40})
        assert seen["terminal"]["notification"]["body"] == "needs you"
        assert (seen["viewers"], len(seen["attached"])) == (1, 1)
        assert seen["attached"][0]["mode"] == "drive"
        events = await platform.events(session_id=session["id"], types="session.updated")
        assert events[-1]["session"]["terminal"]["title"] == "busy"
        before = len(await platform.events(session_id=session["id"]))
        await viewer.type(
            r"for i in $(seq 100); do printf '\033]0;%d %%\007' $i; sleep 0.01; done; echo all-$((1 + 1))-told" + "\r"
        )
        began = asyncio.get_running_loop().time()
        await until_it_is(platform, session, title="100 %")
        seconds = asyncio.get_running_loop().time() - began
        await viewer.shows("all-2-told")
        assert len(await platform.events(session_id=session["id"])) - before <= 2 * seconds + 2

    async def left() -> bool:
        return (await platform.session(session["id"]))["attached"] == []

    await until(left, "nobody is attached")


async def test_the_second_protocol_goes_through(platform: Platform) -> None:
    session = await platform.ready(await platform.create_agent())
    url = f"{session['tty_url']}?token={session['tty_token']}"
    async with connect(url, subprotocols=[Subprotocol("lap.tty.2")], proxy=None) as viewer, asyncio.timeout(20):
        assert viewer.subprotocol == "lap.tty.2"
        hello = {"type": "hello", "name": "alice@host", "mode": "drive", "cols": 90, "rows": 20, "scrollback": 0}
        await viewer.send(json.dumps(hello))
        told: list[dict[str, Any]] = []
        shown = b""
        typed = False
        while b"<20 90>" not in shown:
            frame = await viewer.recv()
            if isinstance(frame, bytes):
                shown += frame
            else:
                told.append(json.loads(frame))
            if not typed and b"$" in shown + b"$":
                typed = True
                await viewer.send(b'echo "<$(stty size)>"; {"type":"watch"}\r')
        assert {"welcome", "repaint"} <= {message["type"] for message in told}

        async def named() -> bool:
            return [who["name"] for who in (await platform.session(session["id"]))["attached"]] == ["alice@host"]

        await until(named, "who is attached is recorded")


async def test_screen(platform: Platform) -> None:
    session = await platform.ready(await platform.create_agent())
    path = f"{API}/sessions/{session['id']}/screen"
    async with attached(session) as viewer:
        await viewer.type("echo on-the-$((1 + 1))-screen\r")
        await viewer.shows("on-the-2-screen")
    text = await platform.http.get(path)
    assert "on-the-2-screen" in text.text
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    cells = (await platform.http.get(path, params={"format": "cells"})).json()
    assert {"columns", "rows", "cursor", "title", "alternate", "lines"} <= cells.keys()
    assert any("on-the-2-screen" in "".join(run["text"] for run in line) for line in cells["lines"])
    svg = await platform.http.get(path, params={"format": "svg", "scrollback": "10"})
    assert svg.headers["content-type"] == "image/svg+xml"
    assert svg.text.lstrip().startswith("<svg")


async def test_recording(platform: Platform) -> None:
    session = await platform.ready(await platform.create_agent(recording=True))
    path = f"{API}/sessions/{session['id']}/recording"
    async with attached(session) as viewer:
        await viewer.type("echo recorded-$((1 + 1))-live\r")
        await viewer.shows("recorded-2-live")
    live = await platform.http.get(path)
    assert live.status_code == 200, live.text
    assert "recorded-2-live" in live.text
    await platform.http.delete(f"{API}/sessions/{session['id']}")
    await platform.nothing_left(session)
    kept = await platform.http.get(path)
    assert kept.text.startswith(live.text)
    header, *events = map(json.loads, kept.text.splitlines())
    assert header["version"] == 3
    assert all(code in "ormx" and isinstance(interval, int | float) for interval, code, _ in events)


async def test_recording_of_a_harness_that_is_killed(platform: Platform) -> None:
    session = await platform.ready(await platform.create_agent(), recording=True)
    async with attached(session) as viewer:
        await viewer.type("echo before-$((1 + 1))-the-end\r")
        await viewer.shows("before-2-the-end")
        written = platform.sandbox(session) / "recording.cast"
        await until(lambda: b"before-2-the-end" in written.read_bytes(), "the harness has written it")
        for pid in processes_of(platform.sandbox(session)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def dead() -> bool:
        return (await platform.session(session["id"]))["status"] == "dead"

    await until(dead, "the session is dead")
    response = await platform.http.get(f"{API}/sessions/{session['id']}/recording")
    assert "before-2-the-end" in response.text


async def test_the_platform_ends_with_a_terminal_that_is_stuck(platform: Platform) -> None:
    """The harness answers nothing any more: neither the close of one viewer nor the request of another."""
    session = await platform.ready(await platform.create_agent())
    async with attached(session) as viewer:
        await viewer.shows("bash-")
        stopped = processes_of(platform.sandbox(session))
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)

        async def come_late() -> None:
            async with attached(session):
                raise AssertionError("a harness that is stopped let somebody in")

        late = asyncio.create_task(come_late())
        await asyncio.wait({late}, timeout=0.2)
        assert await platform.end() == 0
        with pytest.raises(InvalidHandshake):
            await late
        with pytest.raises(ConnectionClosed):
            while True:
                await viewer.connection.recv()
        assert viewer.connection.close_code == 1012
    assert "Traceback" not in platform.log()
    assert "ERROR" not in platform.log()


async def test_what_is_typed_while_the_platform_ends_arrives(platform: Platform) -> None:
    session = await platform.ready(await platform.create_agent())
    typed: list[str] = []
    async with attached(session) as viewer:
        await viewer.type("stty -echo; cat > typed\r")
        await viewer.shows("cat > typed")
        ending = asyncio.create_task(platform.end())

        async def receive() -> None:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    await viewer.connection.recv()

        receiving = asyncio.create_task(receive())
        with pytest.raises(ConnectionClosed):
            while True:
                await viewer.type(f"line {len(typed)}\r")
                typed.append(f"line {len(typed)}")
                await asyncio.sleep(0.002)
        await receiving
    assert await ending == 0
    file = platform.sandbox(session) / "home" / "typed"
    await until(lambda: file.read_text().splitlines() == typed, "all of it is there")

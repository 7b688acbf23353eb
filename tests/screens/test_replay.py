"""Replay: a recording is fetched, played, paused and searched by keys; what is wrong with it is said."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from lapconsole.app import LapConsole
from lapconsole.client.errors import PlatformError, Unreachable, Unsupported
from lapconsole.screens.attach import AttachLine
from lapconsole.screens.replay import ReplayScreen, clock
from lapconsole.screens.session import SessionScreen
from lapconsole.terminal.cast import Player
from lapconsole.widgets.parts import plain
from tests.screens.scene import PAYMENTS, ScriptedPlatform, console, session
from tests.screens.test_screens import until

SIZE = (100, 30)
HEADER = {"version": 3, "term": {"cols": 40, "rows": 10}}


def recording(*events: Any) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in (HEADER, *events))


STEPS = recording(*([10, "o", f"step {number}\r\n"] for number in range(100)))  # 200 s without the idle time


def replaying(answer: Any, **fields: Any) -> LapConsole:
    row = replace(session(1, PAYMENTS), **{"recording": True, "status": "dead", **fields})
    return console(rows=[row], platform=ScriptedPlatform(recording=answer))


def screen_of(app: LapConsole) -> ReplayScreen:
    assert isinstance(app.screen, ReplayScreen)
    return app.screen


def player_of(app: LapConsole) -> Player:
    player = screen_of(app).view.player
    assert player is not None
    return player


def line(app: LapConsole) -> str:
    left, variants = app.screen.query_one(AttachLine)._told
    return f"{plain(left)} | {plain(variants[0])}"


async def opened(app: LapConsole, pilot: Pilot[None]) -> None:
    """Playing, and held still at once."""
    await pilot.press("enter", "p")
    await until(lambda: isinstance(app.screen, ReplayScreen) and app.screen.view.player, pilot)
    await pilot.press("space", "home")
    await settled(app, pilot, 0)


async def settled(app: LapConsole, pilot: Pilot[None], position: float) -> None:
    player, view = player_of(app), screen_of(app).view
    await until(lambda: not player.behind and view.emulator is player.emulator, pilot)
    assert player.position == pytest.approx(position, abs=1e-6)


async def test_keys_move_through_it() -> None:
    app = replaying(STEPS)
    async with app.run_test(size=SIZE) as pilot:
        await opened(app, pilot)
        assert "paused  1x" in line(app) and "0:00 / 3:20" in line(app)
        moves = [("right", 5), ("shift+right", 35), ("pagedown", 55), ("left", 50), ("shift+left", 20), ("pageup", 0)]
        for key, position in moves:
            await pilot.press(key)
            await settled(app, pilot, position)
        await pilot.press("end")
        await settled(app, pilot, 200)
        assert "step 99" in screen_of(app).view.emulator.text()
        await until(lambda: "ended" in line(app) and "3:20 / 3:20" in line(app), pilot)
        await pilot.press("left")
        await settled(app, pilot, 195)
        assert screen_of(app).view.emulator.text()[-2:] == ["step 96", ""]
        assert screen_of(app).view.mark == "40x10 recorded"
        await pilot.press("i")
        await settled(app, pilot, 971)
        await until(lambda: "16:11 / 16:40" in line(app), pilot)
        await pilot.press("escape")
        assert isinstance(app.screen, SessionScreen)


async def test_it_plays_at_a_speed_and_stops_at_the_end() -> None:
    app = replaying(STEPS)
    async with app.run_test(size=SIZE) as pilot:
        await opened(app, pilot)
        await pilot.press("minus", "minus", "minus")
        assert screen_of(app).view.speed == 0.25
        await pilot.press("plus", *["equals_sign"] * 8)
        assert screen_of(app).view.speed == 16
        await pilot.press("end", "left", "space")
        await until(lambda: "ended  16x" in line(app), pilot)
        assert not screen_of(app).view.playing
        await pilot.press("space")  # from the start again
        await until(lambda: 0 < player_of(app).position < 100 and "playing" in line(app), pilot)
        await pilot.press("question_mark", "escape")
        assert not screen_of(app).view.playing


async def test_a_recording_that_is_still_written_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lapconsole.screens.replay.GROW_SECONDS", 0.01)
    monkeypatch.setattr("lapconsole.screens.replay._GROW_SHARE", 0)
    more = STEPS + recording([1, "o", "the latest\r\n"], [0, "m", "noted"]).partition(b"\n")[2]
    app = replaying(STEPS + b'[1, "o", "the la', status="ready")
    async with app.run_test(size=SIZE) as pilot:
        await opened(app, pilot)
        assert "damaged" not in line(app)
        await pilot.press("end")
        await until(lambda: "waiting for more" in line(app), pilot)
        app.platform.script["recording"] = more  # type: ignore[union-attr]
        await until(lambda: "the latest" in screen_of(app).view.emulator.text(), pilot)
        await until(lambda: "noted" in line(app), pilot)
        app.model.update_sessions([replace(row, status="dead") for row in app.model.sessions.values()])
        app.model.flush()
        await until(lambda: "ended" in line(app), pilot)


async def test_a_long_way_leaves_the_loop_to_others() -> None:
    flood = recording(
        *([0.01, "o", "\x1b[32mword \x1b[0m" * 600 + "\r\n"] for _ in range(80)), [1, "o", "\x1b[2J\x1b[Hend"]
    )
    app = replaying(flood)
    async with app.run_test(size=SIZE) as pilot:
        await opened(app, pilot)
        turns = 0
        player = player_of(app)
        screen_of(app).view.seek(player.duration)
        while player.behind:
            await asyncio.sleep(0)
            turns += 1
        await settled(app, pilot, player.duration)
        assert screen_of(app).view.emulator.text()[0] == "end"
        assert turns > 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Unsupported("nothing of this session is recorded"), "nothing of this session is recorded"),
        (Unreachable("http://127.0.0.1:1", "connection refused"), "connection refused"),
        (PlatformError(502, "UNAVAILABLE", "the sandbox does not answer"), "the sandbox does not answer"),
        (b"no cast", "line 1: not the header"),
        (recording(), "Nothing has been recorded yet"),
    ],
)
async def test_what_is_wrong_is_said(answer: Any, words: str) -> None:
    app = replaying(answer)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("enter", "p")
        notice = app.screen.query_one("#notice", Static)
        await until(lambda: notice.display, pilot)
        assert words in str(notice.content)
        await pilot.press("space", "left", "end", "i", "plus", "pageup", "escape")
        assert isinstance(app.screen, SessionScreen)


async def test_a_damaged_tail_is_told_and_the_rest_played() -> None:
    app = replaying(STEPS + b'[1, "o", "cut')
    async with app.run_test(size=SIZE) as pilot:
        await opened(app, pilot)
        assert "line 102: damaged or cut off" in line(app)


async def test_what_is_not_recorded_is_not_opened() -> None:
    app = replaying(b"")
    app.model.update_sessions([replace(row, recording=False) for row in app.model.sessions.values()])
    app.model.flush()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("enter", "p")
        assert isinstance(app.screen, SessionScreen)


def test_times_as_a_person_reads_them() -> None:
    assert [clock(0), clock(59.9), clock(61), clock(3 * 3600 + 62)] == ["0:00", "0:59", "1:01", "3:01:02"]

"""How memory, skills, the warm pool and an agent's page look at the three sizes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

from lapconsole.app import LapConsole
from lapconsole.client.errors import Unreachable
from lapconsole.screens.room import RoomScreen
from tests.screens.rooms import OFF, in_rooms
from tests.screens.test_snapshots import SIZES, STALE

PAYMENTS_PAGE = ["2", "end", "enter"]


async def refused_change(pilot: Pilot[None]) -> None:
    screen = pilot.app.screen
    screen.query_one("#model", Input).value = ""
    screen.query_one("#env_vars", TextArea).text = "GITHUB_TOKEN=********\nOTHER=********"
    await pilot.press("ctrl+s")


async def link_lost(pilot: Pilot[None]) -> None:
    app = pilot.app
    assert isinstance(app, LapConsole)
    app.model.set_link(STALE)
    app.model.flush()


Then = Callable[[Pilot[None]], Any]
SCENES: dict[str, tuple[Callable[[], LapConsole], list[str], Then | None]] = {
    "memory": (in_rooms, [*PAYMENTS_PAGE, "m", "down", "down"], None),
    "memory_stale": (in_rooms, [*PAYMENTS_PAGE, "m"], link_lost),
    "memory_empty": (lambda: in_rooms(memories=()), [*PAYMENTS_PAGE, "m"], None),
    "memory_tags": (in_rooms, [*PAYMENTS_PAGE, "m", "f"], None),
    "memory_form": (in_rooms, [*PAYMENTS_PAGE, "m", "e"], None),
    "skills": (in_rooms, ["3", "down", "down"], None),
    "skills_of_agent": (in_rooms, [*PAYMENTS_PAGE, "K"], None),
    "skills_unreadable": (lambda: in_rooms(skills=Unreachable("http://10.2.0.4:3000", "timed out")), ["3"], None),
    "skill_form": (in_rooms, ["3", "n"], None),
    "skill_attach": (in_rooms, [*PAYMENTS_PAGE, "K", "a"], None),
    "skill_detach": (in_rooms, [*PAYMENTS_PAGE, "K", "end", "x"], None),
    "skill": (in_rooms, ["3", "end", "enter"], None),
    "skill_version": (in_rooms, ["3", "end", "enter", "left"], None),
    "pool": (in_rooms, ["4"], None),
    "pool_off": (lambda: in_rooms(pool=OFF), ["4"], None),
    "agent": (in_rooms, PAYMENTS_PAGE, None),
    "edit_agent": (in_rooms, [*PAYMENTS_PAGE, "e"], refused_change),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scene", SCENES)
def test_room(scene: str, size: str, snap_compare: Any) -> None:
    make, keys, then = SCENES[scene]
    app = make()

    async def prepare(pilot: Pilot[None]) -> None:
        async with asyncio.timeout(10):
            while not app.connection.asked:  # type: ignore[attr-defined]
                await pilot.pause()
            for key in keys:
                await pilot.press(key)
                while isinstance(app.screen, RoomScreen) and not app.screen.known:
                    await pilot.pause()
                await pilot.pause()
        if then is not None:
            await then(pilot)
        await pilot.pause()
        for work in [work for work in app.workers if work.group in ("room", "read", "names")]:
            await work.wait()
        await pilot.pause()

    assert snap_compare(app, terminal_size=SIZES[size], run_before=prepare)

"""How sessions in trouble, the diagnoses and the egress list look at the three sizes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from lapconsole.app import LapConsole
from lapconsole.client.egress import Switch, Walls
from lapconsole.screens.room import RoomScreen
from tests.screens.test_snapshots import SIZES, STALE
from tests.screens.wrong import OF_LOST, OF_SILENT, with_trouble


async def link_lost(pilot: Pilot[None]) -> None:
    app = pilot.app
    assert isinstance(app, LapConsole)
    app.model.set_link(STALE)
    app.model.flush()


def vault_off() -> LapConsole:
    return with_trouble(walls=Walls(Switch(False), Switch(False, "bwrap was not found")), interceptions=())


Then = Callable[[Pilot[None]], Any]
SCENES: dict[str, tuple[Callable[[], LapConsole], list[str], Then | None]] = {
    "sessions": (with_trouble, [], None),
    "session": (with_trouble, ["enter"], None),
    "session_failed": (with_trouble, ["down", "enter"], None),
    "diagnose": (with_trouble, ["down", "d"], None),
    "diagnose_log": (with_trouble, ["down", "d", "l"], None),
    "diagnose_silent": (lambda: with_trouble(diagnose=OF_SILENT), ["d"], None),
    "diagnose_lost_node": (lambda: with_trouble(diagnose=OF_LOST), ["d"], None),
    "diagnose_stale": (lambda: with_trouble(diagnose=OF_SILENT), ["d"], link_lost),
    "diagnose_restart": (with_trouble, ["down", "d", "R"], None),
    "diagnosis": (with_trouble, ["5"], None),
    "egress": (with_trouble, ["6", "down"], None),
    "egress_of_session": (with_trouble, ["e"], None),
    "egress_allow": (with_trouble, ["6", "down", "a"], None),
    "egress_vault_off": (vault_off, ["6"], None),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scene", SCENES)
def test_trouble(scene: str, size: str, snap_compare: Any) -> None:
    make, keys, then = SCENES[scene]
    app = make()

    async def prepare(pilot: Pilot[None]) -> None:
        async with asyncio.timeout(10):
            while not app.connection.asked:  # type: ignore[attr-defined]
                await pilot.pause()
            app._tick()  # what the line on top says of the walls is read once a while
            while not app.walls:
                await pilot.pause()
            for key in keys:
                await pilot.press(key)
                while isinstance(app.screen, RoomScreen) and not app.screen.known:
                    await pilot.pause()
                await pilot.pause()
        for work in [work for work in app.workers if work.group in ("room", "read", "events")]:
            await work.wait()
        if then is not None:
            await then(pilot)
        await pilot.pause()

    assert snap_compare(app, terminal_size=SIZES[size], run_before=prepare)

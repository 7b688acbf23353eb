"""How nodes, a session on Kubernetes and what is amiss on the platform look at the three sizes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from lapconsole.app import LapConsole
from lapconsole.screens.room import RoomScreen
from tests.screens.nodes import away, in_cluster, pending
from tests.screens.test_snapshots import SIZES

SCENES: dict[str, tuple[Callable[[], LapConsole], list[str]]] = {
    "nodes": (in_cluster, ["7", "down"]),
    "nodes_away": (away, ["7"]),
    "node": (in_cluster, ["7", "enter"]),
    "diagnose": (in_cluster, ["d"]),
    "diagnose_pending": (pending, ["d", "m"]),
    "errors": (away, ["exclamation_mark"]),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scene", SCENES)
def test_nodes(scene: str, size: str, snap_compare: Any) -> None:
    make, keys = SCENES[scene]
    app = make()

    async def prepare(pilot: Pilot[None]) -> None:
        async with asyncio.timeout(10):
            while not app.connection.asked:  # type: ignore[attr-defined]
                await pilot.pause()
            app._tick()  # what the line on top says of the platform is read once a while
            while not app.walls:
                await pilot.pause()
            for work in [work for work in app.workers if work.group == "state"]:
                await work.wait()
            for key in keys:
                await pilot.press(key)
                while isinstance(app.screen, RoomScreen) and not app.screen.known:
                    await pilot.pause()
                await pilot.pause()
        for work in [work for work in app.workers if work.group in ("room", "read")]:
            await work.wait()
        await pilot.pause()

    assert snap_compare(app, terminal_size=SIZES[size], run_before=prepare)

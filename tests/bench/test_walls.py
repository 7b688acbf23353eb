"""What the walls cost a session's start: the same driver and a stand-in harness, with walls and without, in turn."""

import asyncio
import socket
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from backend.sandboxes.contract import SandboxSpec
from backend.sandboxes.local import walls
from backend.sandboxes.local.driver import LocalDriver

ROUNDS = 20
BUDGET_MS = 50

pytestmark = pytest.mark.bench

# Answers one connection, so that the time is to a harness that runs, and little else.
HARNESS = (sys.executable, "-I", "-S", "-c", "import sys, _socket; _socket.socket(fileno=3)._accept(); input()")


async def _connect(name: str, listeners: Mapping[str, socket.socket]) -> None:
    """The vault takes them; that is its own time."""


async def _start(driver: LocalDriver, name: str) -> float:
    began = time.perf_counter()
    sandbox = await driver.create(SandboxSpec(name, "s", "a", "codex", "token"))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sandbox.url.rpartition(":")[2]))
    await reader.read()
    took = time.perf_counter() - began
    writer.close()
    await driver.delete(name)
    return took * 1000


async def test_what_walls_cost(tmp_path: Path) -> None:
    if (await walls.probe(tmp_path / "probe")).bwrap is None:
        pytest.skip("no walls on this machine")
    behind = LocalDriver(tmp_path / "a", harness_command=HARNESS, isolation="required", connect=_connect)
    without = LocalDriver(tmp_path / "b", harness_command=HARNESS, isolation="off")
    walled, bare = [], []
    try:
        for number in range(ROUNDS + 1):
            walled.append(await _start(behind, f"walled-{number}"))
            bare.append(await _start(without, f"bare-{number}"))
            while behind._networks._spare is None or not behind._networks._spare.done():
                await asyncio.sleep(0.02)
    finally:
        await behind.close()
        await without.close()
    cost = statistics.median(walled[1:]) - statistics.median(bare[1:])
    print(f"\nwith walls {statistics.median(walled[1:]):.1f} ms, without {statistics.median(bare[1:]):.1f} ms")
    print(f"cost {cost:.1f} ms (budget {BUDGET_MS}); the first start, with the probe: {walled[0]:.1f} ms")
    assert cost <= BUDGET_MS

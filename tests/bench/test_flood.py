"""Ctrl-C during a flood: from the key in the console until the agent's `^C` is on its screen."""

import asyncio
import statistics
import sys
import time
from pathlib import Path

import pytest

from tests.bench.terminals import running
from tests.e2e.programs import SHELL, Platform

pytestmark = pytest.mark.bench

ROUNDS = 8
FLOOD_SECONDS = 1.5


async def test_interrupt_during_a_flood(tmp_path: Path) -> None:
    """`yes` for a while, then Ctrl-C: answered within 200 ms (median), through console, platform and harness."""
    platform = Platform(tmp_path / "data", {"LAP_HARNESS_COMMAND_CLAUDE_CODE": SHELL})
    await platform.start()
    env = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"), "LAP_MASTER_KEY": platform.key}
    console = [sys.executable, "-m", "lapconsole", "--platform", platform.url]
    taken = []
    try:
        with running(console, env=env) as shown:
            await platform.ready(await platform.create_agent())
            await asyncio.to_thread(shown.read_until, b"\xe2\x97\x8f ready")
            shown.write(b"A")
            await asyncio.to_thread(shown.read_until, b"Ctrl+]")
            await asyncio.to_thread(shown.drain)
            for _ in range(ROUNDS):
                shown.write(b"yes flood\r")
                # The flood has to run for a while before it is a flood.
                await asyncio.to_thread(shown.drain, 60.0, FLOOD_SECONDS)
                pressed = time.perf_counter()
                shown.write(b"\x03")
                taken.append(await asyncio.to_thread(shown.read_until, b"^C") - pressed)
                await asyncio.to_thread(shown.drain)
                shown.write(b"clear\r")
                await asyncio.to_thread(shown.drain)
    finally:
        await platform.close()
    milliseconds = [seconds * 1000 for seconds in taken]
    print(
        f"\nCtrl-C during `yes`: median {statistics.median(milliseconds):.0f} ms, "
        f"worst {max(milliseconds):.0f} ms (limit 200)"
    )
    assert statistics.median(milliseconds) <= 200

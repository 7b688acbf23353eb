"""Ctrl-C during a flood: from the key in the console until the agent's `^C`, or its prompt, is on its screen."""

import asyncio
import os
import select
import shlex
import statistics
import sys
import time
from pathlib import Path

import pytest

from lapconsole.terminal.emulator import Emulator
from tests.bench.terminals import Terminal, running
from tests.e2e.programs import SHELL, Platform

pytestmark = pytest.mark.bench

ROUNDS = 8
FLOOD_SECONDS = 1.5
LIMIT_MS = 200
COLUMNS, LINES = 120, 35
_BUILD = r"""
import sys, time
for n in range(0, 10**9, 250):
    for i in range(n, n + 250):
        sys.stdout.write("\033[32m   Compiling\033[0m crate-%07d v1.2.3 (/build/path/to/the/crate)\n" % i)
    sys.stdout.flush()
    time.sleep(0.01)
"""
FLOODS = {
    "yes": "yes flood",
    "cat of 50 MB": "cat big",
    "a build log, 2 MB/s": f"{shlex.quote(sys.executable)} build.py",
}


def answered(shown: Terminal, seconds: float = 30.0) -> float:
    """The moment the interrupt is on the screen. In what comes it may stand in pieces, so it is drawn."""
    screen, deadline = Emulator(COLUMNS, LINES), time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        if select.select([shown.descriptor], [], [], 1.0)[0]:
            screen.feed(os.read(shown.descriptor, 65536))
            now = time.perf_counter()
            if any("^C" in row or "bash-" in row for row in screen.text()):
                return now
    raise AssertionError("no answer:\n" + "\n".join(screen.text()))


async def test_interrupt_during_a_flood(tmp_path: Path) -> None:
    """A flood for a while, then Ctrl-C: answered within 200 ms (median), through console, platform and harness."""
    platform = Platform(tmp_path / "data", {"LAP_HARNESS_COMMAND_CLAUDE_CODE": SHELL})
    await platform.start()
    env = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"), "LAP_MASTER_KEY": platform.key}
    console = [sys.executable, "-m", "lapconsole", "--platform", platform.url]
    medians = {}
    print()
    try:
        with running(console, COLUMNS, LINES, env=env) as shown:
            home = platform.sandbox(await platform.ready(await platform.create_agent())) / "home"
            (home / "big").write_bytes(b"the quick brown fox jumps over the lazy dog, and back again\n" * 833_333)
            (home / "build.py").write_text(_BUILD)
            await asyncio.to_thread(shown.read_until, b"\xe2\x97\x8f ready")
            shown.write(b"A")
            await asyncio.to_thread(shown.read_until, b"Ctrl+]")
            await asyncio.to_thread(shown.drain)
            for name, command in FLOODS.items():
                milliseconds = []
                for _ in range(ROUNDS):
                    shown.write(f"{command}\r".encode())
                    # The flood has to run for a while before it is a flood.
                    await asyncio.to_thread(shown.drain, 60.0, FLOOD_SECONDS)
                    pressed = time.perf_counter()
                    shown.write(b"\x03")
                    milliseconds.append((await asyncio.to_thread(answered, shown) - pressed) * 1000)
                    await asyncio.to_thread(shown.drain)
                    shown.write(b"clear\r")
                    await asyncio.to_thread(shown.drain)
                medians[name] = statistics.median(milliseconds)
                print(
                    f"Ctrl-C during {name}: median {medians[name]:.0f} ms, worst {max(milliseconds):.0f} ms"
                    f" (limit {LIMIT_MS}; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors)"
                )
    finally:
        await platform.close()
    assert max(medians.values()) <= LIMIT_MS, medians

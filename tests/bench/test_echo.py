"""What a keystroke's echo costs: on the PTY itself, through the harness, the platform, and the console."""

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from tests.bench.terminals import Terminal, running
from tests.e2e.programs import Platform

pytestmark = pytest.mark.bench

KEYS = 150
LETTERS = b"QVWYZ"
"""Letters that end no escape sequence of ours and stand in no text beside the terminal."""


async def _through_websocket(url: str, token: str) -> Callable[[bytes], Awaitable[float]]:
    connection = await connect(f"{url}?token={token}", compression=None, proxy=None)

    async def echo(key: bytes) -> float:
        started = time.perf_counter()
        await connection.send(key)
        while key.decode() not in str(await connection.recv()):
            pass
        return time.perf_counter() - started

    return echo


def _echo(terminal: Terminal, key: bytes) -> float:
    started = time.perf_counter()
    terminal.write(key)
    return terminal.read_until(key) - started


async def test_echo(tmp_path: Path) -> None:
    """The platform's proxy adds at most 1 ms to the harness; console and platform at most 15 ms to the PTY (median)."""
    platform = Platform(tmp_path / "data", {"LAP_HARNESS_COMMAND_CLAUDE_CODE": "cat"})
    await platform.start()
    env = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"), "LAP_MASTER_KEY": platform.key}
    console = [sys.executable, "-m", "lapconsole", "--platform", platform.url]
    try:
        agent = await platform.create_agent()
        with running(["cat"]) as bare, running(console, env=env) as shown:
            await platform.ready(agent)
            await asyncio.to_thread(shown.read_until, b"ready")
            shown.write(b"A")  # attach to the only session
            await asyncio.to_thread(shown.read_until, b"Ctrl+]")
            await asyncio.to_thread(shown.drain)
            # Each way has a session of its own: nobody's echo is another's.
            direct, through = await platform.ready(agent), await platform.ready(agent)
            harness = await _through_websocket(
                direct["sandbox_url"].replace("http", "ws", 1) + "/tty", direct["tty_token"]
            )
            proxied = await _through_websocket(through["tty_url"], through["tty_token"])
            figures: dict[str, list[float]] = {"pty": [], "harness": [], "platform": [], "console": []}
            for number in range(KEYS):
                key = LETTERS[number % len(LETTERS) :][:1]
                figures["pty"].append(_echo(bare, key))
                figures["harness"].append(await harness(key))
                figures["platform"].append(await proxied(key))
                figures["console"].append(await asyncio.to_thread(_echo, shown, key))
                await asyncio.to_thread(shown.drain, 0.05)
    finally:
        await platform.close()
    median = {name: statistics.median(values) * 1000 for name, values in figures.items()}
    print("\necho, median ms: " + ", ".join(f"{name} {value:.2f}" for name, value in median.items()))
    proxy, whole = median["platform"] - median["harness"], median["console"] - median["pty"]
    print(f"the proxy adds {proxy:.2f} ms (limit 1), console and platform {whole:.2f} ms (limit 15)")
    assert proxy <= 1
    assert whole <= 15

"""How long until the console paints, against the smallest Textual app, and until a session is ready."""

import statistics
import sys
import time
from pathlib import Path

import pytest

from tests.bench.terminals import running
from tests.e2e.programs import Platform

pytestmark = pytest.mark.bench

ROUNDS = 7
HELLO = [sys.executable, str(Path(__file__).with_name("hello.py"))]
CONSOLE = [sys.executable, "-m", "lapconsole"]


def first_paint(command: list[str], marker: bytes, env: dict[str, str]) -> float:
    started = time.perf_counter()
    with running(command, env=env) as terminal:
        return terminal.read_until(marker) - started


def test_first_paint(tmp_path: Path) -> None:
    """At most 1.3 times a Textual hello, with a platform to be started behind it (median of interleaved rounds)."""
    env = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config"), "LAP_DATA_DIR": str(tmp_path / "data")}
    hello, console = [], []
    for _ in range(ROUNDS):
        hello.append(first_paint(HELLO, b"hello, world", env))
        console.append(first_paint(CONSOLE, b"Sessions", env))
    ratio = statistics.median(console) / statistics.median(hello)
    print(
        f"\nfirst paint: hello {statistics.median(hello):.3f} s, console {statistics.median(console):.3f} s, "
        f"ratio {ratio:.2f} (limit 1.3)"
    )
    assert ratio <= 1.3


async def test_create_to_ready(tmp_path: Path) -> None:
    """A session of `bash` without a clone is ready within 0.5 s of its creation (median)."""
    platform = Platform(tmp_path / "data")
    await platform.start()
    try:
        agent = await platform.create_agent()
        taken = []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            session = await platform.create_session(agent)
            while (await platform.session(session["id"]))["status"] == "creating":
                pass
            taken.append(time.perf_counter() - started)
            assert (await platform.session(session["id"]))["status"] == "ready"
    finally:
        await platform.close()
    print(f"\ncreate to ready: median {statistics.median(taken):.3f} s, worst {max(taken):.3f} s (limit 0.5 s)")
    assert statistics.median(taken) <= 0.5

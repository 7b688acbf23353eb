"""Real local sandboxes with a stand-in harness, with every combination of walls the machine offers."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from backend.sandboxes.contract import Sandbox, SandboxSpec
from backend.sandboxes.local import limits, namespaces
from backend.sandboxes.local import walls as walls_of
from backend.sandboxes.local.driver import LocalDriver
from backend.sandboxes.local.limits import Limits

STAND_IN = (sys.executable, "-S", "-P", str(Path(__file__).with_name("stand_in.py")))
WALLS = ("walls", "all", "namespace", "groups", "none")

Ask = Callable[..., Any]
MakeDriver = Callable[..., LocalDriver]


def spec(name: str = "one", **env: str) -> SandboxSpec:
    return SandboxSpec(name, "session-1", "agent-1", "codex", "token-of-one", env)


async def ask(sandbox: Sandbox, do: str, **details: object) -> Any:
    """One request to the stand-in; None when it ended instead of answering."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(sandbox))
        try:
            writer.write(json.dumps({"do": do, **details}).encode() + b"\n")
            line = await reader.read()
        except ConnectionError:
            return None
        finally:
            writer.close()
    return json.loads(line) if line else None


def port_of(sandbox: Sandbox) -> int:
    return int(sandbox.url.rpartition(":")[2])


def processes_of(directory: Path) -> list[str]:
    """Command lines of all processes that know this directory by argument or environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
                if os.fsencode(directory) in command + (entry / "environ").read_bytes():
                    found.append(command.replace(b"\0", b" ").decode())
            except OSError:
                continue
    return found


def groups_of(data_dir: Path, name: str = "one") -> list[Path]:
    return limits.find_groups(data_dir / "sandboxes" / name, ())


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def make_driver(data_dir: Path) -> AsyncIterator[MakeDriver]:
    """Makes drivers on one data directory. Afterwards all sandboxes go, and no descriptor or process may be left."""
    before = open_descriptors()
    made: list[LocalDriver] = []

    def make(**options: Any) -> LocalDriver:
        made.append(LocalDriver(data_dir, **{"harness_command": STAND_IN, "grace_seconds": 0.5, **options}))
        return made[-1]

    yield make
    cleaner = make()
    for name in await cleaner.list():
        await cleaner.delete(name)
    for driver in made:
        await driver.close()
    assert processes_of(data_dir) == []
    await until(lambda: open_descriptors() <= before)


@pytest.fixture(params=WALLS)
def walls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which walls the driver may find on this machine."""

    async def no_walls(directory: Path) -> walls_of.Walls:
        return walls_of.Walls(None, directory, "switched off")

    async def no_namespace() -> namespaces.Namespace:
        return namespaces.Namespace((), "no PID namespace: switched off")

    if request.param != "walls":
        monkeypatch.setattr(walls_of, "probe", no_walls)
    if request.param in {"groups", "none"}:
        monkeypatch.setattr(namespaces, "probe", no_namespace)
    if request.param in {"namespace", "none"}:
        monkeypatch.setattr(limits, "hierarchies", list)
    return str(request.param)


@pytest.fixture
def driver(make_driver: MakeDriver) -> LocalDriver:
    return make_driver(limits=Limits(memory_mb=512, cpus=1.5, pids=256))

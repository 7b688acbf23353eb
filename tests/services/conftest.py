"""The services in this process, with real sandboxes or with ones that exist only as names."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from backend.domain import sessions as rules
from backend.sandboxes.contract import Rescue, Sandbox, SandboxError, SandboxSpec, SandboxState
from backend.services.container import Services, open_services
from backend.settings import Settings
from backend.store import sessions, warm_tasks
from tests.e2e.programs import SHELL, processes_of
from tests.plain_driver import PlainDriver
from tests.postgres import placed
from tests.waiting import until


class Names(PlainDriver):
    """A driver whose sandboxes are names: those in `running` have a process, those in `left` only a directory."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.left: set[str] = set()
        self.broken: set[str] = set()
        """Names about which every question fails; "*" breaks the list."""
        self.deleted: list[str] = []

    async def create(self, spec: SandboxSpec) -> Sandbox:
        raise SandboxError("there is no room for sandboxes here")

    async def state(self, name: str) -> SandboxState:
        if name in self.broken:
            raise OSError("the disk is on fire")
        return SandboxState.RUNNING if name in self.running else SandboxState.GONE

    async def wait_gone(self, name: str) -> str:
        await until(lambda: name not in self.running, f"{name} is gone", 60)
        return "gone"

    async def delete(self, name: str, rescue: Rescue | None = None) -> None:
        if name in self.broken:
            raise SandboxError("something would not go")
        self.deleted.append(name)
        self.running.discard(name)
        self.left.discard(name)

    async def list(self) -> list[str]:
        if "*" in self.broken:
            raise OSError("the disk is on fire")
        return sorted(self.running | self.left)


@pytest.fixture
def settings_of(tmp_path: Path, location: Path | str) -> Callable[..., Settings]:
    """Makes settings on one data directory, the same at every call."""

    def make(harness_commands: Mapping[str, str] | None = None, **values: Any) -> Settings:
        settings = Settings.load(data_dir=tmp_path / "data", master_key="test-master-key", **values)
        settings = settings.model_copy(update={"harness_commands": harness_commands or {"claude-code": SHELL}})
        settings.data_dir.mkdir(exist_ok=True)
        return placed(settings.with_keys(), location)

    return make


Open = Callable[..., AbstractAsyncContextManager[Services]]


@pytest.fixture
async def open_platform(settings_of: Callable[..., Settings]) -> AsyncIterator[Open]:
    """Opens the services with real sandboxes, again and again on the same data; at the end nothing may be left."""

    @asynccontextmanager
    async def platform(**values: Any) -> AsyncIterator[Services]:
        async with open_services(settings_of(**values)) as services:
            yield services

    yield platform
    async with platform() as services:  # without a pool, which removes what is left of one
        async with services.database.read() as tx:
            rows = await sessions.active(tx)
        for row in rows:
            await services.sessions.delete(row["id"])

        async def nothing() -> bool:
            return not await services.driver.list()

        await until(nothing, "no sandbox is left")
    assert not processes_of(services.settings.data_dir / "sandboxes")


async def in_balance(services: Services) -> None:
    """Waits until every session is ready, or ended with a reason, and there is a sandbox for each row that needs one,
    and no other.
    """

    async def balanced() -> bool:
        async with services.database.read() as tx:
            rows = await sessions.page(tx, limit=1000)
            needed = {row["task_arn"] for row in await sessions.active(tx)} | await warm_tasks.names(tx)
        settled = all(
            row["status"] == rules.READY or (row["status"] in rules.ENDED and row["failure_reason"]) for row in rows
        )
        return settled and set(await services.driver.list()) == needed

    await until(balanced, "rows and sandboxes match")

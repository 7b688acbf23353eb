"""What may happen at the same moment: an end during a bring-up, a sandbox that dies in it, two platforms on one
database (LAP REST 3.5, 4.5).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest

from backend.domain import clock
from backend.sandboxes.contract import Sandbox, SandboxSpec, SandboxState
from backend.services.container import Services, open_services
from backend.settings import Settings
from backend.store import agents, sessions
from backend.store.database import Row
from backend.store.secrets import Cipher
from tests.postgres import on_both
from tests.rows import agent_row, session_row
from tests.services.conftest import Names, in_balance
from tests.waiting import until

AT_ONCE = 5.0
"""Seconds; the watchdog looks after 90."""


class Halting(Names):
    """Its sandboxes come up as far as `halt_at`, and wait there for ever."""

    def __init__(self, halt_at: str) -> None:
        super().__init__()
        self.halt_at = halt_at
        self.halted = asyncio.Event()

    async def _pass(self, step: str) -> None:
        if step == self.halt_at:
            self.halted.set()
            await asyncio.Event().wait()

    async def create(self, spec: SandboxSpec) -> Sandbox:
        await self._pass("nothing is made yet")
        self.left.add(spec.name)
        await self._pass("its directory is made")
        self.running.add(spec.name)
        await self._pass("its process runs, and nobody knows")
        return Sandbox(spec.name, "http://127.0.0.1:9", {})

    async def state(self, name: str) -> SandboxState:
        if self.halt_at == "it is pending":
            self.halted.set()
            return SandboxState.PENDING
        if self.halt_at == "its harness does not answer":
            self.halted.set()
        return await super().state(name)


HALTS = [
    "nothing is made yet",
    "its directory is made",
    "its process runs, and nobody knows",
    "it is pending",
    "its harness does not answer",
]


@pytest.fixture(params=HALTS)
def driver(request: pytest.FixtureRequest) -> Halting:
    return Halting(request.param)


@pytest.fixture
async def services(settings_of: Callable[..., Settings], driver: Halting) -> AsyncIterator[Services]:
    async with open_services(settings_of(), driver) as services:
        async with services.database.begin() as tx:
            await agents.add(tx, agent_row("a1", harness_id="claude-code"))
        yield services


async def test_deleted_at_each_step_of_a_bring_up(services: Services, driver: Halting) -> None:
    row = await services.sessions.create("a1")
    await driver.halted.wait()
    async with asyncio.timeout(AT_ONCE):
        ended, was_dead = await services.sessions.delete(row["id"])
    assert (ended["status"], ended["failure_reason"], was_dead) == ("dead", "deleted", False)
    await in_balance(services)
    assert driver.running == driver.left == set()
    await services.reconciler.tick()
    assert (await services.sessions.get(row["id"]))["status"] == "dead"


async def test_the_agent_deleted_at_each_step_of_a_bring_up(services: Services, driver: Halting) -> None:
    await services.sessions.create("a1")
    await driver.halted.wait()
    async with asyncio.timeout(AT_ONCE):
        await services.agents.delete("a1")
    await in_balance(services)
    assert driver.running == driver.left == set()


@pytest.mark.parametrize("driver", ["it is pending", "its harness does not answer"], indirect=True)
async def test_a_sandbox_that_dies_fails_its_session_at_once(services: Services, driver: Halting) -> None:
    row = await services.sessions.create("a1")
    await driver.halted.wait()
    driver.running.clear()

    async def failed() -> Row | None:
        now = await services.sessions.get(row["id"])
        return now if now["status"] == "failed" else None

    seen = await until(failed, "the session has failed", AT_ONCE)
    assert seen["failure_reason"].startswith("the sandbox ended during ")
    await in_balance(services)


@on_both
async def test_two_platforms_on_one_database(settings_of: Callable[..., Settings]) -> None:
    """Each session is run by one of them, and each thing to do is done once."""
    driver, first = Names(), settings_of()
    second = first.model_copy(update={"data_dir": first.data_dir.parent / "other"})
    second.data_dir.mkdir()
    ended = [clock.text(datetime.now(UTC) - timedelta(hours=hours)) for hours in (25, 30)]
    token = Cipher(first.encryption_key_value).encrypt("the-token")
    async with AsyncExitStack() as stack:
        both = [await stack.enter_async_context(open_services(each, driver)) for each in (first, second)]
        async with both[0].database.begin() as tx:
            await agents.add(tx, agent_row("a1", harness_id="claude-code"))
            for number in range(8):
                driver.running.add(f"s-{number}")
                values = {"status": "ready", "ready_at": ended[0], "creating_since": ended[1], "tty_token": token}
                row = session_row(str(number), "a1", sandbox_url="http://127.0.0.1:9", **values)
                await sessions.add(tx, row | ({"ready_at": clock.now()} if number % 2 else {}))
        results = await asyncio.gather(*(each.reconciler.tick() for each in both for _ in range(3)))
        done = [result for result in results if result is not None]
        assert sum(result.idle_killed for result in done) == 4
        assert sum(result.taken_over for result in done) == 4
        assert sorted(driver.deleted) == ["s-0", "s-2", "s-4", "s-6"]
        for number in (1, 3, 5, 7):
            assert [each.sessions.runs(str(number)) for each in both].count(True) == 1
        # The one with the duty ends; the other takes over what it ran.
        runner = next(each for each in both if each.sessions.runs("1"))
        other = next(each for each in both if each is not runner)
        await runner.sessions.aclose()
        await runner.reconciler._leases.release()
        result = await other.reconciler.tick()
        assert result is not None
        assert result.taken_over == 4
        assert all(other.sessions.runs(str(number)) for number in (1, 3, 5, 7))

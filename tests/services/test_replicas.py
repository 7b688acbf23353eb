"""Two platform processes on one database: who runs which session, and what happens when one of them is lost."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backend.domain import clock
from backend.services import leases as lease_service
from backend.services import reconciler
from backend.services.container import Services, open_services
from backend.services.leases import Leases
from backend.settings import Settings
from backend.store import agents
from backend.store import leases as lease_store
from backend.store import sessions as session_store
from tests.postgres import on_both
from tests.rows import agent_row
from tests.services.conftest import Names
from tests.services.test_reconciler import add, add_ready, ended
from tests.waiting import until

pytestmark = on_both


@pytest.fixture
def driver() -> Names:
    return Names()


@pytest.fixture
async def replicas(
    settings_of: Callable[..., Settings], driver: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Services, Services]]:
    monkeypatch.setattr(lease_service, "RENEW_SECONDS", 0.05)
    one = settings_of()
    two = one.model_copy(update={"data_dir": tmp_path / "two"})
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(open_services(one, driver))
        async with first.database.begin() as tx:
            await agents.add(tx, agent_row("a1", harness_id="claude-code"))
        yield first, await stack.enter_async_context(open_services(two, driver))


def holder(services: Services) -> str:
    return services.reconciler._leases.holder


async def lose(services: Services) -> None:
    """As when its process were killed: nothing runs, and nothing is given back before its time."""
    leases = services.reconciler._leases
    assert leases._task is not None
    leases._task.cancel()
    await services.reconciler.aclose()
    await services.sessions.aclose()
    async with services.database.begin() as tx:
        for name in (leases._presence, *leases._held):
            await lease_store.take(tx, name, leases.holder, now="", until="2026-01-01T00:00:00.000Z")


async def owner(services: Services, session_id: str) -> str | None:
    return (await services.sessions.get(session_id))["owner"]


async def knows_the_other(services: Services) -> None:
    await until(lambda: not services.reconciler._leases.alone, "the other process is seen")


async def test_a_lost_process_is_followed_by_another(replicas: tuple[Services, Services], driver: Names) -> None:
    first, second = replicas
    await add_ready(first, driver, "one", owner=holder(first))
    await add_ready(first, driver, "two", owner=holder(second))
    assert await first.reconciler.tick() is not None
    assert await second.reconciler.tick() is None
    assert first.sessions.runs("one")
    await knows_the_other(second)
    await lose(first)

    async def taken() -> bool:
        return second.sessions.runs("one") and await owner(second, "one") == holder(second)

    await until(taken, "the other process runs its session, without waiting for a tick")

    async def leads() -> bool:
        async with second.database.read() as tx:
            beats = await lease_store.beats(tx)
        return (reconciler.DUTY, holder(second)) in {(beat["name"], beat["holder"]) for beat in beats}

    await until(leads, "it reconciles from now on")


async def test_one_that_ends_gives_everything_back_at_once(replicas: tuple[Services, Services], driver: Names) -> None:
    first, second = replicas
    await add_ready(first, driver, "one", owner=holder(first))
    await first.reconciler.tick()
    await knows_the_other(second)
    await first.reconciler._leases.release()
    await first.reconciler.aclose()
    await until(lambda: second.sessions.runs("one"), "the other process runs its session")


async def test_half_made_sessions_of_a_lost_process_are_begun_again(
    replicas: tuple[Services, Services], driver: Names
) -> None:
    first, second = replicas
    await add(first, "one", owner=holder(first))
    await knows_the_other(second)
    await lose(first)

    async def failed() -> bool:
        return (await ended(second, "one"))[0] == "failed"

    await until(failed, "it is tried at once, and fails as this driver makes no sandboxes")
    assert "no room for sandboxes" in ((await ended(second, "one"))[1] or "")


async def test_of_two_that_take_over_one_does(replicas: tuple[Services, Services], driver: Names) -> None:
    await add_ready(replicas[0], driver, "one", owner="lost")
    row = await replicas[0].sessions.get("one")
    assert sum(await asyncio.gather(*(each.sessions.take_over(row) for each in replicas))) == 1
    assert sum(each.sessions.runs("one") for each in replicas) == 1


async def test_one_that_was_away_for_a_while_writes_nothing_and_gives_up(
    replicas: tuple[Services, Services], driver: Names
) -> None:
    first, second = replicas
    await add_ready(first, driver, "one", owner=holder(first))
    await first.reconciler.tick()
    async with second.database.begin() as tx:
        await session_store.transition(tx, "one", expected={}, values={"owner": holder(second)}, event_type=None)
    row = await second.sessions.get("one")
    driver.running.discard("s-one")
    await until(lambda: not first.sessions.runs("one"), "its task sees the end of the sandbox")
    assert await second.sessions.get("one") == row

    await add_ready(first, driver, "two", owner=holder(first))
    await first.reconciler.tick()
    async with second.database.begin() as tx:
        await session_store.transition(tx, "two", expected={}, values={"owner": holder(second)}, event_type=None)
    await knows_the_other(first)
    await first.reconciler.tick()
    assert not first.sessions.runs("two")


async def test_a_stop_through_the_other_process(replicas: tuple[Services, Services], driver: Names) -> None:
    first, second = replicas
    await add_ready(first, driver, "one", owner=holder(first))
    await first.reconciler.tick()
    await second.sessions.delete("one")
    assert await ended(first, "one") == ("dead", "deleted")
    await until(lambda: not first.sessions.runs("one"), "the first process sees it")


async def test_a_lease_that_is_held_costs_no_query(replicas: tuple[Services, Services]) -> None:
    leases = Leases(replicas[0].database, "third")
    assert await leases.take("a duty")
    async with replicas[0].database.begin():  # nobody else can write meanwhile
        async with asyncio.timeout(1):
            assert await leases.take("a duty")
    await leases.release()
    assert await Leases(replicas[0].database, "fourth").take("a duty")


class TestTurns:
    """Whose turn it is in a session, told by the database alone."""

    async def enter(self, leases: Leases, session_id: str = "one") -> bool:
        async with leases._database.begin() as tx:
            free = await leases.enter(tx, session_id)
        if free:
            leases.entered(session_id)
        return free

    async def test_one_process_has_it(self, replicas: tuple[Services, Services]) -> None:
        one, two = (Leases(each.database, name) for each, name in zip(replicas, ("x", "y"), strict=True))
        assert sorted(await asyncio.gather(self.enter(one), self.enter(two))) == [False, True]
        has, waits = (one, two) if await two.elsewhere("one") else (two, one)
        assert not await waits.take_turn("one")
        assert not await has.elsewhere("one")
        await has.give_back("one")
        assert await self.enter(waits)
        assert await has.left_turns() == set()

    async def test_one_that_was_left_is_not_simply_free(self, replicas: tuple[Services, Services]) -> None:
        lost, other = Leases(replicas[0].database, "x", 0.05), Leases(replicas[1].database, "y")
        assert await self.enter(lost)
        await until(other.left_turns, "it is known to be left")
        assert not await self.enter(other), "somebody has to see first what became of it"
        assert await other.take_turn("one")
        assert await other.left_turns() == set()

    async def test_the_end_of_its_process_leaves_it(self, replicas: tuple[Services, Services]) -> None:
        ends, other = Leases(replicas[0].database, "x"), Leases(replicas[1].database, "y")
        assert await self.enter(ends)
        await ends.release()
        assert await other.left_turns() == {"one"}
        assert not await self.enter(other)

    async def test_it_is_kept_while_it_lasts(self, replicas: tuple[Services, Services]) -> None:
        one, other = Leases(replicas[0].database, "x"), Leases(replicas[1].database, "y")
        assert await self.enter(one)
        then = clock.text(datetime.now(UTC) + timedelta(seconds=lease_service.LEASE_SECONDS))
        await asyncio.sleep(0.002)  # moments are told in milliseconds
        await one.announce()
        async with one._database.read() as tx:
            assert await lease_store.holder_of(tx, "turn one", then) == "x"
        assert not await other.take_turn("one")
        await one.release()

    async def test_alone_it_costs_nothing(self, replicas: tuple[Services, Services]) -> None:
        leases = Leases(replicas[0].database, "x", shared=False)
        async with replicas[0].database.read() as tx:  # in which nothing could be written
            assert await leases.enter(tx, "one")
        leases.entered("one")
        assert await leases.take_turn("one")
        assert not await leases.elsewhere("one")
        await leases.give_back("one")
        async with replicas[0].database.read() as tx:
            assert await lease_store.holder_of(tx, "turn one", clock.now()) is None

"""Each sweep of the reconciler, what it must leave alone, and that nothing stops it (LAP REST 4.5).

Its sandboxes exist only as names; the processes of real ones are in test_warm_pool and tests/e2e.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from backend.domain import clock, sessions
from backend.sandboxes.contract import Rescue
from backend.services import reconciler
from backend.services.container import Services, open_services
from backend.services.leases import Leases
from backend.services.reconciler import Result
from backend.settings import Settings
from backend.store import agents, events, leases
from backend.store import sessions as session_store
from backend.store.database import Database, Row
from backend.store.secrets import Cipher
from tests.rows import agent_row, session_row
from tests.services.conftest import Names
from tests.waiting import until


def ago(**time: float) -> str:
    return clock.text(datetime.now(UTC) - timedelta(**time))


@pytest.fixture
def driver() -> Names:
    return Names()


@pytest.fixture
async def services(settings_of: Callable[..., Settings], driver: Names) -> AsyncIterator[Services]:
    async with open_services(settings_of(), driver) as services:
        async with services.database.begin() as tx:
            await agents.add(tx, agent_row("a1", harness_id="claude-code"))
        yield services


async def add(services: Services, session_id: str, **values: Any) -> None:
    token = Cipher(services.settings.encryption_key_value).encrypt("the-token")
    given = {"tty_token": token, "sandbox_url": "http://127.0.0.1:9", "creating_since": ago(hours=30), **values}
    async with services.database.begin() as tx:
        await session_store.add(tx, session_row(session_id, "a1", **given))


async def add_ready(services: Services, driver: Names, session_id: str, **values: Any) -> None:
    """A ready session with a sandbox, which nobody watches yet."""
    driver.running.add(f"s-{session_id}")
    await add(services, session_id, **{"status": "ready", "phase": "ready", "ready_at": ago(minutes=1), **values})


async def tick(services: Services) -> Result:
    result = await services.reconciler.tick()
    assert result is not None
    return result


def doing(state: str, since: str) -> dict[str, Any]:
    return {"state": state, "since": since, "reason": None, "message": None}


async def ended(services: Services, session_id: str) -> tuple[str, str | None]:
    row = await services.sessions.get(session_id)
    return row["status"], row["failure_reason"]


class TestIdle:
    @pytest.mark.parametrize(
        ("values", "dies"),
        [
            ({"last_seen_at": ago(hours=25), "ready_at": ago(hours=29)}, True),
            ({"last_seen_at": None, "ready_at": ago(hours=25)}, True),
            ({"last_seen_at": ago(hours=23), "ready_at": ago(hours=29)}, False),
            ({"last_seen_at": None, "ready_at": ago(hours=23)}, False),
            ({"last_seen_at": ago(hours=25), "ready_at": ago(minutes=1)}, False),  # restarted just now
            ({"last_seen_at": ago(minutes=2), "ready_at": ago(hours=1), "idle_timeout_ms": 60_000}, True),
            ({"last_seen_at": ago(days=9), "ready_at": ago(days=9), "idle_timeout_ms": 30 * 86_400_000}, False),
            ({"ready_at": ago(hours=29), "activity": doing("working", ago(hours=28))}, False),
            ({"ready_at": ago(hours=29), "activity": doing("idle", ago(minutes=5))}, False),  # after a long turn
            ({"ready_at": ago(hours=29), "activity": doing("idle", ago(hours=25))}, True),
            ({"ready_at": ago(hours=29), "activity": doing("waiting_for_input", ago(hours=25))}, True),
            ({"ready_at": ago(hours=29), "activity": doing("unknown", ago(hours=29))}, True),
        ],
    )
    async def test_sweep(self, services: Services, driver: Names, values: dict[str, Any], dies: bool) -> None:
        await add_ready(services, driver, "one", **values)
        result = await tick(services)
        assert result.idle_killed == dies
        assert await ended(services, "one") == (("dead", "idle timeout") if dies else ("ready", None))
        assert driver.deleted == (["s-one"] if dies else [])

    async def test_one_that_is_used_in_that_moment_lives(self, services: Services, driver: Names) -> None:
        await add_ready(services, driver, "one", last_seen_at=ago(hours=25), ready_at=ago(hours=29))
        seen = await services.sessions.get("one")
        async with services.database.begin() as tx:
            values = {"last_seen_at": clock.now()}
            await session_store.transition(tx, "one", expected={}, values=values, event_type=None)
        assert not await services.sessions.reap(seen, "idle timeout", sessions.DEAD)
        assert await ended(services, "one") == ("ready", None)
        assert driver.deleted == []


class TestGhosts:
    async def test_no_sandbox(self, services: Services, driver: Names) -> None:
        await add_ready(services, driver, "one")
        driver.running.clear()
        assert (await tick(services)).ghost_killed == 1
        status, reason = await ended(services, "one")
        assert (status, (reason or "").startswith("task disappeared")) == ("dead", True)

    async def test_one_that_only_nobody_watched_is_watched_again(self, services: Services, driver: Names) -> None:
        await add_ready(services, driver, "one")
        result = await tick(services)
        assert (result.taken_over, result.ghost_killed) == (1, 0)
        assert (await tick(services)).taken_over == 0
        driver.running.clear()

        async def dead() -> bool:
            return (await ended(services, "one"))[0] == "dead"

        await until(dead, "its new task sees its end, without a tick")

    async def test_another_live_process_runs_it(self, services: Services, driver: Names) -> None:
        other = Leases(services.database, "elsewhere", 60)
        await other.announce()
        await add_ready(services, driver, "one", owner="elsewhere")
        await add(services, "two", owner="elsewhere")
        driver.running.clear()
        result = await tick(services)
        assert (result.ghost_killed, result.taken_over, result.failed_creating) == (0, 0, 0)
        await other.release()
        result = await tick(services)
        assert (result.ghost_killed, result.taken_over) == (1, 1)

    async def test_one_restarted_meanwhile_is_left_alone(self, services: Services, driver: Names) -> None:
        await add_ready(services, driver, "one")
        seen = await services.sessions.get("one")
        async with services.database.begin() as tx:
            values = {"status": "creating", "creating_since": clock.now()}
            await session_store.transition(tx, "one", expected={}, values=values, event_type=None)
        assert not await services.sessions.reap(seen, "task disappeared", sessions.DEAD)
        assert not await services.sessions.take_over(seen)
        assert await ended(services, "one") == ("creating", None)


class TestStuck:
    @pytest.mark.parametrize(("since", "fails"), [({"seconds": 100}, True), ({"seconds": 30}, False)])
    async def test_sweep(self, services: Services, driver: Names, since: dict[str, float], fails: bool) -> None:
        # Created long ago and restarted: only the time in `creating` counts.
        await add(services, "one", created_at=ago(days=3), creating_since=ago(**since))
        driver.left.add("s-one")
        assert (await tick(services)).failed_creating == fails
        status, reason = await ended(services, "one")
        assert status == ("failed" if fails else "creating")
        assert (reason or "").startswith("watchdog: ") == fails
        assert driver.left == (set() if fails else {"s-one"})

    async def test_a_slow_bring_up_is_no_business_of_the_reconciler(self, services: Services, driver: Names) -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def create(spec: Any) -> Any:
            begun.set()
            await go_on.wait()
            return await Names.create(driver, spec)

        driver.create = create  # type: ignore[method-assign]
        row = await services.sessions.create("a1")
        await begun.wait()
        async with services.database.begin() as tx:
            values = {"creating_since": ago(hours=1)}
            await session_store.transition(tx, row["id"], expected={}, values=values, event_type=None)
        assert (await tick(services)).failed_creating == 0
        assert await ended(services, row["id"]) == ("creating", None)
        go_on.set()

    async def test_one_that_is_ready_by_then_is_not_failed(self, services: Services, driver: Names) -> None:
        await add(services, "one")
        seen = await services.sessions.get("one")
        async with services.database.begin() as tx:
            await session_store.transition(tx, "one", expected={}, values={"status": "ready"}, event_type=None)
        assert not await services.sessions.reap(seen, "watchdog: x", sessions.FAILED)
        assert await ended(services, "one") == ("ready", None)


class TestOrphans:
    async def test_sandboxes_of_ended_sessions_go_at_once(self, services: Services, driver: Names) -> None:
        for status in ("dead", "failed"):
            await add(services, status, status=status, failure_reason="x")
            driver.left.add(f"s-{status}")
        await add(services, "warm", status="dead", failure_reason="x", task_arn="w-1")
        driver.left.add("w-1")
        result = await tick(services)
        assert (result.stopped, result.warm_orphans_stopped) == (2, 1)
        assert sorted(driver.deleted) == ["s-dead", "s-failed", "w-1"]

    async def test_sandboxes_without_a_row_have_a_while(
        self, services: Services, driver: Names, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        driver.running |= {"s-unknown", "w-unknown"}
        await add_ready(services, driver, "one")
        assert (await tick(services)).stopped == 0
        monkeypatch.setattr(reconciler, "ORPHAN_SECONDS", 0)
        result = await tick(services)
        assert (result.stopped, result.warm_orphans_stopped) == (1, 1)
        assert sorted(driver.deleted) == ["s-unknown", "w-unknown"]
        assert driver.running == {"s-one"}

    async def test_what_would_not_go_is_tried_again(self, services: Services, driver: Names) -> None:
        await add(services, "one", status="dead", failure_reason="x")
        driver.left.add("s-one")
        driver.broken.add("s-one")
        await tick(services)
        driver.broken.clear()
        await tick(services)
        assert driver.deleted == ["s-one"]


class TestOrphansAtTheStart:
    async def test_a_few_at_a_time(
        self, settings_of: Callable[..., Settings], driver: Names, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        driver.left |= {f"s-{number}" for number in range(20)}
        under_way: set[str] = set()
        most = 0
        delete = driver.delete

        async def slowly(name: str, rescue: Rescue | None = None) -> None:
            nonlocal most
            under_way.add(name)
            most = max(most, len(under_way))
            await asyncio.sleep(0)
            under_way.discard(name)
            if name == "s-7":
                raise OSError("the disk is on fire")
            await delete(name, rescue)

        monkeypatch.setattr(driver, "delete", slowly)
        async with open_services(settings_of(), driver=driver):
            assert driver.left == {"s-7"}
        assert 1 < most <= 4

    async def test_one_that_hangs_does_not_hold_up_the_start(
        self, settings_of: Callable[..., Settings], driver: Names, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        driver.left |= {"s-1", "s-2", "s-3"}
        delete = driver.delete

        async def hang(name: str, rescue: Rescue | None = None) -> None:
            if name == "s-1":
                await asyncio.Event().wait()
            await delete(name, rescue)

        monkeypatch.setattr(driver, "delete", hang)
        monkeypatch.setattr("backend.services.sessions.ORPHANS_SECONDS", 0.3)
        async with asyncio.timeout(20), open_services(settings_of(), driver=driver):
            assert "s-1" in driver.left


class TestNothingStopsIt:
    async def test_a_bad_row(self, services: Services, driver: Names) -> None:
        for name in ("a", "bad", "z"):
            await add_ready(services, driver, name, ready_at=ago(hours=25))
        async with services.database.begin() as tx:
            values = {"ready_at": "once upon a time"}
            await session_store.transition(tx, "bad", expected={}, values=values, event_type=None)
        await add_ready(services, driver, "burning")
        await add_ready(services, driver, "ghost")
        driver.running.discard("s-ghost")
        driver.broken.add("s-burning")
        result = await tick(services)
        assert (result.idle_killed, result.ghost_killed) == (2, 1)
        assert result.errors == 2

    async def test_a_row_that_hangs(self, services: Services, driver: Names, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reconciler, "ROW_SECONDS", 0.05)
        usual = driver.state

        async def state(name: str) -> Any:
            return await (asyncio.Event().wait() if name == "s-hangs" else usual(name))

        driver.state = state  # type: ignore[method-assign]
        for name in ("hangs", "other"):
            await add_ready(services, driver, name)
        driver.running.discard("s-other")
        result = await tick(services)
        assert (result.ghost_killed, result.errors) == (1, 1)

    async def test_a_sweep_that_fails(self, services: Services, driver: Names) -> None:
        driver.broken.add("*")
        await add_ready(services, driver, "one", ready_at=ago(hours=25))
        result = await tick(services)
        assert (result.idle_killed, result.errors) == (1, 1)


async def test_one_tick_at_a_time(services: Services, driver: Names) -> None:
    running = most = 0

    async def names() -> list[str]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return []

    driver.list = names  # type: ignore[method-assign]
    await asyncio.gather(*(services.reconciler.tick() for _ in range(4)))
    assert most == 1


async def test_one_process_at_a_time(services: Services, driver: Names) -> None:
    other = Leases(services.database, "elsewhere", 60)
    assert await other.take(reconciler.DUTY)
    await add_ready(services, driver, "one", ready_at=ago(hours=25))
    assert await services.reconciler.tick() is None
    assert await ended(services, "one") == ("ready", None)
    assert services.reconciler.fresh
    await other.release()
    assert (await tick(services)).idle_killed == 1


async def test_what_it_did_can_be_read(services: Services, driver: Names) -> None:
    await add_ready(services, driver, "one", ready_at=ago(hours=25))
    result = await tick(services)
    async with services.database.read() as tx:
        (beat,) = await leases.beats(tx)
    assert beat["name"] == "reconcile"
    assert clock.seconds_since(beat["at"]) < 60
    assert beat["last_result"]["idle_killed"] == 1 == result.idle_killed
    assert beat["last_result"]["inspected"] == 1


async def test_its_ends_are_events_like_all_others(services: Services, driver: Names) -> None:
    await add_ready(services, driver, "one", ready_at=ago(hours=25))
    await add(services, "two")
    await tick(services)
    async with services.database.read() as tx:
        told = await events.read(tx, after=0, limit=100)
    assert [(event.session_id, event.type) for event in told][-2:] == [
        ("one", "session.dead"),
        ("two", "session.failed"),
    ]


async def test_it_ticks_by_itself(settings_of: Callable[..., Settings], driver: Names) -> None:
    settings = settings_of(reconcile_interval_seconds=1)
    async with open_services(settings, driver) as services:
        async with services.database.begin() as tx:
            await agents.add(tx, agent_row("a1"))
        await add_ready(services, driver, "one", ready_at=ago(hours=25))

        async def dead() -> bool:
            return (await ended(services, "one"))[0] == "dead"

        await until(dead, "the idle session is reaped")


async def test_a_killed_process_leaves_its_sessions_to_its_successor(
    settings_of: Callable[..., Settings], driver: Names
) -> None:
    async with open_services(settings_of(), driver) as services:
        async with services.database.begin() as tx:
            await agents.add(tx, agent_row("a1"))
        holder = services.reconciler._leases.holder
        await add_ready(services, driver, "one", owner=holder)
        location = services.settings.database_location
    database = await Database.open(location)  # as if it had never released its leases
    await Leases(database, holder, 600).announce()
    await database.close()
    async with open_services(settings_of(), driver) as services:
        driver.running.clear()

        async def dead() -> Row | None:
            row = await services.sessions.get("one")
            return row if row["status"] == "dead" else None

        await until(dead, "the successor watches the session")

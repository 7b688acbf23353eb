"""The warm pool with real sandboxes: filling, claiming, what makes a sandbox unfit, and every race (LAP REST 6)."""

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from backend.domain import warm_pool as rules
from backend.services.container import Services
from backend.services.errors import Conflict
from backend.services.leases import Leases
from backend.services.warm_pool import DUTY
from backend.store import events, sessions, warm_tasks
from backend.store.database import Row
from backend.store.tables import warm_task
from tests.e2e.programs import processes_of
from tests.services.conftest import Open, in_balance
from tests.waiting import until

NEVER_READY: Mapping[str, str] = {"opencode": "sh -c 'exec sleep 1000'"}
"""A harness whose set-up hangs: it waits for a port that nobody opens."""


async def new_agent(services: Services, **values: Any) -> str:
    row = await services.agents.create({"name": "tester", "model": "m", "harness_id": "claude-code", **values})
    return row["id"]


async def use(services: Services, agent_id: str) -> None:
    """Make the agent one that was used lately, with nothing left of the session."""
    row = await services.sessions.create(agent_id)
    await services.sessions.delete(row["id"])


async def pool(services: Services) -> list[Row]:
    async with services.database.read() as tx:
        return await warm_tasks.rows(tx)


async def warm(services: Services, count: int = 1) -> list[Row]:
    """The pool, once it holds that many warm sandboxes and nothing else."""

    async def filled() -> list[Row] | None:
        rows = await pool(services)
        return rows if len(rows) == count and all(row["status"] == rules.WARM for row in rows) else None

    return await until(filled, f"{count} sandboxes are warm")


async def provisioning(services: Services, count: int = 1) -> list[Row]:
    """The pool, once it makes that many sandboxes and all have processes."""

    async def begun() -> list[Row] | None:
        rows = [row for row in await pool(services) if row["status"] == rules.PROVISIONING]
        return rows if len(rows) == count and all(len(processes(services, row)) > 1 for row in rows) else None

    return await until(begun, f"{count} sandboxes are being made")


async def settled(services: Services, session_id: str) -> Row:
    async def settled() -> Row | None:
        row = await services.sessions.get(session_id)
        return None if row["status"] == "creating" else row

    return await until(settled, "the session settles")


async def ready(services: Services, agent_id: str, **values: Any) -> Row:
    row = await settled(services, (await services.sessions.create(agent_id, **values))["id"])
    assert row["status"] == "ready", row["failure_reason"]
    return row


def folder(services: Services, row: Row) -> Path:
    return services.settings.data_dir / "sandboxes" / row["task_arn"]


def processes(services: Services, row: Row) -> list[int]:
    return processes_of(folder(services, row))


def kill(services: Services, row: Row, command: bytes) -> None:
    """End the innermost process of a sandbox with that in its command line."""
    pids = [pid for pid in processes(services, row) if command in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(max(pids), signal.SIGKILL)


async def test_a_session_gets_a_warm_sandbox(open_platform: Open) -> None:
    async with open_platform(warm_pool_size=1) as services:
        agent_id = await new_agent(services, env_vars={"GREETING": "hello"}, env_var_plain=["GREETING"])
        await use(services, agent_id)
        (spare,) = await warm(services)
        session = await ready(services, agent_id, title="mine")
        assert session["task_arn"] == spare["task_arn"]
        assert session["tty_token"] == spare["token"]
        assert session["sandbox_url"] == spare["sandbox_url"]
        assert session["harness_session_id"] == spare["harness_session_id"]
        assert session["isolation"] == spare["isolation"]
        async with services.database.read() as tx:
            told = await events.read(tx, after=0, limit=100, session_id=session["id"])
        assert [event.type for event in told][:2] == ["session.created", "session.ready"]
        environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in processes(services, session)]
        assert any(b"GREETING=hello" in environment for environment in environments)
        assert not any(b"SESSION_ID=" in environment for environment in environments)
        (refilled,) = await warm(services)
        assert refilled["task_arn"] != spare["task_arn"]
        await in_balance(services)
        await services.sessions.delete(session["id"])
        assert not processes(services, session)


async def test_two_claims_of_one_warm_sandbox(open_platform: Open) -> None:
    async with open_platform(warm_pool_size=1) as services:
        agent_id = await new_agent(services)
        await use(services, agent_id)
        (spare,) = await warm(services)
        both = await asyncio.gather(ready(services, agent_id), ready(services, agent_id))
        assert sorted(row["task_arn"] == spare["task_arn"] for row in both) == [False, True]
        assert len({row["sandbox_url"] for row in both}) == 2
        await warm(services)
        await in_balance(services)


async def test_a_claimed_session_is_deleted_at_once(open_platform: Open) -> None:
    async with open_platform(warm_pool_size=1) as services:
        agent_id = await new_agent(services)
        await use(services, agent_id)
        (spare,) = await warm(services)
        session = await services.sessions.create(agent_id)
        assert session["task_arn"] == spare["task_arn"]
        await services.sessions.delete(session["id"])
        assert (await services.sessions.get(session["id"]))["failure_reason"] == "deleted"
        assert not processes(services, session)
        await warm(services)
        await in_balance(services)


async def test_a_session_with_something_of_its_own_gets_none(open_platform: Open) -> None:
    async with open_platform(warm_pool_size=1) as services:
        agent_id = await new_agent(services)
        await use(services, agent_id)
        (spare,) = await warm(services)
        for own in ({"env_vars": {"A": "b"}}, {"recording": True}):
            assert (await ready(services, agent_id, **own))["task_arn"] != spare["task_arn"]
        assert [row["id"] for row in await warm(services)] == [spare["id"]]
        await in_balance(services)


async def test_what_works_no_more_is_not_given_away(open_platform: Open) -> None:
    async with open_platform(warm_pool_size=1) as services:
        agent_id = await new_agent(services)
        await use(services, agent_id)
        (spare,) = await warm(services)
        kill(services, spare, b"--noprofile")  # the agent; the harness lives on, so nobody hears of it

        async def ended() -> bool:
            token = services.sessions.tty_token({**spare, "tty_token": spare["token"], "harness_id": "claude-code"})
            return not (await services.pool._harness.state(spare["sandbox_url"], token or "")).works

        await until(ended, "the harness has seen the end of the agent")
        session = await ready(services, agent_id)
        assert session["task_arn"] != spare["task_arn"]
        assert not folder(services, spare).exists()
        await warm(services)
        await in_balance(services)


async def test_an_agent_that_ends_while_it_waits(open_platform: Open) -> None:
    async with open_platform(warm_pool_size=1) as services:
        agent_id = await new_agent(services)
        await use(services, agent_id)
        (spare,) = await warm(services)
        kill(services, spare, b"--noprofile")

        async def removed() -> bool:
            return (await services.pool.top_up()).stale == 1

        await until(removed, "a pass finds out")
        assert not folder(services, spare).exists()
        assert "agent has ended" in services.pool.failures[agent_id].reason
        assert await pool(services) == []


async def test_a_warm_sandbox_that_dies_is_noticed_and_not_replaced_at_once(open_platform: Open) -> None:
    async with open_platform(warm_pool_size=1) as services:
        agent_id = await new_agent(services)
        await use(services, agent_id)
        (spare,) = await warm(services)
        kill(services, spare, b"backend.harness")

        async def empty() -> bool:
            return not await pool(services)

        await until(empty, "the dead sandbox is removed")
        assert not folder(services, spare).exists()
        assert "ended by itself" in services.pool.failures[agent_id].reason
        assert (await ready(services, agent_id))["status"] == "ready"
        assert await services.pool.top_up() and not await pool(services)


@pytest.mark.parametrize("how", ["agent", "memory", "skill"])
async def test_a_change_replaces_what_was_made_before_it(open_platform: Open, how: str) -> None:
    async with open_platform(warm_pool_size=1) as services:
        skill = await services.skills.create({"name": "Neat", "content": "be neat"})
        agent_id = await new_agent(services, skill_ids=[skill["id"]])
        await use(services, agent_id)
        (spare,) = await warm(services)
        match how:
            case "agent":
                await services.agents.change(agent_id, {"env_vars": {"A": "new"}})
            case "memory":
                await services.memory.create(agent_id, {"text": "the tests are in tests/"})
            case "skill":
                await services.skills.change(skill["id"], {"content": "be very neat"}, None)
        # Whether or not the pool has heard of it: a session never gets the old one.
        assert (await services.sessions.create(agent_id))["task_arn"] != spare["task_arn"]

        async def replaced() -> bool:
            rows = await pool(services)
            return bool(rows) and spare["id"] not in [row["id"] for row in rows] and rows[0]["status"] == rules.WARM

        await until(replaced, "a new sandbox is warm")
        await in_balance(services)


async def test_a_change_that_no_sandbox_sees_replaces_nothing(open_platform: Open) -> None:
    async with open_platform(warm_pool_size=1) as services:
        agent_id = await new_agent(services)
        await use(services, agent_id)
        (spare,) = await warm(services)
        await services.agents.change(agent_id, {"name": "renamed", "pfp_url": "https://example.org/a.png"})
        await services.pool.top_up()
        assert [row["id"] for row in await pool(services)] == [spare["id"]]


async def test_a_change_while_it_is_being_made(open_platform: Open) -> None:
    async with open_platform(warm_pool_size=1, harness_commands=NEVER_READY) as services:
        agent_id = await new_agent(services, harness_id="opencode")
        await use(services, agent_id)
        (old,) = await provisioning(services)
        await services.agents.change(agent_id, {"prompt": "something else"})
        await until(lambda: not folder(services, old).exists(), "the sandbox with the old prompt is removed")
        (new,) = await provisioning(services)
        assert new["id"] != old["id"] and new["fingerprint"] != old["fingerprint"]
        assert services.pool.failures == {}
        await in_balance(services)


async def test_the_agent_is_deleted(open_platform: Open) -> None:
    async with open_platform(warm_pool_size=2, harness_commands={**NEVER_READY, "claude-code": "bash"}) as services:
        one, two = await new_agent(services), await new_agent(services, harness_id="opencode")
        await use(services, one)
        await until(lambda: pool(services), "the pool fills")
        await use(services, two)
        for agent_id in (one, two):
            await services.agents.delete(agent_id)

        async def nothing() -> bool:
            return not await services.driver.list()

        await until(nothing, "no sandbox of a deleted agent is left")
        assert await pool(services) == []


async def test_an_agent_that_keeps_failing_is_left_alone_until_it_changes(open_platform: Open) -> None:
    commands = {"claude-code": "bash", "codex": "no-such-program-here"}
    async with open_platform(warm_pool_size=2, harness_commands=commands) as services:
        good, bad = await new_agent(services), await new_agent(services, harness_id="codex")
        await use(services, bad)
        failure = await until(lambda: services.pool.failures.get(bad), "the bad agent fails")
        assert "no-such-program-here" in failure.reason
        await use(services, good)
        assert [row["agent_id"] for row in await warm(services, 2)] == [good, good]
        await services.agents.change(bad, {"prompt": "try again"})
        for row in await pool(services):
            await services.sessions.create(row["agent_id"])

        def tried_again() -> bool:
            again = services.pool.failures.get(bad)
            return again is not None and again.fingerprint != failure.fingerprint

        await until(tried_again, "the changed agent is tried again")


async def test_too_old(open_platform: Open) -> None:
    async with open_platform(warm_pool_size=1) as services:
        agent_id = await new_agent(services)
        await use(services, agent_id)
        (spare,) = await warm(services)
        async with services.database.begin() as tx:
            await tx.execute(update(warm_task).values(created_at="2026-01-01T00:00:00.000Z"))
        await services.pool.top_up()
        assert [row["id"] for row in await pool(services)] == [spare["id"]]  # its time begins when it is ready
        async with services.database.begin() as tx:
            await tx.execute(update(warm_task).values(ready_at="2026-01-01T00:00:00.000Z"))
        done = await services.pool.top_up()
        assert (done.recycled, done.provisioned) == (1, 1)
        (fresh,) = await warm(services)
        assert fresh["id"] != spare["id"]
        assert not folder(services, spare).exists()


async def test_the_platform_restarts(open_platform: Open) -> None:
    commands = {**NEVER_READY, "claude-code": "bash"}
    async with open_platform(warm_pool_size=2, harness_commands=commands) as services:
        slow, quick = await new_agent(services, harness_id="opencode"), await new_agent(services)
        await use(services, quick)
        await until(lambda: pool(services), "the pool fills")
        await warm(services, 2)
        kept = await ready(services, quick)
        await use(services, slow)
        for _ in range(2):
            await services.sessions.create(quick)
        half = await provisioning(services)
    async with open_platform(warm_pool_size=2, harness_commands=commands) as services:
        await until(lambda: not folder(services, half[0]).exists(), "what was half made is removed")
        assert (await services.sessions.get(kept["id"]))["status"] == "ready"
        spares = [row for row in await pool(services) if row["status"] == rules.WARM]
        for spare in spares:
            assert processes(services, spare)
    async with open_platform() as services:  # the pool is switched off

        async def empty() -> bool:
            return not await pool(services)

        await until(empty, "no spare sandbox is kept")
        await in_balance(services)


async def test_restart_takes_a_warm_sandbox(open_platform: Open) -> None:
    async with open_platform(warm_pool_size=1) as services:
        agent_id = await new_agent(services)
        cold = await ready(services, agent_id)
        (spare,) = await warm(services)
        restarted = await services.sessions.restart(cold["id"])
        assert (restarted["status"], restarted["task_arn"]) == ("ready", spare["task_arn"])
        assert not folder(services, cold).exists()
        again = await services.sessions.restart(cold["id"])
        assert again["status"] == "ready"
        await warm(services)
        await in_balance(services)


async def test_two_restarts_at_once(open_platform: Open) -> None:
    async with open_platform(warm_pool_size=1) as services:
        agent_id = await new_agent(services)
        session = await ready(services, agent_id)
        await warm(services)
        results = await asyncio.gather(
            *(services.sessions.restart(session["id"]) for _ in range(2)), return_exceptions=True
        )
        assert sorted(type(result) is Conflict for result in results) == [False, True]
        assert (await services.sessions.get(session["id"]))["status"] == "ready"
        await warm(services)
        await in_balance(services)


async def test_no_more_than_asked_for(open_platform: Open) -> None:
    async with open_platform(warm_pool_size=3, warm_pool_max_provisioning=1, harness_commands=NEVER_READY) as services:
        agents = [await new_agent(services, harness_id="opencode") for _ in range(2)]
        for agent_id in agents:
            await use(services, agent_id)
        await provisioning(services)
        await asyncio.gather(*(services.pool.top_up() for _ in range(5)))
        assert len(await pool(services)) == 1


async def test_one_process_fills_the_pool(open_platform: Open) -> None:
    async with open_platform(warm_pool_size=1) as services:
        other = Leases(services.database, "elsewhere", 60)
        await other.take(DUTY)
        agent_id = await new_agent(services)
        await use(services, agent_id)
        await services.pool.top_up()
        assert await pool(services) == []
        await other.release()
        await services.pool.top_up()
        await warm(services)


async def test_off_unless_asked_for(open_platform: Open) -> None:
    async with open_platform() as services:
        agent_id = await new_agent(services)
        await ready(services, agent_id)
        await services.pool.top_up()
        assert await pool(services) == []
        async with services.database.read() as tx:
            assert len(await sessions.active(tx)) == 1


async def test_an_operator_replaces_what_is_warm_and_fills_the_pool(open_platform: Open) -> None:
    async with open_platform(warm_pool_size=1, harness_commands={"claude-code": "cat"}) as services:
        agent_id = await new_agent(services)
        await use(services, agent_id)
        (before,) = await warm(services)
        assert await services.pool.flush("another") == 0
        assert await services.pool.flush() == 1

        async def replaced() -> bool:
            rows = await pool(services)
            return len(rows) == 1 and rows[0]["status"] == rules.WARM and rows[0]["id"] != before["id"]

        await until(replaced, "another sandbox is warm")
        assert (await services.pool.top_up_now()).provisioned == 0
        await in_balance(services)

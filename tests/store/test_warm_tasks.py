"""Claims and guarded changes of the warm pool."""

import asyncio
from typing import Any

from backend.store import agents, sessions, warm_tasks
from backend.store.database import Database, Row
from tests.rows import agent_row, session_row

T = "2026-05-01T00:00:0{}.000Z"


async def add(database: Database, task_id: str, **values: Any) -> None:
    row = {
        "id": task_id,
        "agent_id": "a1",
        "status": "warm",
        "task_arn": f"w-{task_id}",
        "fingerprint": "f",
        "token": "enc",
        "created_at": T.format(0),
        "ready_at": T.format(1),
        **values,
    }
    async with database.begin() as tx:
        await warm_tasks.add(tx, row)


async def claim(database: Database, agent_id: str = "a1", fingerprint: str = "f") -> Row | None:
    async with database.begin() as tx:
        return await warm_tasks.claim(tx, agent_id, fingerprint)


async def test_claims_take_the_oldest_first_and_each_once(database: Database) -> None:
    for number in (3, 1, 2, 0):
        await add(database, f"t{number}", ready_at=T.format(number))
    first = await claim(database)
    assert first is not None
    assert first["id"] == "t0"
    claimed = await asyncio.gather(*(claim(database) for _ in range(5)))
    assert sorted(row["id"] for row in claimed if row) == ["t1", "t2", "t3"]
    async with database.read() as tx:
        assert await warm_tasks.rows(tx) == []


async def test_only_what_fits_is_claimed(database: Database) -> None:
    async with database.begin() as tx:
        await agents.add(tx, agent_row("a2"))
    await add(database, "other-agent", agent_id="a2")
    await add(database, "made-of-something-else", fingerprint="g")
    await add(database, "not-yet", status="provisioning", ready_at=None)
    await add(database, "no-more", status="dead")
    assert await claim(database) is None


async def test_a_claim_that_is_rolled_back_was_none(database: Database) -> None:
    await add(database, "t1")
    try:
        async with database.begin() as tx:
            assert await warm_tasks.claim(tx, "a1", "f")
            raise RuntimeError
    except RuntimeError:
        pass
    assert await claim(database)


async def test_changes_are_guarded(database: Database) -> None:
    await add(database, "t1", status="provisioning")

    async def change(expected: tuple[str, ...], values: dict[str, Any], task_id: str = "t1") -> bool:
        async with database.begin() as tx:
            return await warm_tasks.change(tx, task_id, expected=expected, values=values)

    assert await change(("provisioning",), {})
    assert not await change(("warm",), {})
    assert not await change(("warm",), {"status": "dead"})
    assert await change(("provisioning", "warm"), {"status": "dead"})
    assert not await change(("provisioning",), {"status": "warm"})
    assert not await change(("dead",), {}, "nobody")
    async with database.read() as tx:
        assert await warm_tasks.names(tx) == set()


async def test_the_pool_goes_with_its_agent(database: Database) -> None:
    await add(database, "t1")
    async with database.begin() as tx:
        await agents.remove(tx, "a1")
    async with database.read() as tx:
        assert await warm_tasks.rows(tx) == []


async def test_recent_agents(database: Database) -> None:
    async with database.begin() as tx:
        for number, agent_id in enumerate(("a1", "a2", "a1", "a3"), start=1):
            if agent_id != "a1":
                await agents.add(tx, agent_row(agent_id))
            await sessions.add(tx, session_row(f"s{number}", agent_id, created_at=T.format(number)))
    async with database.read() as tx:
        assert await warm_tasks.recent_agents(tx, T.format(0), 9) == ["a3", "a1", "a2"]
        assert await warm_tasks.recent_agents(tx, T.format(2), 9) == ["a3", "a1"]
        assert await warm_tasks.recent_agents(tx, T.format(0), 1) == ["a3"]

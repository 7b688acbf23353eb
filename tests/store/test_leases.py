"""Leases and heartbeats: compare-and-set."""

import asyncio

from backend.store import leases
from backend.store.database import Database

EARLY, NOW, LATER, LATEST = (f"2026-05-01T00:00:0{second}.000Z" for second in range(4))


async def take(database: Database, holder: str, now: str, until: str) -> bool:
    async with database.begin() as tx:
        return await leases.take(tx, "duty", holder, now=now, until=until)


async def test_one_holder_at_a_time(database: Database) -> None:
    assert await take(database, "a", EARLY, LATER)
    assert not await take(database, "b", NOW, LATEST)
    assert await take(database, "a", NOW, LATEST)  # renewed
    assert not await take(database, "b", LATER, LATEST)
    assert await take(database, "b", LATEST, LATEST)  # its time is over
    assert not await take(database, "a", EARLY, LATEST)


async def test_of_many_that_ask_one_gets_it(database: Database) -> None:
    assert sum(await asyncio.gather(*(take(database, f"p{number}", NOW, LATER) for number in range(8)))) == 1


async def test_release(database: Database) -> None:
    assert await take(database, "a", NOW, LATER)
    async with database.begin() as tx:
        await leases.release(tx, "b")
    assert not await take(database, "b", NOW, LATER)
    async with database.begin() as tx:
        await leases.release(tx, "a")
    assert await take(database, "b", NOW, LATER)


async def test_holders(database: Database) -> None:
    async with database.begin() as tx:
        for name, holder, until in (("x 1", "a", LATER), ("x 2", "b", NOW), ("y", "c", LATER), ("%", "d", LATER)):
            assert await leases.take(tx, name, holder, now=EARLY, until=until)
    async with database.read() as tx:
        assert await leases.holders(tx, "x ", NOW) == {"a"}
        assert await leases.holders(tx, "%", NOW) == {"d"}


async def test_heartbeats(database: Database) -> None:
    for at, result in ((EARLY, None), (NOW, {"stopped": 1})):
        async with database.begin() as tx:
            await leases.beat(tx, "duty", "a", at=at, result=result)
    async with database.read() as tx:
        assert await leases.beats(tx) == [{"name": "duty", "holder": "a", "at": NOW, "last_result": {"stopped": 1}}]

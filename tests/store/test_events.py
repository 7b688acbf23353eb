"""The event log: order, filters, pruning."""

import json

import pytest

from backend.store import events
from backend.store.database import Database
from tests.waiting import until


async def append(database: Database, count: int, *, session_id: str | None = None) -> list[int]:
    """Append `count` events about agent `a1`; returns their numbers."""
    heard: list[events.Event] = []
    database.on_commit(heard.extend)
    async with database.begin() as tx:
        for number in range(count):
            await events.append(tx, "agent.updated", {"agent": {"n": number}}, agent_id="a1", session_id=session_id)
    await until(lambda: len(heard) >= count, "all are heard")
    return [event.seq for event in heard]


async def numbers(database: Database, **arguments: object) -> list[int]:
    """What a read gives."""
    async with database.read() as tx:
        return [event.seq for event in await events.read(tx, **{"after": 0, "limit": 100, **arguments})]


async def test_reads_in_order_after_a_position(database: Database) -> None:
    assert await append(database, 4) == [2, 3, 4, 5]
    assert await numbers(database) == [1, 2, 3, 4, 5]
    assert await numbers(database, after=2, limit=2) == [3, 4]
    assert await numbers(database, after=5) == []


async def test_filters(database: Database) -> None:
    await append(database, 1)
    await append(database, 1, session_id="s1")
    assert await numbers(database, session_id="s1") == [3]
    assert await numbers(database, agent_id="a1") == [1, 2, 3]
    assert await numbers(database, agent_id="a2") == []
    assert await numbers(database, types=["agent.created"]) == [1]
    assert await numbers(database, types=["agent.created", "no.such"], agent_id="a1") == [1]


async def test_pruning_keeps_the_newest_and_numbers_go_on(database: Database) -> None:
    await append(database, 9)
    async with database.begin() as tx:
        await events.prune(tx, keep=3)
    assert await numbers(database) == [8, 9, 10]
    async with database.begin() as tx:
        assert (await events.oldest(tx), await events.newest(tx)) == (8, 10)
        await events.prune(tx, keep=0)
    assert await append(database, 1) == [11]


async def test_the_log_prunes_itself(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEEP", 5)
    monkeypatch.setattr(events, "PRUNE_EVERY", 10)
    await append(database, 21)
    assert await numbers(database) == list(range(16, 23))


async def test_an_event_on_the_wire(database: Database) -> None:
    async with database.begin() as tx:
        await events.append(tx, "agent.updated", {"agent": {"name": 'ü "\n'}}, agent_id="a1")
    async with database.read() as tx:
        [event] = await events.read(tx, after=1, limit=10)
    text = event.json()
    assert "\n" not in text
    assert json.loads(text) == {
        "seq": 2,
        "at": event.at,
        "type": "agent.updated",
        "agent_id": "a1",
        "session_id": None,
        "agent": {"name": 'ü "\n'},
    }

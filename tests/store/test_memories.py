"""Queries on memories: order, search, what a session is told, counting."""

from typing import Any

import pytest
from sqlalchemy import select

from backend.store import agents, events, memories
from backend.store.database import Database
from backend.store.tables import memory_tag
from tests.rows import agent_row, memory_row


async def add(database: Database, memory_id: str, agent_id: str = "a1", **values: Any) -> None:
    async with database.begin() as tx:
        await memories.add(tx, memory_row(memory_id, agent_id, **values))


async def ids(database: Database, **arguments: Any) -> list[str]:
    usual = {"limit": 50, "offset": 0, "search": "", "tag": "", "include_disabled": False}
    async with database.read() as tx:
        return [row["id"] for row in await memories.page(tx, "a1", **{**usual, **arguments})]


@pytest.fixture
async def five(database: Database) -> None:
    """Memories `m0` to `m4` of `a1`, and one of another agent."""
    async with database.begin() as tx:
        await agents.add(tx, agent_row("a2"))
    await add(database, "m0", text="Straße 100%", tags=["Go", "style"])
    await add(database, "m1", priority=5, tags=["go"])
    await add(database, "m2", times_applied=3, text="ÉTÉ", pinned=True)
    await add(database, "m3", created_at="2026-06-01T00:00:00.000Z", tags=["style"])
    await add(database, "m4", priority=-1, disabled=True, tags=["style"])
    await add(database, "other", "a2", priority=9, tags=["style"])


@pytest.mark.usefixtures("five")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "m1 m2 m3 m0"),
        ({"include_disabled": True}, "m1 m2 m3 m0 m4"),
        ({"limit": 2}, "m1 m2"),
        ({"limit": 2, "offset": 1}, "m2 m3"),
        ({"search": "STRASSE"}, "m0"),
        ({"search": "été"}, "m2"),
        ({"search": "%"}, "m0"),
        ({"search": "_"}, ""),
        ({"tag": "style"}, "m3 m0"),
        ({"tag": "style", "include_disabled": True}, "m3 m0 m4"),
        ({"tag": "Go"}, "m0"),
        ({"tag": "sty"}, ""),
        ({"tag": "style", "search": "straße"}, "m0"),
    ],
)
async def test_pages(database: Database, arguments: dict[str, Any], expected: str) -> None:
    assert await ids(database, **arguments) == expected.split()


@pytest.mark.usefixtures("five")
async def test_what_a_session_is_told(database: Database) -> None:
    async with database.read() as tx:
        pinned, ranked = await memories.for_session(tx, "a1", pinned_limit=20, ranked_limit=2)
        nothing = await memories.for_session(tx, "a1", pinned_limit=0, ranked_limit=0)
    assert ([row["id"] for row in pinned], [row["id"] for row in ranked]) == (["m2"], ["m1", "m3"])
    assert nothing == ([], [])


@pytest.mark.usefixtures("five")
async def test_use_is_counted_without_an_event(database: Database) -> None:
    async with database.begin() as tx:
        await memories.note_use(tx, ("m1", "m2", "gone"), "2026-07-01T00:00:00.000Z")
        await memories.note_use(tx, (), "never")
        assert not tx.events
        used = await memories.get(tx, "a1", "m2")
        unused = await memories.get(tx, "a1", "m0")
    assert used and unused
    assert (used["times_applied"], used["last_applied_at"]) == (4, "2026-07-01T00:00:00.000Z")
    assert (unused["times_applied"], unused["last_applied_at"]) == (0, None)
    assert used["updated_at"] == unused["updated_at"]


@pytest.mark.usefixtures("five")
async def test_changes_are_searched_by_and_told(database: Database) -> None:
    async with database.begin() as tx:
        assert await memories.change(tx, "a2", "m0", {"text": "x"}) is None
        await memories.change(tx, "a1", "m0", {"text": "Neu", "tags": ["new"]})
    assert await ids(database, search="neu") == ["m0"]
    assert await ids(database, tag="new") == ["m0"]
    assert await ids(database, tag="Go") == []
    async with database.begin() as tx:
        assert not await memories.remove(tx, "a2", "m0")
        assert await memories.remove(tx, "a1", "m0")
        assert not await memories.remove(tx, "a1", "m0")
        assert await memories.count(tx, "a1") == 4
    async with database.read() as tx:
        log = await events.read(tx, after=0, limit=100, types=["memory.updated", "memory.deleted"])
    assert [(event.type, event.agent_id) for event in log] == [("memory.updated", "a1"), ("memory.deleted", "a1")]


@pytest.mark.usefixtures("five")
async def test_memories_go_with_their_agent(database: Database) -> None:
    async with database.begin() as tx:
        await agents.remove(tx, "a1")
        assert await memories.count(tx, "a1") == 0
        assert [row["memory_id"] for row in await tx.rows(select(memory_tag))] == ["other"]

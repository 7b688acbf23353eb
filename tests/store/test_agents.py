"""How agents are listed: the same on both kinds of database, whatever the language of one is."""

import pytest

from backend.store import agents, sessions
from backend.store.agents import SORTS, Sort
from backend.store.database import Database
from tests.rows import agent_row, session_row

NAMES = {
    "a1": "First",
    "b-2": "beta",
    "B1": "Beta",
    "a_2": "álpha",
    "A3": None,
    "é": "Zulu 100%",
    "z": "a b",
    "y": "a-b",
}
BY_NAME = ["z", "y", "B1", "b-2", "a1", "é", "a_2"]
"""As SQLite has it: by code points, ASCII letters of either case alike."""


async def listed(database: Database, sort: Sort = "created_at", *, descending: bool = False, search: str = "") -> str:
    async with database.read() as tx:
        rows, total = await agents.page(tx, limit=100, offset=0, sort=sort, descending=descending, search=search)
    assert total == len(rows)
    return " ".join(row["id"] for row in rows)


@pytest.fixture
async def crowd(database: Database) -> Database:
    async with database.begin() as tx:
        for agent_id, name in NAMES.items():
            if agent_id != "a1":
                await agents.add(tx, agent_row(agent_id, name=name))
        for number, agent_id in enumerate(("a1", "é", "é", "a_2", "a_2")):
            await sessions.add(tx, session_row(f"s{number}", agent_id, status="ready" if number else "dead"))
    return database


async def test_orders(crowd: Database) -> None:
    by_id = sorted(NAMES)
    rest = [agent_id for agent_id in by_id if agent_id not in ("a1", "é", "a_2")]
    expected = {
        "created_at": by_id,
        "name": [*BY_NAME, "A3"],
        "harness_id": by_id,
        "sessions": [*rest, "a1", "a_2", "é"],
    }
    for sort in SORTS:
        assert await listed(crowd, sort) == " ".join(expected[sort])
    assert await listed(crowd, "name", descending=True) == " ".join([*reversed(BY_NAME), "A3"])
    assert await listed(crowd, "sessions", descending=True) == " ".join(["é", "a_2", "a1", *reversed(rest)])


async def test_searches(crowd: Database) -> None:
    for search, expected in (
        ("BETA", "B1 b-2"),
        ("ÁLPHA", "a_2"),
        ("100%", "é"),
        ("%", "é"),
        ("_", "a_2"),
        ("É", "é"),
        ("codex", " ".join(sorted(NAMES))),
        ("\\", ""),
        ("nothing", ""),
    ):
        assert await listed(crowd, search=search) == expected


async def test_rows_tell_of_sessions(crowd: Database) -> None:
    async with crowd.read() as tx:
        rows, _ = await agents.page(tx, limit=100, offset=0, sort="name", descending=False, search="a")
    told = {row["id"]: (row["session_count"], row["has_active_session"]) for row in rows}
    assert (told["a1"], told["a_2"], told["z"]) == ((1, False), (2, True), (0, False))

"""Guarded changes of sessions, and how they are listed."""

import asyncio
import json
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from backend.domain.agents import supports_tui
from backend.store import agents, events, sessions, views
from backend.store.database import Database, Row
from tests.rows import agent_row, session_row


async def change(database: Database, session_id: str = "s1", **arguments: Any) -> Row | None:
    """One `transition`, by default from creating to ready."""
    given = {
        "expected": {"status": ("creating",)},
        "values": {"status": "ready", "phase": "ready"},
        "event_type": "session.ready",
        **arguments,
    }
    async with database.begin() as tx:
        return await sessions.transition(tx, session_id, **given)


async def log(database: Database, session_id: str = "s1") -> list[events.Event]:
    """The events of a session."""
    async with database.read() as tx:
        return await events.read(tx, after=0, limit=1000, session_id=session_id)


@pytest.fixture(autouse=True)
async def one_session(database: Database) -> None:
    async with database.begin() as tx:
        await sessions.add(tx, session_row("s1", tty_token="enc:v1:token", title="Fix it"))


async def test_a_change_is_an_event_with_the_session_as_it_is_then(database: Database) -> None:
    row = await change(database, values={"status": "ready", "sandbox_url": "http://127.0.0.1:1"})
    assert row is not None
    assert (row["status"], row["agent_name"], row["harness_id"]) == ("ready", "First", "codex")
    created, ready = await log(database)
    assert (created.type, ready.type) == ("session.created", "session.ready")
    told = json.loads(ready.json())
    assert (told["seq"], told["agent_id"], told["session_id"]) == (ready.seq, "a1", "s1")
    assert told["session"]["status"] == "ready"
    assert told["session"]["sandbox_url"] == "http://127.0.0.1:1"
    assert told["session"]["supports_tui"] is True
    assert told["session"]["idle_timeout_ms"] == 86_400_000
    assert not {"tty_token", "tty_url", "log_tail", "has_own_env"} & told["session"].keys()
    assert "enc:v1:token" not in ready.data


async def test_a_session_that_ended_never_comes_back(database: Database) -> None:
    assert await change(database, values={"status": "dead"}, event_type="session.dead")
    assert await change(database) is None
    async with database.read() as tx:
        row = await sessions.get(tx, "s1")
    assert row is not None
    assert row["status"] == "dead"
    assert [event.type for event in await log(database)] == ["session.created", "session.dead"]


@pytest.mark.parametrize(
    ("expected", "taken"),
    [
        ({}, True),
        ({"status": "creating"}, True),
        ({"status": ("ready", "creating")}, True),
        ({"status": ("ready", "failed")}, False),
        ({"status": ()}, False),
        ({"creating_since": "2026-05-01T00:00:00.000Z"}, True),
        ({"creating_since": "2026-05-01T00:00:00.001Z"}, False),
        ({"sandbox_url": None}, True),
        ({"sandbox_url": "http://x"}, False),
        ({"status": ("creating",), "sandbox_url": "http://x"}, False),
    ],
)
async def test_expectations(database: Database, expected: dict[str, Any], taken: bool) -> None:
    assert (await change(database, expected=expected) is not None) is taken


async def test_an_unknown_session_is_not_changed(database: Database) -> None:
    assert await change(database, "nobody") is None


async def test_of_two_racing_changes_one_wins(database: Database) -> None:
    results = await asyncio.gather(*(change(database) for _ in range(8)))
    assert len([row for row in results if row is not None]) == 1


async def test_activity_makes_no_event(database: Database) -> None:
    row = await change(database, values={"last_seen_at": "2026-05-02T00:00:00.000Z"}, event_type=None)
    assert row is not None
    assert row["last_seen_at"] == "2026-05-02T00:00:00.000Z"
    assert len(await log(database)) == 1


async def test_wrong_values_are_refused_whole(database: Database) -> None:
    with pytest.raises(ValueError, match="unknown event type"):
        await change(database, event_type="session.exploded")
    with pytest.raises(IntegrityError):
        await change(database, values={"status": "sleeping"})
    async with database.read() as tx:
        row = await sessions.get(tx, "s1")
    assert row is not None
    assert row["status"] == "creating"


async def test_json_and_the_kept_log(database: Database) -> None:
    values = {"isolation": {"pid_namespace": True}, "response": {"parts": []}, "log_tail": "the end"}
    row = await change(database, values=values)
    assert row is not None
    assert row["isolation"] == {"pid_namespace": True}
    assert "log_tail" not in row
    row = await change(database, values={"response": None})
    assert row is not None
    assert row["response"] is None
    async with database.read() as tx:
        assert await sessions.kept_log(tx, "s1") == "the end"
        assert await sessions.kept_log(tx, "nobody") is None


async def test_lists(database: Database) -> None:
    async with database.begin() as tx:
        await agents.add(tx, agent_row("a2"))
        for number, status in enumerate(("ready", "failed", "dead"), start=2):
            moment = f"2026-05-0{number}T00:00:00.000Z"
            await sessions.add(
                tx, session_row(f"s{number}", "a2", status=status, created_at=moment, creating_since=moment)
            )

    async def ids(**arguments: Any) -> list[str]:
        async with database.read() as tx:
            return [row["id"] for row in await sessions.page(tx, **{"limit": 10, **arguments})]

    assert await ids() == ["s4", "s3", "s2", "s1"]
    assert await ids(limit=2, offset=1) == ["s3", "s2"]
    assert await ids(agent_id="a2") == ["s4", "s3", "s2"]
    assert await ids(statuses=["ready", "creating"]) == ["s2", "s1"]
    assert await ids(statuses=[]) == []
    assert await ids(agent_id="nobody") == []
    async with database.read() as tx:
        assert [row["id"] for row in await sessions.active(tx)] == ["s1", "s2"]
        assert [row["id"] for row in await sessions.active(tx, "a2")] == ["s2"]


async def test_which_are_recorded_and_whose_a_sandbox_is(database: Database) -> None:
    async with database.begin() as tx:
        await agents.add(tx, agent_row("a2"))
        await sessions.add(tx, session_row("s2", recording=True))
        await sessions.add(tx, session_row("s3", "a2", recording=True, status="dead"))
        await sessions.add(tx, session_row("s4", "a2"))
    async with database.read() as tx:
        assert sorted(await sessions.recorded(tx)) == ["s2", "s3"]
        assert await sessions.recorded(tx, "a2") == ["s3"]
        assert await sessions.recorded(tx, "nobody") == []
        row = await sessions.of_sandbox(tx, "s-s3")
        assert row is not None
        assert row["id"] == "s3"
        assert await sessions.of_sandbox(tx, "nobody") is None


async def test_told_is_what_the_row_shows_also_after_a_change(database: Database) -> None:
    full = {
        "recording": True,
        "isolation": {"limits": {"memory_mb": 1}},
        "terminal": {"title": '\u2028 \x00 "'},
        "activity": {"state": "idle"},
        "response": {"parts": []},
        "attached": [{"name": "me"}],
        "viewers": 3,
        "skill_ids": ["k"],
        "issues": [],
        "log_tail": "not shown",
        "tty_token": "enc:v1:token",
    }
    async with database.begin() as tx:
        await sessions.add(tx, session_row("full", **full))

    async def told_and_row() -> tuple[sessions.Told, Row]:
        async with database.read() as tx:
            told, row = await sessions.told(tx, "full"), await sessions.get(tx, "full")
            page = await sessions.page_told(tx, limit=10, agent_id="a1", statuses=["ready", "creating"])
        assert told is not None and row is not None
        assert told in page
        return told, row

    for values in ({}, {"title": "other", "recording": False}, {"response": {"truncated": True}}, {"activity": None}):
        if values:
            await change(database, "full", values=values)
        told, row = await told_and_row()
        assert json.loads(told.text) == views.session(row)
        truncated = "truncated" in (row["response"] or {})
        assert told[1:] == (row["id"], row["status"], supports_tui(row["harness_id"]), row["tty_token"], truncated)
    async with database.read() as tx:
        assert await sessions.told(tx, "nobody") is None

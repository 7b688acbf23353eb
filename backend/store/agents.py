"""Queries on agents. Whatever changes one also appends the event that says so."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, bindparam, delete, exists, func, insert, select, update

from backend.domain.sessions import ACTIVE
from backend.store import events, views
from backend.store.database import Row, Transaction
from backend.store.tables import agent as table
from backend.store.tables import session

Sort = Literal["created_at", "name", "harness_id", "sessions"]
SORTS: Final[tuple[Sort, ...]] = ("created_at", "name", "harness_id", "sessions")

_one = select(table).where(table.c.id == bindparam("agent_id"))
_facts = [column for column in table.c if column is not table.c.sandbox_contents]
_session_count = (
    select(func.count()).where(session.c.agent_id == table.c.id).correlate(table).scalar_subquery()
)  # of all sessions ever
_has_active = exists().where(session.c.agent_id == table.c.id, session.c.status.in_(ACTIVE)).correlate(table)


async def get(tx: Transaction, agent_id: str) -> Row | None:
    """The row of one agent; each of its `sandbox_files` has its `content`."""
    row = await tx.held(_one, table, {"agent_id": agent_id})
    return None if row is None else _joined(row)


async def known(tx: Transaction, agent_id: str) -> bool:
    """Whether there is such an agent; in a write transaction it stays so."""
    return await tx.held(select(table.c.id).where(table.c.id == agent_id), table) is not None


async def page(
    tx: Transaction, *, limit: int, offset: int, sort: Sort, descending: bool, search: str
) -> tuple[list[Row], int]:
    """One page of agents, each with `session_count` and `has_active_session`, and how many match in all.

    Their `sandbox_files` lack `content`. `search` is a case-insensitive substring of name, id or harness, "" matches
    all. Ties are ordered by id.
    """
    matching = [table.c.search_text.contains(search.casefold(), autoescape=True)] if search else []
    total = await tx.scalar(select(func.count()).select_from(table).where(*matching))
    # Counting sessions only for the page's agents, unless it is what we sort by.
    ids = select(table.c.id).where(*matching).order_by(*_order(sort, descending)).limit(limit).offset(offset)
    query = (
        select(*_facts, _session_count.label("session_count"), _has_active.label("has_active_session"))
        .where(table.c.id.in_(ids))
        .order_by(*_order(sort, descending))
    )
    return await tx.rows(query), total


async def add(tx: Transaction, values: Mapping[str, Any]) -> Row:
    """Store a new agent; `values` has all that `get` gives. Appends `agent.created`."""
    await tx.execute(insert(table).values(_split(values)))
    await events.append(tx, "agent.created", {"agent": views.agent_without_contents(values)}, agent_id=values["id"])
    return values


async def change(tx: Transaction, agent_id: str, values: Mapping[str, Any]) -> Row | None:
    """Change some columns; None when there is no such agent. Appends `agent.updated`."""
    row = await get(tx, agent_id)
    if row is None:
        return None
    row = {**row, **values}
    await tx.execute(update(table).where(table.c.id == agent_id).values(_split(row)))
    await events.append(tx, "agent.updated", {"agent": views.agent_without_contents(row)}, agent_id=agent_id)
    return row


async def remove(tx: Transaction, agent_id: str) -> bool:
    """Remove an agent with its sessions; False when there is no such agent. Appends `agent.deleted`."""
    row = await get(tx, agent_id)
    if row is None:
        return False
    await tx.execute(delete(table).where(table.c.id == agent_id))
    await events.append(tx, "agent.deleted", {"agent": views.agent_without_contents(row)}, agent_id=agent_id)
    return True


def _order(sort: Sort, descending: bool) -> list[ColumnElement[Any]]:
    column: ColumnElement[Any]
    match sort:
        case "created_at":
            column = table.c.created_at
        case "name":
            column = func.lower(table.c.name)
        case "harness_id":
            column = table.c.harness_id
        case "sessions":
            column = _session_count
    ordered: list[ColumnElement[Any]] = [each.desc() if descending else each.asc() for each in (column, table.c.id)]
    # Agents without a name come last in either direction.
    return [table.c.name.is_(None), *ordered] if sort == "name" else ordered


def _split(row: Row) -> dict[str, Any]:
    """A row as `get` gives it, as it is stored: contents apart from their files, and the text that searches look at."""
    files = row["sandbox_files"]
    return {
        **row,
        "sandbox_files": [{fact: value for fact, value in file.items() if fact != "content"} for file in files],
        "sandbox_contents": [file["content"] for file in files],
        "search_text": "\n".join((row["name"] or "", row["id"], row["harness_id"])).casefold(),
    }


def _joined(stored: Row) -> Row:
    """The reverse of `_split`."""
    row = dict(stored)
    del row["search_text"]
    contents = row.pop("sandbox_contents")
    files = zip(row["sandbox_files"], contents, strict=True)
    return row | {"sandbox_files": [{**facts, "content": content} for facts, content in files]}

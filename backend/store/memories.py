"""Queries on what agents remember. Whatever changes a memory also appends the event that says so."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, delete, exists, func, insert, select, update

from backend.store import events, views
from backend.store.database import Row, Transaction
from backend.store.tables import memory as table
from backend.store.tables import memory_tag

_columns = [column for column in table.c if column is not table.c.search_text]
_ranked = select(*_columns).order_by(
    table.c.priority.desc(), table.c.times_applied.desc(), table.c.created_at.desc(), table.c.id.desc()
)
_told = _ranked.where(table.c.agent_id == bindparam("agent_id"), ~table.c.disabled).limit(bindparam("limit"))
_pinned, _others = _told.where(table.c.pinned), _told.where(~table.c.pinned)


async def page(
    tx: Transaction, agent_id: str, *, limit: int, offset: int, search: str, tag: str, include_disabled: bool
) -> list[Row]:
    """Memories of one agent: highest priority first, then most used, then newest.

    `search` is a case-insensitive substring of the text, `tag` one of the tags; "" matches all.
    """
    query = _ranked.where(table.c.agent_id == agent_id).limit(limit).offset(offset)
    if search:
        query = query.where(table.c.search_text.contains(search.casefold(), autoescape=True))
    if tag:
        query = query.where(exists().where(memory_tag.c.memory_id == table.c.id, memory_tag.c.tag == tag))
    if not include_disabled:
        query = query.where(~table.c.disabled)
    return await tx.rows(query)


async def for_session(
    tx: Transaction, agent_id: str, *, pinned_limit: int, ranked_limit: int
) -> tuple[list[Row], list[Row]]:
    """What a new session of the agent is told: pinned memories, and the first of the others. Never disabled ones."""
    pinned = await tx.rows(_pinned, {"agent_id": agent_id, "limit": pinned_limit})
    return pinned, await tx.rows(_others, {"agent_id": agent_id, "limit": ranked_limit})


async def get(tx: Transaction, agent_id: str, memory_id: str) -> Row | None:
    """One memory of one agent."""
    return await tx.held(select(*_columns).where(table.c.id == memory_id, table.c.agent_id == agent_id), table)


async def count(tx: Transaction, agent_id: str) -> int:
    """How many memories the agent has, disabled ones too."""
    number: int = await tx.scalar(select(func.count()).select_from(table).where(table.c.agent_id == agent_id))
    return number


async def add(tx: Transaction, values: Mapping[str, Any]) -> Row:
    """Store a new memory; `values` has all that `get` gives. Appends `memory.created`.

    The agent must exist: check that in the same transaction.
    """
    await tx.execute(insert(table).values(_stored(values)))
    await _set_tags(tx, values["id"], values["tags"])
    await _append(tx, "memory.created", values)
    return values


async def change(tx: Transaction, agent_id: str, memory_id: str, values: Mapping[str, Any]) -> Row | None:
    """Change some columns; None when the agent has no such memory. Appends `memory.updated`."""
    row = await get(tx, agent_id, memory_id)
    if row is None:
        return None
    await tx.execute(update(table).where(table.c.id == memory_id).values(_stored(values)))
    if "tags" in values:
        await tx.execute(delete(memory_tag).where(memory_tag.c.memory_id == memory_id))
        await _set_tags(tx, memory_id, values["tags"])
    row = {**row, **values}
    await _append(tx, "memory.updated", row)
    return row


async def remove(tx: Transaction, agent_id: str, memory_id: str) -> bool:
    """Remove a memory; False when the agent has no such memory. Appends `memory.deleted`."""
    row = await get(tx, agent_id, memory_id)
    if row is None:
        return False
    await tx.execute(delete(table).where(table.c.id == memory_id))
    await _append(tx, "memory.deleted", row)
    return True


async def note_use(tx: Transaction, memory_ids: Sequence[str], at: str) -> None:
    """Count one use of each. Appends nothing: no one changed them."""
    if memory_ids:
        values = {"times_applied": table.c.times_applied + 1, "last_applied_at": at}
        # Locked in the same order by everybody.
        used = select(table.c.id).where(table.c.id.in_(memory_ids)).order_by(table.c.id).with_for_update(key_share=True)
        await tx.execute(update(table).where(table.c.id.in_(used)).values(values))


def _stored(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**values, "search_text": values["text"].casefold()} if "text" in values else dict(values)


async def _set_tags(tx: Transaction, memory_id: str, tags: Sequence[str]) -> None:
    if tags:
        await tx.execute(insert(memory_tag), [{"memory_id": memory_id, "tag": tag} for tag in tags])


async def _append(tx: Transaction, event_type: str, row: Row) -> None:
    await events.append(tx, event_type, {"memory": views.memory(row)}, agent_id=row["agent_id"])

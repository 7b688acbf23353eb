"""Queries on sessions, and `transition`: the one way to change a session (design, decision 1)."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import ColumnElement, insert, select, update

from backend.domain.sessions import ACTIVE, ENDED, READY
from backend.store import events, views
from backend.store.database import Row, Transaction
from backend.store.tables import agent
from backend.store.tables import session as table

# The kept log and the whole reply are long; only who asks for them gets them.
_columns = [column for column in table.c if column.name not in ("log_tail", "full_response")]
_rows = select(
    *_columns, agent.c.name.label("agent_name"), agent.c.harness_id, agent.c.model.label("agent_model")
).join(agent, agent.c.id == table.c.agent_id)


async def get(tx: Transaction, session_id: str) -> Row | None:
    """The row of one session with `agent_name` and `harness_id`, as all rows of this module have them."""
    return await tx.row(_rows.where(table.c.id == session_id))


async def kept_log(tx: Transaction, session_id: str) -> str | None:
    """What was kept of the log of an ended session."""
    log: str | None = await tx.scalar(select(table.c.log_tail).where(table.c.id == session_id))
    return log


async def page(
    tx: Transaction,
    *,
    limit: int,
    offset: int = 0,
    agent_id: str | None = None,
    statuses: Collection[str] | None = None,
) -> list[Row]:
    """Sessions, newest first; None is no filter."""
    query = _rows.order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit).offset(offset)
    if agent_id is not None:
        query = query.where(table.c.agent_id == agent_id)
    if statuses is not None:
        query = query.where(table.c.status.in_(statuses))
    return await tx.rows(query)


async def active(tx: Transaction, agent_id: str | None = None) -> list[Row]:
    """All sessions that hold, or are getting, a sandbox: of one agent or of all; longest in creation first."""
    query = _rows.where(table.c.status.in_(ACTIVE)).order_by(table.c.creating_since, table.c.id)
    if agent_id is not None:
        query = query.where(table.c.agent_id == agent_id)
    return await tx.rows(query)


async def ended_since(tx: Transaction, moment: str, *, limit: int) -> list[Row]:
    """Sessions that failed or died after `moment`, the last first."""
    query = _rows.where(table.c.status.in_(ENDED), table.c.stopped_at > moment)
    return await tx.rows(query.order_by(table.c.stopped_at.desc()).limit(limit))


async def recorded(tx: Transaction, agent_id: str | None = None) -> list[str]:
    """Ids of all sessions that are or were to be recorded: of one agent or of all."""
    query = select(table.c.id).where(table.c.recording)
    if agent_id is not None:
        query = query.where(table.c.agent_id == agent_id)
    return [row["id"] for row in await tx.rows(query)]


async def of_sandbox(tx: Transaction, name: str) -> Row | None:
    """The row of the session a sandbox was made for."""
    return await tx.row(_rows.where(table.c.task_arn == name))


async def add(tx: Transaction, values: Mapping[str, Any]) -> Row:
    """Store a new session; columns left out are null. Appends `session.created`.

    The agent must exist: check that in the same transaction.
    """
    await tx.execute(insert(table).values(dict(values)))
    return await _changed(tx, values["id"], "session.created")


async def transition(
    tx: Transaction,
    session_id: str,
    *,
    expected: Mapping[str, Any],
    values: Mapping[str, Any],
    event_type: str | None,
) -> Row | None:
    """Change a session if, and only if, it is still as `expected`; None when it is not, or does not exist.

    `expected` maps columns to the value they must have, or to a tuple of values any of which is fine:

        transition(tx, id, expected={"status": ("creating",), "creating_since": since}, values=..., event_type=...)

    Appends `event_type` with the session as it is afterwards; None appends nothing, for notes of mere activity such
    as `last_seen_at`.
    """
    guards = [_guard(table.c[name], wanted) for name, wanted in expected.items()]
    result = await tx.execute(update(table).where(table.c.id == session_id, *guards).values(dict(values)))
    if result.rowcount != 1:
        return None
    if event_type is None:
        return await get(tx, session_id)
    return await _changed(tx, session_id, event_type)


async def note(tx: Transaction, session_id: str, values: Mapping[str, Any]) -> None:
    """Note what is no change of a ready session worth an event, such as `last_seen_at`."""
    await tx.execute(update(table).where(table.c.id == session_id, table.c.status == READY).values(dict(values)))


async def _changed(tx: Transaction, session_id: str, event_type: str) -> Row:
    row = await get(tx, session_id)
    if row is None:  # just written in this very transaction
        raise LookupError(f"session {session_id} vanished within a transaction")
    await events.append(
        tx, event_type, {"session": views.session(row)}, agent_id=row["agent_id"], session_id=session_id
    )
    return row


def _guard(column: ColumnElement[Any], wanted: Any) -> ColumnElement[bool]:
    return column.in_(wanted) if isinstance(wanted, tuple) else column.is_not_distinct_from(wanted)

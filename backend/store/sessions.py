"""Queries on sessions, and `transition`: the one way to change a session (design, decision 1)."""

import json
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from sqlalchemy import JSON, Boolean, ColumnElement, Select, Update, bindparam, insert, select, update

from backend.domain.sessions import ACTIVE, ENDED, READY
from backend.store import events, views
from backend.store.database import Row, Transaction
from backend.store.dialects import as_stored
from backend.store.tables import agent
from backend.store.tables import session as table

TOLD: Final = 512
"""Sessions whose text is kept, for who asks again before anything has changed."""

# What is kept of a sandbox and the whole reply are long; only who asks for them gets them.
_columns = [column for column in table.c if column.name not in ("log_tail", "last_inspection", "full_response")]
_rows = select(
    *_columns, agent.c.name.label("agent_name"), agent.c.harness_id, agent.c.model.label("agent_model")
).join(agent, agent.c.id == table.c.agent_id)
_insert = insert(table)


async def get(tx: Transaction, session_id: str) -> Row | None:
    """The row of one session with `agent_name` and `harness_id`, as all rows of this module have them."""
    return await tx.held(_one(_rows), table, {"session_id": session_id})


async def hold(tx: Transaction, session_id: str) -> None:
    """Let nobody else change a session, if it exists, or what belongs to it, before the end of the transaction."""
    await tx.hold(select(table.c.id).where(table.c.id == session_id), table)


async def kept_log(tx: Transaction, session_id: str) -> str | None:
    """What was kept of the log of an ended session."""
    log: str | None = await tx.scalar(select(table.c.log_tail).where(table.c.id == session_id))
    return log


async def kept_inspection(tx: Transaction, session_id: str) -> Row | None:
    """What was known of the sandbox of an ended session when it ended: see services.last_look."""
    kept: Row | None = await tx.scalar(select(table.c.last_inspection).where(table.c.id == session_id))
    return kept


async def page(
    tx: Transaction,
    *,
    limit: int,
    offset: int = 0,
    agent_id: str | None = None,
    statuses: Collection[str] | None = None,
) -> list[Row]:
    """Sessions, newest first; None is no filter."""
    return await tx.rows(*_page(_rows, limit, offset, agent_id, statuses))


class Told(NamedTuple):
    """A session as it is shown: `text` is the JSON object that `views.session` makes of its row."""

    text: str
    id: str
    status: str
    supports_tui: bool
    tty_token: str | None
    """Encrypted."""
    truncated: bool
    """Whether its `response` is only the beginning of the whole."""


async def told(tx: Transaction, session_id: str) -> Told | None:
    """One session, to be shown."""
    found = await tx.made(_one(_stored), {"session_id": session_id}, _told)
    return found[0] if found else None


async def page_told(
    tx: Transaction,
    *,
    limit: int,
    offset: int = 0,
    agent_id: str | None = None,
    statuses: Collection[str] | None = None,
) -> list[Told]:
    """The same sessions as `page`, to be shown."""
    return await tx.made(*_page(_stored, limit, offset, agent_id, statuses), _told)


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
    await tx.execute(_insert, dict(values))
    return await _changed(tx, values["id"], "session.created")


async def transition(
    tx: Transaction,
    session_id: str,
    *,
    expected: Mapping[str, Any],
    values: Mapping[str, Any],
    event_type: str | None,
    by: str | None = None,
) -> Row | None:
    """Change a session if, and only if, it is still as `expected`; None when it is not, or does not exist.

    `expected` maps columns to the value they must have, or to a tuple of values any of which is fine:

        transition(tx, id, expected={"status": ("creating",), "creating_since": since}, values=..., event_type=...)

    Appends `event_type` with the session as it is afterwards, and `by`, who asked for it, where somebody did; None
    appends nothing, for notes of mere activity such as `last_seen_at`.
    """
    guarded = tuple((name, isinstance(wanted, tuple)) for name, wanted in expected.items())
    guards = {f"expected_{name}": wanted for name, wanted in expected.items()}
    result = await tx.execute(_guarded(guarded), {"changed": session_id, **guards, **values})
    if result.rowcount != 1:
        return None
    if event_type is None:
        return await get(tx, session_id)
    return await _changed(tx, session_id, event_type, by)


async def mended(tx: Transaction, session_id: str, did: str, by: str | None) -> None:
    """Append `session.mended`: what was put back around its sandbox, and who asked for it."""
    row = await get(tx, session_id)
    if row is not None:
        data = {"session": views.session(row), "did": did, **_who(by)}
        await events.append(tx, "session.mended", data, agent_id=row["agent_id"], session_id=session_id)


async def note(tx: Transaction, session_id: str, values: Mapping[str, Any]) -> None:
    """Note what is no change of a ready session worth an event, such as `last_seen_at`."""
    await tx.execute(_guarded((("status", False),)), {"changed": session_id, "expected_status": READY, **values})


@lru_cache
def _one(query: Select[Any]) -> Select[Any]:
    return query.where(table.c.id == bindparam("session_id"))


def _page(
    query: Select[Any], limit: int, offset: int, agent_id: str | None, statuses: Collection[str] | None
) -> tuple[Select[Any], dict[str, Any]]:
    given = {
        "limit": limit,
        "offset": offset,
        "agent_id": agent_id,
        "statuses": None if statuses is None else list(statuses),
    }
    wanted = {name: value for name, value in given.items() if value is not None}
    return _paged(query, agent_id is not None, statuses is not None), wanted


@lru_cache
def _paged(query: Select[Any], of_agent: bool, of_status: bool) -> Select[Any]:
    query = query.order_by(table.c.created_at.desc(), table.c.id.desc())
    query = query.limit(bindparam("limit")).offset(bindparam("offset"))
    if of_agent:
        query = query.where(table.c.agent_id == bindparam("agent_id"))
    if of_status:
        query = query.where(table.c.status.in_(bindparam("statuses", expanding=True)))
    return query


@lru_cache(TOLD)
def _told(stored: tuple[Any, ...]) -> Told:
    """What is kept is found by all that is in the row: it cannot be out of date."""
    row = {name: read(value) for (name, read), value in zip(_readers, stored, strict=True)}
    view = views.session(row)
    text = json.dumps(view, ensure_ascii=False, separators=(",", ":"))
    truncated = bool(row["response"] and row["response"].get("truncated"))
    return Told(text, row["id"], row["status"], view["supports_tui"], row["tty_token"], truncated)


def _reader(column: ColumnElement[Any]) -> Callable[[Any], Any]:
    """Makes the value of a column of what the database has in it."""
    if isinstance(column.type, JSON):
        return lambda value: None if value is None else json.loads(value)
    return bool if isinstance(column.type, Boolean) else lambda value: value


_readers = [(column.name, _reader(column)) for column in _rows.selected_columns]
_stored = _rows.with_only_columns(
    *(as_stored(column).label(column.name) for column in _rows.selected_columns),
    maintain_column_froms=True,
)


async def _changed(tx: Transaction, session_id: str, event_type: str, by: str | None = None) -> Row:
    row = await tx.row(_one(_rows), {"session_id": session_id})
    if row is None:  # just written in this very transaction
        raise LookupError(f"session {session_id} vanished within a transaction")
    data = {"session": views.session(row), **_who(by)}
    await events.append(tx, event_type, data, agent_id=row["agent_id"], session_id=session_id)
    return row


def _who(by: str | None) -> dict[str, str]:
    return {} if by is None else {"by": by}


@lru_cache
def _guarded(expected: tuple[tuple[str, bool], ...]) -> Update:
    """Changes the session `changed` if its columns are as the parameters `expected_<name>` say.

    Each column comes with whether its parameter is of several values.
    """
    guards = []
    for name, several in expected:
        wanted = bindparam(f"expected_{name}", type_=table.c[name].type, expanding=several)
        guards.append(table.c[name].in_(wanted) if several else table.c[name].is_not_distinct_from(wanted))
    return update(table).where(table.c.id == bindparam("changed"), *guards)

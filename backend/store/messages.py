"""Queries on the history of sessions: what was said, kept beyond the sandbox it was said in (LAP REST 3.9)."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import JSON, bindparam, case, delete, func, insert, literal_column, select, type_coerce, update

from backend.domain import messages as rules
from backend.domain import sessions
from backend.store.database import Row, Transaction
from backend.store.tables import session
from backend.store.tables import session_message as table

QUEUED: Final = "queued"
"""A user's message that waits for its session to be ready."""
SENT: Final = "sent"
"""One that was given to the agent, which has not answered yet."""
PENDING: Final = "pending"
"""An answer that is not finished."""
DONE: Final = "done"
FAILED: Final = "failed"

_order = (table.c.at_ms, table.c.seq)
_insert = insert(table).returning(table.c.seq)
_update = update(table).where(table.c.seq == bindparam("changed"))


async def add(
    tx: Transaction,
    session_id: str,
    harness_session_id: str | None,
    message: rules.Message,
    *,
    state: str,
    at_ms: int,
) -> int:
    """Store a message (`domain.messages.kept`) and return its number. The session must exist, its id be new."""
    values = _values(message) | {
        "session_id": session_id,
        "harness_session_id": harness_session_id,
        "message_id": message["info"]["id"],
        "role": message["info"]["role"],
        "state": state,
        "at_ms": at_ms,
    }
    seq: int = await tx.scalar(_insert, values)
    return seq


async def change(tx: Transaction, seq: int, *, message: rules.Message | None = None, **values: Any) -> None:
    """Change a stored message: what it says, and columns by name."""
    values |= _values(message) if message else {}
    await tx.execute(_update, {"changed": seq, **values})


async def finish(tx: Transaction, seq: int, *, message: rules.Message, state: str) -> None:
    """Take over how far an answer has come, unless it is finished already: what is told may be late."""
    query = update(table).where(table.c.seq == seq, table.c.state == PENDING)
    await tx.execute(query.values({**_values(message), "state": state}))


async def of(tx: Transaction, session_id: str, *, without_sandbox: str | None = None) -> list[Row]:
    """The history of a session, oldest first; `without_sandbox` leaves out what was said in that harness session, and
    what was not said yet.
    """
    query = select(table).where(table.c.session_id == session_id).order_by(*_order)
    if without_sandbox is not None:
        other = table.c.harness_session_id.is_distinct_from(without_sandbox)
        query = query.where(other, table.c.state != QUEUED)
    return await tx.rows(query)


async def find(tx: Transaction, session_id: str, message_id: str) -> int | None:
    """The number of a stored message."""
    query = select(table.c.seq).where(table.c.session_id == session_id, table.c.message_id == message_id)
    found: int | None = await tx.scalar(query)
    return found


async def known(tx: Transaction, session_id: str, harness_session_id: str) -> list[Row]:
    """Which messages of one harness session are stored. `parts` only of those whose id there is not known."""
    local = table.c.message_id.startswith(rules.LOCAL, autoescape=True)
    parts = case((local, table.c.parts), else_=literal_column("'[]'")).label("parts")
    return await tx.rows(
        select(table.c.seq, table.c.message_id, table.c.state, type_coerce(parts, JSON).label("parts"))
        .where(table.c.session_id == session_id, table.c.harness_session_id == harness_session_id)
        .order_by(*_order)
    )


async def answers_before(tx: Transaction, session_id: str, harness_session_id: str, seq: int) -> set[str]:
    """The ids of the answers of one harness session that were stored before message `seq`."""
    query = select(table.c.message_id).where(
        table.c.session_id == session_id,
        table.c.harness_session_id == harness_session_id,
        table.c.role == "assistant",
        table.c.seq < seq,
    )
    return {row["message_id"] for row in await tx.rows(query)}


async def open_turns(tx: Transaction, session_ids: Collection[str] | None = None) -> list[Row]:
    """Messages of ready sessions that wait to be sent or for an answer, oldest first; None is all sessions."""
    columns = (table.c.seq, table.c.session_id, table.c.at_ms, table.c.state, table.c.parts)
    query = (
        select(*columns)
        .join(session, session.c.id == table.c.session_id)
        .where(session.c.status == sessions.READY, table.c.state.in_((QUEUED, SENT)))
        .order_by(*_order)
    )
    if session_ids is not None:
        query = query.where(table.c.session_id.in_(session_ids))
    return await tx.rows(query)


async def give_up(tx: Transaction, session_id: str, harness_session_id: str | None) -> None:
    """Nobody will answer what was sent to any other harness session than this one."""
    await tx.execute(
        update(table)
        .where(
            table.c.session_id == session_id,
            table.c.state == SENT,
            table.c.harness_session_id.is_distinct_from(harness_session_id),
        )
        .values(state=FAILED)
    )


async def any_said(tx: Transaction, session_id: str, harness_session_id: str | None = None) -> bool:
    """Whether anything was said in the session, or in one harness session of it."""
    query = select(table.c.seq).where(table.c.session_id == session_id, table.c.state != QUEUED).limit(1)
    if harness_session_id is not None:
        query = query.where(table.c.harness_session_id == harness_session_id)
    return await tx.scalar(query) is not None


async def trim(tx: Transaction, session_id: str) -> None:
    """Forget the oldest messages of a session until the rest is within bounds."""
    mine = table.c.session_id == session_id
    kept_now = await tx.row(select(func.count().label("count"), func.sum(table.c.size).label("size")).where(mine))
    if kept_now and kept_now["count"] <= rules.KEPT_MESSAGES and (kept_now["size"] or 0) <= rules.KEPT_CHARACTERS:
        return
    rows = await tx.rows(select(table.c.seq, table.c.size).where(mine).order_by(*_order))
    kept = 0
    for number, row in enumerate(reversed(rows)):
        kept += row["size"]
        if number >= rules.KEPT_MESSAGES or kept > rules.KEPT_CHARACTERS:
            gone = [old["seq"] for old in rows[: len(rows) - number]]
            # In pieces: a statement takes a limited number of values.
            for start in range(0, len(gone), 500):
                await tx.execute(delete(table).where(table.c.seq.in_(gone[start : start + 500])))
            return


async def full_response(tx: Transaction, session_id: str) -> Mapping[str, Any] | None:
    """The whole latest reply, where a session's `response` is cut short."""
    found: Mapping[str, Any] | None = await tx.scalar(select(session.c.full_response).where(session.c.id == session_id))
    return found


def as_messages(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Stored rows as the messages they were."""
    return [{"info": row["info"] | {"sessionID": row["harness_session_id"]}, "parts": row["parts"]} for row in rows]


def _values(message: rules.Message) -> dict[str, Any]:
    size = len(json.dumps(message["parts"], ensure_ascii=False, separators=(",", ":")))
    return {"info": message["info"], "parts": message["parts"], "size": size}

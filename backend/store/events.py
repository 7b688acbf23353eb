"""The event log: one row for every change, written in the transaction of the change (design, decision 2)."""

import json
from collections.abc import Collection
from typing import Any, Final, NamedTuple

from sqlalchemy import delete, func, insert, select

from backend.domain import clock
from backend.store.database import Transaction
from backend.store.tables import event as table

KEEP: Final = 100_000
"""Events kept; older ones are pruned."""
PRUNE_EVERY: Final = 1_000

TYPES: Final[frozenset[str]] = frozenset(
    {
        "agent.created",
        "agent.updated",
        "agent.deleted",
        "session.created",
        "session.phase",
        "session.ready",
        "session.failed",
        "session.dead",
        "session.updated",
        "session.restarted",
        "egress.swapped",
        "egress.blocked",
        "egress.missed",
        "integration.installed",
        "integration.bound",
        "integration.unbound",
        "memory.created",
        "memory.updated",
        "memory.deleted",
        "skill.created",
        "skill.updated",
        "skill.deleted",
    }
)

_insert = insert(table).returning(table.c.seq)


class Event(NamedTuple):
    """One row of the log. `data` is the text of a JSON object with members."""

    seq: int
    at: str
    type: str
    agent_id: str | None
    session_id: str | None
    data: str

    def json(self) -> str:
        """The event as it goes over the wire: `{"seq","at","type","agent_id","session_id", ...data}`."""
        head = {
            "seq": self.seq,
            "at": self.at,
            "type": self.type,
            "agent_id": self.agent_id,
            "session_id": self.session_id,
        }
        return json.dumps(head, separators=(",", ":"))[:-1] + "," + self.data[1:]


async def append(
    tx: Transaction, event_type: str, data: dict[str, Any], *, agent_id: str | None, session_id: str | None = None
) -> int:
    """Add an event and return its sequence number. Observers of the database hear of it after the commit."""
    if event_type not in TYPES:
        raise ValueError(f"unknown event type {event_type}")
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    event = Event(0, clock.now(), event_type, agent_id, session_id, text)
    values = event._asdict()
    del values["seq"]
    seq: int = await tx.scalar(_insert, values)
    tx.events.append(event._replace(seq=seq))
    if seq % PRUNE_EVERY == 0:
        await prune(tx, keep=KEEP)
    return seq


async def prune(tx: Transaction, keep: int) -> None:
    """Delete all but the newest `keep` events."""
    await tx.execute(delete(table).where(table.c.seq <= await newest(tx) - keep))


async def newest(tx: Transaction) -> int:
    """Sequence number of the newest event, 0 when there was none yet."""
    return await tx.scalar(select(func.max(table.c.seq))) or 0


async def oldest(tx: Transaction) -> int:
    """Sequence number of the oldest event kept, 0 when there is none."""
    return await tx.scalar(select(func.min(table.c.seq))) or 0


async def read(
    tx: Transaction,
    *,
    after: int,
    limit: int,
    types: Collection[str] | None = None,
    agent_id: str | None = None,
    session_id: str | None = None,
) -> list[Event]:
    """The first `limit` events with a sequence number above `after`, oldest first."""
    query = select(table).where(table.c.seq > after).order_by(table.c.seq).limit(limit)
    if types is not None:
        query = query.where(table.c.type.in_(types))
    if agent_id is not None:
        query = query.where(table.c.agent_id == agent_id)
    if session_id is not None:
        query = query.where(table.c.session_id == session_id)
    return [Event(**row) for row in await tx.rows(query)]

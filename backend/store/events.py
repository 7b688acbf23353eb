"""The event log: one row for every change, written in the transaction of the change (design, decision 2)."""

import json
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import Connection, Text, cast, delete, func, insert, select

from backend.domain import clock
from backend.store.tables import event as table

if TYPE_CHECKING:
    from backend.store.database import Transaction

KEEP: Final = 100_000
"""Events kept; older ones are pruned."""
PRUNE_EVERY: Final = 1_000
CHANNEL: Final = "lapconsole_events"
"""Where PostgreSQL tells all processes of each event's number."""

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
        "session.mended",
        "pool.topped_up",
        "pool.flushed",
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
_newest = select(func.max(table.c.seq))
_ORDER: Final = 0x6C617065
_in_order = select(func.pg_advisory_xact_lock(_ORDER))
_insert_and_notify = insert(table).returning(table.c.seq, func.pg_notify(CHANNEL, cast(table.c.seq, Text)))


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
    tx: "Transaction", event_type: str, data: dict[str, Any], *, agent_id: str | None, session_id: str | None = None
) -> None:
    """Add an event, which gets its number at the end of the transaction. Observers hear of it after the commit."""
    if event_type not in TYPES:
        raise ValueError(f"unknown event type {event_type}")
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    tx.events.append(Event(0, clock.now(), event_type, agent_id, session_id, text))


def store(connection: Connection, appended: Sequence[Event]) -> list[Event]:
    """Write what a transaction has appended, as the last it does before its commit; the same with their numbers.

    On PostgreSQL others write at the same time. From here to the commit they wait, so that numbers are committed in
    their order: who has seen one will never find a smaller one later. Being last, nobody who holds this lock waits
    for another.
    """
    insertion = _insert
    if connection.dialect.name == "postgresql":
        connection.execute(_in_order)
        insertion = _insert_and_notify
    stored = []
    for event in appended:
        values = event._asdict()
        del values["seq"]
        seq: int = connection.execute(insertion, values).scalar_one()
        stored.append(event._replace(seq=seq))
        if seq % PRUNE_EVERY == 0:
            connection.execute(delete(table).where(table.c.seq <= seq - KEEP))
    return stored


async def prune(tx: "Transaction", keep: int) -> None:
    """Delete all but the newest `keep` events."""
    await tx.execute(delete(table).where(table.c.seq <= await newest(tx) - keep))


async def newest(tx: "Transaction") -> int:
    """Sequence number of the newest event, 0 when there was none yet."""
    return await tx.scalar(_newest) or 0


async def oldest(tx: "Transaction") -> int:
    """Sequence number of the oldest event kept, 0 when there is none."""
    return await tx.scalar(select(func.min(table.c.seq))) or 0


async def read(
    tx: "Transaction",
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

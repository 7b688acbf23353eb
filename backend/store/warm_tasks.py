"""Queries on the warm pool: sandboxes that wait for a session (LAP REST 6.1)."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from backend.domain.warm_pool import LIVE, WARM
from backend.store.database import Row, Transaction
from backend.store.tables import session
from backend.store.tables import warm_task as table


async def rows(tx: Transaction) -> list[Row]:
    """The whole pool, oldest first."""
    return await tx.rows(select(table).order_by(table.c.created_at, table.c.id))


async def names(tx: Transaction) -> set[str]:
    """The names of the sandboxes the pool needs."""
    found = await tx.rows(select(table.c.task_arn).where(table.c.status.in_(LIVE)))
    return {row["task_arn"] for row in found}


async def add(tx: Transaction, values: Mapping[str, Any]) -> None:
    """Store a new row; columns left out are null. The agent must exist: check that in the same transaction."""
    await tx.execute(insert(table).values(dict(values)))


async def change(tx: Transaction, task_id: str, *, expected: tuple[str, ...], values: Mapping[str, Any]) -> bool:
    """Change a row if its status is one of `expected`; whether it was. Without `values` it is only asked."""
    mine = (table.c.id == task_id, table.c.status.in_(expected))
    if not values:
        return await tx.row(select(table.c.id).where(*mine)) is not None
    result = await tx.execute(update(table).where(*mine).values(dict(values)))
    return result.rowcount == 1


async def claim(tx: Transaction, agent_id: str, fingerprint: str) -> Row | None:
    """Take the oldest warm sandbox of this fingerprint out of the pool; None when there is none.

    Nobody else can get it. Give it to a session in the same transaction.
    """
    oldest = (
        select(table.c.id)
        .where(table.c.agent_id == agent_id, table.c.fingerprint == fingerprint, table.c.status == WARM)
        .order_by(table.c.ready_at, table.c.created_at)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    return await tx.row(delete(table).where(table.c.id == oldest, table.c.status == WARM).returning(*table.c))


async def remove(tx: Transaction, task_id: str) -> None:
    """Forget a row."""
    await tx.execute(delete(table).where(table.c.id == task_id))


async def recent_agents(tx: Transaction, since: str, limit: int) -> list[str]:
    """Ids of the agents that had a session created after `since`, the latest first."""
    found = await tx.rows(
        select(session.c.agent_id)
        .where(session.c.created_at > since)
        .group_by(session.c.agent_id)
        .order_by(func.max(session.c.created_at).desc(), session.c.agent_id)
        .limit(limit)
    )
    return [row["agent_id"] for row in found]

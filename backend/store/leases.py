"""Leases on duties that one platform process has at a time, and what each duty did last."""

from typing import Any

from sqlalchemy import delete, insert, or_, select, update

from backend.store.database import Row, Transaction
from backend.store.tables import worker_heartbeat as heartbeats_table
from backend.store.tables import worker_lease as table


async def take(tx: Transaction, name: str, holder: str, *, now: str, until: str) -> bool:
    """Take or renew a lease; False when another holder has it and its time is not over at `now`."""
    free = or_(table.c.holder == holder, table.c.expires_at <= now)
    values = {"holder": holder, "expires_at": until}
    result = await tx.execute(update(table).where(table.c.name == name, free).values(values))
    if result.rowcount == 1:
        return True
    if await tx.row(select(table.c.name).where(table.c.name == name)) is not None:
        return False
    await tx.execute(insert(table).values(name=name, **values))
    return True


async def release(tx: Transaction, holder: str) -> None:
    """Give up all leases of a holder."""
    await tx.execute(delete(table).where(table.c.holder == holder))


async def holders(tx: Transaction, name_prefix: str, now: str) -> set[str]:
    """Who has a lease whose name begins so and whose time is not over at `now`."""
    query = select(table.c.holder).where(
        table.c.name.startswith(name_prefix, autoescape=True), table.c.expires_at > now
    )
    return {row["holder"] for row in await tx.rows(query)}


async def beat(tx: Transaction, name: str, holder: str, *, at: str, result: dict[str, Any] | None) -> None:
    """Note that a duty was done by `holder`, and with what result."""
    values = {"holder": holder, "at": at, "last_result": result}
    updated = await tx.execute(update(heartbeats_table).where(heartbeats_table.c.name == name).values(values))
    if updated.rowcount == 0:
        await tx.execute(insert(heartbeats_table).values(name=name, **values))


async def beats(tx: Transaction) -> list[Row]:
    """The last heartbeat of each duty: `name`, `holder`, `at`, `last_result`."""
    return await tx.rows(select(heartbeats_table).order_by(heartbeats_table.c.name))

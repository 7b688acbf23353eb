"""Leases on duties that one platform process has at a time, and what each duty did last."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import delete, or_, select, update

from backend.store.database import Row, Transaction
from backend.store.dialects import insert
from backend.store.tables import worker_heartbeat as heartbeats_table
from backend.store.tables import worker_lease as table

_enter = insert(table).on_conflict_do_nothing(index_elements=["name"]).returning(table.c.name)


async def take(tx: Transaction, name: str, holder: str, *, now: str, until: str) -> bool:
    """Take or renew a lease; False when another holder has it and its time is not over at `now`."""
    free = or_(table.c.holder == holder, table.c.expires_at <= now)
    values = {"holder": holder, "expires_at": until}
    query = insert(table).values(name=name, **values)
    query = query.on_conflict_do_update(index_elements=["name"], set_=values, where=free)
    return await tx.row(query.returning(table.c.name)) is not None


async def enter(tx: Transaction, name: str, holder: str, until: str) -> bool:
    """Take a lease that nobody has; False also when it was left by somebody whose time is over."""
    return await tx.row(_enter, {"name": name, "holder": holder, "expires_at": until}) is not None


async def renew(tx: Transaction, names: Collection[str], holder: str, until: str) -> set[str]:
    """Keep leases; those that are still the holder's."""
    query = update(table).where(table.c.name.in_(names), table.c.holder == holder).values(expires_at=until)
    return {row["name"] for row in await tx.rows(query.returning(table.c.name))}


async def give_back(tx: Transaction, name: str, holder: str) -> None:
    """Give up one lease, in good order: nothing tells that it was taken."""
    await tx.execute(delete(table).where(table.c.name == name, table.c.holder == holder))


async def leave(tx: Transaction, name_prefix: str, holder: str, now: str) -> None:
    """Give up the leases of a holder whose names begin so, as if their time were over."""
    mine = (table.c.holder == holder, table.c.name.startswith(name_prefix, autoescape=True))
    await tx.execute(update(table).where(*mine).values(holder="", expires_at=now))


async def left(tx: Transaction, name_prefix: str, now: str) -> set[str]:
    """The leases whose names begin so, and whose holders did not give them back in time."""
    query = select(table.c.name).where(table.c.name.startswith(name_prefix, autoescape=True), table.c.expires_at <= now)
    return {row["name"] for row in await tx.rows(query)}


async def holder_of(tx: Transaction, name: str, now: str) -> str | None:
    """Who has a lease whose time is not over."""
    query = select(table.c.holder).where(table.c.name == name, table.c.expires_at > now)
    found: str | None = await tx.scalar(query)
    return found


async def forget(tx: Transaction, before: str) -> None:
    """Delete the leases whose time was over then."""
    await tx.execute(delete(table).where(table.c.expires_at < before))


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
    query = insert(heartbeats_table).values(name=name, **values)
    await tx.execute(query.on_conflict_do_update(index_elements=["name"], set_=values))


async def beats(tx: Transaction) -> list[Row]:
    """The last heartbeat of each duty: `name`, `holder`, `at`, `last_result`."""
    return await tx.rows(select(heartbeats_table).order_by(heartbeats_table.c.name))

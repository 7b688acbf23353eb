"""Queries on skills."""

from collections.abc import Sequence

from sqlalchemy import select

from backend.store.database import Row, Transaction
from backend.store.tables import skill as table


async def newest_first(tx: Transaction) -> list[Row]:
    """All skills, newest first."""
    return await tx.rows(select(table).order_by(table.c.created_at.desc(), table.c.id.desc()))


async def by_ids(tx: Transaction, skill_ids: Sequence[str]) -> list[Row]:
    """The rows of those of `skill_ids` that exist, in the order asked."""
    rows = await tx.rows(select(table).where(table.c.id.in_(skill_ids)))
    found = {row["id"]: row for row in rows}
    return [found[skill_id] for skill_id in dict.fromkeys(skill_ids) if skill_id in found]

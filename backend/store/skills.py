"""Queries on skills and their former contents. Whatever changes a skill also appends the event that says so."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from backend.store import events, views
from backend.store.database import Row, Transaction
from backend.store.tables import skill as table
from backend.store.tables import skill_version as versions_table


async def newest_first(tx: Transaction, *, limit: int, offset: int = 0) -> list[Row]:
    """Skills, newest first."""
    return await tx.rows(
        select(table).order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit).offset(offset)
    )


async def by_ids(tx: Transaction, skill_ids: Sequence[str]) -> list[Row]:
    """The rows of those of `skill_ids` that exist, in the order asked."""
    if not skill_ids:
        return []
    rows = await tx.rows(select(table).where(table.c.id.in_(skill_ids)))
    found = {row["id"]: row for row in rows}
    return [found[skill_id] for skill_id in dict.fromkeys(skill_ids) if skill_id in found]


async def get(tx: Transaction, skill_id: str) -> Row | None:
    """One skill."""
    return await tx.held(select(table).where(table.c.id == skill_id), table)


async def count(tx: Transaction) -> int:
    """How many skills there are."""
    number: int = await tx.scalar(select(func.count()).select_from(table))
    return number


async def add(tx: Transaction, values: Mapping[str, Any]) -> Row:
    """Store a new skill. Appends `skill.created`."""
    await tx.execute(insert(table).values(dict(values)))
    await _append(tx, "skill.created", values)
    return values


async def change(tx: Transaction, skill_id: str, values: Mapping[str, Any]) -> Row | None:
    """Change some columns; None when there is no such skill. Appends `skill.updated`."""
    await tx.execute(update(table).where(table.c.id == skill_id).values(dict(values)))
    row = await get(tx, skill_id)
    if row is not None:
        await _append(tx, "skill.updated", row)
    return row


async def remove(tx: Transaction, skill_id: str) -> bool:
    """Remove a skill with its former contents; False when there is no such skill. Appends `skill.deleted`."""
    row = await get(tx, skill_id)
    if row is None:
        return False
    await tx.execute(delete(table).where(table.c.id == skill_id))
    await _append(tx, "skill.deleted", row)
    return True


async def versions(tx: Transaction, skill_id: str, *, limit: int, offset: int = 0) -> list[Row]:
    """Former contents of a skill, the last replaced one first."""
    return await tx.rows(
        select(versions_table)
        .where(versions_table.c.skill_id == skill_id)
        .order_by(versions_table.c.version_number.desc())
        .limit(limit)
        .offset(offset)
    )


async def add_version(
    tx: Transaction, skill_id: str, *, content: str, changed_by_session_id: str | None, at: str, keep: int
) -> None:
    """Keep the content that is about to be replaced, and only the newest `keep` of all."""
    mine = versions_table.c.skill_id == skill_id
    newest: int = await tx.scalar(select(func.max(versions_table.c.version_number)).where(mine)) or 0
    values = {
        "skill_id": skill_id,
        "version_number": newest + 1,
        "content": content,
        "changed_by_session_id": changed_by_session_id,
        "created_at": at,
    }
    await tx.execute(insert(versions_table).values(values))
    await tx.execute(delete(versions_table).where(mine, versions_table.c.version_number <= newest + 1 - keep))


async def _append(tx: Transaction, event_type: str, row: Row) -> None:
    await events.append(tx, event_type, {"skill": views.skill_without_content(row)}, agent_id=None)

"""Queries on the vault's part: the stubs of sandboxes, and what was seen of their traffic."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from sqlalchemy import Select, Table, delete, insert, select

from backend.store import events, views
from backend.store.database import Row, Transaction
from backend.store.tables import agent, interception, session, vault_grant, warm_task

KEPT: Final = 1_000
"""Interceptions kept of one sandbox."""


async def grant(tx: Transaction, sandbox: str) -> Row | None:
    """What was granted to a sandbox; `sealed` is encrypted."""
    return await tx.row(select(vault_grant).where(vault_grant.c.sandbox == sandbox))


async def grants(tx: Transaction, agent_id: str | None = None) -> list[Row]:
    """The grants of all sandboxes, or of those of one agent."""
    query = select(vault_grant).order_by(vault_grant.c.sandbox)
    if agent_id is not None:
        query = query.where(vault_grant.c.agent_id == agent_id)
    return await tx.rows(query)


async def add_grant(tx: Transaction, values: Mapping[str, Any]) -> None:
    """Store the grant of a new sandbox."""
    await tx.execute(insert(vault_grant).values(dict(values)))


async def remove_grants(tx: Transaction, sandboxes: Collection[str]) -> None:
    """Forget the stubs of sandboxes: they are worth nothing any more."""
    await tx.execute(delete(vault_grant).where(vault_grant.c.sandbox.in_(sandboxes)))


async def owners(tx: Transaction, sandboxes: Collection[str]) -> dict[str, tuple[str, str | None]]:
    """By sandbox: its agent, and its session if it has one. The agents stay until the end of the transaction."""
    granted = select(vault_grant.c.sandbox, vault_grant.c.agent_id).where(vault_grant.c.sandbox.in_(sandboxes))
    found: dict[str, tuple[str, str | None]] = {
        row["sandbox"]: (row["agent_id"], None) for row in await tx.rows(_of_agents(granted, vault_grant))
    }
    query = select(session.c.id, session.c.agent_id, session.c.task_arn).where(session.c.task_arn.in_(sandboxes))
    for row in await tx.rows(_of_agents(query, session)):
        found[row["task_arn"]] = (row["agent_id"], row["id"])
    return found


def _of_agents(query: Select[Any], rows: Table) -> Select[Any]:
    return query.join(agent, agent.c.id == rows.c.agent_id).with_for_update(read=True, key_share=True, of=agent)


async def add(tx: Transaction, values: Mapping[str, Any]) -> None:
    """Store something the vault has seen. Appends `egress.<kind>`."""
    number = await tx.scalar(insert(interception).values(dict(values)).returning(interception.c.id))
    view = views.interception({**values, "id": number})
    await events.append(
        tx,
        f"egress.{values['kind']}",
        {"egress": view},
        agent_id=values["agent_id"],
        session_id=values["session_id"],
    )


async def trim(tx: Transaction, sandboxes: Collection[str]) -> None:
    """Keep only the newest of what was seen of sandboxes."""
    for sandbox in sandboxes:
        oldest = (
            select(interception.c.id)
            .where(interception.c.sandbox == sandbox)
            .order_by(interception.c.id.desc())
            .limit(1)
            .offset(KEPT)
        )
        number = await tx.scalar(oldest)
        if number is not None:
            await tx.execute(delete(interception).where(interception.c.sandbox == sandbox, interception.c.id <= number))


async def seen(tx: Transaction, session_id: str, limit: int, kinds: Collection[str] | None = None) -> list[Row]:
    """The newest that was seen of a session, the oldest of it first."""
    query = select(interception).where(interception.c.session_id == session_id)
    if kinds:
        query = query.where(interception.c.kind.in_(kinds))
    rows = await tx.rows(query.order_by(interception.c.id.desc()).limit(limit))
    return rows[::-1]


async def unneeded(tx: Transaction) -> list[str]:
    """Sandboxes with a grant that belong to nobody any more."""
    used = select(session.c.task_arn).where(session.c.status.in_(("creating", "ready")))
    warm = select(warm_task.c.task_arn)
    query = select(vault_grant.c.sandbox).where(
        vault_grant.c.sandbox.not_in(used.where(session.c.task_arn.is_not(None))), vault_grant.c.sandbox.not_in(warm)
    )
    return [row["sandbox"] for row in await tx.rows(query)]

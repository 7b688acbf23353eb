"""Counts over everything, for the operator: never on the way of a user's request."""

from collections.abc import Mapping

from sqlalchemy import func, select

from backend.domain.sessions import ACTIVE
from backend.domain.warm_pool import PREFIX, WARM
from backend.store.database import Row, Transaction
from backend.store.tables import agent, session, warm_task


async def agent_count(tx: Transaction) -> int:
    """How many agents there are."""
    number: int = await tx.scalar(select(func.count()).select_from(agent))
    return number


async def session_counts(tx: Transaction) -> Mapping[str, int]:
    """Sessions by status; a status that none has is missing."""
    rows = await tx.rows(select(session.c.status, func.count().label("number")).group_by(session.c.status))
    return {row["status"]: row["number"] for row in rows}


async def active_by_agent(tx: Transaction) -> list[Row]:
    """Agents with active sessions: `agent_id`, `agent_name`, `status`, `number`, and how many of these were `warm`."""
    claimed = func.count().filter(session.c.task_arn.startswith(PREFIX, autoescape=True)).label("warm")
    return await tx.rows(
        select(
            session.c.agent_id,
            agent.c.name.label("agent_name"),
            session.c.status,
            func.count().label("number"),
            claimed,
        )
        .join(agent, agent.c.id == session.c.agent_id)
        .where(session.c.status.in_(ACTIVE))
        .group_by(session.c.agent_id, agent.c.name, session.c.status)
    )


async def warm_counts(tx: Transaction) -> Mapping[str, int]:
    """Rows of the warm pool by status; a status that none has is missing."""
    rows = await tx.rows(select(warm_task.c.status, func.count().label("number")).group_by(warm_task.c.status))
    return {row["status"]: row["number"] for row in rows}


async def warm_sandboxes(tx: Transaction) -> list[Row]:
    """The whole pool one by one, oldest first, without what is secret."""
    found = await tx.rows(
        select(
            warm_task.c.id,
            warm_task.c.agent_id,
            agent.c.name.label("agent_name"),
            warm_task.c.status,
            warm_task.c.task_arn.label("sandbox"),
            warm_task.c.failure_reason,
            warm_task.c.created_at,
            warm_task.c.ready_at,
        )
        .join(agent, agent.c.id == warm_task.c.agent_id)
        .order_by(warm_task.c.created_at, warm_task.c.id)
    )
    return [dict(row) for row in found]


async def warm_by_agent(tx: Transaction) -> list[Row]:
    """The pool: `agent_id`, `agent_name`, `status`, `number`, and for warm ones `oldest_warm_at`."""
    return await tx.rows(
        select(
            warm_task.c.agent_id,
            agent.c.name.label("agent_name"),
            warm_task.c.status,
            func.count().label("number"),
            func.min(warm_task.c.ready_at).filter(warm_task.c.status == WARM).label("oldest_warm_at"),
        )
        .join(agent, agent.c.id == warm_task.c.agent_id)
        .group_by(warm_task.c.agent_id, agent.c.name, warm_task.c.status)
    )

"""The platform in numbers, for its operator (LAP REST 7.8)."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from backend.domain import clock, sessions, warm_pool
from backend.services.warm_pool import WarmPool
from backend.settings import Settings
from backend.store import leases, stats
from backend.store.database import Database, Row

_POOL = (*warm_pool.LIVE, "claimed", warm_pool.DEAD)


async def gather(database: Database, pool: WarmPool, settings: Settings) -> dict[str, Any]:
    """The answer to `GET /api/v1/admin/stats`.

    `claimed` counts the active sessions that run in a sandbox of the pool. The cluster's facts in `runtime` are null.
    """
    async with database.read() as tx:
        by_status = await stats.session_counts(tx)
        active = await stats.active_by_agent(tx)
        warm = await stats.warm_by_agent(tx)
        agents = await stats.agent_count(tx)
        workers = await leases.beats(tx)
    pools = _pools(warm, active)
    return {
        "warm_pool": {
            "configured_size": settings.warm_pool_size,
            "max_provisioning": settings.warm_pool_max_provisioning,
            "ttl_minutes": settings.warm_pool_ttl_minutes,
            "recent_agent_hours": settings.warm_pool_recent_agent_hours,
            "counts": {status: sum(entry[status] for entry in pools) for status in _POOL},
            "by_agent": pools,
            "failing": [
                {
                    "agent_id": agent_id,
                    "failures": failure.count,
                    "reason": failure.reason,
                    "retry_at": failure.retry_at,
                }
                for agent_id, failure in pool.failures.items()
            ],
        },
        "sessions": {
            "counts": {status: by_status.get(status, 0) for status in sessions.STATUSES},
            "by_agent": _by_agent(active, dict.fromkeys(sessions.ACTIVE, 0)),
        },
        "agents": {"total": agents},
        "runtime": {
            "namespace": None,
            "harness_image": None,
            "container_port": None,
            "reconcile_interval_seconds": settings.reconcile_interval_seconds,
        },
        "workers": [dict(worker) for worker in workers],
    }


async def pooled(database: Database, settings: Settings) -> list[dict[str, Any]]:
    """Every sandbox of the warm pool, oldest first."""
    async with database.read() as tx:
        rows = await stats.warm_sandboxes(tx)
    lifetime = timedelta(minutes=settings.warm_pool_ttl_minutes)
    return [{**row, "expires_at": _later(row["ready_at"], lifetime)} for row in rows]


def _later(moment: str | None, by: timedelta) -> str | None:
    return None if moment is None else clock.text(clock.parse(moment) + by)


def _pools(warm: Iterable[Row], active: Iterable[Row]) -> list[dict[str, Any]]:
    """Each agent's part of the pool; who has most warm sandboxes comes first."""
    claimed = [{**row, "status": "claimed", "number": row["warm"]} for row in active if row["warm"]]
    entries = _by_agent([*warm, *claimed], dict.fromkeys(_POOL, 0) | {"oldest_warm_at": None})
    return sorted(entries, key=lambda entry: (-entry[warm_pool.WARM], -entry[warm_pool.PROVISIONING]))


def _by_agent(rows: Iterable[Row], empty: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry for each agent: its numbers by status."""
    entries: dict[str, dict[str, Any]] = {}
    for row in rows:
        fresh = {"agent_id": row["agent_id"], "agent_name": row["agent_name"], **empty}
        entry = entries.setdefault(row["agent_id"], fresh)
        entry[row["status"]] += row["number"]
        if row.get("oldest_warm_at"):
            entry["oldest_warm_at"] = row["oldest_warm_at"]
    return list(entries.values())

"""What a platform says of its warm pool, as typed values (LAP REST 6, 7.8)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from lapconsole.client.models import as_count, as_list, as_object, moment_of, safe_line

STATUSES = ("provisioning", "warm", "claimed", "dead")


@dataclass(frozen=True, slots=True)
class PoolAgent:
    """One agent's part of the pool: its sandboxes by status."""

    agent_id: str
    agent_name: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    oldest_warm_at: datetime | None = None

    @classmethod
    def from_json(cls, value: object) -> PoolAgent:
        """Read one entry of `by_agent`."""
        data = as_object(value)
        return cls(
            _line(data.get("agent_id")),
            _line(data.get("agent_name")) or None,
            _counts(data),
            moment_of(data.get("oldest_warm_at")),
        )


@dataclass(frozen=True, slots=True)
class PoolFailure:
    """An agent whose sandboxes kept failing, and when the next is tried."""

    agent_id: str
    failures: int = 0
    reason: str = ""
    retry_at: datetime | None = None

    @classmethod
    def from_json(cls, value: object) -> PoolFailure:
        """Read one entry of `failing`."""
        data = as_object(value)
        return cls(
            _line(data.get("agent_id")),
            as_count(data.get("failures")) or 0,
            _line(data.get("reason")),
            moment_of(data.get("retry_at")),
        )


@dataclass(frozen=True, slots=True)
class PoolStats:
    """The pool and its settings. `configured_size` 0 means that it is off; None that the platform does not tell."""

    configured_size: int | None = None
    max_provisioning: int | None = None
    ttl_minutes: int | None = None
    recent_agent_hours: int | None = None
    counts: dict[str, int] = field(default_factory=dict)
    by_agent: tuple[PoolAgent, ...] = ()
    failing: tuple[PoolFailure, ...] = ()

    @classmethod
    def from_json(cls, value: object) -> PoolStats:
        """Read `warm_pool` of the admin stats."""
        data = as_object(value)
        size, busy, minutes, hours = (
            as_count(data.get(key))
            for key in ("configured_size", "max_provisioning", "ttl_minutes", "recent_agent_hours")
        )
        return cls(
            size,
            busy,
            minutes,
            hours,
            _counts(as_object(data.get("counts"))),
            tuple(map(PoolAgent.from_json, as_list(data.get("by_agent")))),
            tuple(map(PoolFailure.from_json, as_list(data.get("failing")))),
        )


@dataclass(frozen=True, slots=True)
class PooledSandbox:
    """One sandbox of the pool; `expires_at` is when a warm one is replaced."""

    id: str
    agent_id: str = ""
    agent_name: str | None = None
    status: str = ""
    sandbox: str = ""
    failure_reason: str | None = None
    created_at: datetime | None = None
    ready_at: datetime | None = None
    expires_at: datetime | None = None

    @classmethod
    def from_json(cls, value: object) -> PooledSandbox:
        """Read one entry of the pool; `id` is "" when there is none."""
        data = as_object(value)
        return cls(
            id=_line(data.get("id")),
            agent_id=_line(data.get("agent_id")),
            agent_name=_line(data.get("agent_name")) or None,
            status=_line(data.get("status")),
            sandbox=_line(data.get("sandbox")),
            failure_reason=_line(data.get("failure_reason")) or None,
            created_at=moment_of(data.get("created_at")),
            ready_at=moment_of(data.get("ready_at")),
            expires_at=moment_of(data.get("expires_at")),
        )

    @property
    def label(self) -> str:
        """Whose it is."""
        return self.agent_name or self.agent_id[:8]


@dataclass(frozen=True, slots=True)
class Pool:
    """The whole pool; `sandboxes` is None where the platform counts them but does not list them."""

    stats: PoolStats
    sandboxes: tuple[PooledSandbox, ...] | None


def _counts(data: dict[str, object]) -> dict[str, int]:
    return {status: as_count(data.get(status)) or 0 for status in STATUSES}


def _line(value: object) -> str:
    return safe_line(value) if isinstance(value, str) else ""

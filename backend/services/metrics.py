"""Prometheus metrics (LAP REST 7.7): counters of what this process saw happen, gauges of what the database holds.

Counters follow the events of committed changes, so nothing can happen without being counted, and a rolled back change
is not. They start at zero with the process and are never filled from the database.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from backend.domain import clock, sessions, warm_pool
from backend.store import stats
from backend.store.database import Database
from backend.store.events import Event

logger = logging.getLogger(__name__)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_COUNTED: Final = frozenset(
    {"session.created", "session.restarted", "session.phase", "session.ready", "session.failed", "session.dead"}
)
_SANDBOX_PHASES: Final = frozenset({"creating_sandbox", "pod_pending", "pod_running"})
_DEATHS: Final = (
    ("creating timeout", "creating_timeout"),
    ("idle timeout", "idle_timeout"),
    ("oom killed", "oom_killed"),
    ("task disappeared", "task_disappeared"),
    ("sandbox unreachable", "sandbox_unreachable"),
)
"""How a `failure_reason` begins, and the label for it. What users end is no death to count."""

Result = Literal["success", "failed"]


class Metrics:
    """The metrics of one platform process: what it does, so that the sum over all processes counts everything once."""

    def __init__(self, database: Database, *, pool: bool) -> None:
        """`pool`: whether a session without a warm sandbox has missed one."""
        self._database = database
        self._pool = pool
        self._entered: dict[str, tuple[str, datetime]] = {}
        registry = self._registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(name, text, labels, buckets=buckets, registry=registry)

        self._spawns = counter("session_spawn", "Bring-ups that ended.", "path", "result")
        self._spawn_failures = counter("session_spawn_failure", "Bring-ups that failed.", "path", "reason")
        self._hits = counter("warm_pool_hit", "Sessions that got a warm sandbox.")
        self._misses = counter("warm_pool_miss", "Sessions that got none though there is a pool.")
        self._provisions = counter("warm_pool_provision", "Sandboxes made for the pool.", "result")
        self._failed_creating = counter("reconcile_failed_creating", "Stuck sessions that the reconciler failed.")
        self._idle_killed = counter("reconcile_idle_killed", "Idle sessions that the reconciler ended.")
        self._ghost_killed = counter("reconcile_ghost_killed", "Sessions without a sandbox that the reconciler ended.")
        self._warm_stale_killed = counter("reconcile_warm_stale_killed", "Warm sandboxes that worked no more.")
        self._oom_killed = counter("sandbox_oom_killed", "Sandboxes that ended for lack of memory.", "agent_id")
        self._deaths = counter("session_death", "Sessions that ended without being told to.", "reason")
        spawn_buckets = (0.05, 0.25, 1, 5, 10, 30, 60, 120, 300, 600)
        self._spawn_seconds = histogram(
            "session_spawn_duration_seconds", "From creation to ready.", spawn_buckets, "path"
        )
        self._phase_seconds = histogram(
            "session_phase_duration_seconds", "Time in a phase.", (0.5, 1, 5, 10, 30, 60, 120, 300), "phase"
        )
        self._provision_seconds = histogram(
            "warm_pool_provision_duration_seconds", "From nothing to a warm sandbox.", spawn_buckets
        )
        self._reconcile_seconds = histogram("reconcile_duration_seconds", "One tick.", (0.1, 0.5, 1, 2, 5, 10, 30))
        self._sessions = gauge("sessions", "Sessions in the database.", "status")
        self._agents = gauge("agents", "Agents in the database.")
        self._warm_sandboxes = gauge("warm_pool_sandboxes", "Sandboxes of the pool in the database.", "status")
        database.on_own_commit(self._committed)

    async def text(self) -> bytes:
        """Everything, in the Prometheus text format 0.0.4."""
        async with self._database.read() as tx:
            by_status = await stats.session_counts(tx)
            warm = await stats.warm_counts(tx)
            self._agents.set(await stats.agent_count(tx))
        for status in sessions.STATUSES:
            self._sessions.labels(status).set(by_status.get(status, 0))
        for status in warm_pool.STATUSES:
            self._warm_sandboxes.labels(status).set(warm.get(status, 0))
        return generate_latest(self._registry)

    def reconciled(self, seconds: float, failed_creating: int, idle_killed: int, ghost_killed: int) -> None:
        """One tick of the reconciler."""
        self._reconcile_seconds.observe(seconds)
        self._failed_creating.inc(failed_creating)
        self._idle_killed.inc(idle_killed)
        self._ghost_killed.inc(ghost_killed)

    def provisioned(self, result: Result, seconds: float) -> None:
        """One attempt to make a warm sandbox."""
        self._provisions.labels(result).inc()
        if result == "success":
            self._provision_seconds.observe(seconds)

    def warm_stale(self) -> None:
        """A warm sandbox that worked no more."""
        self._warm_stale_killed.inc()

    def _committed(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.type in _COUNTED:
                try:
                    self._count(event.type, json.loads(event.data)["session"], clock.parse(event.at))
                except Exception:  # a metric that is off must not undo what it counts
                    logger.exception("metrics: %s of session %s was not counted", event.type, event.session_id)

    def _count(self, event_type: str, session: Mapping[str, Any], at: datetime) -> None:
        path = "warm" if str(session["task_arn"]).startswith(warm_pool.PREFIX) else "cold"
        self._count_phase(session, at)
        match event_type:
            case "session.created" | "session.restarted":
                if path == "warm":
                    self._hits.inc()
                elif self._pool:
                    self._misses.inc()
            case "session.ready":
                self._spawns.labels(path, "success").inc()
                took = clock.parse(session["ready_at"]) - clock.parse(session["creating_since"])
                self._spawn_seconds.labels(path).observe(took.total_seconds())
            case "session.failed":
                self._spawns.labels(path, "failed").inc()
                self._spawn_failures.labels(path, _why_failed(session)).inc()
                self._count_death(session)
            case "session.dead":
                self._count_death(session)

    def _count_phase(self, session: Mapping[str, Any], at: datetime) -> None:
        if before := self._entered.pop(session["id"], None):
            phase, since = before
            self._phase_seconds.labels(phase).observe((at - since).total_seconds())
        if session["status"] == sessions.CREATING and session["phase"]:
            self._entered[session["id"]] = (session["phase"], at)

    def _count_death(self, session: Mapping[str, Any]) -> None:
        reason = session["failure_reason"] or ""
        label = next((label for words, label in _DEATHS if reason.startswith(words)), None)
        if label is not None:
            self._deaths.labels(label).inc()
        if label == "oom_killed":
            self._oom_killed.labels(session["agent_id"]).inc()


def _why_failed(session: Mapping[str, Any]) -> str:
    """One of the labels of LAP REST 7.7; a reason itself would make labels without end."""
    reason = session["failure_reason"] or ""
    if "the sandbox ended during" in reason:
        return "pod_failed"
    if "took longer than" in reason or reason.startswith(("creating timeout", "watchdog")):
        return "pod_timeout" if session["phase"] in _SANDBOX_PHASES else "harness_timeout"
    return "unknown"

"""Diagnosis: gathers the facts about a session and has the rules read them; keeps each session's issues up to date."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from backend.domain import clock, diagnosis, sessions
from backend.domain.diagnosis import Finding
from backend.domain.env_vars import MASK, masked
from backend.sandboxes.contract import Inspection, SandboxDriver
from backend.services.errors import session_not_found
from backend.services.harness_client import HarnessClient, HarnessUnreachable
from backend.services.leases import Leases
from backend.services.sessions import SessionsService
from backend.services.vault import VaultService
from backend.settings import Settings
from backend.store import agents as agent_store
from backend.store import sessions as session_store
from backend.store import stats
from backend.store.database import Database, Row

logger = logging.getLogger(__name__)

PROBE_SECONDS: Final = 2.0
PART_SECONDS: Final = 15.0
LOG_LINES: Final = 200
TICK_SECONDS: Final = 5.0
RECENT: Final = timedelta(hours=24)
"""How long after its end a session is part of the fleet's diagnosis."""
JUST_NOW: Final = timedelta(minutes=1)
"""How long after its end a session is still looked at in each round: then nothing about it changes any more."""
RECENT_LIMIT: Final = 200
AT_ONCE: Final = 8
SHOWN: Final = (diagnosis.HIGH, diagnosis.MEDIUM)
"""Findings of these severities are kept with the session."""

T = TypeVar("T")


class Diagnosis:
    """Answers why a session is as it is, and notes with each session what is wrong with it."""

    def __init__(
        self,
        database: Database,
        driver: SandboxDriver,
        harness: HarnessClient,
        sessions_service: SessionsService,
        leases: Leases,
        vault: VaultService | None,
        settings: Settings,
    ) -> None:
        self._vault = vault
        self._database = database
        self._driver = driver
        self._harness = harness
        self._sessions = sessions_service
        self._leases = leases
        self._settings = settings
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._ended = RECENT  # at first also those that ended while no platform ran
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Keep the issues of all sessions up to date from now on."""
        self._task = asyncio.create_task(self._watch(), name="diagnosis")

    async def aclose(self) -> None:
        """End that."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def of_session(self, session_id: str) -> dict[str, Any]:
        """The answer of diagnose for one session (seed 000, LAP REST 5.1), with `hints`, `harness` and `vault` added.

        A part that cannot be had in time says why in its `error`. Raises NotFound.
        """
        async with self._database.read() as tx:
            row = await session_store.get(tx, session_id)
            if row is None:
                raise session_not_found(session_id)
            agent = await agent_store.get(tx, row["agent_id"])
            kept = await session_store.kept_log(tx, session_id)
            pool = await stats.warm_by_agent(tx)
            claimed = await stats.active_by_agent(tx)
        inspection, log, (probe, harness) = await asyncio.gather(
            self._inspect(row), self._log(row, kept), self._probe(row)
        )
        report = self._report(row, inspection, probe, harness)
        report |= {
            "agent": _agent_row(agent),
            "pod_logs_tail": log,
            "image_cache": {"daemonset_exists": False, "notes": "this platform's sandboxes need no image"},
            "warm_pool": _pool(row["agent_id"], pool, claimed),
            "warm_pool_size": self._settings.warm_pool_size,
        }
        found, hints = diagnosis.detected_issues(report), diagnosis.hints(report)
        del report["warm_pool_size"]
        notes = {"platform_logs": f"lines with {session_id} in the platform's log"}
        return {**report, "detected_issues": found, "hints": hints, "notes": notes}

    async def fleet(self) -> dict[str, Any]:
        """All active sessions, and those that ended lately with a reason, with what is wrong with each.

        {"data": [{"session_id", "agent_id", "agent_name", "status", "phase", "detected_issues", "hints"}],
        "counts": {code: sessions}, "checked_at", "elapsed_ms"}; who has something wrong comes first.
        """
        started = time.perf_counter()
        rows = await self._fleet_rows()
        entries = [
            {
                "session_id": row["id"],
                "agent_id": row["agent_id"],
                "agent_name": row["agent_name"],
                "status": row["status"],
                "phase": row["phase"],
                "detected_issues": found,
                "hints": hints,
            }
            for row, (found, hints) in zip(rows, await asyncio.gather(*map(self._quick, rows)), strict=True)
        ]
        entries.sort(key=lambda entry: min((_weight(each) for each in _findings(entry)), default=9))
        counts: dict[str, int] = {}
        for entry in entries:
            for code in {finding["code"] for finding in _findings(entry)}:
                counts[code] = counts.get(code, 0) + 1
        elapsed = round((time.perf_counter() - started) * 1000)
        return {"data": entries, "counts": counts, "checked_at": clock.now(), "elapsed_ms": elapsed}

    async def tick(self) -> None:
        """Note with each session what is wrong with it now; one that cannot be told keeps what it has."""
        rows = await self._fleet_rows(self._ended)
        await asyncio.gather(*(self._note(row) for row in rows if row["owner"] in (None, self._leases.holder)))
        self._ended = JUST_NOW

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self.tick()
            except Exception:
                logger.exception("diagnosis: the round failed")

    async def _note(self, row: Row) -> None:
        try:
            found, hints = await self._quick(row)
            issues = [_without_evidence(each) for each in (*found, *hints) if each["severity"] in SHOWN]
            if _codes(issues) == _codes(row["issues"]):
                return
            async with self._database.begin() as tx:
                expected = {"status": row["status"], "creating_since": row["creating_since"]}
                await session_store.transition(
                    tx, row["id"], expected=expected, values={"issues": issues}, event_type="session.updated"
                )
        except Exception:
            logger.exception("diagnosis: session %s", row["id"])

    async def _fleet_rows(self, ended: timedelta = RECENT) -> list[Row]:
        """All active sessions, and those that ended within that time."""
        since = clock.text(datetime.now(UTC) - ended)
        async with self._database.read() as tx:
            active = await session_store.active(tx)
            return [*active, *await session_store.ended_since(tx, since, limit=RECENT_LIMIT)]

    async def _quick(self, row: Row) -> tuple[list[Finding], list[Finding]]:
        """The findings from what is at hand: no log, and no call into the sandbox while the session is well."""
        async with self._slots:
            inspection = await self._inspect(row)
            lost = self._sessions.unreachable(row["id"])
            probe: dict[str, Any] | None = {"reachable": False, "error": lost} if lost else None
            harness: dict[str, Any] | None = None
            slow = clock.seconds_since(row["creating_since"]) > diagnosis.SUSPECT_SECONDS
            if row["status"] == sessions.CREATING and slow:
                probe, harness = await self._probe(row)
        report = self._report(row, inspection, probe, harness)
        return diagnosis.detected_issues(report), diagnosis.hints(report)

    def _report(
        self, row: Row, inspection: Inspection, probe: dict[str, Any] | None, harness: dict[str, Any] | None
    ) -> dict[str, Any]:
        return {
            "session": _session_row(row),
            "agent": None,
            "pod": inspection.pod,
            "sandbox_cr": inspection.sandbox_cr,
            "service": inspection.service,
            "pod_logs_tail": {"available": False, "error": "not read"},
            "node": inspection.node,
            "image_cache": {},
            "warm_pool": {},
            "harness_probe": probe,
            "events": list(inspection.events),
            "harness": harness,
            "vault": self._vault_state(row),
        }

    def _vault_state(self, row: Row) -> dict[str, Any] | None:
        """{"ready", "reason"} for a session that needs the vault."""
        if self._vault is None or row["status"] in sessions.ENDED:
            return None
        status = self._vault.status
        return {"ready": status.state == "on", "reason": status.reason}

    async def _inspect(self, row: Row) -> Inspection:
        if row["task_arn"] is None or row["status"] in sessions.ENDED:
            nothing = {"exists": False}
            return Inspection(nothing, nothing, nothing, nothing)
        found, error = await _in_time(self._driver.inspect(row["task_arn"]), PART_SECONDS)
        if found is None:
            failed = {"exists": False, "error": error}
            return Inspection(failed, failed, failed, failed)
        return found

    async def _log(self, row: Row, kept: str | None) -> dict[str, Any]:
        if row["task_arn"] is None or row["status"] in sessions.ENDED:
            text, error = kept, "nothing was kept of its log"
        else:
            text, error = await _in_time(self._driver.logs(row["task_arn"], LOG_LINES), PART_SECONDS)
        if not text:
            return {"available": False, "error": error or "the log is empty"}
        return {"available": True, "text": "\n".join(text.splitlines()[-LOG_LINES:])}

    async def _probe(self, row: Row) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """`harness_probe`, and what the harness says of itself; None where there is nobody to ask."""
        url, token = row["sandbox_url"], self._sessions.harness_token(row)
        if url is None or token is None or row["status"] in sessions.ENDED:
            return None, None
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                state = await self._harness.state(url, token)
        except HarnessUnreachable as error:
            return {"reachable": False, "error": str(error)}, None
        except TimeoutError:
            return {"reachable": False, "error": f"no answer within {PROBE_SECONDS:g} s"}, None
        told = {"setup": state.setup, "failure": state.failure, "agent": state.agent}
        return {"reachable": True, "status": 200}, told


async def _in_time(work: Awaitable[T], seconds: float) -> tuple[T | None, str]:
    """The result of `work`, or None and why there is none."""
    try:
        async with asyncio.timeout(seconds):
            return await work, ""
    except TimeoutError:
        return None, f"no answer within {seconds:g} s"
    except Exception as error:  # whatever broke, the other parts still help
        logger.warning("diagnosis: %r", error)
        return None, f"{type(error).__name__}: {error}"[:300]


def _session_row(row: Row) -> dict[str, Any]:
    """The row as seed 000 wants it, without secrets; `creating_ms` counts from the last start."""
    shown = {name: value for name, value in row.items() if name not in ("id", "tty_token", "agent_model")}
    shown["tty_token"] = MASK if row["tty_token"] else None
    return {
        "session_id": row["id"],
        **shown,
        "age_ms": _milliseconds(row["created_at"]),
        "creating_ms": _milliseconds(row["creating_since"]),
    }


def _agent_row(row: Row | None) -> dict[str, Any] | None:
    if row is None:
        return None
    left_out = ("id", "env_vars", "sandbox_contents", "search_text")
    shown = {name: value for name, value in row.items() if name not in left_out}
    files = [{name: value for name, value in file.items() if name != "content"} for file in row["sandbox_files"]]
    return {"agent_id": row["id"], **shown, "sandbox_files": files, "env_vars": masked(row["env_vars"])}


def _pool(agent_id: str, warm: list[Row], active: list[Row]) -> dict[str, int]:
    counts = {"provisioning": 0, "warm": 0, "claimed": 0, "dead": 0}
    for row in warm:
        if row["agent_id"] == agent_id:
            counts[row["status"]] += row["number"]
    counts["claimed"] += sum(row["warm"] or 0 for row in active if row["agent_id"] == agent_id)
    return counts


def _milliseconds(since: str | None) -> int | None:
    return None if since is None else round(clock.seconds_since(since) * 1000)


def _findings(entry: Mapping[str, Any]) -> list[Finding]:
    return [*entry["detected_issues"], *entry["hints"]]


def _weight(finding: Finding) -> int:
    return (diagnosis.HIGH, diagnosis.MEDIUM, diagnosis.INFO).index(finding["severity"])


def _without_evidence(finding: Finding) -> dict[str, Any]:
    return {name: value for name, value in finding.items() if name != "evidence"}


def _codes(issues: list[Any]) -> set[str]:
    return {issue["code"] for issue in issues}

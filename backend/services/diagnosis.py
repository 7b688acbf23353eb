"""Diagnosis: gathers the facts about a session and has the rules read them; keeps each session's issues up to date."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from backend.domain import clock, diagnosis, sessions
from backend.domain.diagnosis import Finding
from backend.domain.env_vars import MASK, masked
from backend.sandboxes.contract import Inspection, SandboxDriver
from backend.services.errors import session_not_found
from backend.services.harness_client import HarnessClient, HarnessUnreachable
from backend.services.last_look import KEPT_LOG_LINES, in_time, log_part
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
LOG_SECONDS: Final = 2.0
PART_SECONDS: Final = 15.0
TICK_SECONDS: Final = 5.0
RECENT: Final = timedelta(hours=24)
"""How long after its end a session is part of the fleet's diagnosis."""
RECENT_LIMIT: Final = 200
AT_ONCE: Final = 32
"""Sessions that are looked at together: most of them need not wait for anything."""
PROBED: Final = frozenset({"stale_node_host_cache_suspect", "harness_unreachable"})
"""Issues that only who asks the harness can tell: the process that runs the session, in each of its rounds."""
NO_LOG: Final = "pod not found (or container has not started writing logs yet)"

Probe = tuple[dict[str, Any] | None, dict[str, Any] | None]
"""`harness_probe`, and what the harness says of itself; None where there is nobody to ask."""


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
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Keep the issues of the sessions that this process runs up to date from now on."""
        self._task = asyncio.create_task(self._watch(), name="diagnosis")

    async def aclose(self) -> None:
        """End that."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def of_session(self, session_id: str) -> dict[str, Any]:
        """The answer of diagnose for one session (seed 000, LAP REST 5.1), with more said after `harness_probe`.

        A part that cannot be had in time says why in its `error`. What was known of the sandbox of a session that has
        ended is in `last_inspection`; its issues and hints follow from that. Raises NotFound.
        """
        async with self._database.read() as tx:
            row = await session_store.get(tx, session_id)
            if row is None:
                raise session_not_found(session_id)
            agent = await agent_store.get(tx, row["agent_id"])
            ended = row["status"] in sessions.ENDED
            kept_log = await session_store.kept_log(tx, session_id) if ended else None
            kept = await session_store.kept_inspection(tx, session_id) if ended else None
            pool = await stats.warm_by_agent(tx)
            claimed = await stats.active_by_agent(tx)
        inspection, log, (probe, harness), (cache, cache_error) = await asyncio.gather(
            self._inspect(row),
            self._log(row, kept_log),
            self._probe(row),
            in_time(self._driver.image_cache(), LOG_SECONDS),
        )
        report = self._report(row, inspection, probe, harness)
        report |= {
            "agent": _agent_row(agent),
            "pod_logs_tail": log,
            "image_cache": {"daemonset_exists": False, "error": cache_error} if cache is None else dict(cache),
            "warm_pool": _pool(row["agent_id"], pool, claimed),
            "last_inspection": kept,
        }
        facts = {**report, **(kept or {}), "warm_pool_size": self._settings.warm_pool_size}
        found, hints = diagnosis.detected_issues(facts), diagnosis.hints(facts)
        notes = {"platform_logs": f"lines with {session_id} in the platform's log"}
        return {**report, "detected_issues": found, "hints": hints, "notes": notes}

    async def fleet(self) -> dict[str, Any]:
        """All active sessions, and those that ended lately with a reason, with what is wrong with each.

        {"data": [{"session_id", "agent_id", "agent_name", "status", "phase", "detected_issues", "hints"}],
        "counts": {code: sessions}, "checked_at", "elapsed_ms"}; who has something wrong comes first.

        From what is at hand: no sandbox is asked. What asking tells is as last noted with the session.
        """
        started = time.perf_counter()
        since = clock.text(datetime.now(UTC) - RECENT)
        async with self._database.read() as tx:
            active = await session_store.active(tx)
            ended = await session_store.ended_since(tx, since, limit=RECENT_LIMIT)
        entries = [_entry(row, *_noted(row)) for row in ended]

        async def examine(row: Row) -> None:
            found, hints, _ = await self._look(row, (None, None))
            entries.append(_entry(row, _with_noted(found, row), hints))

        await _each(active, examine)
        entries.sort(key=lambda entry: min((_weight(each) for each in _findings(entry)), default=9))
        counts: dict[str, int] = {}
        for entry in entries:
            for code in {finding["code"] for finding in _findings(entry)}:
                counts[code] = counts.get(code, 0) + 1
        elapsed = round((time.perf_counter() - started) * 1000)
        return {"data": entries, "counts": counts, "checked_at": clock.now(), "elapsed_ms": elapsed}

    async def nodes(self) -> dict[str, Any]:
        """The machines sandboxes run on, and what keeps the platform from seeing them.

        {"data": [`node` with "sandbox_count" and "sandboxes": [{"name", "session_id", "agent_id", "agent_name",
        "status"}]], "problems": [text]}; a sandbox that no session has, such as a warm one, has only its name.
        """
        async with self._database.read() as tx:
            of = {row["task_arn"]: row for row in await session_store.active(tx)}
        nodes, error = await in_time(self._driver.nodes(), PART_SECONDS)
        problems = [*self._driver.problems(), *([f"the nodes cannot be told: {error}"] if error else [])]
        data = []
        for node in nodes or ():
            sandboxes = [_sandbox(name, of.get(name)) for name in node["sandboxes"]]
            data.append({**node, "sandbox_count": len(sandboxes), "sandboxes": sandboxes})
        return {"data": data, "problems": problems}

    async def tick(self) -> None:
        """Note with each session that this process runs what is wrong with it now.

        One of whose sandbox nothing can be known at present keeps what it has. What has ended was noted at its end.
        """
        async with self._database.read() as tx:
            rows = await session_store.active(tx)
        await _each([row for row in rows if row["owner"] == self._leases.holder], self._note)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self.tick()
            except Exception:
                logger.exception("diagnosis: the round failed")

    async def _note(self, row: Row) -> None:
        try:
            found, hints, known = await self._look(row, await self._quick_probe(row))
            issues = diagnosis.to_keep([*found, *hints])
            if not known:
                issues += [issue for issue in row["issues"] if issue["code"] not in _codes(issues)]
            if _codes(issues) == _codes(row["issues"]):
                return
            async with self._database.begin() as tx:
                # Another process, or the end of the session, may have come first.
                expected = {name: row[name] for name in ("status", "creating_since", "owner")}
                await session_store.transition(
                    tx, row["id"], expected=expected, values={"issues": issues}, event_type="session.updated"
                )
        except Exception:
            logger.exception("diagnosis: session %s", row["id"])

    async def _quick_probe(self, row: Row) -> Probe:
        """Asks only the harness of a session that is long in coming; that of a ready one is watched."""
        if lost := self._sessions.unreachable(row["id"]):
            return {"reachable": False, "error": lost}, None
        slow = clock.seconds_since(row["creating_since"]) > diagnosis.SUSPECT_SECONDS
        if row["status"] != sessions.CREATING or not slow:
            return None, None
        return await self._probe(row)

    async def _look(self, row: Row, probe: Probe) -> tuple[list[Finding], list[Finding], bool]:
        """Issues and hints from what is at hand, and whether anything could be known of the sandbox."""
        inspection = await self._inspect(row)
        report = self._report(row, inspection, *probe)
        return diagnosis.detected_issues(report), diagnosis.hints(report), "error" not in inspection.pod

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
            "problems": list(self._driver.problems()),
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
        found, error = await in_time(self._driver.inspect(row["task_arn"]), PART_SECONDS)
        if found is None:
            failed = {"exists": False, "error": error}
            return Inspection(failed, failed, failed, failed)
        return found

    async def _log(self, row: Row, kept: str | None) -> dict[str, Any]:
        if row["task_arn"] is None or row["status"] in sessions.ENDED:
            return log_part(kept, "nothing was kept of its log")
        text, error = await in_time(self._driver.logs(row["task_arn"], KEPT_LOG_LINES), LOG_SECONDS)
        return log_part(text, error or NO_LOG)

    async def _probe(self, row: Row) -> Probe:
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


async def _each(rows: Sequence[Row], work: Callable[[Row], Awaitable[None]]) -> None:
    """Do it for all rows, AT_ONCE at a time; whoever else waits for the loop gets a turn after each few."""
    waiting = iter(rows)

    async def some() -> None:
        for row in waiting:
            await work(row)
            await asyncio.sleep(0)

    await asyncio.gather(*(some() for _ in range(min(AT_ONCE, len(rows)))))


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


def _entry(row: Row, found: list[Finding], hints: list[Finding]) -> dict[str, Any]:
    return {
        "session_id": row["id"],
        "agent_id": row["agent_id"],
        "agent_name": row["agent_name"],
        "status": row["status"],
        "phase": row["phase"],
        "detected_issues": found,
        "hints": hints,
    }


def _noted(row: Row) -> tuple[list[Finding], list[Finding]]:
    """What was noted with the session: issues and hints."""
    issues = [each for each in row["issues"] if each["code"] in diagnosis.CODES]
    return issues, [each for each in row["issues"] if each not in issues]


def _with_noted(found: list[Finding], row: Row) -> list[Finding]:
    """Issues of an active session, in their order, with those that only asking its harness tells."""
    both = [*found, *(each for each in row["issues"] if each["code"] in PROBED)]
    return sorted(both, key=lambda finding: diagnosis.CODES.index(finding["code"]))


def _sandbox(name: str, row: Row | None) -> dict[str, Any]:
    own = {key: row[key] for key in ("agent_id", "agent_name", "status")} if row else {}
    return {"name": name, "session_id": row["id"] if row else None, **own}


def _findings(entry: Mapping[str, Any]) -> list[Finding]:
    return [*entry["detected_issues"], *entry["hints"]]


def _weight(finding: Finding) -> int:
    return (diagnosis.HIGH, diagnosis.MEDIUM, diagnosis.INFO).index(finding["severity"])


def _codes(issues: list[Any]) -> set[str]:
    return {issue["code"] for issue in issues}

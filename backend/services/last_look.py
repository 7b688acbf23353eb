"""The last look at a sandbox before it goes: what tells later why its session ended."""

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from dataclasses import asdict
from typing import Any, Final, TypeVar

from backend.domain import clock, diagnosis
from backend.sandboxes.contract import Inspection, SandboxDriver

logger = logging.getLogger(__name__)

KEPT_LOG_LINES: Final = 200
KEPT_LOG_CHARACTERS: Final = 64_000
KEPT_EVENTS: Final = 20
LOOK_SECONDS: Final = 5.0
UNREAD: Final = "(the log cannot be read: "
"""How the log begins that a driver tells when it cannot have it."""

T = TypeVar("T")


async def last_look(driver: SandboxDriver, name: str, end: Mapping[str, Any]) -> dict[str, Any]:
    """What the row of a session is to keep besides `end`, its new `status` and `failure_reason`.

    {"log_tail", "last_inspection", "issues"}: the end of the sandbox's log; {"at", "pod", "sandbox_cr", "service",
    "node", "events"}, null where there is nothing to explain or it could not be had; and what follows from all this.
    """
    log = (await driver.logs(name, KEPT_LOG_LINES))[-KEPT_LOG_CHARACTERS:]
    if diagnosis.ended_as_wanted(end):
        return {"log_tail": log or None, "last_inspection": None, "issues": []}
    found, _ = await in_time(driver.inspect(name), LOOK_SECONDS)
    kept = None if found is None else _kept(found)
    report = {**(kept or {}), "session": end, "pod_logs_tail": log_part(log)}
    findings = [*diagnosis.detected_issues(report), *diagnosis.hints(report)]
    return {"log_tail": log or None, "last_inspection": kept, "issues": diagnosis.to_keep(findings)}


def log_part(log: str | None, why_none: str = "the log is empty") -> dict[str, Any]:
    """A log as the part `pod_logs_tail` of the diagnose answer."""
    if log and log.startswith(UNREAD):
        return {"available": False, "error": log.removeprefix(UNREAD).rstrip(")\n")}
    if not log:
        return {"available": False, "error": why_none}
    return {"available": True, "text": "\n".join(log.splitlines()[-KEPT_LOG_LINES:])}


async def in_time(work: Awaitable[T], seconds: float) -> tuple[T | None, str]:
    """The result of `work`, or None and why there is none."""
    try:
        async with asyncio.timeout(seconds):
            return await work, ""
    except TimeoutError:
        return None, f"no answer within {seconds:g} s"
    except Exception as error:  # whatever broke, the other parts still help
        logger.warning("diagnosis: %r", error)
        return None, f"{type(error).__name__}: {error}"[:300]


def _kept(inspection: Inspection) -> dict[str, Any]:
    parts = asdict(inspection)
    parts["sandbox_cr"].pop("raw_status", None)
    return {"at": clock.now(), **parts, "events": list(parts["events"])[-KEPT_EVENTS:]}

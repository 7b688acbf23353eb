"""From an agent's name to a session that is ready, told step by step as it happens (LAP harness 3.2, 3.3)."""

from __future__ import annotations

import asyncio
import re
import sys
import time

from lapconsole.cli.report import Failure, complain, say
from lapconsole.client.errors import ClientError, PlatformError, Unreachable
from lapconsole.client.models import Agent, Issue, Session, safe_line
from lapconsole.client.platform import PAGE, Platform

READY_SECONDS = 90.0
POLL_SECONDS = 1.5
# A sandbox on this machine is up in a fraction of a second: look often at first.
_EAGER_SECONDS, _EAGER_POLL_SECONDS = 3.0, 0.15
_FAILED_POLLS = 3
_NAMES_SHOWN = 8
_DIAGNOSE_SECONDS = 20.0
_ID = re.compile(r"[0-9a-fA-F-]{36}")

_BLOCK = ("status", "phase", "phase_detail", "failure_reason", "sandbox_url", "created_at", "last_seen_at")
_BODY_SHOWN = 120
_FINDINGS_SHOWN = 20


def is_id(text: str) -> bool:
    """Tell whether the text has the form of an agent's or session's id."""
    return _ID.fullmatch(text) is not None


async def find_agent(platform: Platform, name: str) -> Agent:
    """Return the agent of exactly this name, from all pages; raises Failure."""
    say(f"→ resolving agent '{safe_line(name)}'…")
    try:
        agent = await _named(platform, name)
        if agent is None:
            raise Failure(f"no agent named '{safe_line(name)}'.{await _available(platform)}")
    except ClientError as error:
        raise Failure(f"agent lookup failed: {cause(error)}") from None
    say(f"✓ agent {agent.name} ({agent.id[:8]}, harness={agent.harness_id})")
    return agent


async def create(platform: Platform, agent_id: str) -> Session:
    """Create a session of the agent; raises Failure."""
    say(f"→ POST .../agents/{agent_id[:8]}…/session")
    try:
        session = await platform.create_session(agent_id, {"title": "lap-cli"})
    except ClientError as error:
        raise Failure(f"session create failed: {cause(error)}") from None
    say(f"✓ session {session.id[:8]}")
    return session


async def wait_ready(platform: Platform, session_id: str, seconds: float = READY_SECONDS) -> Session:
    """Return the session once it is ready, telling each phase; raises Failure with all that is known of it."""
    progress = _Progress()
    try:
        session = await _settled(platform, session_id, seconds, progress)
    except asyncio.CancelledError:
        progress.end()
        complain(f"the session goes on coming up: `lap --resume {session_id}` returns to it")
        raise
    if session is not None and session.status == "ready":
        progress.end(" ready")
        return session
    progress.end()
    ended = session is not None and session.ended
    lines = [session.status if session and ended else f"session did not reach ready in {seconds:.0f}s"]
    lines += _block(session, session_id)
    lines += await findings(platform, session_id)
    lines.append("please share this block when reporting the issue.")
    if not ended:
        lines.append(f"it may still come up: `lap --resume {session_id}` goes on waiting")
    raise Failure("\n".join(lines))


async def findings(platform: Platform, session_id: str) -> list[str]:
    """Ask the platform once what is wrong with a session; [] where it cannot tell."""
    try:
        async with asyncio.timeout(_DIAGNOSE_SECONDS):
            diagnosis = await platform.diagnose(session_id)
    except (ClientError, TimeoutError):
        return []
    lines = [f"  {line}" for issue in diagnosis.findings[:_FINDINGS_SHOWN] for line in finding_lines(issue)]
    return ["detected issues:", *lines] if lines else []


def finding_lines(issue: Issue) -> list[str]:
    """A finding with its cure and what shows it, as lines; platforms may give hints without a code."""
    if not issue.code:
        return [f"hint: {issue.message}"]
    severity = f" ({issue.severity})" if issue.severity else ""
    lines = [f"{issue.code}{severity}: {issue.message}"]
    if issue.recommended_action:
        lines.append(f"  → {issue.recommended_action}")
    return [*lines, *(f"  > {line}" for line in issue.evidence)]


def cause(error: ClientError) -> str:
    """Return why a call failed, with what to do where that is known."""
    if isinstance(error, PlatformError):
        if error.key_refused:
            return f"{error.status_line}\n  the master key is wrong or expired: run `lap login` and enter the right one"
        said = "" if error.message == error.status_line else f": {error.message}"
        return f"{error.status_line}{said}"
    if isinstance(error, Unreachable):
        return f"{error}\n  is the platform running? `lap config` shows which one is meant"
    return str(error)


async def _named(platform: Platform, name: str) -> Agent | None:
    # A platform that ignores `search` gives all its agents, and each page is looked through.
    offset = 0
    while True:
        page = await platform.agents(limit=PAGE, offset=offset, search=name)
        for agent in page.rows:
            if agent.name == name:
                return agent
        offset += len(page.rows)
        if not page.rows or offset >= page.total:
            return None


async def _available(platform: Platform) -> str:
    page = await platform.agents(limit=PAGE)
    names = [agent.label for agent in page.rows[:_NAMES_SHOWN]]
    if not names:
        return "\n  the platform has no agents yet: create one in `lapconsole`"
    more = max(page.total, len(page.rows)) - len(names)
    return f"\n  available: {', '.join(names)}{f' … (+{more} more)' if more else ''}"


async def _settled(platform: Platform, session_id: str, seconds: float, progress: _Progress) -> Session | None:
    """Follow the session until it is ready or has ended; the last reading of it when time is up."""
    started = time.monotonic()
    session, failures = None, 0
    while (waited := time.monotonic() - started) < seconds:
        try:
            session = await platform.session(session_id)
        except ClientError as error:
            failures += 1
            if isinstance(error, PlatformError) and error.key_refused:
                progress.end()
                raise Failure(f"session poll: {error.status_line} (master key invalid?)") from None
            if failures == _FAILED_POLLS:
                progress.end()
                raise Failure(_poll_failure(error)) from None
            progress.mark("?")
            await asyncio.sleep(POLL_SECONDS)
            continue
        if session.status == "ready" or session.ended:
            return session
        failures = 0
        progress.phase(session.phase or session.status)
        await asyncio.sleep(_EAGER_POLL_SECONDS if waited < _EAGER_SECONDS else POLL_SECONDS)
    return session


def _poll_failure(error: ClientError) -> str:
    if isinstance(error, PlatformError):
        return f"session poll: {error.status_line} {error.message[:_BODY_SHOWN]}"
    return f"session poll failed: {error}"


def _block(session: Session | None, session_id: str) -> list[str]:
    """Return what a report of the failure needs, one line a field that has a value."""
    fields = {"session_id": session_id} | {name: getattr(session, name, None) for name in _BLOCK}
    return [f"  {name:<15}{value}" for name, value in fields.items() if value]


class _Progress:
    """One line that grows: the phases gone through, a dot a look in between."""

    def __init__(self) -> None:
        self._last: str | None = None
        self._marked = time.monotonic()
        self._open = True
        self._write("  waiting for sandbox ")

    def phase(self, phase: str) -> None:
        if phase != self._last:
            self._write(phase if self._last is None else f" → {phase}")
            self._last = phase
        elif time.monotonic() - self._marked >= POLL_SECONDS:
            self.mark(".")

    def mark(self, mark: str) -> None:
        self._marked = time.monotonic()
        self._write(mark)

    def end(self, text: str = "") -> None:
        if self._open:
            self._write(f"{text}\n")
        self._open = False

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

"""Sessions from the shell: list, stop, logs, transcript, diagnosis, and one message from a script."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from datetime import UTC, datetime
from typing import Any, NoReturn

from lapconsole.cli import bringup
from lapconsole.cli.account import Account
from lapconsole.cli.report import Failure, complain, duration, say
from lapconsole.client.chat import ASSISTANT, TEXT, TOOL, ChatMessage, transcript
from lapconsole.client.errors import ClientError, PlatformError, Unreachable
from lapconsole.client.fixes import CAN_BE_DONE, command_of, fixes_of
from lapconsole.client.models import Diagnosis, Session, as_object, safe_line, safe_text, seconds_since
from lapconsole.client.platform import Platform

FOUND = 3
"""The exit code of `lap diagnose` when it found something."""

_WORDS = {
    "sessions": "List sessions, newest first: those that are not dead.",
    "run": "Start a session of an agent, send it one message, and print the answer.",
    "message": "Send one message to a session, and print the answer.",
    "messages": "Print what was said in a session.",
    "logs": "Print the log of a session's sandbox.",
    "diagnose": f"Print what the platform finds about a session; exit code {FOUND} when that is something.",
    "fix": "Do what mends a session: what helps against the worst finding, or what is named. Asks first.",
    "stop": "Stop a session: its agent is ended and its sandbox removed.",
}
COMMANDS = tuple(_WORDS)

_FOLLOW_SECONDS = 1.0
_LOG_AGE_SECONDS = 3600
_MOST_LINES = 5000
_PREFIX = re.compile(r"[0-9a-fA-F][0-9a-fA-F-]{3,35}")
_STATUS = 28
"""Characters for a status, or what the agent is doing."""
_FIELDS = (
    "id",
    "agent_id",
    "agent_name",
    "harness_id",
    "status",
    "phase",
    "failure_reason",
    "title",
    "supports_tui",
    "created_at",
    "ready_at",
    "last_seen_at",
)


class _Arguments(argparse.ArgumentParser):
    """Says what is wrong as all commands do."""

    def error(self, message: str) -> NoReturn:
        raise Failure(f"{message}\n{self.format_usage()}", 2)


def parse(command: str, arguments: Sequence[str]) -> argparse.Namespace:
    """Read the arguments of one of COMMANDS; raises Failure (usage, exit code 2)."""
    parser = _Arguments(prog=f"lap {command}", description=_WORDS[command], allow_abbrev=False)
    if command == "run":
        parser.add_argument("agent", help="its name or id")
        parser.add_argument("--stop", action="store_true", help="stop the session when it has answered")
    elif command == "sessions":
        parser.add_argument("--all", action="store_true", dest="everything", help="dead ones too")
        parser.add_argument("--agent", metavar="NAME", help="only those of this agent")
    else:
        parser.add_argument("session", help="its id, the start of that, or its URL")
    if command == "fix":
        parser.add_argument(
            "what", nargs="?", choices=CAN_BE_DONE, help="a new sandbox, its Service again, or a full warm pool"
        )
        parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    if command in ("run", "message"):
        parser.add_argument("text", nargs="*", help='what to say; from a pipe without it, or for "-"')
    if command == "logs":
        parser.add_argument("-f", "--follow", action="store_true", help="go on as it is written")
        parser.add_argument("--tail", type=int, default=500, metavar="N", help="so many lines (500, at most 5000)")
    parser.add_argument("--json", dest="as_json", action="store_true", help="print JSON")
    given = parser.parse_intermixed_args(list(arguments))
    given.command = command
    return given


async def run(current: Account, given: argparse.Namespace) -> int:
    """Carry out a command. Raises Failure."""
    async with Platform(current.base, current.key) as platform:
        try:
            return await _run(platform, current, given)
        except ClientError as error:
            raise Failure(f"{given.command} failed: {bringup.cause(error)}") from None


async def _run(platform: Platform, current: Account, given: argparse.Namespace) -> int:
    match given.command:
        case "sessions":
            return await _list(platform, given.agent, everything=given.everything, as_json=given.as_json)
        case "run":
            return await _start_and_ask(platform, given)
    session = await session_of(platform, current, given.session)
    match given.command:
        case "stop":
            return await _stop(platform, session, as_json=given.as_json)
        case "logs":
            tail = max(1, min(given.tail, _MOST_LINES))
            return await _logs(platform, session, tail, follow=given.follow, as_json=given.as_json)
        case "messages":
            return await _messages(platform, session, as_json=given.as_json)
        case "message":
            from lapconsole.cli.chat import ask

            if session.status == "creating":
                with redirect_stdout(sys.stderr):  # the answer alone goes to the standard output
                    session = await bringup.wait_ready(platform, session.id)
            return await ask(platform, session, given.message, as_json=given.as_json)
        case _:
            return await _diagnose(platform, session, as_json=given.as_json)


async def session_of(platform: Platform, current: Account, wanted: str) -> Session:
    """The session of an id, of the start of one, or of a URL of this platform; raises Failure."""
    from lapconsole.cli.lap import session_of_url

    wanted = session_of_url(current, wanted) or wanted
    if not bringup.is_id(wanted):
        if not _PREFIX.fullmatch(wanted):
            raise Failure(f"'{safe_line(wanted)}' is not a session_id or sessions URL", 2)
        rows = (await platform.all_sessions()).rows
        found = [session for session in rows if session.id.startswith(wanted.lower())]
        if len(found) > 1:
            told = ", ".join(session.id for session in found[:4])
            raise Failure(f"'{wanted}' begins {len(found)} session ids: {told}")
        if not found:
            raise Failure(f"no session whose id begins with '{wanted}': `lap sessions --all` lists them")
        wanted = found[0].id
    try:
        return await platform.session(wanted)
    except PlatformError as error:
        if error.status != 404:
            raise
        raise Failure(f"no session {wanted}: `lap sessions --all` lists them") from None


# List and stop


async def _list(platform: Platform, agent: str | None, *, everything: bool, as_json: bool) -> int:
    agent_id = None
    if agent is not None and not bringup.is_id(agent):
        with redirect_stdout(sys.stderr):
            agent_id = (await bringup.find_agent(platform, agent)).id
    elif agent is not None:
        agent_id = agent
    listed = await platform.all_sessions()
    rows = [one for one in listed.rows if agent_id in (None, one.agent_id) and (everything or one.status != "dead")]
    if as_json:
        say(json.dumps([_fields(session) for session in rows], indent=2))
    elif not rows:
        say("(no sessions)" if everything else "(no sessions — `lap sessions --all` lists dead ones too)")
    else:
        now = datetime.now(UTC)
        say("\n".join(_row(session, now) for session in rows))
    if not listed.complete:
        complain(f"(this platform lists only its newest {len(listed.rows)} sessions)")
    return 0


def _cut(text: str) -> str:
    return text if len(text) <= _STATUS else f"{text[: _STATUS - 1]}…"


def _fields(session: Session) -> dict[str, object]:
    values: dict[str, Any] = {"activity": None, **{name: getattr(session, name) for name in _FIELDS}}
    if (activity := session.activity) is not None:
        values["activity"] = {name: getattr(activity, name) or None for name in ("state", "reason", "message")}
        values["activity"]["since"] = activity.since and activity.since.isoformat()
    return {name: one.isoformat() if isinstance(one, datetime) else one for name, one in values.items()}


def _row(session: Session, now: datetime) -> str:
    seconds = session.age(now)
    age = "" if seconds is None else duration(seconds)
    status = session.status if session.status != "creating" or not session.phase else f"creating: {session.phase}"
    agent = session.agent_name or session.agent_id[:8]
    if session.status == "ready" and (activity := session.activity) is not None:
        since = seconds_since(activity.since, now)
        status = activity.words("" if since is None else duration(since)) or status
    title = session.title or session.title_preview or ""
    return f"{session.id}  {_cut(status):<{_STATUS}} {agent:<20} {session.harness_id:<16} {age:<12} {title}".rstrip()


async def _stop(platform: Platform, session: Session, *, as_json: bool) -> int:
    if not session.ended:
        await platform.stop_session(session.id)
    if as_json:
        say(json.dumps({"id": session.id, "status": session.status if session.ended else "dead"}))
    elif session.ended:
        say(f"session {session.id[:8]} is {session.status} already")
    else:
        say(f"✓ stopped session {session.id[:8]}")
    return 0


# Logs


async def _logs(platform: Platform, session: Session, tail: int, *, follow: bool, as_json: bool) -> int:
    known = _lines(await platform.sandbox_logs(session.id, tail_lines=tail, since_seconds=_LOG_AGE_SECONDS))
    if as_json and not follow:
        say(json.dumps({"session_id": session.id, "lines": known}))
        return 0
    _print_lines(known, as_json)
    lost = False
    while follow and not session.ended:
        await asyncio.sleep(_FOLLOW_SECONDS)
        try:
            session = await platform.session(session.id)
            lines = _lines(
                await platform.sandbox_logs(session.id, tail_lines=_MOST_LINES, since_seconds=_LOG_AGE_SECONDS)
            )
        except Unreachable as error:
            if not lost:
                complain(f"({error}; trying again)")
            lost = True
            continue
        lost = False
        new = lines[overlap(known, lines) :]
        _print_lines(new, as_json)
        known = lines or known
    if follow:
        complain(f"(session is {session.status}: {session.failure_reason or 'no reason given'})")
    return 0


def _lines(log: str) -> list[str]:
    return log.rstrip("\n").split("\n") if log.strip() else []


def _print_lines(lines: Sequence[str], as_json: bool) -> None:
    if lines:
        say("\n".join(json.dumps({"line": line}) for line in lines) if as_json else "\n".join(lines))


def overlap(old: Sequence[str], new: Sequence[str]) -> int:
    """How many of the first lines of `new` are the last lines of `old`."""
    for size in range(min(len(old), len(new)), 0, -1):
        if new[0] == old[-size] and new[size - 1] == old[-1] and list(old[-size:]) == list(new[:size]):
            return size
    return 0


# Messages


async def _messages(platform: Platform, session: Session, *, as_json: bool) -> int:
    if as_json:
        say(json.dumps(await platform.messages(session.id), indent=2))
        return 0
    messages = await transcript(platform, session.id)
    say("\n\n".join(_told(message) for message in messages) or "(nothing was said)")
    return 0


def _told(message: ChatMessage) -> str:
    """A message with who said it and when; tool calls are one line each."""
    lines = [f"── {message.role}{message.created.strftime(' %Y-%m-%d %H:%M:%S UTC') if message.created else ''}"]
    for part in message.parts.values():
        if part.kind == TEXT and part.text:
            lines.append(part.text.rstrip("\n"))
        elif part.kind == TOOL:
            first = next((one for one in part.input.values() if isinstance(one, str)), "")
            lines.append(f"  ▸ {part.tool}  {safe_line(' '.join(first.split()))[:100]}  {part.status}")
    if message.error:
        lines.append(f"✗ {message.error}" if message.role == ASSISTANT else message.error)
    return "\n".join(lines)


async def _start_and_ask(platform: Platform, given: argparse.Namespace) -> int:
    from lapconsole.cli.chat import ask

    with redirect_stdout(sys.stderr):  # the answer alone goes to the standard output
        agent_id = given.agent
        if not bringup.is_id(agent_id):
            found = await bringup.find_agent(platform, agent_id)
            if found.supports_tui:
                raise Failure(f"harness {found.harness_id} has a terminal and takes no messages: `lap {found.label}`")
            agent_id = found.id
        created = await bringup.create(platform, agent_id)
        session = await bringup.wait_ready(platform, created.id)
    try:
        return await ask(platform, session, given.message, as_json=given.as_json)
    finally:
        if given.stop:
            await platform.stop_session(session.id)


# Diagnosis


async def _diagnose(platform: Platform, session: Session, *, as_json: bool) -> int:
    try:
        diagnosis = await platform.diagnose(session.id)
    except PlatformError as error:
        if error.status not in (404, 405):
            raise
        # The session was there a moment ago: it is the call that is missing.
        raise Failure(f"this platform has no diagnose ({error.status_line} for {session.id})") from None
    if as_json:
        say(json.dumps(dict(diagnosis.data), indent=2))
    else:
        say("\n".join(_findings(session, diagnosis)))
    return FOUND if diagnosis.findings else 0


def _findings(session: Session, diagnosis: Diagnosis) -> list[str]:
    phase = f" in {session.phase}" if session.status in ("creating", "failed") and session.phase else ""
    lines = [f"session {session.id} is {session.status}{phase}"]
    if session.failure_reason:
        lines.append(f"  reason: {session.failure_reason}")
    for issue in diagnosis.findings:
        lines += bringup.finding_lines(issue)
        if command := command_of(issue):
            lines.append(f"  run: {command}")
        lines += [f"  run: lap fix {session.id[:8]} {fix}" for fix in fixes_of(issue) if fix in CAN_BE_DONE]
    if not diagnosis.findings:
        lines.append("no issues detected")
    logs = as_object(diagnosis.data.get("pod_logs_tail"))
    if isinstance(text := logs.get("text"), str) and text.strip():
        tail = safe_text(text).rstrip("\n").split("\n")[-10:]
        lines += ["last lines of the log:", *(f"  {line}" for line in tail)]
    return lines

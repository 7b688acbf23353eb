"""Facts as lines of label and value; long values wrap under themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

from lapconsole.client.models import Agent, Session
from lapconsole.keys import Keymap
from lapconsole.widgets.activity import words_since
from lapconsole.widgets.findings import top_lines
from lapconsole.widgets.parts import Look, Parts, wrap_parts
from lapconsole.widgets.phase_bar import phase_parts, status_parts
from lapconsole.widgets.words import age, clean, clean_lines, duration

MASK = "********"
LABEL = 17
MOST_TROUBLE = 7
_MODES = {"drive": "drives", "watch": "watches"}

Field = tuple[str, str]


def field_lines(fields: Iterable[Field], width: int) -> list[Parts]:
    """Each field as label and value; fields without a value are left out."""
    lines: list[Parts] = []
    for label, value in fields:
        if value:
            lines.extend(wrap_parts((f"{label:<{LABEL}}", "muted"), clean(value), "plain", width))
    return lines


def text_lines(text: str, width: int, *, limit: int) -> list[Parts]:
    """A longer text, wrapped, at most `limit` lines of it."""
    lines = [part for line in clean_lines(text) for part in indented(line, "plain", width)]
    if len(lines) > limit:
        return [*lines[: limit - 1], ((f"… {len(lines) - limit + 1} more lines", "muted"),)]
    return lines


def indented(line: str, tone: str, width: int) -> list[Parts]:
    """A line, wrapped under its own indentation."""
    text = line.lstrip(" ")
    return wrap_parts((" " * min(len(line) - len(text), width // 2), "plain"), text, tone, width)


def heading(text: str) -> list[Parts]:
    """A heading with a line of air above it."""
    return [(), ((text, "strong"),)]


def failure_lines(session: Session, look: Look, width: int, keymap: Keymap, scope: str) -> list[Parts]:
    """What failed, why, and what to press in this scope of keys; empty for a session that is well."""
    if session.status not in ("failed", "dead"):
        return []
    reason = session.failure_reason or "the platform gave no reason"
    tone = "bad" if session.status == "failed" else "muted"
    mark = f"{look.glyphs.failed if session.status == 'failed' else look.glyphs.dead} "
    where = f" in {session.phase}" if session.status == "failed" and session.phase else ""
    first: Parts = ((f"{mark}{session.status}{where}", tone),)
    lines = [first]
    for line in clean_lines(reason):
        lines.extend(wrap_parts(("  ", "plain"), line, "strong" if session.status == "failed" else "plain", width))
    read = ("table.open", "open it, with its log") if scope == "sessions" else ("session.log", "read its log")
    rest = (("diagnose", "diagnose it"), ("restart", "restart it"), ("delete", "delete it"))
    cures = (read, *((f"{scope}.{action}", words) for action, words in rest))
    hints = (((f"  {keymap.first(action)}", "key"), (f" {words}", "muted")) for action, words in cures)
    lines.append(tuple(part for hint in hints for part in hint))
    return [*lines, ()]


def trouble_lines(session: Session, look: Look, width: int, keymap: Keymap, scope: str) -> list[Parts]:
    """What is wrong with a session, how to mend it, and what to press; empty for one that is well."""
    if not session.issues or session.status == "dead":
        return []
    lines = top_lines(session.issues, look, width, MOST_TROUBLE)
    if session.status != "failed":  # it has keys of its own
        cures = ((f"{scope}.diagnose", "diagnose it"), (f"{scope}.restart", "restart it"))
        lines.append(
            tuple(p for key, words in cures for p in ((f"  {keymap.first(key)}", "key"), (f" {words}", "muted")))
        )
    return [*lines, ()]


def session_summary(session: Session, look: Look, width: int) -> list[Parts]:
    """The facts that matter beside a list."""
    label = (f"{'status':<{LABEL}}", "muted")
    lines: list[Parts] = [(label, *status_parts(session, look), (_for(session, look.now), "muted"))]
    lines.append(((f"{'phase':<{LABEL}}", "muted"), *phase_parts(session, look)))
    fields: Sequence[Field] = (
        ("detail", session.phase_detail or ""),
        ("title", session.title or session.title_preview or ""),
        ("agent", session.agent_name or session.agent_id),
        ("harness", _harness(session)),
        ("doing", words_since(session, look.now)),
        ("created", moment(session.created_at, look.now)),
        ("last activity", moment(session.last_seen_at, look.now) or "none yet"),
        ("viewers", str(session.viewers) if session.viewers else ""),
        ("id", session.id),
    )
    return [*lines, *field_lines(fields, width)]


def session_fields(session: Session, look: Look, width: int) -> list[Parts]:
    """Every field of a session."""
    now = look.now
    isolation = session.isolation or {}
    fields = (
        ("title", session.title or session.title_preview or ""),
        ("agent", session.agent_name or ""),
        ("agent id", session.agent_id),
        ("harness", _harness(session)),
        ("status", session.status),
        ("phase", session.phase or "not reported"),
        ("phase detail", session.phase_detail or ""),
        ("failure", session.failure_reason or ""),
        ("doing", words_since(session, now)),
        ("created", moment(session.created_at, now)),
        ("coming up since", moment(session.creating_since, now)),
        ("ready", moment(session.ready_at, now)),
        ("stopped", moment(session.stopped_at, now)),
        ("last activity", moment(session.last_seen_at, now) or "none yet"),
        ("idle timeout", duration(session.idle_timeout_ms / 1000) if session.idle_timeout_ms else "none"),
        ("viewers", "" if session.viewers is None else str(session.viewers)),
        ("recording", _switch(session.recording)),
        (
            "attached",
            ", ".join(f"{one.name or 'somebody'} {_MODES.get(one.mode, one.mode)}" for one in session.attached),
        ),
        *_terminal_fields(session, now),
        ("sandbox", session.task_arn or ""),
        ("sandbox url", session.sandbox_url or ""),
        ("terminal url", session.tty_url or ""),
        ("terminal token", MASK if session.tty_token else ""),
        ("harness session", session.harness_session_id or ""),
        (
            "isolation",
            ", ".join(f"{key} {_plain(value)}" for key, value in isolation.items() if value not in (None, {})),
        ),
        ("id", session.id),
    )
    lines = field_lines(fields, width)
    if session.response:
        lines += [*heading("Latest reply"), *text_lines(session.response, width, limit=40)]
    return lines


def _terminal_fields(session: Session, now: datetime) -> Iterable[Field]:
    """What the terminal has told."""
    if (told := session.terminal) is None:
        return
    yield "window title", told.title
    if told.progress is not None and told.progress.state not in ("", "none"):
        percent = "" if told.progress.state == "indeterminate" else f"{told.progress.value}%"
        yield "progress", f"{percent} {'' if told.progress.state == 'normal' else told.progress.state}".strip()
    if (note := told.notification) is not None:
        words = ", ".join(filter(None, (note.title, note.body)))
        yield "notification", f"{words} ({at})" if (at := moment(note.at, now)) else words
    yield "bell", moment(told.bell_at, now)


def agent_fields(
    agent: Agent, look: Look, width: int, *, skills: Mapping[str, str] = MappingProxyType({}), prompt: bool = True
) -> list[Parts]:
    """Every field of an agent; values of its variables are never shown. `skills` names skills by id."""
    fields = (
        ("name", agent.name or "unnamed"),
        ("model", agent.model or ""),
        ("harness", agent.harness_id + (", with a terminal" if agent.supports_tui else ", by messages")),
        ("image", agent.harness_image or ""),
        ("repository", agent.repo_url or "none"),
        ("branch", agent.branch or "" if agent.repo_url else ""),
        ("recording", _switch(agent.recording)),
        ("created", moment(agent.created_at, look.now)),
        ("sessions ever", "" if agent.session_count is None else str(agent.session_count)),
        ("mcp servers", ", ".join(agent.mcp_servers)),
        ("skills", ", ".join(skills.get(id, id) for id in agent.attached_skill_ids)),
        ("memories told", _memories_told(agent)),
        ("may reach", ", ".join(agent.allow_out)),
        ("may not reach", ", ".join(agent.deny_out)),
        ("files", ", ".join(file.sandbox_path for file in agent.sandbox_files)),
        ("id", agent.id),
    )
    lines = field_lines(fields, width)
    if agent.env_vars:
        lines += heading("Variables")
        lines += field_lines(((key, MASK) for key in sorted(agent.env_vars)), width)
    for title, text in (("Requirements", agent.requirements), ("Prompt", agent.prompt if prompt else None)):
        if text:
            lines += [*heading(title), *text_lines(text, width, limit=200)]
    return lines


def _memories_told(agent: Agent) -> str:
    limit = agent.preload_memory_limit
    return "" if limit is None else f"pinned ones and the first {limit} of the others"


def moment(at: datetime | None, now: datetime) -> str:
    """`14:02:11, 3m ago`, with the date when it was another day; "" when not known."""
    if at is None:
        return ""
    form = "%H:%M:%S" if at.date() == now.date() else "%Y-%m-%d %H:%M:%S"
    return f"{at.strftime(form)}Z, {age((now - at).total_seconds())} ago"


def _for(session: Session, now: datetime) -> str:
    seconds = session.status_age(now)
    return "" if seconds is None else f" for {age(seconds)}"


def _harness(session: Session) -> str:
    if session.supports_tui is None:
        return session.harness_id
    return session.harness_id + (", with a terminal" if session.supports_tui else ", by messages")


def _switch(on: bool | None) -> str:
    """ "" where the platform does not know the switch."""
    return "" if on is None else "on" if on else "off"


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    return str(value)

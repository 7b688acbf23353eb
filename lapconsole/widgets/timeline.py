"""A session's bring-up, phase by phase: when each began, how long it took, and where it stands or broke."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from lapconsole.client.models import PHASES, Session
from lapconsole.widgets.parts import Look, Part, Parts, wrap_parts
from lapconsole.widgets.phase_bar import status_glyph, status_tone, too_long
from lapconsole.widgets.words import duration

_MEANING = {
    "creating_sandbox": "asking for a sandbox",
    "pod_pending": "sandbox accepted, waiting for room",
    "pod_running": "sandbox runs, harness not heard yet",
    "injecting_files": "writing files into it",
    "waiting_harness": "waiting for the harness to answer",
    "harness_ready": "harness answers, opening its session",
    "cloning_repo": "cloning the repository",
    "installing_deps": "installing requirements",
    "harness_listening": "agent started",
    "ready": "ready for work",
}


class State(StrEnum):
    DONE = "done"
    ACTIVE = "active"
    BROKEN = "broken"
    SKIPPED = "skipped"
    TODO = "todo"


class Step(NamedTuple):
    """One phase of a bring-up. `at` and `seconds` are None where they are not known."""

    phase: str
    state: State
    at: datetime | None = None
    seconds: float | None = None


def steps(session: Session, reached: Mapping[str, datetime], now: datetime) -> list[Step]:
    """All ten phases of the present bring-up. `reached` holds when each was first reported.

    Platform and harness report side by side, so the time of a phase runs until whatever was reported next.
    """
    moments = sorted(moment for phase, moment in reached.items() if phase in PHASES)
    ended = (
        now if session.status == "creating" else (session.ready_at if session.status == "ready" else session.stopped_at)
    )
    result = []
    for place, phase in enumerate(PHASES, start=1):
        at = reached.get(phase)
        current = phase == session.phase or (phase == "ready" and session.status == "ready")
        if current:
            state = State.ACTIVE if session.status == "creating" else State.DONE
            state = State.BROKEN if session.status == "failed" else state
        elif at is not None:
            state = State.DONE
        elif place < session.furthest:
            state = State.SKIPPED if moments else State.DONE
        else:
            state = State.TODO
        seconds = None
        if at is not None and phase != "ready":
            following = next((moment for moment in moments if moment > at), ended)
            seconds = None if following is None else (following - at).total_seconds()
        result.append(Step(phase, state, at, seconds))
    return result


def timeline_lines(session: Session, reached: Mapping[str, datetime], look: Look, width: int) -> list[Parts]:
    """The timeline as lines `✓ 12:00:03   4.2s  cloning_repo  detail`, and how it ended."""
    timed = bool(reached)
    lines = [_line(step, session, look, width, timed) for step in steps(session, reached, look.now)]
    lines.append(())
    lines.extend(_outcome(session, look, width))
    return lines


def _line(step: Step, session: Session, look: Look, width: int, timed: bool) -> Parts:
    glyphs = look.glyphs
    mark, tone = {
        State.DONE: (glyphs.done, "good"),
        State.ACTIVE: (
            glyphs.stuck if too_long(session, look.now) else glyphs.creating,
            status_tone(session, look.now),
        ),
        State.BROKEN: (glyphs.failed, "bad"),
        State.SKIPPED: (glyphs.dash, "muted"),
        State.TODO: (glyphs.todo, "muted"),
    }[step.state]
    quiet = step.state in (State.SKIPPED, State.TODO)
    time = step.at.strftime("%H:%M:%S") if step.at else ""
    took = "" if step.seconds is None else duration(step.seconds)
    name_tone = "muted" if quiet else ("plain" if step.state is State.DONE else tone)
    parts: list[Part] = [(f"{mark} ", tone)]
    if timed:
        took_tone = "strong" if step.state in (State.ACTIVE, State.BROKEN) else "plain"
        parts += [(f"{time:<8}  ", "muted"), (f"{took:>6}  ", took_tone)]
    parts.append((f"{step.phase:<17}", name_tone))
    if width >= (64 if timed else 46):
        parts.append((f"  {_detail(step, session)}", "muted"))
    return tuple(parts)


def _detail(step: Step, session: Session) -> str:
    if step.phase == session.phase and session.phase_detail:
        return session.phase_detail
    if step.state is State.SKIPPED:
        return "not needed"
    return _MEANING.get(step.phase, "")


def _outcome(session: Session, look: Look, width: int) -> list[Parts]:
    mark = (f"{status_glyph(session, look)} ", status_tone(session, look.now))
    start = session.creating_since or session.created_at
    if session.status == "creating":
        spent = duration(session.status_age(look.now) or 0.0)
        words = f"coming up for {spent}"
        if too_long(session, look.now):
            words += "; longer than it should take: read the log, or stop it"
        return wrap_parts(mark, words, "plain", width)
    end = session.ready_at if session.status == "ready" else session.stopped_at
    took = f" after {duration((end - start).total_seconds())}" if end and start and session.status != "dead" else ""
    return wrap_parts(mark, f"{session.status or 'unknown'}{took}", "plain", width)

"""A session's state in few cells: status as glyph and word, bring-up as a bar of ten steps."""

from __future__ import annotations

from datetime import datetime

from lapconsole.client.models import PHASES, Session
from lapconsole.widgets.activity import call_parts
from lapconsole.widgets.parts import Look, Parts
from lapconsole.widgets.words import Glyphs

# A session that is coming up for longer than this needs a look (LAP REST 3.11 calls it blocked).
TOO_LONG_SECONDS = 120.0

_TONES = {"ready": "good", "creating": "busy", "failed": "bad", "dead": "muted"}


def too_long(session: Session, now: datetime) -> bool:
    """Whether a session has been coming up for longer than bring-up should take."""
    return session.status == "creating" and (session.status_age(now) or 0.0) > TOO_LONG_SECONDS


def status_tone(session: Session, now: datetime) -> str:
    """The tone of a session's status; never the only sign of it."""
    return "warn" if too_long(session, now) else _TONES.get(session.status, "plain")


def status_glyph(session: Session, look: Look) -> str:
    """The mark that stands before a session's status."""
    glyphs = look.glyphs
    if too_long(session, look.now):
        return glyphs.stuck
    return {"ready": glyphs.ready, "creating": glyphs.creating, "failed": glyphs.failed}.get(
        session.status, glyphs.dead
    )


def status_parts(session: Session, look: Look) -> Parts:
    """`● ready`, `✗ trouble`, or why its agent needs a person: at most ten cells for the statuses of seed 000."""
    if session.status == "ready" and session.trouble is not None:
        bad = session.trouble.severity == "high"
        return ((f"{look.glyphs.failed if bad else look.glyphs.stuck} trouble", "bad" if bad else "warn"),)
    if call := call_parts(session, look):
        return call
    return ((f"{status_glyph(session, look)} {session.status or 'unknown'}", status_tone(session, look.now)),)


def bar(step: int, tone: str, glyphs: Glyphs) -> Parts:
    """Ten cells, `step` of them full."""
    step = max(0, min(step, len(PHASES)))
    return ((glyphs.full * step, tone), (glyphs.empty * (len(PHASES) - step), "muted"))


def phase_parts(session: Session, look: Look) -> Parts:
    """`▰▰▰▱▱▱▱▱▱▱  3/10 pod_running`: the start of it says enough when there is no room for the rest."""
    step = session.furthest or session.step
    if session.status == "ready":
        return (*bar(step, "muted", look.glyphs), (" 10/10 ready", "muted"))
    tone = status_tone(session, look.now)
    name = session.phase or "not reported"
    return (
        *bar(step, tone, look.glyphs),
        (f" {step:>2}/{len(PHASES)} ", "muted"),
        (name, "plain" if session.active else "muted"),
    )

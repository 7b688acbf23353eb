"""What an agent is doing in words: what it asks, whose turn it is, how long it works, how it ended."""

from __future__ import annotations

from datetime import datetime

from lapconsole.client.models import Activity, Session, seconds_since
from lapconsole.widgets.parts import Look, Parts
from lapconsole.widgets.words import Glyphs, age, clean

NOT_TOLD = "its program does not tell"
NOT_KNOWN = "the platform does not tell"


def short_words(activity: Activity, now: datetime) -> str:
    """`asks: Bash: touch zzz`, `your turn`, `working 2m`, `exited 1`; "" when nothing is told."""
    seconds = seconds_since(activity.since, now)
    return activity.words("" if seconds is None else age(seconds))


def words(session: Session, now: datetime) -> str:
    """The same, or why there is nothing to say; "" for a session without an agent."""
    if session.status != "ready":
        return ""
    return NOT_KNOWN if session.activity is None else short_words(session.activity, now) or NOT_TOLD


def words_since(session: Session, now: datetime) -> str:
    """The same with since when."""
    said, activity = words(session, now), session.activity
    if not said or activity is None or activity.since is None or activity.state == "working":
        return said
    return f"{said} (for {age((now - activity.since).total_seconds())})"


def activity_parts(session: Session, look: Look) -> Parts:
    """`▲ asks: Bash: touch zzz`; nothing when nothing is told."""
    activity = session.activity
    if session.status != "ready" or activity is None or not (said := short_words(activity, look.now)):
        return ()
    glyph, tone = _mark(activity, look.glyphs)
    return ((f"{glyph} {clean(said)}", tone),)


def call_parts(session: Session, look: Look) -> Parts:
    """`▲ waiting`, `✗ crashed`: why the agent needs a person, in at most ten cells; nothing when it does not."""
    activity = session.activity
    if activity is None or not session.calls:
        return ()
    glyph, tone = _mark(activity, look.glyphs)
    return ((f"{glyph} {'waiting' if activity.state == 'waiting_for_input' else activity.reason}", tone),)


def _mark(activity: Activity, glyphs: Glyphs) -> tuple[str, str]:
    if activity.state == "waiting_for_input":
        return glyphs.stuck, "warn"
    if activity.state == "working":
        return glyphs.creating, "busy"
    if activity.reason in ("crashed", "exited", "error"):
        return glyphs.failed, "bad"
    return (glyphs.done, "good") if activity.reason == "turn_finished" else (glyphs.dead, "muted")

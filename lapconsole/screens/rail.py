"""The rail at the right of a wide terminal: what needs a look, and what the marks mean."""

from __future__ import annotations

from lapconsole.screens.triage import Triage
from lapconsole.widgets.activity import call_parts, words
from lapconsole.widgets.findings import mark, short_words, worst
from lapconsole.widgets.parts import Look, Parts, wrap_parts
from lapconsole.widgets.phase_bar import status_glyph, status_tone
from lapconsole.widgets.words import age, clean

SHOWN = 10


def fault_lines(triage: Triage, look: Look, width: int) -> list[Parts]:
    """Failed, waiting and overdue sessions with their reasons, then the legend."""
    lines: list[Parts] = []
    for session in triage.worst(SHOWN):
        old = session.status_age(look.now)
        glyph, tone = status_glyph(session, look), status_tone(session, look.now)
        reason = session.failure_reason or f"in {session.phase} for too long"
        if issue := worst(session):
            glyph, tone = mark(issue, look)
            reason = f"{short_words(issue)}: {issue.message}"
        elif call := call_parts(session, look):
            glyph, tone = call[0][0][0], call[0][1]
            reason = words(session, look.now)
        name = f"{glyph} {session.agent_name or session.label}"
        lines.append(((name, tone), (f"  {age(old)}" if old is not None else "", "muted")))
        lines.extend(wrap_parts(("  ", "plain"), clean(reason), "muted", width)[:3])
        lines.append(())
    if not lines:
        lines = [((f"{look.glyphs.done} Nothing failed, waits or is overdue.", "good"),), ()]
    elif triage.count > SHOWN:
        lines += [((f"and {triage.count - SHOWN} more", "muted"),), ()]
    return [*lines, *legend(look)]


def legend(look: Look) -> list[Parts]:
    """What the marks before a status mean."""
    glyphs = look.glyphs
    return [
        (("Marks", "strong"),),
        ((f"{glyphs.failed} failed", "bad"), ("    did not come up", "muted")),
        ((f"{glyphs.stuck} waiting", "warn"), ("   for your answer", "muted")),
        ((f"{glyphs.failed} trouble", "bad"), ("   something is wrong with it", "muted")),
        ((f"{glyphs.failed} exited", "bad"), ("    or crashed, or in error", "muted")),
        ((f"{glyphs.stuck} creating", "warn"), ("  for more than two minutes", "muted")),
        ((f"{glyphs.creating} creating", "busy"), ("  is coming up", "muted")),
        ((f"{glyphs.ready} ready", "good"), ("     works, or waits for work", "muted")),
        ((f"{glyphs.dead} dead", "muted"), ("      stopped, or reaped", "muted")),
    ]

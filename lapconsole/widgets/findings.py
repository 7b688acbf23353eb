"""What is wrong with a session in words: short ones for a line of a list, whole ones with cause and cure."""

from __future__ import annotations

from collections.abc import Iterable

from lapconsole.client.fixes import command_of
from lapconsole.client.models import Issue, Session
from lapconsole.widgets.parts import Look, Parts, wrap_parts
from lapconsole.widgets.words import clean

# Codes of seed 000, and of hints; what is not here is told by its code.
_SHORT = {
    "dead_node_assigned": "node dead",
    "stale_node_host_cache_suspect": "stale node address",
    "pod_image_pull_backoff": "image not pulled",
    "pod_not_ready_old": "not ready for long",
    "harness_unreachable": "harness silent",
    "node_oversubscribed": "node oversubscribed",
    "service_missing": "service missing",
    "warm_pool_empty_for_agent": "warm pool empty",
    "container_terminated": "sandbox ended",
    "env_lost": "variables lost",
    "network_failed": "network failed",
    "session_ended": "ended",
    "slow_phase": "slow",
    "unschedulable": "no room",
    "vault_not_ready": "vault down",
    "volume_failed": "volume failed",
}
_SEVERITIES = {"high": ("serious", "bad"), "med": ("warning", "warn"), "info": ("note", "muted")}


def short_words(issue: Issue) -> str:
    """`clone failed`, `harness silent`."""
    return _SHORT.get(issue.code) or clean(issue.code.replace("_", " ")) or clean(issue.message)


def severity_words(issue: Issue) -> str:
    """`serious`, `warning`, `note`, or the platform's own word."""
    return _SEVERITIES.get(issue.severity, (clean(issue.severity) or "note", ""))[0]


def mark(issue: Issue, look: Look) -> tuple[str, str]:
    """The glyph of a severity, and its tone."""
    tone = _SEVERITIES.get(issue.severity, ("", "muted"))[1]
    glyphs = look.glyphs
    return {"bad": glyphs.failed, "warn": glyphs.stuck}.get(tone, glyphs.dot), tone


def worst(session: Session) -> Issue | None:
    """What to say of a session in a list: its trouble while it is alive, why it failed when it has."""
    return session.trouble or (session.issues[0] if session.status == "failed" and session.issues else None)


def trouble_parts(session: Session, look: Look) -> Parts:
    """`✗ clone failed: the repository could not be cloned`; nothing for one that is well."""
    issue = worst(session)
    if issue is None:
        return ()
    glyph, tone = mark(issue, look)
    more = f" +{len(session.issues) - 1}" if len(session.issues) > 1 else ""
    return ((f"{glyph} {short_words(issue)}{more}", tone), (f": {clean(issue.message)}", "plain"))


def finding_lines(issue: Issue, look: Look, width: int, *, evidence: bool = True) -> list[Parts]:
    """Cause, cure and evidence of one finding."""
    glyph, tone = mark(issue, look)
    title: Parts = ((f"{glyph} {short_words(issue)}", tone), (f"  {severity_words(issue)}", tone))
    lines: list[Parts] = [title if not evidence else (*title, (f"  {clean(issue.code)}", "muted"))]
    lines += wrap_parts(("  ", "plain"), clean(issue.message), "plain", width)
    if issue.recommended_action:
        lines += wrap_parts(("  fix: ", "key"), clean(issue.recommended_action), "strong", width)
    if evidence:
        if command := command_of(issue):
            lines += wrap_parts(("  run: ", "key"), clean(command), "key", width)
        for line in issue.evidence:
            lines += wrap_parts(("  > ", "muted"), clean(line), "muted", width)
    return lines


def top_lines(issues: Iterable[Issue], look: Look, width: int, most: int) -> list[Parts]:
    """Findings for the top of a page, in at most `most` lines: each with its words and its cure."""
    lines: list[Parts] = []
    found = list(issues)
    for place, issue in enumerate(found):
        glyph, tone = mark(issue, look)
        label = (f"{glyph} {short_words(issue)}: ", tone)
        block = wrap_parts(label, clean(issue.message), "plain", width)
        if issue.recommended_action:
            block += wrap_parts(("  fix: ", "key"), clean(issue.recommended_action), "strong", width)
        if place and len(lines) + len(block) > most:
            return [*lines[: most - 1], ((f"  and {len(found) - place} more", "muted"),)]
        lines += block
    return lines[:most]

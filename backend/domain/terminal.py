"""What a session's record says of its terminal: what the agent's program told it, and who is attached.

All of it comes out of a sandbox, so nothing is believed: texts are cut and lose their control characters, what has
the wrong type or an unknown name counts as not told.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from backend.domain import clock

TITLE_LIMIT: Final = 256
BODY_LIMIT: Final = 1024
WORD_LIMIT: Final = 64
"""Longest name of an application, of a kind of state, or of who is attached."""
ATTACHED_LIMIT: Final = 100

PROGRESS_STATES: Final = frozenset({"none", "normal", "error", "indeterminate", "paused"})
AGENT_STATES: Final = frozenset({"idle", "working", "blocked", "done", "error", "clear"})
MODES: Final = frozenset({"watch", "drive"})

_BREAKS: Final = re.compile(r"[\t-\r\x85\u2028\u2029]+")
_CONTROLS: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\ud800-\udfff"  # halves of characters cannot be stored
    r"\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]"  # these turn the text around them
)
_SPINNERS: Final = (re.compile(r"[\u2800-\u28ff]"), re.compile("[◐◑◒◓]"), re.compile("[·✢✶✻✽]"))
"""Characters that programs turn into one another at the beginning of a title while they work."""


def terminal(told: Any) -> dict[str, Any] | None:
    """A harness's `terminal` as it is stored; None when it is no object.

    {"title", "bell_at", "notification": {"title","body","at"}|None, "progress": {"state","value"}|None,
    "agent_state": {"state","app","kind","title","message","at"}|None}
    """
    if not isinstance(told, Mapping):
        return None
    return {
        "title": line(told.get("title"), TITLE_LIMIT),
        "bell_at": moment(told.get("bell_at")),
        "notification": _notification(told.get("notification")),
        "progress": _progress(told.get("progress")),
        "agent_state": _agent_state(told.get("agent_state")),
    }


def attached(told: Any) -> list[dict[str, Any]] | None:
    """A harness's `attached` as it is stored: [{"name","mode","since"}]; None when it is no list."""
    if not isinstance(told, list):
        return None
    return [
        {
            "name": line(viewer.get("name"), WORD_LIMIT),
            "mode": _known(viewer.get("mode"), MODES) or "watch",
            "since": moment(viewer.get("since")),
        }
        for viewer in told[:ATTACHED_LIMIT]
        if isinstance(viewer, Mapping)
    ]


def same(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Whether two of `terminal` say the same; a title whose spinner has merely turned does."""
    if one is None or other is None:
        return one is other
    return {**one, "title": _at_rest(one["title"])} == {**other, "title": _at_rest(other["title"])}


def urgent(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Whether two of `terminal` differ in what somebody may be waiting for."""
    return any((one or {}).get(name) != (other or {}).get(name) for name in ("notification", "agent_state"))


def _notification(told: Any) -> dict[str, Any] | None:
    if not isinstance(told, Mapping):
        return None
    return {
        "title": line(told.get("title"), TITLE_LIMIT),
        "body": line(told.get("body"), BODY_LIMIT),
        "at": moment(told.get("at")),
    }


def _progress(told: Any) -> dict[str, Any] | None:
    if not isinstance(told, Mapping) or (state := _known(told.get("state"), PROGRESS_STATES)) is None:
        return None
    value = told.get("value")
    number = value if isinstance(value, int) and not isinstance(value, bool) else 0
    return {"state": state, "value": min(max(number, 0), 100)}


def _agent_state(told: Any) -> dict[str, Any] | None:
    if not isinstance(told, Mapping) or (state := _known(told.get("state"), AGENT_STATES)) is None:
        return None
    return {
        "state": state,
        "app": line(told.get("app"), WORD_LIMIT),
        "kind": line(told.get("kind"), WORD_LIMIT),
        "title": line(told.get("title"), TITLE_LIMIT),
        "message": line(told.get("message"), BODY_LIMIT),
        "at": moment(told.get("at")),
    }


def line(told: Any, limit: int) -> str:
    """A text as one line of at most `limit` characters that cannot drive a terminal; "" for anything else."""
    if not isinstance(told, str):
        return ""
    return _CONTROLS.sub("", _BREAKS.sub(" ", told)).strip()[:limit]


def _known(told: Any, names: frozenset[str]) -> str | None:
    return told if isinstance(told, str) and told in names else None


def moment(told: Any) -> str | None:
    """A time in the stored form, whatever form the harness gave it."""
    if not isinstance(told, str):
        return None
    try:
        return clock.text(clock.parse(told))
    except (ValueError, OverflowError):
        return None


def _at_rest(title: str) -> str:
    for spinner in _SPINNERS:
        if spinner.match(title):
            return spinner.pattern + title[1:]
    return title

"""Query parameters, read as leniently as the original platform does (LAP REST 2.4, 3.3)."""

import re
from typing import Final

from backend.domain.problems import Problem
from backend.services.errors import Invalid

MAX_NUMBER: Final = 2**53
MAX_LIST: Final = 100

_NUMBER: Final = re.compile(r"\s*([+-]?[0-9]{1,17})")


def number(text: str | None, default: int) -> int:
    """The number `text` begins with; `default` when there is none."""
    match = _NUMBER.match(text or "")
    return int(match[1]) if match else default


def clamped(text: str | None, default: int, low: int, high: int) -> int:
    """`number`, forced into a range."""
    return min(max(number(text, default), low), high)


def flag(text: str | None) -> bool:
    """Whether a switch is on; anything but `true` and `1` is off."""
    return (text or "").strip().lower() in ("true", "1")


def position(text: str | None, name: str) -> int | None:
    """A sequence number, None when absent. Raises Invalid: guessing here would lose events."""
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise Invalid([Problem((name,), f"{name} must be a sequence number", "not_a_number")])
    return int(text)


def words(text: str | None) -> frozenset[str] | None:
    """A comma-separated list, None when absent or empty."""
    found = frozenset(word for word in (part.strip() for part in (text or "").split(",", MAX_LIST)[:MAX_LIST]) if word)
    return found or None

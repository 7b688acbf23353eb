"""The four states of a session and the facts that hold for every session (seed 000, seed 001)."""

from typing import Final

CREATING: Final = "creating"
READY: Final = "ready"
FAILED: Final = "failed"
DEAD: Final = "dead"

STATUSES: Final[tuple[str, ...]] = (CREATING, READY, FAILED, DEAD)
ACTIVE: Final[tuple[str, ...]] = (CREATING, READY)
"""States in which a session holds, or is getting, a sandbox."""
ENDED: Final[tuple[str, ...]] = (FAILED, DEAD)

IDLE_TIMEOUT_MS: Final = 86_400_000
"""Default idle time after which a ready session is reaped: 24 hours (seed 001)."""

TITLE_LIMIT: Final = 255
INITIAL_PROMPT_LIMIT: Final = 30_000
"""Characters of a first message: it travels as one argument of a program, which Linux limits to 128 KiB."""
TITLE_PREVIEW_LIMIT: Final = 60


def disappeared(why: str) -> str:
    """The `failure_reason` of a session whose sandbox ended by itself (LAP REST 4.4)."""
    kind = "oom killed" if "out of memory" in why else "task disappeared"
    return f"{kind}: the sandbox ended by itself ({why})"


def title_preview(text: str) -> str:
    """The first user text on one line: whitespace collapsed, at most 60 characters (LAP REST 3.2)."""
    line = " ".join(text.split())
    return line if len(line) <= TITLE_PREVIEW_LIMIT else line[: TITLE_PREVIEW_LIMIT - 1].rstrip() + "…"

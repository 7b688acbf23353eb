"""What an agent remembers from session to session: limits, and the block a new session is told (LAP REST 7.1)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

TEXT_LIMIT: Final = 8_000
MAX_TAGS: Final = 8
WORD_LIMIT: Final = 64
"""Characters of a tag or a type."""
MAX_PRIORITY: Final = 2**31 - 1
MAX_PER_AGENT: Final = 5_000
DEFAULT_TYPE: Final = "convention"

MAX_PINNED: Final = 20
"""Pinned memories a session is told."""
DEFAULT_PRELOAD: Final = 10
MAX_PRELOAD: Final = 50
"""Ranked memories a session is told besides: the agent's `preload_memory_limit`."""

_NOT_IN_A_LINE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def is_line(text: str) -> bool:
    """Whether `text` stays on one line and has no control characters."""
    return _NOT_IN_A_LINE.search(text) is None


def block(pinned: Sequence[Mapping[str, Any]], ranked: Sequence[Mapping[str, Any]]) -> str:
    """The block before the prompt; "" when there is nothing to remember. Rows need `text`, `type` and `tags`."""
    if not pinned and not ranked:
        return ""
    lines = [
        "=== AGENT MEMORY ===",
        "Notes kept from earlier sessions of this agent. Follow them unless told otherwise.",
    ]
    if pinned:
        lines += ["", f"ALWAYS-ON ({len(pinned)} pinned, always included):", *map(_row, pinned)]
    if ranked:
        lines += ["", f"RANKED (top {len(ranked)} by priority + recent usage):", *map(_row, ranked)]
    return "\n".join([*lines, "=== END AGENT MEMORY ==="])


def _row(memory: Mapping[str, Any]) -> str:
    # Further lines are indented, so that no text can end the block or look like another memory.
    text = "\n  ".join(memory["text"].strip().splitlines())
    return f"- [{', '.join((memory['type'], *memory['tags']))}] {text}"

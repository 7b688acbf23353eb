"""Words, glyphs and numbers every screen shares: statuses, ages, durations, clean one-line text."""

from __future__ import annotations

import re
import sys
from typing import NamedTuple

from rich.cells import cell_len, chop_cells, set_cell_size

# Control characters (C0, DEL, C1), line separators and bidirectional overrides: text from a platform or a sandbox
# must never move the cursor, recolour the screen or reorder what the eye reads.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_ESCAPES = re.compile(
    "\x1b\\[[0-?]*[ -/]*[@-~]"  # CSI
    "|\x1b[\\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\\\)?"  # OSC, DCS, SOS, PM, APC
    "|\x1b[ -/]*[0-~]"  # the short ones
)


class Glyphs(NamedTuple):
    """The marks drawn beside words; `ASCII` is for terminals whose encoding cannot show the others."""

    ready: str = "●"
    creating: str = "◐"
    failed: str = "✗"
    dead: str = "○"
    stuck: str = "▲"
    done: str = "✓"
    todo: str = "·"
    full: str = "▰"
    empty: str = "▱"
    cursor: str = "▌"
    up: str = "↑"
    down: str = "↓"
    dot: str = "·"
    dash: str = "—"
    rule: str = "─"
    ellipsis: str = "…"


UNICODE = Glyphs()
ASCII = Glyphs(
    ready="*",
    creating="~",
    failed="x",
    dead="o",
    stuck="!",
    done="+",
    todo=".",
    full="#",
    empty=".",
    cursor=">",
    up="^",
    down="v",
    dot="-",
    dash="-",
    rule="-",
    ellipsis="~",
)


def glyphs_for(encoding: str | None = None) -> Glyphs:
    """The glyphs the terminal can show, judged by the encoding of standard output."""
    name = (encoding or getattr(sys.__stdout__, "encoding", None) or "ascii").lower()
    return UNICODE if name.replace("-", "").startswith(("utf", "cp65001")) else ASCII


def clean(text: str) -> str:
    """`text` on one line, without escape sequences, control characters or direction overrides."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(" ", _ESCAPES.sub("", text))


def clean_lines(text: str) -> list[str]:
    """`text` as clean lines; a carriage return keeps what was written last, as a terminal shows it."""
    lines = _ESCAPES.sub("", text).replace("\r\n", "\n").split("\n")
    return [_UNSAFE.sub(" ", line.rstrip("\r").rpartition("\r")[2].expandtabs()).rstrip() for line in lines]


def fit(text: str, width: int, *, right: bool = False, ellipsis: str = "…") -> str:
    """`text` in exactly `width` cells: padded, or cut at the end with an ellipsis."""
    if width <= 0:
        return ""
    size = cell_len(text)
    if size > width:
        return set_cell_size(text, width - 1) + ellipsis
    return " " * (width - size) + text if right else text + " " * (width - size)


def fit_middle(text: str, width: int, ellipsis: str = "…") -> str:
    """`text` in at most `width` cells, cut in the middle: both ends of a path or a reason tell most."""
    if cell_len(text) <= width:
        return text
    if width <= 1:
        return ellipsis[:width]
    head = (width - 1) // 2
    tail = width - 1 - head
    return set_cell_size(text, head) + ellipsis + text[-tail:]


def wrap(text: str, width: int) -> list[str]:
    """`text` in lines of at most `width` cells, broken at spaces where there are any."""
    width = max(1, width)
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        candidate = f"{line} {word}" if line else word
        if cell_len(candidate) <= width:
            line = candidate
            continue
        if line:
            lines.append(line)
        *full, line = chop_cells(word, width) or [""]
        lines.extend(full)
    return [*lines, line]


def age(seconds: float) -> str:
    """An age in at most four cells: `7s`, `12m`, `3h`, `45d`."""
    whole = max(0, int(seconds))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if whole >= size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def duration(seconds: float) -> str:
    """A measured time: `0.2s`, `42s`, `1m12s`, `2h03m`."""
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def plural(count: int, noun: str) -> str:
    """`1 session`, `2 sessions`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"

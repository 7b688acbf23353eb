"""The screen without a viewer: as text, as cells and as an SVG picture (`GET /screen`).

Works on a still copy of the emulator, in a thread: a large screen takes a while.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from pyte.graphics import FG_BG_256

if TYPE_CHECKING:
    from lapconsole.terminal.emulator import Color, Emulator, Run, Style

MAX_CELLS = 200_000
"""Of scrollback in a rendering that says more than the text."""
CELL_WIDTH, CELL_HEIGHT, BASELINE = 9, 18, 14
"""Pixels of the SVG's grid."""
PALETTE = [f"#{color}" for color in FG_BG_256]
DIMMED = "0.6"

UNDERLINES = ("none", "solid", "double", "wavy", "dotted", "dashed")
"""In CSS, by the emulator's number."""

_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def text(screen: "Emulator", scrollback: int) -> bytes:
    """Rows joined by newlines, without their trailing blanks; first the newest `scrollback` lines above them."""
    above = ("".join(run.text for run in row).rstrip(" ") for row in _above(screen, scrollback))
    return "\n".join([*above, *screen.text()]).encode(errors="replace")


def cells(screen: "Emulator", scrollback: int) -> bytes:
    """JSON: columns, rows, cursor {x, y, visible}, title, alternate, scrollback, lines.

    The first `scrollback` of the lines have left the screen; the cursor's y counts from the first one after them. A
    line is a list of runs without the plain blanks at its end: text, width, and of the style (lapconsole.terminal's)
    what is set. A colour is a number of the 256-colour palette or a list of red, green and blue.
    """
    above = _above(screen, _lines(screen, scrollback))
    x, y = screen.cursor
    lines = [_plainly(row) for row in above]
    shown = {
        "columns": screen.columns,
        "rows": screen.lines,
        "cursor": {"x": x, "y": y, "visible": screen.cursor_visible},
        "title": screen.title,
        "alternate": screen.alternate,
        "scrollback": len(lines),
        "lines": lines + [_plainly(screen.row(y)) for y in range(screen.lines)],
    }
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def svg(screen: "Emulator", scrollback: int) -> bytes:
    """A picture that needs nothing else: a grid of monospaced cells, with the cursor's outline."""
    above = list(_above(screen, _lines(screen, scrollback)))
    width, height = screen.columns * CELL_WIDTH, (len(above) + screen.lines) * CELL_HEIGHT
    foreground, background = _hex(screen.foreground), _hex(screen.background)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f'<title>{_xml(screen.title)}</title><rect width="100%" height="100%" fill="{background}"/>',
        f'<g font-family="ui-monospace,Menlo,Consolas,monospace" font-size="15" fill="{foreground}" '
        'xml:space="preserve" style="white-space:pre">',
    ]
    colors = _Colors(screen)
    for y, row in enumerate([*above, *(screen.row(y) for y in range(screen.lines))]):
        x = 0
        for run in row:
            parts += _drawn(run, x * CELL_WIDTH, y * CELL_HEIGHT, colors)
            x += run.width
    if screen.cursor_visible:
        x, y = screen.cursor
        parts.append(
            f'<rect x="{x * CELL_WIDTH + 0.5}" y="{(len(above) + y) * CELL_HEIGHT + 0.5}" width="{CELL_WIDTH - 1}" '
            f'height="{CELL_HEIGHT - 1}" fill="none" stroke="{foreground}"/>'
        )
    return "".join([*parts, "</g></svg>\n"]).encode(errors="replace")


FORMATS: Mapping[str, "tuple[str, Callable[[Emulator, int], bytes]]"] = {
    "text": ("text/plain; charset=utf-8", text),
    "cells": ("application/json", cells),
    "svg": ("image/svg+xml", svg),
}
"""Content type and rendering of each format."""


class _Colors:
    """What the screen's colours are."""

    def __init__(self, screen: "Emulator") -> None:
        self.foreground, self.background = _hex(screen.foreground), _hex(screen.background)
        self._reversed = screen.modes.reverse_screen
        self._palette = PALETTE.copy()
        for index, color in screen.palette.items():
            self._palette[index] = _hex(color)

    def of(self, style: "Style") -> tuple[str, str]:
        """Foreground and background."""
        foreground, background = self.css(style.fg) or self.foreground, self.css(style.bg) or self.background
        if style.reverse != self._reversed:
            return background, foreground
        return foreground, background

    def css(self, color: "Color") -> str | None:
        if color is None:
            return None
        return self._palette[color] if isinstance(color, int) else _hex(color)


def _lines(screen: "Emulator", scrollback: int) -> int:
    return min(scrollback, MAX_CELLS // screen.columns)


def _above(screen: "Emulator", scrollback: int) -> "Iterator[list[Run]]":
    """The newest lines that have left the screen."""
    lines = screen.scrollback_lines if scrollback else 0
    return (screen.scrollback_row(index) for index in range(max(0, lines - scrollback), lines))


def _plainly(row: "list[Run]") -> list[dict[str, Any]]:
    found = [{"text": run.text, "width": run.width, **_set(run.style)} for run in row]
    if found and len(found[-1]) == 2:
        last = found.pop()
        if stripped := last["text"].rstrip(" "):
            found.append({"text": stripped, "width": last["width"] - len(last["text"]) + len(stripped)})
    return found


def _set(style: "Style") -> dict[str, Any]:
    """The style's attributes that are not as by default."""
    defaults = style._field_defaults
    return {name: value for name, value in style._asdict().items() if value != defaults[name]}


def _drawn(run: "Run", x: int, y: int, colors: _Colors) -> Iterator[str]:
    """A run's background and its text."""
    style, width = run.style, run.width * CELL_WIDTH
    foreground, background = colors.of(style)
    if background != colors.background:
        yield f'<rect x="{x}" y="{y}" width="{width}" height="{CELL_HEIGHT}" fill="{background}"/>'
    lines = _decoration(style, colors)
    if style.hidden or not (lines or run.text.strip(" ")):
        return
    looks = [
        'font-weight="bold"' if style.bold else "",
        'font-style="italic"' if style.italic else "",
        f'opacity="{DIMMED}"' if style.dim else "",
        f'fill="{foreground}"' if foreground != colors.foreground else "",
        f'style="{lines}"' if lines else "",
    ]
    place = f'x="{x}" y="{y + BASELINE}" textLength="{width}" lengthAdjust="spacingAndGlyphs"'
    yield f"<text {' '.join(filter(None, [place, *looks]))}>{_xml(run.text)}</text>"


def _decoration(style: "Style", colors: _Colors) -> str:
    """The CSS of the lines under, through and over the text; empty without any."""
    lines = {"underline": style.underline, "line-through": style.strike, "overline": style.overline}
    if not any(lines.values()):
        return ""
    css = f"text-decoration-line:{' '.join(name for name, drawn in lines.items() if drawn)}"
    if style.underline > 1:
        css += f";text-decoration-style:{UNDERLINES[style.underline]}"
    if color := colors.css(style.underline_color):
        css += f";text-decoration-color:{color}"
    return css


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _xml(text: str) -> str:
    """Text as XML takes it."""
    return escape(_NOT_XML.sub("\ufffd", text))

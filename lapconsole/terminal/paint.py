"""Rows of an emulator as Textual strips: styles, colours, wide characters and the cursor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import takewhile
from typing import Literal

from rich.cells import cell_len, set_cell_size
from rich.color import Color as RichColor
from rich.color import ColorType
from rich.color_triplet import ColorTriplet
from rich.segment import Segment
from rich.style import Style as RichStyle
from textual.strip import Strip

from lapconsole.terminal.cells import Run
from lapconsole.terminal.styles import PLAIN, Color, Style

CursorShape = Literal["block", "underline", "bar"]

REVERSE = RichStyle(reverse=True)
_LINK_SCHEMES = ("https://", "http://", "mailto:")
_LINK_LENGTH = 2083
_NO_ATTRIBUTES = PLAIN[2:]


@lru_cache(maxsize=4096)
def rich_style(style: Style, base: RichStyle) -> RichStyle:
    """A cell's style in Rich's terms, over `base`, which gives the default colours.

    The sixteen palette colours stay numbers: Textual maps them by the theme, or leaves them to the outer terminal.
    Rich has no curly, dotted or dashed underline and no underline colour; those show as a single underline.
    """
    if style[2:] == _NO_ATTRIBUTES and not base._set_attributes:
        # Pictures have a colour of its own for each cell: this takes a fraction of the time.
        return RichStyle.from_color(_color(style.fg) or base.color, _color(style.bg) or base.bgcolor)
    return base + RichStyle(
        color=_color(style.fg),
        bgcolor=_color(style.bg),
        bold=style.bold or None,
        dim=style.dim or None,
        italic=style.italic or None,
        underline=(style.underline not in (0, 2)) or None,
        underline2=style.underline == 2 or None,
        blink=style.blink or None,
        reverse=style.reverse or None,
        conceal=style.hidden or None,
        strike=style.strike or None,
        overline=style.overline or None,
        link=_link(style.link),
    )


def _color(color: Color) -> RichColor | None:
    if color is None:
        return None
    if isinstance(color, int):
        return RichColor.from_ansi(color)
    return RichColor("", ColorType.TRUECOLOR, triplet=ColorTriplet(*color))  # its name is for people


def _link(target: str) -> str | None:
    """A hyperlink the outer terminal may be given: plain ASCII, so that it cannot end its own escape sequence."""
    harmless = target.isascii() and target.isprintable() and len(target) <= _LINK_LENGTH
    return target if harmless and target.startswith(_LINK_SCHEMES) else None


def paint(runs: Iterable[Run], columns: int, base: RichStyle) -> Strip:
    """One row in exactly `columns` cells."""
    segments: list[Segment] = []
    used = 0
    for run in runs:
        width = min(run.width, columns - used)
        if width <= 0:
            break
        # Textual measures text by itself: where it disagrees, the text is made to fit the cells it has.
        fits = width == run.width and (run.text.isascii() or cell_len(run.text) == width)
        segments.append(Segment(run.text if fits else set_cell_size(run.text, width), rich_style(run.style, base)))
        used += width
    if used < columns:
        segments.append(Segment(" " * (columns - used), base))
    return Strip(segments, columns)


def change(old: Strip, new: Strip) -> tuple[int, int]:
    """The columns in which two strips of one width differ, as (start, end); equal when they do not.

    Exact to a segment: Textual writes no less.
    """
    before, after = list(old), list(new)
    start = _alike(before, after)
    return start, max(start, new.cell_length - _alike(reversed(before), reversed(after)))


def _alike(before: Iterable[Segment], after: Iterable[Segment]) -> int:
    """How many cells the first segments that are the same cover."""
    alike = takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False))
    return sum(segment.cell_length for segment, _ in alike)


def marked(strip: Strip, marks: Iterable[tuple[int, int, RichStyle]]) -> Strip:
    """The strip with columns (start, end) in another style laid over their own; of two at one place the later counts.

    REVERSE turns what is reversed already back.
    """
    columns = strip.cell_length
    over: list[RichStyle | None] = [None] * columns
    for start, end, style in marks:
        first, last = max(0, start), min(end, columns)
        if first < last:
            over[first:last] = [style] * (last - first)
    cuts = [x for x in range(1, columns) if over[x] is not over[x - 1]]
    segments: list[Segment] = []
    for start, piece in zip([0, *cuts], _divided(strip, [*cuts, columns]), strict=True):
        style_here = over[start]
        segments += piece if style_here is None else _over(piece, style_here)
    return Strip(segments, columns)


def _divided(strip: Strip, cuts: list[int]) -> Iterable[Iterable[Segment]]:
    """The strip cut at these columns, the last of which is its end."""
    if not strip.text.isascii():
        return strip.divide(cuts)
    pieces: list[list[Segment]] = [[]]
    place, index = 0, 0
    for text, style, _ in strip:
        while place + len(text) > cuts[index]:
            taken = cuts[index] - place
            if taken:
                pieces[-1].append(Segment(text[:taken], style))
            text, place = text[taken:], place + taken
            pieces.append([])
            index += 1
        pieces[-1].append(Segment(text, style))
        place += len(text)
    return pieces


def _over(piece: Iterable[Segment], style: RichStyle) -> Iterator[Segment]:
    for text, own, _ in piece:
        own = own or RichStyle.null()
        turned = style is REVERSE and own.reverse
        yield Segment(text, own + (RichStyle(reverse=False) if turned else style))


def with_cursor(strip: Strip, column: int, shape: CursorShape) -> Strip:
    """The strip with a cursor drawn over the character that stands at `column`."""
    columns = strip.cell_length
    if not 0 <= column < columns:
        return strip
    under = strip.crop(column, min(column + 2, columns)).text
    width = 2 if under and cell_len(under[0]) == 2 else 1
    before, cell, after = strip.divide([column, column + width, columns])
    segments = list(before)
    for text, style, _ in cell:
        style = style or RichStyle.null()
        if shape == "block":
            style += RichStyle(reverse=not style.reverse)
        elif shape == "bar" and text.isspace():
            text = "▏".ljust(width)
        else:
            style += RichStyle(underline=True)
        segments.append(Segment(text, style))
    return Strip([*segments, *after], columns)

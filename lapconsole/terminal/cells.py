"""Rows of cells, the runs they are shown as, and the compact lines that scrollback and snapshots keep."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import compress
from operator import attrgetter, is_not
from typing import NamedTuple

from lapconsole.terminal.styles import PACKED_SIZE, PLAIN, Style, has_link, pack, unpack

# How a row goes on in the next one. WRAP_FILLED: the last column is only filler, because a wide character did not fit.
WRAP_NONE, WRAP_FULL, WRAP_FILLED = range(3)


class Run(NamedTuple):
    """Neighbouring cells of one style: their text, the style, and how many columns they take."""

    text: str
    style: Style
    width: int


class Row:
    """One row of the screen. `chars` holds a grapheme cluster a cell, "" in the right half of a wide one."""

    __slots__ = ("chars", "plain", "styles", "wrap")

    def __init__(self, columns: int, style: Style = PLAIN) -> None:
        self.chars = [" "] * columns
        self.styles = [style] * columns
        #: Each cell is one code point, one column wide. May be false without need, never true without right.
        self.plain = True
        self.wrap = WRAP_NONE

    def copy(self) -> Row:
        """Another row of the same cells."""
        twin = Row.__new__(Row)
        twin.chars, twin.styles, twin.plain, twin.wrap = self.chars.copy(), self.styles.copy(), self.plain, self.wrap
        return twin

    def erase(self, start: int, end: int, style: Style) -> None:
        """Blank the cells from start up to end, and the other half of a wide character that this cuts."""
        if not self.plain:
            if start == 0 and end == len(self.chars):
                self.plain = True
            else:
                self.cut(start, end)
        self.chars[start:end] = [" "] * (end - start)
        self.styles[start:end] = [style] * (end - start)
        if end == len(self.chars):
            self.wrap = WRAP_NONE

    def cut(self, start: int, end: int) -> None:
        """Blank the halves of wide characters left over when the cells from start up to end are replaced."""
        chars = self.chars
        if 0 < start < len(chars) and not chars[start]:
            chars[start - 1] = " "
        if end < len(chars) and not chars[end]:
            chars[end] = " "

    def resize(self, columns: int) -> None:
        """Crop, or add blank cells at the end."""
        have = len(self.chars)
        if columns > have:
            self.chars += [" "] * (columns - have)
            self.styles += [PLAIN] * (columns - have)
        elif columns < have:
            self.cut(columns, have)
            del self.chars[columns:], self.styles[columns:]
        if columns != have:
            self.wrap = WRAP_NONE

    def text(self) -> str:
        """The text without trailing blanks."""
        return "".join(self.chars).rstrip(" ")

    def used(self) -> int:
        """Columns up to the last cell that is not a plain blank."""
        if self.plain:
            end = len("".join(self.chars).rstrip(" "))
        else:
            end = len(self.chars)
            while end and self.chars[end - 1] == " ":
                end -= 1
        rest = self.styles[end:]
        if rest.count(PLAIN) < len(rest):
            end = len(self.chars)
            while self.styles[end - 1] == PLAIN:
                end -= 1
        return end


def all_plain(chars: list[str]) -> bool:
    """Whether each cell is one code point, so that none is wide or a cluster."""
    return max(map(len, chars), default=1) == 1 == min(map(len, chars), default=1)


def _edges(styles: list[Style], end: int) -> list[int]:
    """Where the runs of one style in the first `end` cells stop, the last at `end`."""
    if not end:
        return []
    # Equal styles are nearly always one object: comparing identities first leaves few to compare in full.
    changes = compress(range(1, end), map(is_not, styles[1:end], styles))
    return [*(x for x in changes if styles[x] != styles[x - 1]), end]


def runs(chars: list[str], styles: list[Style]) -> list[Run]:
    """The cells as runs that cover every column."""
    found = []
    start = 0
    for end in _edges(styles, len(styles)):
        found.append(Run("".join(chars[start:end]), styles[start], end - start))
        start = end
    return found


class Line(NamedTuple):
    """A row in compact form: about a byte a cell for plain text, at most 20 bytes a cell whatever its colours.

    text: the cells joined, with a NUL before each when some are not a single narrow code point.
    looks: the packed style of each run, nothing when all is plain. ends: where the runs end, as 16-bit numbers.
    links: the link of each run that has one, in order. wrap: as in Row.
    """

    text: str
    looks: bytes
    ends: bytes
    links: tuple[str, ...]
    wrap: int


#: Looks, ends and links of a line in which all is plain.
UNSTYLED: tuple[bytes, bytes, tuple[str, ...]] = (b"", b"", ())
_PLAIN_LOOK = pack(PLAIN)


class Looks:
    """How the cells of several lines look, one after the other, to be cut at other places."""

    def __init__(self) -> None:
        self._ends: list[int] = []
        self._looks: list[tuple[bytes, str]] = []

    @classmethod
    def joined(cls, lines: Iterable[Line]) -> Looks:
        """Of lines whose cells are all one code point."""
        found, start = cls(), 0
        for line in lines:
            size = len(line.text)
            if not line.looks:
                found._add(start + size, (_PLAIN_LOOK, ""))
            else:
                links = iter(line.links)
                for index, end in enumerate(array("H", line.ends)):
                    look = line.looks[index * PACKED_SIZE : (index + 1) * PACKED_SIZE]
                    found._add(start + end, (look, next(links, "") if has_link(look) else ""))
            start += size
        return found

    def _add(self, end: int, look: tuple[bytes, str]) -> None:
        if self._looks and self._looks[-1] == look:
            self._ends[-1] = end
        elif not self._ends or end > self._ends[-1]:
            self._ends.append(end)
            self._looks.append(look)

    def part(self, start: int, end: int) -> tuple[bytes, bytes, tuple[str, ...]]:
        """Looks, ends and links, as a Line has them, of the cells from start up to end."""
        if end <= start:
            return UNSTYLED
        first, last = bisect_right(self._ends, start), bisect_left(self._ends, end)
        looks = self._looks[first : last + 1]
        if len(looks) == 1 and looks[0][0] == _PLAIN_LOOK:
            return UNSTYLED
        ends = array("H", [stop - start for stop in self._ends[first:last]])
        ends.append(end - start)
        return b"".join([look for look, _ in looks]), ends.tobytes(), tuple(link for _, link in looks if link)

    def used(self, start: int, end: int) -> int:
        """Where the cells from start up to end are plain from on; `start` when all are."""
        while end > start:
            index = bisect_left(self._ends, end)
            if self._looks[index][0] != _PLAIN_LOOK:
                break
            end = self._ends[index - 1] if index else 0
        return max(start, end)


_LINK = attrgetter("link")


def compact(row: Row) -> Line:
    """The row as a Line, without its trailing plain blanks."""
    chars, styles = row.chars, row.styles
    all_unstyled = styles.count(PLAIN) == len(styles)
    if all_unstyled and row.plain and not row.wrap:
        return Line("".join(chars).rstrip(" "), b"", b"", (), WRAP_NONE)
    end = len(chars) if row.wrap else row.used()
    chars = chars[:end]
    text = "".join(chars) if row.plain or all_plain(chars) else "\0" + "\0".join(chars)
    if all_unstyled:
        return Line(text, b"", b"", (), row.wrap)
    edges = _edges(styles, end)
    looks = [styles[0], *map(styles.__getitem__, edges[:-1])]
    links = tuple(filter(None, map(_LINK, looks)))
    return Line(text, b"".join(map(pack, looks)), array("H", edges).tobytes(), links, row.wrap)


def cells(line: Line) -> tuple[list[str], list[Style]]:
    """The cells of a Line. ValueError when it cannot come from `compact`."""
    chars = line.text[1:].split("\0") if line.text.startswith("\0") else list(line.text)
    if not line.looks:
        return chars, [PLAIN] * len(chars)
    styles: list[Style] = []
    links = iter(line.links)
    ends = array("H", line.ends)
    if len(ends) * PACKED_SIZE != len(line.looks):
        raise ValueError("a line has a different number of runs and styles")
    for index, end in enumerate(ends):
        style, linked = unpack(line.looks[index * PACKED_SIZE : (index + 1) * PACKED_SIZE])
        if linked:
            style = style._replace(link=next(links, ""))
        styles += [style] * (end - len(styles))
    if len(styles) != len(chars):
        raise ValueError("a line has a different number of cells and styles")
    return chars, styles


def expand(line: Line, columns: int | None = None) -> Row:
    """The Line as a row, cropped or filled with blanks to a number of columns."""
    row = Row(0)
    row.chars, row.styles = cells(line)
    row.plain = not line.text.startswith("\0")
    if columns is not None:
        row.resize(columns)
    row.wrap = line.wrap
    return row

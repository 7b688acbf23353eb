"""What a terminal has shown, frozen at one moment: scrollback and screen as lines to be read, cut and searched."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lapconsole.terminal.cells import WRAP_FILLED, Line, Run, cells, compact, runs
from lapconsole.terminal.emulator import Emulator

#: A line that wraps on and on is taken in pieces of so many rows, so that no step takes long.
MAX_JOINED_ROWS = 500

# What a double click takes: a name, a path or an address is one word.
_WORD = re.compile(r"[\w./:@~%+#=&?\-]+")


class Place(NamedTuple):
    """A cell, or the gap before it: `line` counts from the oldest, `column` from 0."""

    line: int
    column: int


class Span(NamedTuple):
    """The cells from `start` up to `end`."""

    start: Place
    end: Place


class Document:
    """Lines of one width, the oldest first. They never change: what the program writes later is not in it."""

    def __init__(self, lines: Sequence[Line], columns: int, newest: Line | None = None) -> None:
        """`newest` is the last of the scrollback, which finds the same place in a later document."""
        self.lines = lines
        self.columns = columns
        self._newest = newest

    @classmethod
    def of(cls, emulator: Emulator) -> Document:
        """All that the emulator holds now."""
        history = list(emulator.screen.history.wrapped(emulator.columns))
        screen = map(compact, emulator.screen.rows)
        return cls([*history, *screen], emulator.columns, history[-1] if history else None)

    def __len__(self) -> int:
        return len(self.lines)

    def shift_to(self, later: Document) -> int:
        """How much higher the numbers of these lines are in a later document; negative when old ones fell out."""
        if self._newest is None:
            return 0
        # Lines in the scrollback stay the same objects for as long as they are kept.
        here = _last_index(self.lines, self._newest)
        there = _last_index(later.lines, self._newest)
        return there - here if there >= 0 else len(later) - len(self)

    def row(self, index: int) -> list[Run]:
        """A line as runs, without trailing plain blanks."""
        return runs(*cells(self.lines[index]))

    def characters(self, index: int) -> Sequence[str]:
        """The cells of a line, "" in the right half of a wide one."""
        text = self.lines[index].text
        return text[1:].split("\0") if text.startswith("\0") else text

    # Lines as the program wrote them

    def group(self, index: int) -> range:
        """The lines that this one was wrapped into, itself among them."""
        first, last = index, index + 1
        while first > 0 and self.lines[first - 1].wrap and last - first < MAX_JOINED_ROWS:
            first -= 1
        while last < len(self.lines) and self.lines[last - 1].wrap and last - first < MAX_JOINED_ROWS:
            last += 1
        return range(first, last)

    def groups_back(self) -> Iterator[range]:
        """All lines, as they were wrapped, the newest first."""
        end = len(self.lines)
        while end > 0:
            first = end - 1
            while first > 0 and self.lines[first - 1].wrap and end - first < MAX_JOINED_ROWS:
                first -= 1
            yield range(first, end)
            end = first

    def joined(self, group: range) -> Joined:
        """One written line as a string, and where each of its characters stands."""
        return Joined(self, group)

    # What is selected

    def text(self, start: Place, end: Place, limit: int) -> str:
        """The text from `start` up to `end`; where a line was only wrapped there is no line break.

        Beyond `limit` characters it ends after the next line.
        """
        pieces: list[str] = []
        length = 0
        for index in range(start.line, min(end.line + 1, len(self.lines))):
            line = self.lines[index]
            chars = self.characters(index)
            stop = len(chars)
            if line.wrap == WRAP_FILLED:
                stop -= 1
            whole = index < end.line
            if not whole:
                stop = min(stop, end.column)
            piece = "".join(chars[start.column if index == start.line else 0 : max(0, stop)])
            if whole and not line.wrap:
                piece = piece.rstrip(" ") + "\n"
            pieces.append(piece)
            length += len(piece)
            if length > limit:
                break
        return "".join(pieces)

    def whole_lines(self, first: int, last: int) -> Span:
        """The lines `first` to `last`, and those they were wrapped into."""
        start, end = self.group(first), self.group(last)
        return Span(Place(start[0], 0), Place(end[-1], self.columns))

    def word(self, place: Place) -> Span:
        """The word at a place, over wrapped lines too; a single cell where there is none."""
        joined = self.joined(self.group(place.line))
        offset = joined.offset(place)
        for match in _WORD.finditer(joined.text):
            if match.start() <= offset < match.end():
                return joined.span(match.start(), match.end())
        return Span(place, Place(place.line, place.column + 1))

    def next_word(self, place: Place, step: int) -> Place:
        """The start of the next word, or of the one before when `step` is negative."""
        line = place.line
        while 0 <= line < len(self.lines):
            group = self.group(line)
            joined = self.joined(group)
            starts = [joined.place(match.start()) for match in _WORD.finditer(joined.text)]
            found = [start for start in starts if start > place] if step > 0 else [s for s in starts if s < place]
            if found:
                return found[0] if step > 0 else found[-1]
            line = group[-1] + 1 if step > 0 else group[0] - 1
        return place


class Joined:
    """A line as it was written, before it was wrapped. Offsets count its code points."""

    def __init__(self, document: Document, group: range) -> None:
        self._first = group.start
        self._starts: list[int] = []
        self._columns: list[list[int] | None] = []  # of each code point, where it is not its number
        self._widths: list[int] = []
        pieces: list[str] = []
        length = 0
        for index in group:
            chars = document.characters(index)
            if document.lines[index].wrap == WRAP_FILLED:
                chars = chars[:-1]
            self._starts.append(length)
            self._widths.append(len(chars))
            if isinstance(chars, str):
                piece = chars
                self._columns.append(None)
            else:
                piece = "".join(chars)
                self._columns.append([column for column, cell in enumerate(chars) for _ in cell])
            pieces.append(piece)
            length += len(piece)
        self.text = "".join(pieces)

    def place(self, offset: int) -> Place:
        """Where a character stands; for the offset after the last one, the column after it."""
        row = bisect_right(self._starts, offset) - 1
        within = offset - self._starts[row]
        columns = self._columns[row]
        if columns is None:
            return Place(self._first + row, within)
        return Place(self._first + row, columns[within] if within < len(columns) else self._widths[row])

    def offset(self, place: Place) -> int:
        """The character at a place; the end of its line for one beyond it."""
        row = place.line - self._first
        columns = self._columns[row]
        within = place.column if columns is None else sum(column < place.column for column in columns)
        end = self._starts[row + 1] if row + 1 < len(self._starts) else len(self.text)
        return min(self._starts[row] + within, end)

    def span(self, start: int, end: int) -> Span:
        """The cells of the characters from `start` up to `end`, of which there is at least one."""
        last = self.place(end - 1)
        row = last.line - self._first
        columns = self._columns[row]
        if columns is None:
            return Span(self.place(start), Place(last.line, last.column + 1))
        after = next((column for column in columns if column > last.column), self._widths[row])
        return Span(self.place(start), Place(last.line, after))


def _last_index(lines: Sequence[Line], line: Line) -> int:
    """Where this very object is, looked for from the end; -1 when it is not there."""
    return next((index for index in range(len(lines) - 1, -1, -1) if lines[index] is line), -1)

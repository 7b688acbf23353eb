"""Lines that have left the top of the screen, and rewrapping: both for another width without losing text."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from math import inf
from time import monotonic

from lapconsole.terminal.cells import (
    UNSTYLED,
    WRAP_FILLED,
    WRAP_FULL,
    WRAP_NONE,
    Line,
    Looks,
    Row,
    all_plain,
    compact,
    expand,
)
from lapconsole.terminal.styles import Style
from lapconsole.terminal.widths import width

#: A logical line longer than this many rows is broken up: one endless line must not make each resize slow.
MAX_LOGICAL_ROWS = 1000
#: Rows kept as they were: about 2 KB each at 120 columns.
MAX_FRESH = 512
#: The same for a moment, after a resize has pushed many at once.
MAX_BURST = 4 * MAX_FRESH
_MANY = 64


class Scrollback:
    """The newest `limit` lines. They are rewrapped when somebody looks, so a resize costs nothing here."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        # The newest rows as they were, not compact yet: a program that redraws all of its output clears them again
        # before anybody has looked.
        self._fresh: deque[Row] = deque()
        self._lines: deque[Line] = deque()
        self._wrapped_for = 0  # the width that all lines fit; 0 when not known
        self._done: deque[Line] = deque()  # older than `_lines`, and wrapped already for the width looked for
        self._doing = 0

    def __len__(self) -> int:
        """How many lines there are, as they are wrapped now; a few more than the limit for a while."""
        return len(self._done) + len(self._lines) + len(self._fresh)

    def push(self, row: Row) -> None:
        """Keep a row that leaves the screen."""
        self._fresh.append(row)
        for _ in range(2):  # so that what a resize left behind is made up for
            if len(self._fresh) > MAX_FRESH:
                self._compact_oldest()

    def extend(self, rows: Iterable[Row]) -> None:
        """Keep many rows at once: quick, as none of them is made compact yet."""
        self._fresh.extend(rows)
        while len(self._fresh) > MAX_BURST:
            self._compact_oldest()

    def _compact_oldest(self) -> None:
        self._lines.append(compact(self._fresh.popleft()))
        self._trim(max(0, self.limit - MAX_FRESH))

    def _trim(self, count: int) -> None:
        """Give up the oldest of the compact lines, but for so many."""
        excess = len(self._done) + len(self._lines) - count
        for _ in range(excess):
            (self._done or self._lines).popleft()

    @property
    def lines(self) -> deque[Line]:
        """The lines, the oldest first."""
        self._undo()
        if self._fresh:
            self._lines.extend(map(compact, self._fresh))
            self._fresh.clear()
            self._trim(self.limit)
        return self._lines

    @lines.setter
    def lines(self, lines: deque[Line]) -> None:
        self.clear()
        self._lines = lines
        self._wrapped_for = 0

    def pop_logical(self) -> list[Row]:
        """Take back the newest line that ends in a line break, or is still open, with all rows it was wrapped into."""
        self._undo()
        taken = [self._pop()]
        while len(self) and self._last_wrap() and len(taken) < MAX_LOGICAL_ROWS:
            taken.append(self._pop())
        taken.reverse()
        return taken

    def _pop(self) -> Row:
        # A copy: others may still be reading what has left the screen.
        return self._fresh.pop().copy() if self._fresh else expand(self._lines.pop())

    def _last_wrap(self) -> int:
        return (self._fresh or self._lines or self._done)[-1].wrap

    @property
    def open(self) -> bool:
        """Whether the newest line goes on in the first row of the screen."""
        return len(self) > 0 and self._last_wrap() != WRAP_NONE

    def wrapped(self, columns: int) -> deque[Line]:
        """All lines, wrapped for this width. None is dropped, even if they become more than the limit for now."""
        self.work(columns, inf)
        return self._lines

    def work(self, columns: int, deadline: float) -> bool:
        """Prepare `wrapped` until a time (by the monotonic clock). True when it is done and `wrapped` is quick."""
        if self._doing != columns:
            self._undo()
        while self._fresh:
            self._lines.append(compact(self._fresh.popleft()))
            if not len(self._fresh) % 16 and monotonic() > deadline:
                return False
        if self._wrapped_for == columns:
            self._trim(self.limit)
            return True
        if not self._doing:
            self._trim(self.limit)
            self._doing = columns
        for count, group in enumerate(_take_groups(self._lines, columns), 1):
            self._done.extend(rewrap_lines(group, columns))
            if not count % 16 and monotonic() > deadline:
                return False
        self._lines, self._done = self._done, self._lines
        self._wrapped_for, self._doing = columns, 0
        return True

    def _undo(self) -> None:
        """Back to one list of lines, some of which are wrapped for another width."""
        self._lines.extendleft(reversed(self._done))
        self._done.clear()
        self._doing = 0

    def resized(self) -> None:
        """Lines pushed from now on have another width."""
        self._undo()
        self._wrapped_for = 0

    def copy(self) -> Scrollback:
        """Another one that keeps the same."""
        twin = Scrollback(self.limit)
        twin._fresh, twin._lines, twin._done = self._fresh.copy(), self._lines.copy(), self._done.copy()
        twin._wrapped_for, twin._doing = self._wrapped_for, self._doing
        return twin

    def clear(self) -> None:
        self._fresh.clear()
        self._lines.clear()
        self._done.clear()
        self._doing = 0


def _take_groups(lines: deque[Line], columns: int) -> Iterator[list[Line]]:
    """Takes lines away from the front: those that were wrapped into one, or one, or many that need no change."""
    while lines:
        group = [lines.popleft()]
        if _fits(group[0], columns):
            while lines and len(group) < _MANY and _fits(lines[0], columns):
                group.append(lines.popleft())
        else:
            while lines and group[-1].wrap and len(group) < MAX_LOGICAL_ROWS:
                group.append(lines.popleft())
        yield group


def _fits(line: Line, columns: int) -> bool:
    """Whether a line is a whole one, and stands in one row of this width."""
    if line.wrap:
        return False
    if _simple(line):
        return len(line.text) <= columns
    return 1 < line.text.count("\0") <= columns


def _simple(line: Line) -> bool:
    """Whether each character of the text is one column: of a single cell one cannot say, if it is all of a row."""
    text = line.text
    return not text.startswith("\0") and line.wrap != WRAP_FILLED and (len(text) != 1 or text.isascii())


def rewrap_lines(group: list[Line], columns: int) -> list[Line]:
    """The same as `rewrap` for compact lines; also for whole ones that fit."""
    if _fits(group[0], columns):
        return group
    if not all(map(_simple, group)):
        return [compact(row) for row in rewrap([expand(line) for line in group], columns)]
    text = "".join(line.text for line in group)
    looks = Looks.joined(group) if any(line.looks for line in group) else None
    last = max(0, len(text) - 1) // columns * columns
    wrapped = [
        Line(text[start : start + columns], *(looks.part(start, start + columns) if looks else UNSTYLED), WRAP_FULL)
        for start in range(0, last, columns)
    ]
    rest = text[last:]
    if len(rest) == columns and group[-1].wrap:
        return [*wrapped, Line(rest, *(looks.part(last, len(text)) if looks else UNSTYLED), group[-1].wrap)]
    end = len(rest.rstrip(" "))
    if looks is not None:
        end = max(end, looks.used(last, len(text)) - last)
    wrapped.append(Line(rest[:end], *(looks.part(last, last + end) if looks else UNSTYLED), WRAP_NONE))
    return wrapped


def logical(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Group rows into logical lines: each ends with a row that is not wrapped, or with the last row."""
    group: list[Row] = []
    for row in rows:
        group.append(row)
        if not row.wrap or len(group) >= MAX_LOGICAL_ROWS:
            yield group
            group = []
    if group:
        yield group


def rewrap(group: list[Row], columns: int) -> list[Row]:
    """One logical line as rows of this width, the last one wrapped as the last of the group is.

    A row that is to be changed only at its end is changed in place.
    """
    first = group[0]
    alone = len(group) == 1 and not first.wrap and len(first.chars) > 1
    if alone and (columns >= len(first.chars) or first.used() <= columns):
        first.resize(columns)
        return group
    chars, styles = _join(group)
    plain = all(row.plain and len(row.chars) > 1 for row in group)
    open_end = group[-1].wrap
    rows = []
    start = 0
    while True:
        end = min(start + columns, len(chars))
        filled = end < len(chars) and not chars[end]  # the break would halve a wide character
        if filled and columns > 1:
            end -= 1
        rows.append(_piece(chars[start:end], styles[start:end], columns, plain))
        last = end - start
        if filled and columns == 1:
            end += 1  # a wide character on a screen one column wide: its cell keeps it, see `_join`
        start = end
        if start >= len(chars):
            break
        rows[-1].wrap = WRAP_FILLED if filled and columns > 1 else WRAP_FULL
    if last == columns - (open_end == WRAP_FILLED):
        rows[-1].wrap = open_end
    return rows


def _piece(chars: list[str], styles: list[Style], columns: int, plain: bool) -> Row:
    row = Row(0)
    row.chars, row.styles = chars, styles
    row.plain = plain or all_plain(chars)
    row.resize(columns)
    return row


def _join(group: list[Row]) -> tuple[list[str], list[Style]]:
    """The cells of a logical line, without fillers and without the blanks after its end."""
    chars: list[str] = []
    styles: list[Style] = []
    for row in group:
        end = len(row.chars) if row.wrap else row.used()
        if row.wrap == WRAP_FILLED:
            end -= 1
        chars += row.chars[:end]
        styles += row.styles[:end]
        if len(row.chars) == 1 and end and width(row.chars[0]) == 2:
            chars.append("")
            styles.append(row.styles[0])
    return chars, styles


def resize_rows(
    rows: list[Row], cursor: tuple[int, int], columns: int, lines: int, history: Scrollback
) -> tuple[list[Row], tuple[int, int]]:
    """Rows of the primary screen for another size, and where the cursor (x, y) is then.

    Lines wrapped by the terminal are wrapped anew; what no longer fits goes to the scrollback, and comes back from
    there when the screen was full and grows.
    """
    x, y = cursor
    content = max(y, next((i for i in range(len(rows) - 1, 0, -1) if rows[i].used()), 0)) + 1
    full = content >= len(rows)
    rows = rows[:content]
    if columns != len(rows[0].chars):
        if history.open:
            before = history.pop_logical()
            rows = before + rows
            y += len(before)
        rows, x, y = _rewrap_all(rows, x, y, columns)
        history.resized()
    while full and len(rows) < lines and len(history):
        if history.open:
            older = history.pop_logical()
            rows, x, y = _rewrap_all(older + rows, x, y + len(older), columns)
        else:
            older = rewrap(history.pop_logical(), columns)
            rows = older + rows
            y += len(older)
    excess = max(0, len(rows) - lines)
    history.extend(rows[:excess])
    rows = rows[excess:]
    rows += [Row(columns) for _ in range(lines - len(rows))]
    return rows, (min(x, columns - 1), max(0, y - excess))


def _rewrap_all(rows: list[Row], x: int, y: int, columns: int) -> tuple[list[Row], int, int]:
    wrapped: list[Row] = []
    seen = 0
    new_x, new_y = x, y
    for group in logical(rows):
        first = len(wrapped)
        wrapped += rewrap(group, columns)
        if seen <= y < seen + len(group):
            above = group[: y - seen]
            offset = x + sum(len(row.chars) - (row.wrap == WRAP_FILLED) for row in above)
            new_x, new_y = offset, first
            while new_y < len(wrapped) - 1:
                taken = columns - (wrapped[new_y].wrap == WRAP_FILLED)
                if new_x < taken:
                    break
                new_x -= taken
                new_y += 1
        seen += len(group)
    return wrapped, new_x, new_y

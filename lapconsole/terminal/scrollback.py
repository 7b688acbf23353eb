"""Lines that have left the top of the screen, and rewrapping: both for another width without losing text."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from lapconsole.terminal.cells import WRAP_FILLED, WRAP_FULL, WRAP_NONE, Line, Row, all_plain, compact, expand
from lapconsole.terminal.styles import Style
from lapconsole.terminal.widths import width

#: A logical line longer than this many rows is broken up: one endless line must not make each resize slow.
MAX_LOGICAL_ROWS = 1000
#: Rows kept as they were: about 2 KB each at 120 columns.
MAX_FRESH = 512


class Scrollback:
    """The newest `limit` lines. They are rewrapped when somebody looks, so a resize costs nothing here."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        # The newest rows as they were, not compact yet: a program that redraws all of its output clears them again
        # before anybody has looked.
        self._fresh: deque[Row] = deque()
        self._lines: deque[Line] = deque()
        self._wrapped_for = 0  # the width that all lines fit; 0 when not known

    def push(self, row: Row) -> None:
        self._fresh.append(row)
        if len(self._fresh) > MAX_FRESH:
            self._lines.append(compact(self._fresh.popleft()))
            if len(self._lines) + MAX_FRESH > self.limit:
                self._lines.popleft()

    @property
    def lines(self) -> deque[Line]:
        """The lines, the oldest first."""
        if self._fresh:
            self._lines.extend(map(compact, self._fresh))
            self._fresh.clear()
            while len(self._lines) > self.limit:
                self._lines.popleft()
        return self._lines

    @lines.setter
    def lines(self, lines: deque[Line]) -> None:
        self._fresh.clear()
        self._lines = lines
        self._wrapped_for = 0

    def pop_logical(self) -> list[Row]:
        """Take back the newest line that ends in a line break, or is still open, with all rows it was wrapped into."""
        lines = self.lines
        taken = [lines.pop()]
        while lines and lines[-1].wrap and len(taken) < MAX_LOGICAL_ROWS:
            taken.append(lines.pop())
        return [expand(line) for line in reversed(taken)]

    @property
    def open(self) -> bool:
        """Whether the newest line goes on in the first row of the screen."""
        return bool(self.lines) and self.lines[-1].wrap != WRAP_NONE

    def wrapped(self, columns: int) -> deque[Line]:
        """All lines, wrapped for this width. None is dropped, even if they become more than the limit for now."""
        if self._wrapped_for != columns:
            self.lines = deque(_rewrap_lines(self.lines, columns))
            self._wrapped_for = columns
        return self.lines

    def resized(self) -> None:
        """Lines pushed from now on have another width."""
        self._wrapped_for = 0

    def clear(self) -> None:
        self._fresh.clear()
        self._lines.clear()


def _rewrap_lines(lines: Iterable[Line], columns: int) -> Iterator[Line]:
    group: list[Line] = []
    for line in lines:
        if not group and not line.wrap and len(line.text) <= columns:
            yield line
            continue
        group.append(line)
        if not line.wrap or len(group) >= MAX_LOGICAL_ROWS:
            yield from map(compact, rewrap([expand(part) for part in group], columns))
            group = []
    if group:
        yield from map(compact, rewrap([expand(part) for part in group], columns))


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
    """One logical line as rows of this width, the last one wrapped as the last of the group is."""
    chars, styles = _join(group)
    open_end = group[-1].wrap
    rows = []
    start = 0
    while True:
        end = min(start + columns, len(chars))
        filled = end < len(chars) and not chars[end]  # the break would halve a wide character
        if filled and columns > 1:
            end -= 1
        rows.append(_piece(chars[start:end], styles[start:end], columns))
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


def _piece(chars: list[str], styles: list[Style], columns: int) -> Row:
    row = Row(0)
    row.chars, row.styles = chars, styles
    row.plain = all_plain(chars)
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
    content = max(y, max((i for i, row in enumerate(rows) if row.used()), default=0)) + 1
    full = content >= len(rows)
    rows = rows[:content]
    if columns != len(rows[0].chars):
        if history.open:
            before = history.pop_logical()
            rows = before + rows
            y += len(before)
        rows, x, y = _rewrap_all(rows, x, y, columns)
        history.resized()
    while full and len(rows) < lines and history.lines:
        if history.open:
            older = history.pop_logical()
            rows, x, y = _rewrap_all(older + rows, x, y + len(older), columns)
        else:
            older = rewrap(history.pop_logical(), columns)
            rows = older + rows
            y += len(older)
    excess = max(0, len(rows) - lines)
    for row in rows[:excess]:
        history.push(row)
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

"""The grid of cells: drawing, erasing, scrolling and the cursor. Knows nothing of escape sequences."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

from lapconsole.terminal.cells import WRAP_FILLED, WRAP_FULL, WRAP_NONE, Row
from lapconsole.terminal.scrollback import Scrollback, resize_rows
from lapconsole.terminal.styles import PLAIN, Pen
from lapconsole.terminal.widths import MAX_CLUSTER, joins, width

TAB_WIDTH = 8


@dataclass(slots=True)
class SavedCursor:
    """What DECSC keeps for DECRC."""

    x: int = 0
    y: int = 0
    pending_wrap: bool = False
    pen: Pen = field(default_factory=lambda: Pen(PLAIN))
    charsets: tuple[str, ...] = ("B", "B", "B", "B")
    charset: int = 0
    origin: bool = False


@dataclass(slots=True)
class Buffer:
    """One of the two screens, primary or alternate, and what is kept apart for it."""

    rows: list[Row]
    saved: SavedCursor = field(default_factory=SavedCursor)
    kitty_flags: list[int] = field(default_factory=lambda: [0])

    def copy(self) -> Buffer:
        return Buffer([row.copy() for row in self.rows], copy.copy(self.saved), self.kitty_flags.copy())


class Screen:
    """Cells, cursor, margins and tab stops of a terminal. Positions are from 0; margins are inclusive.

    Callers set `x` and `y` only to cells that exist, and clear `pending_wrap` when they move the cursor.
    """

    def __init__(self, columns: int, lines: int, scrollback: int) -> None:
        self.columns = columns
        self.lines = lines
        self.history = Scrollback(scrollback)
        self.primary = Buffer(self.blank_rows())
        self.alternate = Buffer(self.blank_rows())
        self.reset()

    def reset(self) -> None:
        """All but the scrollback as at power-on."""
        self.primary = Buffer(self.blank_rows())
        self.alternate = Buffer(self.blank_rows())
        self.buffer = self.primary
        self.rows = self.primary.rows
        self.x = 0
        self.y = 0
        #: The cursor stands behind the last column: the next character goes to the next row.
        self.pending_wrap = False
        self.pen = Pen(PLAIN)
        self.autowrap = True
        self.insert = False
        self.origin = False
        self.reverse_wrap = False
        self.margin_mode = False
        #: Translation table of the charset in use; None when it changes nothing.
        self.charset_map: Mapping[int, int] | None = None
        self.tabs = set(range(TAB_WIDTH, self.columns, TAB_WIDTH))
        self.top = self.left = 0
        self.bottom = self.lines - 1
        self.right = self.columns - 1
        self.dirty = set(range(self.lines))
        self._scrolled = False
        self.update_limit()

    def copy(self, *, scrollback: bool = True, still: bool = False) -> Screen:
        """Another screen in the same state, or without the scrollback; a `still` one lacks an unused alternate."""
        twin = copy.copy(self)
        twin.history = self.history.copy() if scrollback else Scrollback(self.history.limit)
        if still and self.buffer is self.primary:
            twin.alternate = Buffer(
                [Row(self.columns)] * self.lines, copy.copy(self.alternate.saved), self.alternate.kitty_flags.copy()
            )
        else:
            twin.alternate = self.alternate.copy()
        twin.primary = self.primary.copy()
        twin.buffer = twin.primary if self.buffer is self.primary else twin.alternate
        twin.rows = twin.buffer.rows
        twin.tabs, twin.dirty = self.tabs.copy(), self.dirty.copy()
        return twin

    def blank_rows(self) -> list[Row]:
        return [Row(self.columns) for _ in range(self.lines)]

    def update_limit(self) -> None:
        """Call after a change of insert mode, charset, margin mode or size.

        `_limit` is where text that needs nothing special must end at the latest; -1 sends all to the slow path.
        """
        special = self.insert or self.charset_map is not None or self.margin_mode
        self._limit = -1 if special else self.columns

    # Dirty rows

    def take_dirty(self) -> set[int]:
        """Rows that may have changed since the last call."""
        self._flush_scrolled()
        dirty, self.dirty = self.dirty, set()
        return dirty

    def touch(self) -> None:
        """Every row has changed."""
        self.dirty.update(range(self.lines))

    def _flush_scrolled(self) -> None:
        if self._scrolled:
            self.dirty.update(range(self.top, self.bottom + 1))
            self._scrolled = False

    # Text

    def put_narrow(self, text: str) -> None:
        """Write characters that are one column each and join nothing before them."""
        x = self.x
        count = len(text)
        end = x + count
        if self.pending_wrap or end > self._limit:
            self._put_narrow(text)
            return
        row = self.rows[self.y]
        if not row.plain:
            row.cut(x, end)
        if count == 1:
            row.chars[x] = text
            row.styles[x] = self.pen.style
        else:
            row.chars[x:end] = text
            row.styles[x:end] = [self.pen.style] * count
        self.dirty.add(self.y)
        if end == self.columns:
            self.x = end - 1
            self.pending_wrap = self.autowrap
            row.wrap = WRAP_NONE
        else:
            self.x = end

    def _put_narrow(self, text: str) -> None:
        """The same where it wraps, inserts, translates or meets margins."""
        if self.charset_map is not None:
            text = text.translate(self.charset_map)
        while text:
            if self.pending_wrap:
                self.wrap(WRAP_FULL)
            room = self._right_edge() - self.x
            if not self.autowrap and len(text) > room:
                text = text[: room - 1] + text[-1]
            part, text = text[:room], text[room:]
            self._write(list(part))

    def put_wide(self, text: str) -> None:
        """Write characters that are two columns each and join nothing before them."""
        while text:
            if self.pending_wrap:
                self.wrap(WRAP_FULL)
            fit = (self._right_edge() - self.x) // 2
            if fit == 0:
                self._write_cluster(text[0])
                text = text[1:]
                continue
            if not self.autowrap and len(text) > fit:
                text = text[: fit - 1] + text[-1]
            part, text = text[:fit], text[fit:]
            chars = [""] * (2 * len(part))
            chars[::2] = part
            self._write(chars, plain=False)

    def _make_room_for_wide(self) -> None:
        """Only one column is left before the edge: wrap, or step back. Where the line has only one, do nothing."""
        edge = self._right_edge()
        left = self.left if self.margin_mode and self.x >= self.left else 0
        if edge - left < 2:
            return
        if self.autowrap:
            row = self.rows[self.y]
            row.erase(self.x, edge, self.pen.blank)
            self.dirty.add(self.y)
            self.wrap(WRAP_FILLED if edge == self.columns else WRAP_NONE)
        else:
            self.x = edge - 2

    def put_other(self, text: str) -> None:
        """Write any other printable text: combining marks, joiners, flags, Indic and Hangul clusters."""
        for character in text:
            self._put_character(character)

    def put_again(self, count: int) -> None:
        """Write the cluster before the cursor `count` times more (REP)."""
        at = self._cell_before()
        if at is not None:
            cluster = self.rows[self.y].chars[at]
            for character in cluster * count:
                self._put_character(character)

    def _put_character(self, character: str) -> None:
        at = self._cell_before()
        if at is not None:
            row = self.rows[self.y]
            cluster = row.chars[at]
            if joins(cluster, character) or width(character) == 0:
                if len(cluster) < MAX_CLUSTER:
                    self._grow_cluster(row, at, cluster + character)
                return
        columns = width(character)
        if columns == 1:
            self._put_narrow(character)
        elif columns == 2:
            self.put_wide(character)

    def _cell_before(self) -> int | None:
        """Column of the cell a combining character joins: the one before the cursor."""
        at = self.x if self.pending_wrap else self.x - 1
        if at < 0:
            return None
        chars = self.rows[self.y].chars
        return at - 1 if at and not chars[at] else at

    def _grow_cluster(self, row: Row, at: int, cluster: str) -> None:
        """Put a longer cluster into a cell. It may become wide (VS16, flags), or narrow (VS15)."""
        row.plain = False
        chars, styles = row.chars, row.styles
        after = at + 1
        was_wide = after < len(chars) and not chars[after]
        is_wide = width(cluster) == 2
        self.dirty.add(self.y)
        if is_wide == was_wide or len(chars) == 1:
            chars[at] = cluster
        elif is_wide and after < self._right_edge():
            if self.insert:
                self._shift_right(row, after, 1, self._right_edge())
            row.cut(after, after + 1)
            chars[at : after + 1] = [cluster, ""]
            styles[after] = styles[at]
            self._advance(row, after + 1)
        elif is_wide:
            # No room for the second half: write it anew, as if it had come in one piece.
            self.x, self.pending_wrap = at, False
            chars[at] = " "
            self._write_cluster(cluster)
        else:
            chars[at], chars[after] = cluster, " "
            self.x, self.pending_wrap = after, False

    def _write_cluster(self, cluster: str) -> None:
        """Write one cluster of any width."""
        if self.pending_wrap:
            self.wrap(WRAP_FULL)
        if width(cluster) < 2:
            self._write([cluster], plain=len(cluster) == 1)
            return
        if self._right_edge() - self.x < 2:
            self._make_room_for_wide()
        fits = self._right_edge() - self.x > 1
        self._write([cluster, ""] if fits else [cluster], plain=False)

    def _write(self, chars: list[str], *, plain: bool = True) -> None:
        """Put cells that fit before the right edge at the cursor, and move it behind them."""
        x, row = self.x, self.rows[self.y]
        edge = self._right_edge()
        end = x + len(chars)
        if self.insert:
            self._shift_right(row, x, len(chars), edge)
        if not row.plain:
            row.cut(x, end)
        row.chars[x:end] = chars
        row.styles[x:end] = [self.pen.style] * len(chars)
        row.plain = row.plain and plain
        self.dirty.add(self.y)
        self._advance(row, end)

    def _advance(self, row: Row, end: int) -> None:
        """Move the cursor behind what was just written, to column `end`."""
        self.pending_wrap = False
        if end == self._right_edge():
            self.x = end - 1
            self.pending_wrap = self.autowrap
            if end == self.columns:
                row.wrap = WRAP_NONE
        else:
            self.x = end

    def _right_edge(self) -> int:
        """The column text wraps at: behind the right margin, or behind the screen when right of that."""
        return self.right + 1 if self.x <= self.right else self.columns

    def wrap(self, kind: int) -> None:
        """Go to the start of the next row because this one is full."""
        self.pending_wrap = False
        row = self.rows[self.y]
        if self.right == self.columns - 1 and not self.left:
            row.wrap = kind
        self.x = self.left if self.x >= self.left else 0
        self.index()

    # Scrolling

    def index(self) -> None:
        """Cursor down one row; at the bottom margin scroll instead."""
        if self.y == self.bottom:
            self.scroll_up(1)
        elif self.y < self.lines - 1:
            self.y += 1

    def reverse_index(self) -> None:
        """Cursor up one row; at the top margin scroll instead."""
        if self.y == self.top:
            self.scroll_down(self.top, 1)
        elif self.y:
            self.y -= 1

    def scroll_up(self, count: int) -> None:
        """Scroll the region. Rows that leave the top of the primary screen go to the scrollback."""
        keep = self.buffer is self.primary and self.top == 0 and not self._narrowed()
        self.delete_rows(self.top, count, keep=keep)

    def delete_rows(self, y: int, count: int, *, keep: bool = False) -> None:
        """Remove rows from y up, and blank as many at the bottom margin."""
        count = min(count, self.bottom + 1 - y)
        if self._narrowed():
            self._move_columns(y, count)
            return
        rows, blank = self.rows, self.pen.blank
        if y:
            rows[y - 1].wrap = WRAP_NONE
        for _ in range(count):
            row = rows.pop(y)
            if keep:
                self.history.push(row)
            rows.insert(self.bottom, Row(self.columns, blank))
        self._mark_scrolled(y)

    def scroll_down(self, y: int, count: int) -> None:
        """Insert blank rows at y; rows pushed below the bottom margin are lost."""
        count = min(count, self.bottom + 1 - y)
        if self._narrowed():
            self._move_columns(y, -count)
            return
        rows, blank = self.rows, self.pen.blank
        if y:
            rows[y - 1].wrap = WRAP_NONE
        for _ in range(count):
            del rows[self.bottom]
            rows.insert(y, Row(self.columns, blank))
        rows[self.bottom].wrap = WRAP_NONE
        self._mark_scrolled(y)

    def _mark_scrolled(self, y: int) -> None:
        if y == self.top:
            self._scrolled = True
        else:
            self.dirty.update(range(y, self.bottom + 1))

    def _narrowed(self) -> bool:
        return self.left > 0 or self.right < self.columns - 1

    def _move_columns(self, y: int, count: int) -> None:
        """Scroll the cells between the left and right margin up by count rows (down when negative)."""
        start, end = self.left, self.right + 1
        region = self.rows[y : self.bottom + 1]
        for row in region:
            row.cut(start, end)
            row.wrap = WRAP_NONE
        order = range(len(region)) if count > 0 else range(len(region) - 1, -1, -1)
        for position in order:
            source = position + count
            row = region[position]
            if 0 <= source < len(region):
                other = region[source]
                row.chars[start:end] = other.chars[start:end]
                row.styles[start:end] = other.styles[start:end]
                row.plain = row.plain and other.plain
            else:
                row.erase(start, end, self.pen.blank)
        self.dirty.update(range(y, self.bottom + 1))

    # Editing

    def erase(self, y: int, start: int, end: int) -> None:
        """Blank the cells of row y from start up to end."""
        self.rows[y].erase(start, end, self.pen.blank)
        self.dirty.add(y)

    def erase_rows(self, start: int, end: int) -> None:
        """Blank whole rows from start up to end."""
        for y in range(start, end):
            self.rows[y] = Row(self.columns, self.pen.blank)
        if start and end > start:
            self.rows[start - 1].wrap = WRAP_NONE
        self.dirty.update(range(start, end))

    def insert_cells(self, count: int) -> None:
        """Shift the rest of the row right from the cursor on and blank the gap."""
        if not self.left <= self.x <= self.right:
            return
        row, edge = self.rows[self.y], self.right + 1
        count = min(count, edge - self.x)
        self._shift_right(row, self.x, count, edge)
        row.erase(self.x, self.x + count, self.pen.blank)
        self.dirty.add(self.y)

    def _shift_right(self, row: Row, x: int, count: int, edge: int) -> None:
        """Move the cells from x on right by count; those pushed over the edge are lost."""
        if not row.plain:
            row.cut(x, x)
            row.cut(edge - count, edge)
        row.chars[x:edge] = [" "] * count + row.chars[x : edge - count]
        row.styles[x:edge] = [self.pen.blank] * count + row.styles[x : edge - count]
        row.wrap = WRAP_NONE

    def delete_cells(self, count: int) -> None:
        """Remove cells at the cursor and shift the rest of the row left."""
        if not self.left <= self.x <= self.right:
            return
        row, edge, x = self.rows[self.y], self.right + 1, self.x
        count = min(count, edge - x)
        if not row.plain:
            row.cut(x, x + count)
            row.cut(edge, edge)
        row.chars[x:edge] = row.chars[x + count : edge] + [" "] * count
        row.styles[x:edge] = row.styles[x + count : edge] + [self.pen.blank] * count
        row.wrap = WRAP_NONE
        self.dirty.add(self.y)

    def fill(self, character: str) -> None:
        """Fill the screen with a character (DECALN)."""
        for y in range(self.lines):
            row = self.rows[y] = Row(self.columns)
            row.chars = [character] * self.columns
        self.touch()

    # Margins, buffers, size

    def set_rows_margin(self, top: int, bottom: int) -> None:
        self._flush_scrolled()
        self.top, self.bottom = top, bottom

    def use(self, buffer: Buffer) -> None:
        """Show the other screen."""
        self._flush_scrolled()
        self.buffer, self.rows = buffer, buffer.rows
        self.touch()

    def resize(self, columns: int, lines: int) -> None:
        """Change the size: the primary screen rewraps, the alternate one is cropped or filled."""
        on_primary = self.buffer is self.primary
        saved = self.primary.saved
        cursor = (self.x, self.y) if on_primary else (saved.x, saved.y)
        self._flush_scrolled()
        self.primary.rows, cursor = resize_rows(self.primary.rows, cursor, columns, lines, self.history)
        self._crop_alternate(columns, lines, self.y if not on_primary else 0)
        if on_primary:
            self.x, self.y = cursor
        else:
            saved.x, saved.y = cursor
        self.tabs |= set(range((self.columns // TAB_WIDTH + 1) * TAB_WIDTH, columns, TAB_WIDTH))
        self.tabs = {tab for tab in self.tabs if tab < columns}
        self.columns, self.lines = columns, lines
        self.rows = self.buffer.rows
        self.top = self.left = 0
        self.bottom, self.right = lines - 1, columns - 1
        self.pending_wrap = False
        self.x, self.y = min(self.x, columns - 1), min(self.y, lines - 1)
        for buffer in (self.primary, self.alternate):
            buffer.saved.x, buffer.saved.y = min(buffer.saved.x, columns - 1), min(buffer.saved.y, lines - 1)
        self.dirty = set(range(lines))
        self.update_limit()

    def _crop_alternate(self, columns: int, lines: int, cursor_y: int) -> None:
        rows = self.alternate.rows
        above = max(0, cursor_y + 1 - lines)  # rows to give up at the top so that the cursor's row stays
        rows = rows[above : above + lines]
        for row in rows:
            row.resize(columns)
        rows += [Row(columns) for _ in range(lines - len(rows))]
        self.alternate.rows = rows
        if self.buffer is self.alternate:
            self.y -= above

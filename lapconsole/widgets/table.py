"""The live table: draws only the lines in view, redraws only rows that changed, keeps the cursor on its entity."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from time import monotonic
from typing import ClassVar, Generic, NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from lapconsole import keys
from lapconsole.live.views import E, View
from lapconsole.widgets.columns import GAP, Column, lay_out
from lapconsole.widgets.parts import Look, Part, Parts, fit_parts, plain, scroll_quietly, strip_of, tone
from lapconsole.widgets.words import UNICODE, Glyphs, clean, wrap

HEADER = 2  # the title rule and the column titles
MARGIN = 2  # the cursor mark and a space, before the first column
STRIP_CACHE = 1024
HOLD_SECONDS = 3.0  # rows that want to move wait until nobody has moved the cursor for so long


class _Drawn(NamedTuple):
    """A drawn row: valid while the entity has this version and its clock-driven cells read the same."""

    version: int
    live: tuple[Parts, ...]
    strip: Strip


class Table(ScrollView, Generic[E], can_focus=True, inherit_bindings=False):
    """The rows of a view of the live model.

    The cost of an update does not depend on the number of rows: the view finds rows by bisection, and only lines on
    the screen are drawn, from a cache kept by entity version.
    """

    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("table")

    class Moved(Message):
        """The cursor is on another entity, or on none."""

        def __init__(self, row_id: str | None) -> None:
            super().__init__()
            self.row_id = row_id

    class Opened(Message):
        """Enter was pressed, or the mouse clicked twice, on an entity."""

        def __init__(self, row_id: str) -> None:
            super().__init__()
            self.row_id = row_id

    class Folded(Message):
        """Other columns than before are folded away."""

    def __init__(
        self,
        columns: Sequence[Column[E]],
        view: View[E],
        entities: Mapping[str, E],
        version: Callable[[str], int],
        *,
        title: str,
        clock: Callable[[], datetime],
        glyphs: Glyphs = UNICODE,
        total: Callable[[], int] | None = None,
        id: str | None = None,
    ) -> None:
        """`entities` are those of the view; `version` grows with each change of one, as `LiveModel.version` does.

        `total` counts the rows there are without a filter, where that is not all entities.
        """
        super().__init__(id=id)
        scroll_quietly(self)
        self._columns = list(columns)
        self._view = view
        self._entities = entities
        self._version = version
        self._clock = clock
        self._glyphs = glyphs
        self._total = total or (lambda: len(entities))
        self.title = title
        self.scope = "all"
        self.empty: tuple[str, ...] = ()
        self.known = True  # False while the rows are still to come
        self._cursor: str | None = None
        self._index = 0  # the line the cursor was last on
        self._layout: list[tuple[Column[E], int]] = []
        self._folded: list[Column[E]] = []
        self._drawn: dict[str, _Drawn] = {}
        self._touched = -HOLD_SECONDS

    # -- content

    @property
    def view(self) -> View[E]:
        """The rows shown, in order."""
        return self._view

    @property
    def folded(self) -> list[str]:
        """Titles of the columns there is no room for."""
        return [column.title for column in self._folded]

    @property
    def current(self) -> E | None:
        """The entity under the cursor."""
        return None if self._cursor is None else self._entities.get(self._cursor)

    def changed(self, ids: Collection[str]) -> None:
        """Take over changed, new and removed entities."""
        if self._view.update(ids):
            self._reshaped()
            return
        if self._cursor in ids and self._cursor not in self._entities:
            self._reshaped()
        for row_id in self._ids_in_view():
            if row_id in ids:
                self._refresh_row(row_id)

    def tick(self) -> None:
        """Redraw the rows in view whose ages read differently now; let rows that want to move, unless someone does."""
        if self._view.out_of_order and monotonic() - self._touched >= HOLD_SECONDS:
            self.action_settle()
        look = self._look()
        for row_id in self._ids_in_view():
            drawn = self._drawn.get(row_id)
            if drawn is None or drawn.live != self._live_cells(self._entities[row_id], look):
                self._refresh_row(row_id)

    # -- order

    @property
    def filter(self) -> str:
        """The filter in force, as typed."""
        return self._view.filter

    @filter.setter
    def filter(self, text: str) -> None:
        if text != self._view.filter:
            self._view.set_filter(text)
            self._reshaped()

    def sort_by(self, sort: str, *, descending: bool = False) -> None:
        """Sort by one of the view's sorts."""
        self._view.sort_by(sort, descending=descending)
        self._reshaped()

    def action_sort_next(self) -> None:
        """Sort by the next column that sorts."""
        columns = [column for column in self._columns if column.sort]
        position = next((place for place, column in enumerate(columns) if column.sort == self._view.sort), -1)
        column = columns[(position + 1) % len(columns)]
        self.sort_by(column.sort, descending=column.descending)

    def action_sort_reverse(self) -> None:
        """Turn the order round."""
        self.sort_by(self._view.sort, descending=not self._view.descending)

    def action_settle(self) -> None:
        """Move the rows that stayed in place when what they are sorted by changed."""
        self._view.resort()
        self._reshaped()

    # -- cursor

    @property
    def cursor_id(self) -> str | None:
        """Id of the entity under the cursor."""
        return self._cursor

    def move_to(self, row_id: str) -> None:
        """Put the cursor on an entity, and bring it into view."""
        if (index := self._view.index_of(row_id)) is not None:
            self._move(index)

    def _move(self, index: int) -> None:
        self._touched = monotonic()
        if not self._view:
            return
        self._index = max(0, min(index, len(self._view) - 1))
        old, self._cursor = self._cursor, self._view[self._index]
        if old != self._cursor:
            if old is not None:
                self._refresh_row(old)
            self._refresh_row(self._cursor)
            self.post_message(self.Moved(self._cursor))
        self._show(self._index)

    def _show(self, index: int) -> None:
        top, page = self.scroll_offset.y, self._page
        if index < top:
            self.scroll_to(y=index, animate=False)
        elif index >= top + page:
            self.scroll_to(y=index - page + 1, animate=False)

    def _reshaped(self) -> None:
        """Rows came, went or moved: keep the cursor on its entity, and the screen still around it."""
        count, old, before = len(self._view), self._cursor, self._index
        index = None if old is None else self._view.index_of(old)
        if index is None:
            index = max(0, min(before, count - 1))
            self._cursor = self._view[index] if count else None
        self._index = index
        self.virtual_size = Size(self.scrollable_content_region.width, count + HEADER)
        if index != before and self.scroll_offset.y:
            self.scroll_to(y=self.scroll_offset.y + index - before, animate=False, force=True)
        self._show(index)
        if len(self._drawn) > STRIP_CACHE:
            self._drawn.clear()
        self.refresh()
        if self._cursor != old:
            self.post_message(self.Moved(self._cursor))

    @property
    def _page(self) -> int:
        return max(1, self.scrollable_content_region.height - HEADER)

    def action_up(self) -> None:
        self._move(self._index - 1)

    def action_down(self) -> None:
        self._move(self._index + 1)

    def action_page_up(self) -> None:
        self._move(self._index - self._page)

    def action_page_down(self) -> None:
        self._move(self._index + self._page)

    def action_first(self) -> None:
        self._move(0)

    def action_last(self) -> None:
        self._move(len(self._view) - 1)

    def action_open(self) -> None:
        if self._cursor is not None:
            self.post_message(self.Opened(self._cursor))

    def on_click(self, event: events.Click) -> None:
        index = event.y - HEADER + self.scroll_offset.y
        if event.y >= HEADER and index < len(self._view):
            self._move(index)
            if event.chain == 2:
                self.action_open()

    # -- drawing

    def on_resize(self) -> None:
        width = self.scrollable_content_region.width
        before = self._folded
        self._layout, self._folded = lay_out(self._columns, width - MARGIN)
        if self._folded != before:
            self.post_message(self.Folded())
        self._drawn.clear()
        self._reshaped()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._drawn.clear()

    def _look(self) -> Look:
        return Look(self._clock(), self._glyphs)

    def _live_cells(self, row: E, look: Look) -> tuple[Parts, ...]:
        return tuple(column.cell(row, look) for column, _ in self._layout if column.live)

    def _ids_in_view(self) -> list[str]:
        top = self.scroll_offset.y
        return [row_id for row_id in self._view[top : top + self._page] if row_id in self._entities]

    def _refresh_row(self, row_id: str) -> None:
        index = self._view.index_of(row_id)
        if index is not None:
            y = index - self.scroll_offset.y + HEADER
            if HEADER <= y < self.size.height:
                self.refresh(Region(0, y, self.size.width, 1))

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        if y == 0:
            return self._title_line(width)
        if y == 1:
            return self._header_line(width)
        index = y - HEADER + self.scroll_offset.y
        if index < len(self._view):
            return self._row_line(self._view[index], width)
        if not self._view:
            return self._empty_line(y - HEADER, width)
        return Strip.blank(width, self.rich_style)

    def _title_line(self, width: int) -> Strip:
        glyphs, view = self._glyphs, self._view
        shown, total = len(view), self._total()
        # A filter is part of what one is looking at; the order is a note, and gives way when there is no room.
        scope = f"/{clean(view.filter)}" if view.filter.strip() else self.scope
        count = "" if not (self.known or shown) else f"[{shown}]" if shown == total else f"[{shown} of {total}]"
        name = "title" if self.has_focus else "strong"
        left: tuple[Part, ...] = (
            (f"{glyphs.rule} ", "muted"),
            (f"{self.title}({scope})", name),
            (f"{count} ", "muted"),
        )
        arrow = glyphs.down if view.descending else glyphs.up
        by_column = any(column.sort == view.sort for column in self._columns)
        order = f" {view.sort} {arrow if by_column else ''}".rstrip() + f" {glyphs.rule}"
        spare = width - cell_len(plain(left)) - cell_len(order)
        middle = glyphs.rule * spare + order if spare >= 0 else glyphs.rule * (spare + cell_len(order))
        return strip_of(self, (*left, (middle, "muted")), width, self.rich_style, ellipsis=glyphs.ellipsis)

    def _header_line(self, width: int) -> Strip:
        style = self.rich_style + tone(self, "muted")
        if not self._view and not self._view.filter:
            return Strip.blank(width, style)
        arrow = self._glyphs.down if self._view.descending else self._glyphs.up
        titles = []
        for column, size in self._layout:
            sorts = column.sort == self._view.sort and len(column.title) + 2 <= size
            title = f"{column.title} {arrow}" if sorts else column.title
            titles.append(plain(fit_parts(((title, "muted"),), size, right=column.right)))
        line = " " * MARGIN + (" " * GAP).join(titles)
        return Strip([Segment(line, style)]).adjust_cell_length(width, style)

    def _row_line(self, row_id: str, width: int) -> Strip:
        row = self._entities.get(row_id)
        if row is None:  # removed a moment ago; the view hears of it next
            return Strip.blank(width, self.rich_style)
        look = self._look()
        live, version = self._live_cells(row, look), self._version(row_id)
        drawn = self._drawn.get(row_id)
        if drawn is None or drawn.version != version or drawn.live != live:
            if len(self._drawn) > STRIP_CACHE:
                self._drawn.clear()
            drawn = self._drawn[row_id] = _Drawn(version, live, self._draw(row, look, width))
        return self._with_cursor(drawn.strip, width) if row_id == self._cursor else drawn.strip

    def _draw(self, row: E, look: Look, width: int) -> Strip:
        parts: list[Part] = [(" " * MARGIN, "plain")]
        for position, (column, size) in enumerate(self._layout):
            if position:
                parts.append((" " * GAP, "plain"))
            parts.extend(fit_parts(column.cell(row, look), size, right=column.right, ellipsis=look.glyphs.ellipsis))
        return strip_of(self, tuple(parts), width, self.rich_style, ellipsis=look.glyphs.ellipsis)

    def _with_cursor(self, strip: Strip, width: int) -> Strip:
        cursor, base = tone(self, "cursor"), self.rich_style
        mark = Segment(self._glyphs.cursor, base + tone(self, "accent") + Style(bgcolor=cursor.bgcolor))
        if cursor.reverse:
            # Tones turned inside out would be blocks of colour; the words say the same.
            rest = [Segment(strip.crop(1, width).text, base + cursor)]
        else:
            over = Style(bgcolor=cursor.bgcolor, bold=cursor.bold)
            rest = [Segment(text, (style or base) + over) for text, style, _ in strip.crop(1, width)]
        return Strip([mark, *rest], width)

    def _empty_line(self, y: int, width: int) -> Strip:
        if self._view.filter.strip() and self._total():
            lines: tuple[str, ...] = (
                f'Nothing matches "{clean(self._view.filter)}".',
                "Press esc to clear the filter.",
            )
        else:
            lines = tuple(piece for line in self.empty for piece in wrap(line, width - 2 * MARGIN))
        first = max(0, min(4, (self._page - len(lines)) // 3))
        if not first <= y < first + len(lines):
            return Strip.blank(width, self.rich_style)
        text = lines[y - first]
        indent = " " * max(0, (width - cell_len(text)) // 2)
        parts = ((indent, "plain"), (text, "strong" if y == first else "muted"))
        return strip_of(self, parts, width, self.rich_style, ellipsis=self._glyphs.ellipsis)

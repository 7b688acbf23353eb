"""What a terminal shows, drawn at the pace of the link: output in, rows out, letterboxed where sizes differ."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style as RichStyle
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from lapconsole.terminal.cells import Row, runs
from lapconsole.terminal.emulator import Emulator, Notice
from lapconsole.terminal.paint import CursorShape, change, paint, with_cursor

# Output is taken in slices this long, for this long at a time; then whatever else is ready runs, keys before all.
SLICE_BYTES = 2048
TURN_SECONDS = 0.004
BREATH_SECONDS = 0.001
# Rows are painted for so long at a time. Textual's part of the work comes on top, every 16 ms for all rows since.
PAINT_SECONDS = 0.002
PAINT_PAUSE_SECONDS = 0.006
DRAW_BEFORE_SECONDS = 0.001
# `ready` lets a reader go on below this much output not yet taken: what waits here delays the echo of a key.
HIGH_WATER_BYTES = 32 * 1024

FRAMES_PER_SECOND = 30
FRAMES_PER_SECOND_SSH = 15
# A program that opened a synchronized update shows nothing half done, but no longer than this.
SYNC_HOLD_SECONDS = 0.12
RESIZE_SECONDS = 0.05
# Programs animate their title, and can ring without end.
TITLE_SECONDS = 1.0
BELL_SECONDS = 0.5

_END_OF_SYNC = b"\x1b[?2026l"
_CURSOR_SHAPES: dict[int, CursorShape] = {3: "underline", 4: "underline", 5: "bar", 6: "bar"}


class Surface(Widget):
    """The screen of a terminal. `feed` it output, or `repaint` it; it posts `Resized` when its own size changes.

    The emulator follows the widget's size until a `repaint` says otherwise. A smaller terminal then stands at the top
    left within an edge, a larger one is cut off, at the top where its cursor is below.
    """

    DEFAULT_CSS = """
    Surface { width: 1fr; height: 1fr; background: $background; color: $foreground; }
    Surface > .terminal--edge { text-style: dim; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"terminal--edge"}
    ALLOW_SELECT = False

    class Resized(Message):
        """The widget has this size now."""

        def __init__(self, columns: int, lines: int) -> None:
            super().__init__()
            self.columns = columns
            self.lines = lines

    class TitleChanged(Message):
        """The program named its window."""

        def __init__(self, title: str) -> None:
            super().__init__()
            self.title = title

    class Bell(Message):
        """The program rang."""

    def __init__(self, *, scrollback: int = 10_000, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.emulator = Emulator(80, 24, scrollback=scrollback)
        #: Whose size it is, told at the edge of a terminal that does not fill the widget; "" draws no edge.
        self.mark = ""
        self.edges = "┊┈"
        self._scrollback = scrollback
        self._coming: Emulator | None = None  # takes a repaint; shown when it has all of it
        self._size_then: tuple[int, int] | None = None  # of the repaint after that one
        self._follows = True
        self._waiting: deque[bytes] = deque()
        self._taken = 0  # of the first of them
        self._backlog = 0
        self._room = asyncio.Event()
        self._room.set()
        self._turn: asyncio.Handle | None = None
        self._frame: asyncio.TimerHandle | None = None
        self._resize: asyncio.Handle | None = None
        self._interval = 1 / (FRAMES_PER_SECOND_SSH if os.environ.get("SSH_CONNECTION") else FRAMES_PER_SECOND)
        self._shown_at = 0.0
        self._sync_since: float | None = None
        self._stale = False
        self._rows: list[Strip] = []  # of the emulator, as they were at the last frame, without the cursor
        self._unpainted: dict[int, Row] = {}  # rows of that frame which are not painted yet
        self._painting: asyncio.Handle | None = None
        self._pan = 0  # the first of them in sight
        self._cursor: tuple[int, int, CursorShape] | None = None
        self._sized = False
        self._title = ""
        self._title_due: asyncio.Handle | None = None
        self._titled_at = self._rang_at = float("-inf")

    # Output

    def feed(self, data: bytes | str) -> None:
        """Take output of the program. It is worked off in the background; see `ready`."""
        if isinstance(data, str):
            data = data.encode("utf-8", errors="replace")
        if not data:
            return
        self._waiting.append(data)
        self._backlog += len(data)
        if self._backlog > HIGH_WATER_BYTES:
            self._room.clear()
        if self._turn is None and self.is_attached:
            self._turn = asyncio.get_running_loop().call_soon(self._work)

    def repaint(self, data: bytes, columns: int, lines: int, *, fresh: bool = True) -> bool:
        """Take the whole present state of a terminal of this size. What came before and is not shown yet is dropped.

        A `fresh` one is built up out of sight from nothing, and shown when it is complete; else the scrollback that is
        here, or still coming, stays above it. False when output was dropped that would have gone there.
        """
        kept = [self._waiting[0]] if self._coming is not None and not fresh else []
        whole = fresh or len(self._waiting) == len(kept)
        self._waiting = deque(kept)
        self._backlog = sum(map(len, kept)) - (self._taken if kept else 0)
        if kept:
            self._size_then = (columns, lines)
        else:
            self._taken = 0
            self._coming = self._size_then = None
            if fresh or self._follows:
                self._coming = Emulator(columns, lines, scrollback=self._scrollback)
            else:
                self.emulator.resize(columns, lines)
        self._follows = False
        self.feed(data or b"\x1b[m")
        return whole

    def follow_size(self) -> None:
        """From now on the terminal has the widget's size."""
        if not self._follows:
            self._follows = True
            self._apply_size()

    async def ready(self) -> None:
        """Wait until there is room for more output."""
        await self._room.wait()

    def _work(self) -> None:
        """Take output for one turn of the event loop."""
        self._turn = None
        began = monotonic()
        drawn, due = self._show(), False
        while self._waiting and not drawn and monotonic() < began + TURN_SECONDS:
            if self._coming is not None:
                self._take_repaint(self._coming)
                continue
            self.emulator.feed(self._slice())
            self._stale = True
            self._note_sync()
            if self._wait() <= 0:
                # A frame ends the turn; after much else it is drawn first thing in the next one.
                drawn = monotonic() < began + DRAW_BEFORE_SECONDS and self._show()
                due = not drawn
                break
        # The harness answers what the program asks of its terminal; a second answer would be typed into it.
        self.emulator.take_replies()
        self._tell_notices(self.emulator.take_notices())
        if self._backlog <= HIGH_WATER_BYTES:
            self._room.set()
        if self._waiting or due:
            # Not call_soon: a short wait lets every key that has come run through all its stations first.
            self._turn = asyncio.get_running_loop().call_later(BREATH_SECONDS, self._work)
        else:
            self._show()

    def _take_repaint(self, coming: Emulator) -> None:
        coming.feed(self._slice())
        if not self._taken:  # the repaint is what the queue began with
            self._coming = None
            if self._size_then is not None:
                coming.resize(*self._size_then)
                self._size_then = None
            self._take_over(coming)

    def _take_over(self, coming: Emulator) -> None:
        """Show another emulator from now on."""
        self.emulator = coming
        self._sync_since = None
        self._note_sync()
        self._redraw()

    def _slice(self) -> bytes:
        """The next piece of output: never beyond the end of a synchronized update, where a frame is whole."""
        data, start = self._waiting[0], self._taken
        end = data.find(_END_OF_SYNC, start, start + SLICE_BYTES)
        cut = start + SLICE_BYTES if end < 0 else end + len(_END_OF_SYNC)
        piece = data[start:cut]
        self._backlog -= len(piece)
        self._taken = cut
        if cut >= len(data):
            self._waiting.popleft()
            self._taken = 0
        return piece

    def _note_sync(self) -> None:
        if not self.emulator.modes.synchronized:
            self._sync_since = None
        elif self._sync_since is None:
            self._sync_since = monotonic()

    def _show(self) -> bool:
        """Draw what has changed, if a frame is due; else come back when it is. True when it is drawn."""
        if not self._stale or not self.is_attached:
            return False
        wait = self._wait()
        if wait > 0:
            self._frame = _sooner(self._frame, wait, self._frame_due)
            return False
        self._stale = False
        self._shown_at = monotonic()
        self._draw(self.emulator.take_dirty())
        return True

    def _wait(self) -> float:
        """Seconds until the next frame may be drawn; not more than 0 when it may be now."""
        now = monotonic()
        wait = self._shown_at + self._interval - now
        if self._sync_since is not None:
            wait = max(wait, self._sync_since + SYNC_HOLD_SECONDS - now)
        if wait <= 0 and (self._unpainted or self._link_behind()):
            wait = self._interval
        return wait

    def _frame_due(self) -> None:
        self._frame = None
        self._show()

    def _link_behind(self) -> bool:
        """Whether a write waits behind the one being written to the outer terminal.

        Frames on top would only show the past, and behind thirty of them Textual blocks the event loop.
        """
        writer = getattr(self.app._driver, "_writer_thread", None)
        queue = getattr(writer, "_queue", None)
        return queue is not None and not queue.empty()

    # Drawing

    def _draw(self, rows: Iterable[int]) -> None:
        """Paint these rows of the screen and the cursor, and have what changed shown."""
        columns, lines = self.emulator.columns, self.emulator.lines
        if len(self._rows) != lines or self._rows[0].cell_length != columns:
            self._rows = [Strip.blank(columns, self.rich_style)] * lines
            self._unpainted.clear()
            rows = range(lines)
            self.refresh()
        if self._follow_cursor():
            self.refresh()
        # As they are now: a frame is one moment, however long it takes to paint it.
        self._unpainted.update((y, self.emulator.screen.rows[y].copy()) for y in rows)
        before, self._cursor = self._cursor, self._cursor_now()
        changed = self._paint_some()
        if self._cursor != before:
            # Two columns, for a cursor on a wide character.
            changed.extend(Region(x, y - self._pan, 2, 1) for x, y, _ in filter(None, (before, self._cursor)))
        self._refresh_seen(changed)

    def _paint_some(self) -> list[Region]:
        """Paint rows of the frame for a moment, and come back for the rest. Gives what looks different now."""
        base, columns = self.rich_style, self.emulator.columns
        deadline = monotonic() + PAINT_SECONDS
        changed: list[Region] = []
        while self._unpainted and monotonic() < deadline:
            y = next(iter(self._unpainted))
            row = self._unpainted.pop(y)
            strip = paint(runs(row.chars, row.styles), columns, base)
            start, end = change(self._rows[y], strip)
            if start < end:
                self._rows[y] = strip
                changed.append(Region(start, y - self._pan, end - start, 1))
        if self._unpainted and self._painting is None:
            self._painting = asyncio.get_running_loop().call_later(PAINT_PAUSE_SECONDS, self._paint_on)
        return changed

    def _paint_on(self) -> None:
        self._painting = None
        if self.is_attached and self._rows:
            self._refresh_seen(self._paint_some())

    def _refresh_seen(self, changed: Iterable[Region]) -> None:
        if seen := [region for region in changed if 0 <= region.y < self.size.height]:
            self.refresh(*_joined(seen))

    def _follow_cursor(self) -> bool:
        """Keep the cursor of a terminal that is higher than the widget in sight. True when the rows have moved."""
        hidden = self.emulator.lines - self.size.height
        before = self._pan
        if hidden <= 0 or not self.size.height:
            self._pan = 0
        elif self.emulator.cursor_visible:
            y = self.emulator.cursor[1]
            self._pan = min(max(before, y - self.size.height + 1), y, hidden)
        else:  # a program that draws its own has it near the end of what it shows
            last = max((y for y, row in enumerate(self.emulator.text()) if row), default=0)
            self._pan = min(max(0, last + 1 - self.size.height), hidden)
        return self._pan != before

    def _cursor_now(self) -> tuple[int, int, CursorShape] | None:
        emulator = self.emulator
        if not emulator.cursor_visible:
            return None
        x, y = emulator.cursor
        return min(x, emulator.columns - 1), y, _CURSOR_SHAPES.get(emulator.modes.cursor_shape, "block")

    def _redraw(self) -> None:
        """Paint everything anew: the theme, the size or the terminal has changed."""
        self._rows = []
        self._unpainted.clear()
        self._cursor = None
        if self.is_attached:
            self._stale = False
            self._shown_at = monotonic()
            self._draw(self.emulator.take_dirty())
            self.refresh()

    def render_line(self, y: int) -> Strip:
        row = y + self._pan
        if row >= len(self._rows):
            return self._below(row - len(self._rows))
        strip = self._rows[row]
        if self._cursor is not None and self._cursor[1] == row:
            strip = with_cursor(strip, self._cursor[0], self._cursor[2])
        return self._framed(strip, y)

    def _framed(self, strip: Strip, y: int) -> Strip:
        """A row of the terminal in the widget's width."""
        width, columns, base = self.size.width, strip.cell_length, self.rich_style
        if columns >= width:
            return strip if columns == width else self._cut(strip, width)
        if not self.mark:
            return strip.adjust_cell_length(width, base)
        # The mark stands below where there is room, else beside.
        beside = y == 0 and self.emulator.lines >= self.size.height
        words = set_cell_size(f"{self.edges[0]} {self.mark}" if beside else self.edges[0], width - columns)
        return Strip([*strip, Segment(words, self._edge_style)], width)

    def _cut(self, strip: Strip, width: int) -> Strip:
        """A row that is too wide, with a mark where there is more of it."""
        if not self.mark or not strip.crop(width).text.strip():
            return strip.crop(0, width)
        return Strip([*strip.crop(0, width - 1), Segment(self.edges[0], self._edge_style)], width)

    def _below(self, y: int) -> Strip:
        """A row below the terminal, from 0."""
        width, base = self.size.width, self.rich_style
        if y or not self.mark:
            return Strip.blank(width, base)
        columns = min(self.emulator.columns, width)
        words = f"{self.edges[1] * 2} {self.mark} "
        words += self.edges[1] * (columns - cell_len(words))
        return Strip([Segment(set_cell_size(words, width), self._edge_style)], width)

    @property
    def _edge_style(self) -> RichStyle:
        return self.rich_style + self.get_component_rich_style("terminal--edge", partial=True)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        if self.is_attached:
            self._redraw()

    # Size

    def on_resize(self, event: events.Resize) -> None:
        if self._resize is not None:
            self._resize.cancel()
        # The first size counts at once; while a window is dragged only the last one does.
        wait = RESIZE_SECONDS if self._sized else 0
        self._resize = asyncio.get_running_loop().call_later(wait, self._apply_size)

    def _apply_size(self) -> None:
        self._resize = None
        columns, lines = self.content_size
        if not self.is_attached or not columns or not lines:
            return
        self._sized = True
        if self._follows and (columns, lines) != (self.emulator.columns, self.emulator.lines):
            self.emulator.resize(columns, lines)
        self._redraw()
        self.post_message(self.Resized(columns, lines))

    # Life

    def on_mount(self) -> None:
        if self._waiting:
            self._turn = asyncio.get_running_loop().call_soon(self._work)

    def on_unmount(self) -> None:
        for handle in (self._turn, self._frame, self._resize, self._title_due, self._painting):
            if handle is not None:
                handle.cancel()
        self._room.set()

    def _tell_notices(self, notices: list[Notice]) -> None:
        now = monotonic()
        if self.emulator.title != self._title and self._title_due is None:
            wait = max(0.0, self._titled_at + TITLE_SECONDS - now)
            self._title_due = asyncio.get_running_loop().call_later(wait, self._tell_title)
        if now >= self._rang_at + BELL_SECONDS and any(notice.kind == "bell" for notice in notices):
            self._rang_at = now
            self.post_message(self.Bell())

    def _tell_title(self) -> None:
        self._title_due = None
        self._titled_at = monotonic()
        self._title = self.emulator.title
        self.post_message(self.TitleChanged(self._title))


def _sooner(handle: asyncio.TimerHandle | None, wait: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
    """Have `callback` called after `wait` seconds, or when `handle` is due if that is before."""
    loop = asyncio.get_running_loop()
    if handle is not None:
        if handle.when() <= loop.time() + wait:
            return handle
        handle.cancel()
    return loop.call_later(wait, callback)


def _joined(regions: Iterable[Region]) -> Iterator[Region]:
    """The regions, with neighbouring rows of the same columns made one: a full redraw is one region, not fifty."""
    last: Region | None = None
    for region in sorted(regions, key=lambda region: region.y):
        if last is not None and (last.bottom, last.column_span) == (region.y, region.column_span):
            last = Region(last.x, last.y, last.width, last.height + 1)
            continue
        if last is not None:
            yield last
        last = region
    if last is not None:
        yield last

"""The terminal widget: shows an emulator's screen at the pace of the link, and turns keys and mouse into bytes."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from time import monotonic

from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from lapconsole.terminal import alt_keys
from lapconsole.terminal import input as encode
from lapconsole.terminal.cells import Run
from lapconsole.terminal.emulator import Emulator
from lapconsole.terminal.modes import Modes
from lapconsole.terminal.paint import CursorShape, change, paint, with_cursor

# Output is taken in slices this long, for this long at a time; then whatever else is ready runs, keys before all.
SLICE_BYTES = 4096
TURN_SECONDS = 0.008
BREATH_SECONDS = 0.001
# `ready` lets a reader go on below this much output not yet taken.
HIGH_WATER_BYTES = 256 * 1024

FRAMES_PER_SECOND = 30
FRAMES_PER_SECOND_SSH = 15
# A program that opened a synchronized update shows nothing half done, but no longer than this.
SYNC_HOLD_SECONDS = 0.12
RESIZE_SECONDS = 0.05
# Programs animate their title, and can ring without end.
TITLE_SECONDS = 1.0
BELL_SECONDS = 0.5
WHEEL_LINES = 3

_PLAIN = Modes()
_END_OF_SYNC = b"\x1b[?2026l"
_ESCAPE_KEY = "ctrl+right_square_bracket"
_CURSOR_SHAPES: dict[int, CursorShape] = {3: "underline", 4: "underline", 5: "bar", 6: "bar"}
_GROUP_SEPARATOR = b"\x1d"  # what Ctrl+] types, on whatever key the keyboard has it


class Mode(StrEnum):
    """Who gets the keys: the agent, the one-line command mode, or the view of the scrollback."""

    LIVE = "live"
    COMMAND = "command"
    SCROLLBACK = "scrollback"


class TerminalView(Widget, can_focus=True):
    """A terminal. `feed` it output; it posts `Input` for what is typed and `Resized` when its size changes.

    While it has the focus it keeps one key for itself, Ctrl+], which opens the command mode.
    """

    DEFAULT_CSS = """
    TerminalView { width: 1fr; height: 1fr; background: $background; color: $foreground; }
    """
    ALLOW_SELECT = False

    class Input(Message):
        """Bytes for the program, typed, pasted or clicked."""

        def __init__(self, data: bytes) -> None:
            super().__init__()
            self.data = data

    class Resized(Message):
        """The screen has this size now."""

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

    class Detach(Message):
        """The person wants to leave."""

    class ModeChanged(Message):
        """Keys go elsewhere now, or the scrollback has moved."""

        def __init__(self, mode: Mode) -> None:
            super().__init__()
            self.mode = mode

    class Offered(Message):
        """The program wants to set the clipboard; `offered` is kept until the person takes it."""

    class Offline(Message):
        """A key was pressed while there is no program to send it to (`connected` is false)."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    def __init__(self, *, scrollback: int = 10_000, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.emulator = Emulator(80, 24, scrollback=scrollback)
        self.offered = ""
        self._connected = True
        self.mode = Mode.LIVE
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
        self._rows: list[Strip] = []  # as they were at the last frame, without the cursor
        self._cursor: tuple[int, int, CursorShape] | None = None
        self._lines_back = 0
        self._history_length = 0
        self._sized = False
        self._title = ""
        self._title_due: asyncio.Handle | None = None
        self._titled_at = self._rang_at = float("-inf")
        self._pointer: tuple[int, int, int] | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a program to type to. Without one keys are told as `Offline`."""
        return self._connected

    @connected.setter
    def connected(self, connected: bool) -> None:
        if connected != self._connected:
            self._connected = connected
            if self.is_attached:
                self._draw(())

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

    async def ready(self) -> None:
        """Wait until there is room for more output."""
        await self._room.wait()

    def _work(self) -> None:
        """Take output for one turn of the event loop."""
        self._turn = None
        deadline = monotonic() + TURN_SECONDS
        while self._waiting and monotonic() < deadline:
            self.emulator.feed(self._slice())
            self._stale = True
            self._note_sync()
            self._show()
        # The harness answers what the program asks of its terminal; a second answer would be typed into it.
        self.emulator.take_replies()
        self._tell_notices()
        if self._backlog <= HIGH_WATER_BYTES:
            self._room.set()
        if self._waiting:
            # Not call_soon: a short wait lets every key that has come run through all its stations first.
            self._turn = asyncio.get_running_loop().call_later(BREATH_SECONDS, self._work)

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

    def _show(self) -> None:
        """Draw what has changed, if a frame is due; else come back when it is."""
        if not self._stale or not self.is_attached:
            return
        now = monotonic()
        wait = self._shown_at + self._interval - now
        if self._sync_since is not None:
            wait = max(wait, self._sync_since + SYNC_HOLD_SECONDS - now)
        if wait <= 0 and self._link_behind():
            wait = self._interval
        if wait <= 0:
            self._stale = False
            self._shown_at = now
            self._draw(self.emulator.take_dirty())
        else:
            self._frame = _sooner(self._frame, wait, self._frame_due)

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
        """Paint these rows of the screen and the cursor, and have what changed shown. A view scrolled back stays."""
        if self._lines_back:
            return
        base, columns, lines = self.rich_style, self.emulator.columns, self.emulator.lines
        if len(self._rows) != lines:
            self._rows = [Strip.blank(columns, base)] * lines
            rows = range(lines)
        changed: list[Region] = []
        for y in rows:
            strip = paint(self.emulator.row(y), columns, base)
            start, end = change(self._rows[y], strip)
            if start < end:
                self._rows[y] = strip
                changed.append(Region(start, y, end - start, 1))
        before, self._cursor = self._cursor, self._cursor_now()
        if self._cursor != before:
            # Two columns, for a cursor on a wide character.
            changed.extend(Region(x, y, 2, 1) for x, y, _ in filter(None, (before, self._cursor)))
        if changed:
            self.refresh(*_joined(changed))

    def _cursor_now(self) -> tuple[int, int, CursorShape] | None:
        emulator = self.emulator
        if not emulator.cursor_visible or not self.connected:
            return None
        x, y = emulator.cursor
        shape = _CURSOR_SHAPES.get(emulator.modes.cursor_shape, "block") if self.has_focus else "underline"
        return min(x, emulator.columns - 1), y, shape

    def _redraw(self) -> None:
        """Paint everything anew: the theme, the size or the part of the scrollback shown has changed."""
        emulator, base = self.emulator, self.rich_style
        self._settle_history()
        if self._lines_back:
            first = emulator.scrollback_lines - self._lines_back
            self._rows = [paint(self._line(first + y), emulator.columns, base) for y in range(emulator.lines)]
            self._cursor = None
        else:
            self._rows = []
            self._draw(emulator.take_dirty())
        self.refresh()

    def _line(self, index: int) -> list[Run]:
        """A line counted from the oldest of the scrollback on through the screen."""
        emulator = self.emulator
        beyond = index - emulator.scrollback_lines
        return emulator.scrollback_row(index) if beyond < 0 else emulator.row(beyond)

    def render_line(self, y: int) -> Strip:
        if y >= len(self._rows):
            return Strip.blank(self.size.width, self.rich_style)
        if self._cursor is not None and self._cursor[1] == y:
            return with_cursor(self._rows[y], self._cursor[0], self._cursor[2])
        return self._rows[y]

    def notify_style_update(self) -> None:
        super().notify_style_update()
        if self.is_attached:
            self._redraw()

    # Scrollback

    @property
    def lines_back(self) -> int:
        """How many lines the view is scrolled back; 0 shows the live screen."""
        return self._lines_back

    def scroll_back(self, lines: int) -> None:
        """Move the view by so many lines, back when positive, as far as there are any."""
        before = self._lines_back
        self._settle_history()
        self._lines_back = max(0, min(self._lines_back + lines, self._history_length))
        if self._lines_back != before:
            self._redraw()
            self.post_message(self.ModeChanged(self.mode))

    def show_live(self) -> None:
        """Go back to the live screen."""
        self.scroll_back(-self.emulator.scrollback_lines)

    def _settle_history(self) -> None:
        """Keep a view that is scrolled back on the same lines, though new ones came below it or all were erased."""
        length = self.emulator.scrollback_lines
        if self._lines_back:
            self._lines_back = max(0, min(self._lines_back + length - self._history_length, length))
        self._history_length = length

    # Keys

    def _enter(self, mode: Mode) -> None:
        self.mode = mode
        self.post_message(self.ModeChanged(mode))

    def _type(self, data: bytes) -> None:
        if data:
            self.post_message(self.Input(data))

    def on_key(self, event: events.Key) -> None:
        # Every key ends here: none may reach a binding of the console while an agent has the keyboard.
        event.stop()
        event.prevent_default()
        if self.mode is Mode.COMMAND:
            self._command_key(event)
        elif encode.key(event.key, event.character, _PLAIN) == _GROUP_SEPARATOR:
            self._enter(Mode.COMMAND)
        elif self.mode is Mode.SCROLLBACK:
            self._scrollback_key(event.key)
        else:
            self._live_key(event)

    def _live_key(self, event: events.Key) -> None:
        pages = {"shift+pageup": 1, "shift+pagedown": -1}.get(event.key)
        if pages and not self.emulator.alternate:
            self.scroll_back(pages * self._page)
        elif not self.connected:
            self.post_message(self.Offline(event.key))
        elif data := encode.key(event.key, event.character, self.emulator.modes):
            self.show_live()
            self._type(data)

    def _command_key(self, event: events.Key) -> None:
        key = event.key
        if key == "d":
            self._enter(Mode.LIVE)
            self.post_message(self.Detach())
        elif key == "right_square_bracket" or encode.key(key, event.character, _PLAIN) == _GROUP_SEPARATOR:
            self._enter(Mode.LIVE)
            if self.connected:
                self._type(encode.key(_ESCAPE_KEY, None, self.emulator.modes))
        elif key == "s":
            self._enter(Mode.SCROLLBACK)
        elif key == "y" and self.offered:
            text, self.offered = self.offered, ""
            self.app.copy_to_clipboard(text)
            self._enter(Mode.LIVE)
        elif key == "escape":
            self.show_live()
            self._enter(Mode.LIVE)

    def _scrollback_key(self, key: str) -> None:
        page, everything = self._page, self.emulator.scrollback_lines
        if key in ("q", "escape"):
            self.show_live()
            self._enter(Mode.LIVE)
            return
        steps = {
            "up": 1,
            "k": 1,
            "down": -1,
            "j": -1,
            "pageup": page,
            "ctrl+b": page,
            "shift+pageup": page,
            "pagedown": -page,
            "ctrl+f": -page,
            "shift+pagedown": -page,
            "space": -page,
            "home": everything,
            "g": everything,
            "end": -everything,
            "G": -everything,
        }
        self.scroll_back(steps.get(key, 0))

    @property
    def _page(self) -> int:
        return max(1, self.emulator.lines - 1)

    @property
    def _taking_input(self) -> bool:
        return self.connected and self.mode is Mode.LIVE

    def on_paste(self, event: events.Paste) -> None:
        event.stop()
        event.prevent_default()
        if self._taking_input:
            self.show_live()
            self._type(encode.paste(event.text, self.emulator.modes))

    # Focus

    def on_focus(self) -> None:
        alt_keys.claim(self)
        self._focus_changed(True)

    def on_blur(self) -> None:
        alt_keys.release(self)
        self.release_mouse()
        self._focus_changed(False)

    def _focus_changed(self, gained: bool) -> None:
        self._draw(())
        if self.connected:
            self._type(encode.focus(gained, self.emulator.modes))

    # Mouse

    def on_mouse_down(self, event: events.MouseDown) -> None:
        if self._report("press", event.button, event):
            self.capture_mouse()  # for the release, wherever it happens

    def on_mouse_up(self, event: events.MouseUp) -> None:
        self.release_mouse()
        self._report("release", event.button, event)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if (event.x, event.y, event.button) != self._pointer:
            self._report("move", event.button, event)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._wheel(encode.WHEEL_UP, event)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._wheel(encode.WHEEL_DOWN, event)

    def on_mouse_scroll_left(self, event: events.MouseScrollLeft) -> None:
        self._report("press", encode.WHEEL_LEFT, event)

    def on_mouse_scroll_right(self, event: events.MouseScrollRight) -> None:
        self._report("press", encode.WHEEL_RIGHT, event)

    def _wheel(self, button: int, event: events.MouseEvent) -> None:
        if self._report("press", button, event):
            return
        up = button == encode.WHEEL_UP
        if self._taking_input and self.emulator.alternate and not self._lines_back:
            self._type(encode.wheel_keys(up, self.emulator.modes))
        else:
            self.scroll_back(WHEEL_LINES if up else -WHEEL_LINES)

    def _report(self, action: encode.MouseAction, button: int, event: events.MouseEvent) -> bool:
        """Tell the program of a mouse event, if it wants to know."""
        event.stop()
        if not self._taking_input or self._lines_back:
            return False
        emulator = self.emulator
        x, y = min(max(event.x, 0), emulator.columns - 1), min(max(event.y, 0), emulator.lines - 1)
        data = encode.mouse(action, button, x, y, emulator.modes, shift=event.shift, alt=event.meta, ctrl=event.ctrl)
        self._pointer = (event.x, event.y, event.button)
        self._type(data)
        return bool(data)

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
        if (columns, lines) != (self.emulator.columns, self.emulator.lines):
            self._settle_history()
            self.emulator.resize(columns, lines)
            # Lines are wrapped anew, so no count of them holds; the view stays about where it was.
            self._history_length = self.emulator.scrollback_lines
            self._lines_back = min(self._lines_back, self._history_length)
        self._redraw()
        self.post_message(self.Resized(columns, lines))

    # Life

    def on_mount(self) -> None:
        if self._waiting:
            self._turn = asyncio.get_running_loop().call_soon(self._work)

    def on_unmount(self) -> None:
        alt_keys.release(self)
        for handle in (self._turn, self._frame, self._resize, self._title_due):
            if handle is not None:
                handle.cancel()
        self._room.set()

    def _tell_notices(self) -> None:
        now, notices = monotonic(), self.emulator.take_notices()
        if self.emulator.title != self._title and self._title_due is None:
            wait = max(0.0, self._titled_at + TITLE_SECONDS - now)
            self._title_due = asyncio.get_running_loop().call_later(wait, self._tell_title)
        if now >= self._rang_at + BELL_SECONDS and any(notice.kind == "bell" for notice in notices):
            self._rang_at = now
            self.post_message(self.Bell())
        if texts := [notice.text for notice in notices if notice.kind == "clipboard" and notice.text]:
            self.offered = texts[-1]
            self.post_message(self.Offered())

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

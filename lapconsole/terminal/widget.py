"""The terminal widget: a surface that turns keys and mouse into bytes, and can look back, search, select and copy."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from time import monotonic
from typing import ClassVar, Literal

from rich.style import Style as RichStyle
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip

from lapconsole.terminal import alt_keys, clipboard
from lapconsole.terminal import input as encode
from lapconsole.terminal.document import Document, Place
from lapconsole.terminal.emulator import Emulator, Notice
from lapconsole.terminal.links import links
from lapconsole.terminal.modes import Modes
from lapconsole.terminal.paint import REVERSE, CursorShape, marked, paint, with_cursor
from lapconsole.terminal.review import Mark, Review, Unit, Wish
from lapconsole.terminal.surface import Surface

WHEEL_LINES = 3
#: Pasting more lines than this, or any control character, has to be confirmed.
PASTE_LINES = 5
CLICK_SECONDS = 0.4
#: How long a selection made with the mouse is still shown after it is copied.
LINGER_SECONDS = 0.8
DRAG_SCROLL_SECONDS = 0.05
SEARCH_SECONDS = 0.003
#: How often what is found so far is shown while the search goes on.
FOUND_SECONDS = 0.05
#: How long the lines above the screen are wrapped anew at a time, before somebody may see them.
HISTORY_SECONDS = 0.004
HISTORY_PAUSE_SECONDS = 0.001
MAX_NEEDLE = 200
_KEPT_STRIPS = 2000

_PLAIN = Modes()
_ESCAPE_KEY = "ctrl+right_square_bracket"
_GROUP_SEPARATOR = b"\x1d"  # what Ctrl+] types, on whatever key the keyboard has it
_LEFT_BUTTON = 1
_UNITS = {1: Unit.CELL, 2: Unit.WORD, 3: Unit.LINE}

AgentClipboard = Literal["ask", "allow", "deny"]


class Mode(StrEnum):
    """Who gets the keys: the agent, the one-line command mode, the look back, or the line a search is typed in."""

    LIVE = "live"
    COMMAND = "command"
    SCROLLBACK = "scrollback"
    SEARCH = "search"


class TerminalView(Surface, can_focus=True):
    """A terminal. `feed` it output; it posts `Input` for what is typed.

    While it has the focus it keeps one key for itself, Ctrl+], which opens the command mode. While `driving` is false
    nothing is typed, clicked or pasted into the program; `Refused` tells of the attempt.
    """

    DEFAULT_CSS = """
    TerminalView > .terminal--match { text-style: underline; }
    TerminalView > .terminal--current { text-style: bold reverse; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"terminal--match", "terminal--current"}

    class Input(Message):
        """Bytes for the program, typed, pasted or clicked."""

        def __init__(self, data: bytes) -> None:
            super().__init__()
            self.data = data

    class Command(Message):
        """The person asks for something in the command mode: detach, drive, watch or links."""

        def __init__(self, name: Literal["detach", "drive", "watch", "links"]) -> None:
            super().__init__()
            self.name = name

    class ModeChanged(Message):
        """Keys go elsewhere now, or what is looked at has changed."""

        def __init__(self, mode: Mode) -> None:
            super().__init__()
            self.mode = mode

    class Offered(Message):
        """The program wants to set the clipboard; `offered` is kept until the person takes it."""

    class Copied(Message):
        """Text of so many bytes went to the clipboard; or it did not, because terminals do not take so much."""

        def __init__(self, size: int, *, by_agent: bool = False) -> None:
            super().__init__()
            self.size = size
            self.by_agent = by_agent

        @property
        def too_large(self) -> bool:
            return self.size > clipboard.LIMIT_BYTES

    class PasteAsked(Message):
        """A paste that should be confirmed; `paste` does it. `controls`: characters that will be left out."""

        def __init__(self, text: str, lines: int, controls: int) -> None:
            super().__init__()
            self.text = text
            self.lines = lines
            self.controls = controls

    class Offline(Message):
        """A key was pressed while there is no program to send it to (`connected` is false)."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    class LookedBack(Message):
        """The person wants to see what is above the screen; `to_the_top`: all of what is here is seen already."""

        def __init__(self, *, to_the_top: bool) -> None:
            super().__init__()
            self.to_the_top = to_the_top

    class Refused(Message):
        """Something was typed while somebody else drives, or nobody (`driving` is false)."""

    class Unknown(Message):
        """A key was pressed in the command mode that does nothing there now."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    def __init__(self, *, scrollback: int = 10_000, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(scrollback=scrollback, id=id, classes=classes)
        self.mode = Mode.LIVE
        self.offered = ""
        self.agent_clipboard: AgentClipboard = "ask"
        self.needle = ""
        self.review: Review | None = None
        self._rebuilt = False  # the terminal has been, since the review began
        self._connected = True
        self._driving = True
        self._seen: list[Strip] = []  # of the review, as they were drawn last
        self._painted: dict[int, Strip] = {}  # lines of its document, without what is marked in them
        self._marked: dict[int, tuple[tuple[Mark, ...], Strip]] = {}  # and with it
        self._mark_styles: dict[str, RichStyle] = {}
        self._searching: asyncio.Handle | None = None
        self._found_at = 0.0
        self._pointer: tuple[int, int, int] | None = None
        self._selecting = False
        self._clicks = (float("-inf"), 0, 0, 0)  # when and where the last one was, and how many there were at once
        self._drag: asyncio.Handle | None = None
        self._dragged_to = (0, 0)
        self._linger: asyncio.Handle | None = None
        self._due: deque[Callable[[], None]] = deque()  # what waits for the lines above the screen
        self._preparing: asyncio.Handle | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a program to type to. Without one keys are told as `Offline`."""
        return self._connected

    @connected.setter
    def connected(self, connected: bool) -> None:
        if connected != self._connected:
            self._connected = connected
            self._show_cursor()

    @property
    def driving(self) -> bool:
        """Whether what is typed goes to the program. If not, it is told as `Refused`."""
        return self._driving

    @driving.setter
    def driving(self, driving: bool) -> None:
        if driving != self._driving:
            self._driving = driving
            self._show_cursor()

    # Drawing

    def _show_cursor(self) -> None:
        if self.is_attached and self.review is None:
            self._draw(())

    def _cursor_now(self) -> tuple[int, int, CursorShape] | None:
        cursor = super()._cursor_now()
        if cursor is None or not self.connected:
            return None
        return cursor if self.has_focus and self.driving else (cursor[0], cursor[1], "underline")

    def _show(self) -> bool:
        if self.review is None:
            return super()._show()
        self._stale = False  # all is drawn anew when the live screen comes back
        return False

    def _redraw(self) -> None:
        if self.review is None:
            super()._redraw()
        else:
            self._rows = []
            self._forget_painted()
            self._seen = []
            self._draw_review()

    def _take_over(self, coming: Emulator) -> None:
        super()._take_over(coming)
        if self.review is not None:
            self._in_turn(self._rebuild)

    def _rebuild(self) -> None:
        """There may be more above the screen now."""
        if self.review is not None:
            self._renew(self.review, rebuilt=True)
            self._review_moved()

    def render_line(self, y: int) -> Strip:
        if self.review is None:
            return super().render_line(y)
        if y < len(self._seen):
            return self._framed(self._seen[y], y)
        return self._below(y - len(self._seen))

    def _draw_review(self) -> None:
        """Paint the lines of the review in sight, and have those shown that look different now."""
        if self.review is None:
            return
        before = self._seen
        if not self._painted or len(self._painted) > _KEPT_STRIPS:
            self._forget_painted()
            self._mark_styles = {
                "selection": REVERSE,
                "match": self.get_component_rich_style("terminal--match", partial=True),
                "current": self.get_component_rich_style("terminal--current", partial=True),
            }
        review, base = self.review, self.rich_style
        self._seen = [self._review_line(review, review.top + y, base) for y in range(review.height)]
        if len(before) != len(self._seen):
            self.refresh()
            return
        changed = [y for y, (old, new) in enumerate(zip(before, self._seen, strict=True)) if old != new]
        if changed:
            self.refresh(*(Region(0, y, self.size.width, 1) for y in changed))

    def _review_line(self, review: Review, index: int, base: RichStyle) -> Strip:
        columns = review.document.columns
        if index >= len(review.document):
            return Strip.blank(columns, base)
        strip = self._painted.get(index)
        if strip is None:
            strip = self._painted[index] = paint(review.document.row(index), columns, base)
        if marks := tuple(review.marks(index)):
            known, drawn = self._marked.get(index, ((), strip))
            if known != marks:
                drawn = marked(strip, [(start, end, self._mark_styles[kind]) for start, end, kind in marks])
                self._marked[index] = (marks, drawn)
            strip = drawn
        if review.cursor is not None and review.cursor.line == index:
            strip = with_cursor(strip, review.cursor.column, "block")
        return strip

    def _forget_painted(self) -> None:
        self._painted.clear()
        self._marked.clear()

    # Looking back

    def _in_turn(self, action: Callable[[], None]) -> None:
        """Do what needs the lines above the screen: now, or when they are wrapped, and after what waits for them."""
        if not self._due and self._history_ready():
            action()
            return
        self._due.append(action)
        self._prepare_soon()

    def _history_ready(self) -> bool:
        """Wrap the lines above the screen for a moment; whether they are ready to be looked at."""
        emulator = self.emulator
        return emulator.screen.history.work(emulator.columns, monotonic() + HISTORY_SECONDS)

    def _prepare_soon(self) -> None:
        if self._preparing is None and self.is_attached:
            self._preparing = asyncio.get_running_loop().call_later(HISTORY_PAUSE_SECONDS, self._prepare)

    def _prepare(self) -> None:
        self._preparing = None
        if self._history_ready() and self._due:
            self._due.popleft()()
        if self._due:
            self._prepare_soon()

    @property
    def lines_back(self) -> int:
        """How many lines the view is scrolled back; 0 shows the live screen."""
        return self.review.lines_back if self.review is not None else 0

    def scroll_back(self, lines: int) -> None:
        """Move the view by so many lines, back when positive, as far as there are any."""
        self._in_turn(partial(self._scroll_back, lines))

    def _scroll_back(self, lines: int) -> None:
        review = self.review
        if review is None:
            if lines <= 0 or not self.emulator.scrollback_lines:
                self._tell_looked_back(lines)
                return
            review = self._look_back()
        elif lines < 0 and review.lines_back + lines <= 0:
            self._renew(review)
        review.scroll(lines)
        self._tell_looked_back(lines)
        if self.mode is Mode.LIVE and not review.lines_back:
            self.show_live()
        else:
            self._review_moved()

    def _tell_looked_back(self, lines: int) -> None:
        if lines > 0:
            self.post_message(self.LookedBack(to_the_top=self.review is not None and not self.review.top))

    def show_live(self) -> None:
        """Go back to the live screen."""
        if self.review is None:
            return
        self._stop_lingering()
        self.review = None
        self._seen = []
        self._forget_painted()
        self._redraw()
        self.post_message(self.ModeChanged(self.mode))

    def _look_back(self) -> Review:
        """The review, begun on what is in sight now if there is none."""
        if self.review is None:
            document = Document.of(self.emulator)
            lines = self.emulator.lines
            self._rebuilt = False
            self.review = Review(document, min(lines, self.size.height), len(document) - lines + self._pan)
            self._seen = []
            self._draw_review()
        return self.review

    def _renew(self, review: Review, *, rebuilt: bool = False) -> None:
        """Go on with what the program has written meanwhile, unless something found or marked is in use.

        What was not found is looked for again in a `rebuilt` one: the scrollback may have come with it.
        """
        needle = ""
        if rebuilt and review.search is not None and not review.search.hits and review.cursor is None:
            needle = self.needle
            review.settle()
            review.find("")
        if review.search is None and review.cursor is None:
            review.renew(Document.of(self.emulator), rebuilt=rebuilt)
            self._forget_painted()
            self._rebuilt = False
        elif rebuilt:
            self._rebuilt = True
        if needle:
            review.find(needle)
            self._search_on()

    def _review_moved(self) -> None:
        self._draw_review()
        self.post_message(self.ModeChanged(self.mode))

    def _apply_size(self) -> None:
        if self.review is not None:
            height = self.size.height
            self.review.resize(height if self._follows else min(self.emulator.lines, height))
        super()._apply_size()

    # Search

    def _begin_search(self) -> None:
        self._look_back()
        self._tell_looked_back(1)
        self.needle = ""
        self._enter(Mode.SEARCH)

    def _search_key(self, event: events.Key) -> None:
        key, review = event.key, self._look_back()
        if key in ("enter", "escape"):
            if key == "escape":
                self.needle = ""
                review.find("")
            review.settle()
            self._enter(Mode.SCROLLBACK)
            self._draw_review()
        elif key == "backspace":
            self._search(self.needle[:-1])
        elif key == "ctrl+u":
            self._search("")
        elif event.character and event.character.isprintable():
            self._search(self.needle + event.character)

    def _search(self, needle: str) -> None:
        self.needle = needle[:MAX_NEEDLE]
        review = self._look_back()
        if self._rebuilt:  # while the last needle's hits were in sight
            review.find("")
            self._renew(review, rebuilt=True)
        review.find(self.needle)
        self._search_on()

    def _search_on(self) -> None:
        """Search for one turn of the event loop, and come back for the next."""
        if self._searching is not None:
            self._searching.cancel()
            self._searching = None
        review = self.review
        if review is None or not self.is_attached:
            return
        loop = asyncio.get_running_loop()
        if review.search_on(monotonic() + SEARCH_SECONDS):
            self._searching = loop.call_later(0.001, self._search_on)
            if monotonic() < self._found_at + FOUND_SECONDS:
                return
        self._found_at = monotonic()
        loop.call_soon(self._show_found)  # a turn of its own, as it takes as long

    def _show_found(self) -> None:
        if self.review is not None and self.is_attached:
            self._review_moved()

    # Copying

    def _copy(self, text: str, *, by_agent: bool = False) -> None:
        """Put text into the clipboard of the person's terminal, if it can take so much."""
        size = clipboard.size(text)
        if size <= clipboard.LIMIT_BYTES:
            self.app.copy_to_clipboard(text)
            driver = self.app._driver
            if driver is not None and (wrapped := clipboard.through_tmux(text, os.environ)):
                driver.write(wrapped)
                self.app.run_worker(clipboard.into_tmux(text), group="clipboard", exit_on_error=False)
        self.post_message(self.Copied(size, by_agent=by_agent))

    def copy(self, text: str) -> None:
        """Put text into the clipboard; `Copied` says how it went."""
        if text:
            self._copy(text)

    def _tell_notices(self, notices: list[Notice]) -> None:
        super()._tell_notices(notices)
        texts = [notice.text for notice in notices if notice.kind == "clipboard" and notice.text]
        if not texts or self.agent_clipboard == "deny" or clipboard.size(texts[-1]) > clipboard.LIMIT_BYTES:
            return
        # Who only watches has not asked for anything this program does.
        if self.agent_clipboard == "allow" and self.driving:
            self._copy(texts[-1], by_agent=True)
        else:
            self.offered = texts[-1]
            self.post_message(self.Offered())

    def links(self) -> list[str]:
        """The links in what is looked at, or else in the screen and its scrollback; the newest first."""
        return links(self.review.document if self.review is not None else Document.of(self.emulator))

    # Keys

    def _enter(self, mode: Mode) -> None:
        self.mode = mode
        self.post_message(self.ModeChanged(mode))

    def _type(self, data: bytes) -> None:
        if data:
            self.post_message(self.Input(data))

    async def on_key(self, event: events.Key) -> None:
        # Every key ends here: none may reach a binding of the console while an agent has the keyboard.
        event.stop()
        event.prevent_default()
        if self.mode is not Mode.LIVE:
            await asyncio.sleep(0)  # those that come together would hold up everything else: a letter may search
        if self._due or self.mode is not Mode.LIVE:
            self._in_turn(partial(self._key, event))
        else:
            self._key(event)

    def _key(self, event: events.Key) -> None:
        if self.mode is Mode.COMMAND:
            self._command_key(event)
        elif encode.key(event.key, event.character, _PLAIN) == _GROUP_SEPARATOR:
            self._enter(Mode.COMMAND)
        elif self.mode is Mode.SEARCH:
            self._search_key(event)
        elif self.mode is Mode.SCROLLBACK:
            self._scrollback_key(event.key)
        else:
            self._live_key(event)

    def _live_key(self, event: events.Key) -> None:
        # Who watches has no other use for these.
        bare = self.connected and not self.driving
        pages = {"shift+pageup": 1, "shift+pagedown": -1, "pageup": bare, "pagedown": -bare}.get(event.key)
        if pages and (bare or not self.emulator.alternate):
            self.scroll_back(pages * self._page)
        elif not self.connected:
            self.post_message(self.Offline(event.key))
        elif not self.driving:
            if self.review is not None:
                self.show_live()
            else:
                self.post_message(self.Refused())
        elif data := encode.key(event.key, event.character, self.emulator.modes):
            self.show_live()
            self._type(data)

    def _command_key(self, event: events.Key) -> None:
        key = event.key
        if key == "right_square_bracket" or encode.key(key, event.character, _PLAIN) == _GROUP_SEPARATOR:
            self._enter(Mode.LIVE)
            if self._taking_input:
                self.show_live()
                self._type(encode.key(_ESCAPE_KEY, None, self.emulator.modes))
        elif key == "escape":
            self.show_live()
            self._enter(Mode.LIVE)
        elif key == "d":
            self._ask("detach")
        elif key == "t" and not self.driving:
            self._ask("drive")
        elif key == "w" and self.driving:
            self._ask("watch")
        elif key == "o":
            self._ask("links")
        elif key == "s":
            self._look_back()
            self._tell_looked_back(1)
            self._enter(Mode.SCROLLBACK)
        elif key == "slash":
            self._begin_search()
        elif key in ("v", "V"):
            self._look_back().key(key)
            self._enter(Mode.SCROLLBACK)
            self._draw_review()
        elif key == "y" and self.offered:
            text, self.offered = self.offered, ""
            self._enter(Mode.LIVE)
            self._copy(text)
        else:
            self.post_message(self.Unknown(event.character if event.is_printable and event.character else key))

    def _ask(self, name: Literal["detach", "drive", "watch", "links"]) -> None:
        self._enter(Mode.LIVE)
        self.post_message(self.Command(name))

    def _scrollback_key(self, key: str) -> None:
        review = self._look_back()
        if not review.lines_back:
            self._renew(review)
        before = review.top
        wish = review.key(key)
        if wish is Wish.SEARCH:
            self._begin_search()
        elif wish is not None:
            text = review.text(clipboard.LIMIT_BYTES) if wish is Wish.COPY else ""
            self.mode = Mode.LIVE
            self.show_live()
            self.copy(text)
        else:
            self._tell_looked_back(before - review.top)
            self._review_moved()

    @property
    def _page(self) -> int:
        return max(1, min(self.emulator.lines, self.size.height) - 1)

    @property
    def _taking_input(self) -> bool:
        return self.connected and self.driving and self.mode is Mode.LIVE

    def on_paste(self, event: events.Paste) -> None:
        event.stop()
        event.prevent_default()
        if self.mode is Mode.SEARCH:
            self._search(self.needle + (event.text.splitlines() or [""])[0])
        elif self.mode is Mode.LIVE and self.connected and not self.driving:
            self.post_message(self.Refused())
        elif self._taking_input:
            lines, controls = encode.paste_risk(event.text)
            if lines > PASTE_LINES or controls:
                self.post_message(self.PasteAsked(event.text, lines, controls))
            else:
                self.paste(event.text)

    def paste(self, text: str) -> None:
        """Type a text as a paste, if there is still somebody to type it to."""
        if self._taking_input:
            self.show_live()
            self._type(encode.paste(text, self.emulator.modes))

    # Focus

    def on_focus(self) -> None:
        alt_keys.claim(self)
        self._focus_changed(True)

    def on_blur(self) -> None:
        alt_keys.release(self)
        self.release_mouse()
        self._selecting = False
        self._focus_changed(False)

    def _focus_changed(self, gained: bool) -> None:
        self._show_cursor()
        if self.connected and self.driving:
            self._type(encode.focus(gained, self.emulator.modes))

    # Mouse: the program's where it has asked for it, else for selecting; with Shift always for selecting

    def on_mouse_down(self, event: events.MouseDown) -> None:
        event.stop()
        if not event.shift and self._report("press", event.button, event):
            self.capture_mouse()  # for the release, wherever it happens
        elif event.button == _LEFT_BUTTON and self.mode in (Mode.LIVE, Mode.SCROLLBACK):
            self._in_turn(partial(self._begin_selection, event))

    def on_mouse_up(self, event: events.MouseUp) -> None:
        event.stop()
        if self._due:
            self._due.append(partial(self._mouse_up, event))
        else:
            self._mouse_up(event)

    def _mouse_up(self, event: events.MouseUp) -> None:
        self.release_mouse()
        if self._selecting:
            self._end_selection()
        else:
            self._report("release", event.button, event)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        event.stop()
        if self._selecting:
            self._select_to(event.x, event.y)
        elif not event.shift and (event.x, event.y, event.button) != self._pointer:
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
        if self._taking_input and self.emulator.alternate and self.review is None:
            self._type(encode.wheel_keys(up, self.emulator.modes))
        else:
            self.scroll_back(WHEEL_LINES if up else -WHEEL_LINES)

    def _report(self, action: encode.MouseAction, button: int, event: events.MouseEvent) -> bool:
        """Tell the program of a mouse event, if it wants to know."""
        event.stop()
        if not self._taking_input or self.review is not None:
            return False
        emulator = self.emulator
        x, y = min(max(event.x, 0), emulator.columns - 1), min(max(event.y + self._pan, 0), emulator.lines - 1)
        data = encode.mouse(action, button, x, y, emulator.modes, shift=event.shift, alt=event.meta, ctrl=event.ctrl)
        self._pointer = (event.x, event.y, event.button)
        self._type(data)
        return bool(data)

    def _begin_selection(self, event: events.MouseEvent) -> None:
        self._stop_lingering()
        at, x, y, count = self._clicks
        again = monotonic() - at < CLICK_SECONDS and (x, y) == (event.x, event.y)
        count = count % 3 + 1 if again else 1
        self._clicks = (monotonic(), event.x, event.y, count)
        review = self._look_back()
        review.anchor = None
        review.cursor = None
        self._selecting = True
        self.capture_mouse()
        if count > 1:
            review.select(self._place(review, event.x, event.y), _UNITS[count], extend=False)
        self._review_moved()

    def _select_to(self, x: int, y: int) -> None:
        review = self._look_back()
        _, from_x, from_y, count = self._clicks
        if review.anchor is None:
            if (x, y) == (from_x, from_y):
                return
            review.select(self._place(review, from_x, from_y), _UNITS[count], extend=False)
        review.select(self._place(review, x, y), review.unit, extend=True)
        self._dragged_to = (x, y)
        if not 0 <= y < review.height and self._drag is None:
            self._scroll_drag()
        self._draw_review()

    def _scroll_drag(self) -> None:
        """Scroll for as long as the mouse is held beyond the top or the bottom."""
        self._drag = None
        review, (x, y) = self.review, self._dragged_to
        if review is None or not self._selecting or 0 <= y < review.height:
            return
        beyond = -y if y < 0 else review.height - 1 - y
        review.top = max(0, min(review.top - beyond, review.bottom))
        review.select(self._place(review, x, y), review.unit, extend=True)
        self._review_moved()
        self._drag = asyncio.get_running_loop().call_later(DRAG_SCROLL_SECONDS, self._scroll_drag)

    def _place(self, review: Review, x: int, y: int) -> Place:
        line = review.top + min(max(y, 0), review.height - 1)
        return Place(min(line, len(review.document) - 1), min(max(x, 0), review.document.columns - 1))

    def _end_selection(self) -> None:
        self._selecting = False
        if self.review is None or self.review.selection is None:
            self._lingered()
            return
        self.copy(self.review.text(clipboard.LIMIT_BYTES))
        # What was taken is to be seen, and a third click may follow.
        self._linger = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._lingered)

    def _lingered(self) -> None:
        self._linger = None
        if self.mode is not Mode.LIVE or self.review is None:
            return
        if self.review.lines_back:
            self.review.anchor = self.review.cursor = None
            self._review_moved()
        else:
            self.show_live()

    def _stop_lingering(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    # Life

    def on_unmount(self) -> None:
        alt_keys.release(self)
        for handle in (self._searching, self._drag, self._linger, self._preparing):
            if handle is not None:
                handle.cancel()

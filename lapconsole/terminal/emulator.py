"""A headless terminal emulator: feed it a program's output, read the screen, send back its replies.

It stands on pyte's tables (charsets, palette). The parser, the grid and the rest of a modern xterm are our own: pyte's
model can neither hold the alternate screen and grapheme clusters nor keep up with an agent's redraws (tests/bench).
"""

from __future__ import annotations

import copy
import re
from collections import deque
from collections.abc import Callable
from functools import partial

from pyte.charsets import MAPS
from pyte.graphics import FG_BG_256

from lapconsole.terminal import controls, osc, replies
from lapconsole.terminal.cells import Run, cells, runs
from lapconsole.terminal.controls import CSI_CONTROLS
from lapconsole.terminal.modes import MOUSE_MODES, PERMANENT, SCREEN_SWITCHES, SWITCHES, Modes
from lapconsole.terminal.osc import Notice
from lapconsole.terminal.parser import Parser, Token, numbers
from lapconsole.terminal.repaint import repaint
from lapconsole.terminal.screen import SavedCursor, Screen
from lapconsole.terminal.snapshot import restore, snapshot
from lapconsole.terminal.styles import PLAIN, Color, Pens, Style

__all__ = ["Color", "Emulator", "Modes", "Notice", "Run", "Style"]

MAX_COLUMNS, MAX_LINES = 1000, 1000
#: Replies and notices kept for a caller that does not take them.
MAX_REPLIES, MAX_NOTICES = 1024, 256
#: Different CSI sequences remembered, and the longest of them.
MAX_COMMANDS, MAX_COMMAND_LENGTH = 8192, 32
MAX_STACK = 16  # titles, and kitty keyboard flags

# DEC special graphics (line drawing) and the UK set; all other charsets are taken as ASCII.
_CHARSET_MAPS: dict[str, dict[int, int]] = {
    "0": {code: ord(MAPS["0"][code]) for code in range(0x60, 0x7F)},
    "A": {ord("#"): ord("£")},
}
_PALETTE = [tuple(bytes.fromhex(color)) for color in FG_BG_256]
_CSI = re.compile(r"([<-?]?)([0-9;:]*)([ -/]*[@-~])")
_EMBEDDED = re.compile(r"[\x00-\x1f]+")


class Emulator:
    """A terminal of `columns` by `lines` cells. No input makes it raise, and its memory is bounded.

    `modes` says how to encode input; `foreground`, `background` and `cursor_color` (8-bit red, green, blue) and
    `cell_size` (pixels, width and height) are what programs are told when they ask.
    """

    def __init__(self, columns: int, lines: int, *, scrollback: int = 10_000) -> None:
        self.screen = Screen(*_clamp(columns, lines), scrollback)
        self.modes = Modes()
        self.title = ""
        self.foreground = (229, 229, 229)
        self.background = (16, 16, 16)
        self.cursor_color = (229, 229, 229)
        self.cell_size = (10, 20)
        self.palette: dict[int, tuple[int, int, int]] = {}  # colours the program has redefined
        self.parser = Parser()
        self.pens = Pens()
        self.titles: list[str] = []
        self.charsets = ["B", "B", "B", "B"]
        self.charset = 0
        self.saved_modes: dict[int, bool] = {}
        self._commands: dict[str, Callable[[], None]] = {}  # by CSI sequence
        self._replies: deque[str] = deque(maxlen=MAX_REPLIES)
        self._notices: deque[Notice] = deque(maxlen=MAX_NOTICES)

    # What the screen shows

    @property
    def columns(self) -> int:
        return self.screen.columns

    @property
    def lines(self) -> int:
        return self.screen.lines

    @property
    def cursor(self) -> tuple[int, int]:
        """Column and row of the cursor, from 0."""
        return self.screen.x, self.screen.y

    @property
    def cursor_visible(self) -> bool:
        return self.modes.cursor_visible

    @property
    def alternate(self) -> bool:
        """Whether the alternate screen is shown."""
        return self.screen.buffer is self.screen.alternate

    def text(self) -> list[str]:
        """The text of each row, without trailing blanks."""
        return [row.text() for row in self.screen.rows]

    def row(self, y: int) -> list[Run]:
        """Row y, from 0, as runs of one style that together cover all columns."""
        row = self.screen.rows[y]
        return runs(row.chars, row.styles)

    def take_dirty(self) -> set[int]:
        """The rows that may have changed since the last call."""
        return self.screen.take_dirty()

    @property
    def scrollback_lines(self) -> int:
        """How many lines have left the top of the primary screen and are kept."""
        return len(self.screen.history.wrapped(self.columns))

    def scrollback_row(self, index: int) -> list[Run]:
        """A line of the scrollback, 0 is the oldest, as runs without trailing plain blanks."""
        return runs(*cells(self.screen.history.wrapped(self.columns)[index]))

    # What goes in and comes out

    def feed(self, data: bytes | str) -> None:
        """Process output of the program, in chunks cut anywhere."""
        for tokens in self.parser.slices(data):
            self._run(tokens)

    def take_replies(self) -> bytes:
        """Answers to the program's queries since the last call, in the order it asked."""
        answer = "".join(self._replies).encode()
        self._replies.clear()
        return answer

    def take_notices(self) -> list[Notice]:
        """What the program told the user since the last call: titles, bells, notifications, ..."""
        notices = list(self._notices)
        self._notices.clear()
        return notices

    def resize(self, columns: int, lines: int) -> None:
        """Change the size. Wrapped lines of the primary screen are wrapped anew."""
        columns, lines = _clamp(columns, lines)
        if (columns, lines) != (self.columns, self.lines):
            self.screen.resize(columns, lines)

    def set_colors(self, foreground: tuple[int, int, int], background: tuple[int, int, int]) -> None:
        """Change the default colours; tells the program if it wants to know whether they are dark."""
        was_dark = self.dark
        self.foreground, self.background = foreground, background
        if self.modes.color_scheme_updates and self.dark != was_dark:
            self._replies.append(replies.scheme(self.dark))

    @property
    def dark(self) -> bool:
        """Whether the background is dark, by its perceived lightness."""
        red, green, blue = self.background
        return 299 * red + 587 * green + 114 * blue < 128_000

    def repaint(self, scrollback: int = 0) -> bytes:
        """Output that makes a terminal of this size, in whatever state, show this screen and be in these modes.

        With `scrollback`, as many of the newest lines are first scrolled through it, so that it keeps them too.
        """
        return repaint(self, scrollback)

    def snapshot(self) -> bytes:
        """The whole state, to `restore` it in another process."""
        return snapshot(self)

    def restore(self, data: bytes) -> None:
        """Take over the state of a `snapshot`, size included. ValueError, and no change, when it is not one."""
        restore(self, data)

    def copy(self, *, scrollback: bool = True, still: bool = False) -> Emulator:
        """Another one in the same state that shares nothing that changes. Quick: it copies lists, not cells.

        Without `scrollback` it has none: a long one costs much to rewrap. A `still` one is for `repaint` and must not
        be fed: it leaves out what no repaint shows.
        """
        twin = copy.copy(self)
        twin.screen = self.screen.copy(scrollback=scrollback, still=still)
        twin.modes = copy.copy(self.modes)
        twin.palette, twin.saved_modes = self.palette.copy(), self.saved_modes.copy()
        twin.titles, twin.charsets = self.titles.copy(), self.charsets.copy()
        twin.parser, twin.pens, twin._commands = Parser(), Pens(), {}
        twin.parser.restore(*self.parser.state())
        twin.screen.pen = twin.pens.get(self.screen.pen.style)
        twin._replies, twin._notices = self._replies.copy(), self._notices.copy()
        return twin

    def restored(self) -> None:
        """Bring in line what depends on attributes that a snapshot has replaced."""
        self._commands.clear()
        self.select_charset(self.charset)

    # Tokens

    def _run(self, tokens: list[Token]) -> None:
        screen, commands = self.screen, self._commands
        for narrow, csi, control, wide, other, sequence, _ in tokens:
            if narrow:
                screen.put_narrow(narrow)
            elif csi:
                # Programs repeat themselves: a sequence seen before is a lookup and a call.
                pen = screen.pen.following.get(csi)
                if pen is not None:
                    screen.pen = pen
                else:
                    (commands.get(csi) or self._command(csi))()
            elif control:
                self._control(control)
            elif wide:
                screen.put_wide(wide)
            elif other:
                screen.put_other(other)
            else:
                self._sequence(sequence)

    def _command(self, csi: str) -> Callable[[], None]:
        """What to call for a CSI sequence, given without its introducer."""
        match = _CSI.fullmatch(csi)
        if match is None:
            return partial(self._csi_with_controls, csi)
        marker, params, final = match.groups()
        key = marker + final
        command: Callable[[], None] = _nothing
        if key == "m":
            return partial(self._select_style, csi)  # depends on the present style, which remembers it
        if (function := CSI_CONTROLS.get(key)) is not None:
            command = partial(function, self.screen, numbers(params))
        elif (handler := _CSI_HANDLERS.get(key)) is not None:
            command = partial(handler, self, numbers(params))
        if len(self._commands) >= MAX_COMMANDS:
            self._commands.clear()
        if len(csi) <= MAX_COMMAND_LENGTH:
            self._commands[csi] = command
        return command

    def _csi_with_controls(self, csi: str) -> None:
        """Controls inside a sequence act at once; without them it may be a valid one."""
        embedded = "".join(_EMBEDDED.findall(csi))
        self._control(embedded)
        rest = _EMBEDDED.sub("", csi)
        if embedded and _CSI.fullmatch(rest):
            self._command(rest)()

    def _select_style(self, sgr: str) -> None:
        self.screen.pen = self.pens.after(self.screen.pen, sgr)

    def _control(self, characters: str) -> None:
        for character in characters:
            if (handler := _CONTROL_HANDLERS.get(character)) is not None:
                handler(self)

    def _sequence(self, sequence: str) -> None:
        kind = sequence[1:2]
        if sequence[-1] in "\x18\x1a":
            return  # cancelled
        if kind == "[":
            (self._commands.get(sequence[2:]) or self._command(sequence[2:]))()
        elif kind == "]":
            self._osc(sequence)
        elif kind == "P":
            self._dcs(sequence[2:])
        elif kind == "k":
            self._set_title(sequence[2:])
        elif kind in ("(", ")", "*", "+"):
            self.charsets["()*+".index(kind)] = sequence[2:] if len(sequence) < 6 else "B"
            self.select_charset(self.charset)
        elif (handler := _ESC_HANDLERS.get(sequence[1:])) is not None:
            handler(self)

    # Control functions

    def _bell(self) -> None:
        if not self._notices or self._notices[-1].kind != "bell":
            self._notices.append(Notice("bell"))

    def _backspace(self) -> None:
        controls.cursor_back(self.screen, (1,))

    def _tab(self) -> None:
        controls.tab_forward(self.screen, (1,))

    def _carriage_return(self) -> None:
        controls.carriage_return(self.screen)

    def _line_feed(self) -> None:
        self._index()
        if self.modes.newline:
            controls.carriage_return(self.screen)

    def select_charset(self, charset: int) -> None:
        """Use one of the four designated charsets."""
        self.charset = charset
        self.screen.charset_map = _CHARSET_MAPS.get(self.charsets[charset])
        self.screen.update_limit()

    def _next_line(self) -> None:
        controls.carriage_return(self.screen)
        self.screen.index()

    def _index(self) -> None:
        self.screen.pending_wrap = False
        self.screen.index()

    def _reverse_index(self) -> None:
        self.screen.pending_wrap = False
        self.screen.reverse_index()

    def _set_tab(self) -> None:
        self.screen.tabs.add(self.screen.x)

    def _align(self) -> None:
        """DECALN: fill the screen with E to adjust the picture."""
        self.screen.fill("E")
        self._reset_margins()
        controls.home(self.screen)

    def _keypad_application(self) -> None:
        self.modes.application_keypad = True

    def _keypad_numeric(self) -> None:
        self.modes.application_keypad = False

    def _save_cursor(self) -> None:
        screen = self.screen
        screen.buffer.saved = SavedCursor(
            screen.x, screen.y, screen.pending_wrap, screen.pen, tuple(self.charsets), self.charset, screen.origin
        )

    def _restore_cursor(self) -> None:
        screen, saved = self.screen, self.screen.buffer.saved
        screen.x, screen.y = saved.x, saved.y
        screen.pending_wrap = saved.pending_wrap and screen.autowrap
        screen.pen = self.pens.get(saved.pen.style)
        screen.origin = saved.origin
        self.charsets = list(saved.charsets)
        self.select_charset(saved.charset)

    def _save_cursor_or_set_columns_margin(self, params: tuple[int, ...]) -> None:
        if self.screen.margin_mode:
            controls.set_columns_margin(self.screen, params)
        else:
            self._save_cursor()

    def _reset(self) -> None:
        """RIS: as at power-on. The scrollback and the title stay."""
        self.screen.reset()
        self.modes = Modes()
        self.palette.clear()
        self.saved_modes.clear()
        self.charsets = ["B", "B", "B", "B"]
        self.charset = 0

    def _soft_reset(self) -> None:
        """DECSTR: modes, margins, style and saved cursor as at power-on; the screen's content stays."""
        screen, modes = self.screen, self.modes
        modes.cursor_visible = True
        modes.application_cursor = modes.application_keypad = False
        screen.origin = screen.insert = screen.reverse_wrap = screen.margin_mode = False
        screen.autowrap = True
        self._reset_margins()
        screen.pen = self.pens.get(PLAIN)
        screen.buffer.saved = SavedCursor()
        self.charsets = ["B", "B", "B", "B"]
        self.select_charset(0)

    def _reset_margins(self) -> None:
        screen = self.screen
        screen.set_rows_margin(0, screen.lines - 1)
        screen.left, screen.right = 0, screen.columns - 1

    def _set_cursor_shape(self, params: tuple[int, ...]) -> None:
        if params[0] <= 6:
            self.modes.cursor_shape = params[0]

    # Modes

    def _set_private_modes(self, params: tuple[int, ...]) -> None:
        for number in params:
            self._set_private_mode(number, True)

    def _reset_private_modes(self, params: tuple[int, ...]) -> None:
        for number in params:
            self._set_private_mode(number, False)

    def _set_ansi_modes(self, params: tuple[int, ...]) -> None:
        self._set_ansi(params, True)

    def _reset_ansi_modes(self, params: tuple[int, ...]) -> None:
        self._set_ansi(params, False)

    def _set_ansi(self, params: tuple[int, ...], on: bool) -> None:
        if 4 in params:
            self.screen.insert = on
            self.screen.update_limit()
        if 20 in params:
            self.modes.newline = on

    def _set_private_mode(self, number: int, on: bool) -> None:
        screen = self.screen
        if number in SWITCHES:
            setattr(self.modes, SWITCHES[number], on)
            if number == 5:
                screen.touch()
        elif number in MOUSE_MODES:
            self.modes.mouse = number if on else 0
        elif number in SCREEN_SWITCHES:
            setattr(screen, SCREEN_SWITCHES[number], on)
            if number == 6:
                controls.home(screen)
            elif number == 7:
                screen.pending_wrap = False
            elif number == 69:
                screen.left, screen.right = 0, screen.columns - 1
                screen.update_limit()
        elif number in (47, 1047, 1049):
            self._show_alternate(number, on)
        elif number == 1048:
            if on:
                self._save_cursor()
            else:
                self._restore_cursor()

    def _show_alternate(self, number: int, on: bool) -> None:
        screen = self.screen
        if on and not self.alternate:
            if number == 1049:
                self._save_cursor()
            screen.use(screen.alternate)
            if number == 1049:
                screen.erase_rows(0, screen.lines)
        elif not on and self.alternate:
            if number == 1047:
                screen.erase_rows(0, screen.lines)
            screen.use(screen.primary)
            if number == 1049:
                self._restore_cursor()
        self.modes.kitty_flags = screen.buffer.kitty_flags[-1]

    def private_mode(self, number: int) -> bool | None:
        """Whether a DEC private mode is set; None when it is not known."""
        if number in SWITCHES:
            return bool(getattr(self.modes, SWITCHES[number]))
        if number in SCREEN_SWITCHES:
            return bool(getattr(self.screen, SCREEN_SWITCHES[number]))
        if number in MOUSE_MODES:
            return self.modes.mouse == number
        if number in (47, 1047, 1049):
            return self.alternate
        return None

    def _save_private_modes(self, params: tuple[int, ...]) -> None:
        for number in params:
            state = self.private_mode(number)
            if state is not None:
                self.saved_modes[number] = state

    def _restore_private_modes(self, params: tuple[int, ...]) -> None:
        for number in params:
            if number in self.saved_modes and self.saved_modes[number] != self.private_mode(number):
                self._set_private_mode(number, self.saved_modes[number])

    def _report_private_mode(self, params: tuple[int, ...]) -> None:
        state = self.private_mode(params[0])
        value = 3 if params[0] in PERMANENT else 0 if state is None else 1 if state else 2
        self._replies.append(f"\x1b[?{params[0]};{value}$y")

    def _report_ansi_mode(self, params: tuple[int, ...]) -> None:
        known = {4: self.screen.insert, 20: self.modes.newline}
        value = (1 if known[params[0]] else 2) if params[0] in known else 0
        self._replies.append(f"\x1b[{params[0]};{value}$y")

    # Keyboard protocols

    def _push_kitty_flags(self, params: tuple[int, ...]) -> None:
        stack = self.screen.buffer.kitty_flags
        stack.append(params[0] & 31)
        del stack[: max(0, len(stack) - MAX_STACK)]
        self.modes.kitty_flags = stack[-1]

    def _pop_kitty_flags(self, params: tuple[int, ...]) -> None:
        stack = self.screen.buffer.kitty_flags
        del stack[max(0, len(stack) - (params[0] or 1)) :]
        if not stack:
            stack.append(0)
        self.modes.kitty_flags = stack[-1]

    def _set_kitty_flags(self, params: tuple[int, ...]) -> None:
        stack = self.screen.buffer.kitty_flags
        flags, how = params[0] & 31, params[1] if len(params) > 1 else 1
        if how == 2:
            flags |= stack[-1]
        elif how == 3:
            flags = stack[-1] & ~flags
        stack[-1] = self.modes.kitty_flags = flags

    def _report_kitty_flags(self, params: tuple[int, ...]) -> None:
        self._replies.append(f"\x1b[?{self.modes.kitty_flags}u")

    def _set_key_modifiers(self, params: tuple[int, ...]) -> None:
        """XTMODKEYS: only modifyOtherKeys (4) matters."""
        if params[0] in (0, 4):
            level = params[1] if len(params) > 1 and params[0] == 4 else 0
            self.modes.modify_other_keys = level if level <= 2 else 0

    def _reset_key_modifiers(self, params: tuple[int, ...]) -> None:
        if params[0] == 4:
            self.modes.modify_other_keys = 0

    def _report_key_modifiers(self, params: tuple[int, ...]) -> None:
        if params[0] == 4:
            self._replies.append(f"\x1b[>4;{self.modes.modify_other_keys}m")

    # Queries

    def _report_primary_attributes(self, params: tuple[int, ...] = (0,)) -> None:
        if params[0] == 0:
            self._replies.append(replies.PRIMARY_ATTRIBUTES)

    def _report_secondary_attributes(self, params: tuple[int, ...]) -> None:
        if params[0] == 0:
            self._replies.append(replies.SECONDARY_ATTRIBUTES)

    def _report_tertiary_attributes(self, params: tuple[int, ...]) -> None:
        if params[0] == 0:
            self._replies.append(replies.TERTIARY_ATTRIBUTES)

    def _report_identity(self) -> None:
        self._report_primary_attributes()

    def _report_version(self, params: tuple[int, ...]) -> None:
        if params[0] == 0:
            self._replies.append(replies.VERSION)

    def _report_status(self, params: tuple[int, ...]) -> None:
        self._reply(replies.status(params[0], private=False, screen=self.screen, dark=self.dark))

    def _report_private_status(self, params: tuple[int, ...]) -> None:
        self._reply(replies.status(params[0], private=True, screen=self.screen, dark=self.dark))

    def _window(self, params: tuple[int, ...]) -> None:
        """XTWINOPS: the title stack and reports; a program does not get to move or resize anything."""
        if params[0] == 22:
            self.titles.append(self.title)
            del self.titles[: max(0, len(self.titles) - MAX_STACK)]
        elif params[0] == 23:
            if self.titles:
                self._set_title(self.titles.pop())
        else:
            self._reply(replies.window(params[0], self.screen, self.cell_size))

    def _reply(self, answer: str) -> None:
        if answer:
            self._replies.append(answer)

    # Strings

    def _dcs(self, body: str) -> None:
        if body.startswith("+q"):
            self._reply(replies.capabilities(body[2:]))
        elif body.startswith("$q"):
            self._reply(replies.setting(body[2:], self.screen, self.modes))

    def _osc(self, sequence: str) -> None:
        end = "\a" if sequence.endswith("\a") else "\x1b\\"
        command, _, body = sequence[2:].rstrip("\a").partition(";")
        if command in ("0", "2"):
            self._set_title(body)
        elif command == "8":
            style = self.screen.pen.style
            self.screen.pen = self.pens.get(style._replace(link=osc.link(body)))
        elif command in ("9", "777"):
            self._notify(osc.notification(command, body))
        elif command == "7501":
            if body == "?":
                self._replies.append("\x1b]7501;?\x1b\\")
            else:
                self._notify(osc.activity(body))
        elif command == "52":
            self._notify(osc.clipboard(body))
        elif command == "7":
            self._notify(osc.directory(body))
        elif command == "4":
            self._palette(body, end)
        elif command == "104":
            self._reset_palette(body)
        elif command in _DEFAULT_COLORS:
            self._default_color(int(command), body, end)

    def _notify(self, notice: Notice | None) -> None:
        if notice is not None:
            self._notices.append(notice)

    def _set_title(self, title: str) -> None:
        self.title = osc.clean(title)
        self._notices.append(Notice("title", self.title))

    def _palette(self, body: str, end: str) -> None:
        """OSC 4: pairs of a colour's number and its new value, or `?`."""
        parts = body.split(";")[:512]
        for number, spec in zip(parts[::2], parts[1::2], strict=False):
            if not (number.isascii() and number.isdecimal() and len(number) < 4 and int(number) < 256):
                continue
            index = int(number)
            if spec == "?":
                red, green, blue = self.palette.get(index) or _PALETTE[index]
                self._replies.append(replies.color(f"4;{index}", (red, green, blue), end))
            elif (value := osc.color(spec)) is not None:
                self.palette[index] = value

    def _reset_palette(self, body: str) -> None:
        if not body:
            self.palette.clear()
        for number in body.split(";"):
            if number.isascii() and number.isdecimal() and len(number) < 4:
                self.palette.pop(int(number), None)

    def _default_color(self, number: int, body: str, end: str) -> None:
        """OSC 10, 11, 12 and the ones that follow it: `10;?;?` asks for 10 and 11. Setting them is not supported."""
        for spec in body.split(";")[:3]:
            name = _DEFAULT_COLORS.get(str(number))
            if spec == "?" and name is not None:
                self._replies.append(replies.color(str(number), getattr(self, name), end))
            number += 1


def _nothing() -> None:
    """A sequence that is not known."""


def _clamp(columns: int, lines: int) -> tuple[int, int]:
    return max(1, min(columns, MAX_COLUMNS)), max(1, min(lines, MAX_LINES))


_DEFAULT_COLORS = {"10": "foreground", "11": "background", "12": "cursor_color"}

_CSI_HANDLERS: dict[str, Callable[[Emulator, tuple[int, ...]], None]] = {
    "c": Emulator._report_primary_attributes,
    ">c": Emulator._report_secondary_attributes,
    "=c": Emulator._report_tertiary_attributes,
    "h": Emulator._set_ansi_modes,
    "l": Emulator._reset_ansi_modes,
    "n": Emulator._report_status,
    "s": Emulator._save_cursor_or_set_columns_margin,
    "t": Emulator._window,
    "u": lambda emulator, _: emulator._restore_cursor(),
    "?h": Emulator._set_private_modes,
    "?l": Emulator._reset_private_modes,
    "?n": Emulator._report_private_status,
    "?r": Emulator._restore_private_modes,
    "?s": Emulator._save_private_modes,
    "?u": Emulator._report_kitty_flags,
    "?m": Emulator._report_key_modifiers,
    "?$p": Emulator._report_private_mode,
    "$p": Emulator._report_ansi_mode,
    "!p": lambda emulator, _: emulator._soft_reset(),
    " q": Emulator._set_cursor_shape,
    ">q": Emulator._report_version,
    ">u": Emulator._push_kitty_flags,
    "<u": Emulator._pop_kitty_flags,
    "=u": Emulator._set_kitty_flags,
    ">m": Emulator._set_key_modifiers,
    ">n": Emulator._reset_key_modifiers,
}

_CONTROL_HANDLERS: dict[str, Callable[[Emulator], None]] = {
    "\a": Emulator._bell,
    "\b": Emulator._backspace,
    "\t": Emulator._tab,
    "\n": Emulator._line_feed,
    "\v": Emulator._line_feed,
    "\f": Emulator._line_feed,
    "\r": Emulator._carriage_return,
    "\x0e": lambda emulator: emulator.select_charset(1),
    "\x0f": lambda emulator: emulator.select_charset(0),
}

_ESC_HANDLERS: dict[str, Callable[[Emulator], None]] = {
    "7": Emulator._save_cursor,
    "8": Emulator._restore_cursor,
    "#8": Emulator._align,
    "D": Emulator._index,
    "E": Emulator._next_line,
    "H": Emulator._set_tab,
    "M": Emulator._reverse_index,
    "Z": Emulator._report_identity,
    "c": Emulator._reset,
    "=": Emulator._keypad_application,
    ">": Emulator._keypad_numeric,
    "n": lambda emulator: emulator.select_charset(2),
    "o": lambda emulator: emulator.select_charset(3),
}

"""The screen as an escape stream: what a terminal that has just attached must get to show it exactly."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, pairwise
from typing import TYPE_CHECKING

from lapconsole.terminal.cells import WRAP_FILLED, WRAP_NONE, Row, expand
from lapconsole.terminal.modes import MOUSE_MODES, SWITCHES
from lapconsole.terminal.screen import Buffer, SavedCursor, Screen
from lapconsole.terminal.styles import PLAIN, Pen, Style, sgr
from lapconsole.terminal.widths import joins

if TYPE_CHECKING:
    from lapconsole.terminal.emulator import Emulator

# End whatever sequence the terminal is in, hold its display, show the primary screen, and reset softly.
_BEGIN = "\x18\x1b\\\x1b[?2026h\x1b[?1049l\x1b[!p"
# Undo all that bends text: margins, origin, insert and newline mode, charsets, style, link.
_NEUTRAL = "\x1b[?69l\x1b[r\x1b[?6l\x1b[4;20l\x1b[?7h\x1b[?45l\x1b(B\x1b)B\x1b*B\x1b+B\x0f\x1b[m\x1b]8;;\x1b\\"
_ORIGIN = "\x1b[?6h"


def repaint(emulator: Emulator, scrollback: int) -> bytes:
    screen = emulator.screen
    painter = _Painter()
    painter.out += [_BEGIN, _NEUTRAL, "\x1b]104\x1b\\"]
    painter.buffer(screen.primary, _newest(screen, scrollback), anew=scrollback > 0)
    if screen.buffer is screen.alternate:
        painter.out.append("\x1b[?1049h")  # this saves the cursor, which is now where the program's saved one is
        painter.neutral()
        painter.buffer(screen.alternate, [])
    painter.out.append("\x1b7")
    painter.neutral()
    painter.margins_and_tabs(screen)
    painter.present_cursor(emulator)
    painter.modes(emulator)
    return "".join(painter.out).encode()


def _newest(screen: Screen, count: int) -> list[Row]:
    if count <= 0:
        return []  # and nothing is rewrapped
    lines = screen.history.wrapped(screen.columns)
    newest = list(islice(reversed(lines), count))
    return [expand(line, screen.columns) for line in reversed(newest)]


class _Painter:
    """Collects output, and knows the style the terminal is in."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self._style = PLAIN

    def look(self, style: Style) -> None:
        """Go to another style."""
        if not style.link and not self._style.link:
            if style != self._style:
                self.out.append(f"\x1b[{sgr(style)}m" if style != PLAIN else "\x1b[m")
                self._style = style
            return
        if style.link != self._style.link:
            self.out.append(f"\x1b]8;;{style.link}\x1b\\")
        if style._replace(link="") != self._style._replace(link=""):
            self.out.append(f"\x1b[{sgr(style)}m" if style._replace(link="") != PLAIN else "\x1b[m")
        self._style = style

    def neutral(self) -> None:
        """Undo what a saved cursor brought along."""
        self.out.append(_NEUTRAL)
        self._style = PLAIN

    def buffer(self, buffer: Buffer, above: list[Row], *, anew: bool = False) -> None:
        """Write a screen from its top left on, and leave the cursor as its saved one. Rows above it scroll out.

        With `anew` the rows above are all there are, even if there are none.
        """
        self.out.append("\x1b[H\x1b[2J\x1b[3J" if anew else "\x1b[H\x1b[2J")
        rows: list[Row | None] = [*above, *buffer.rows]
        wrapped = False
        for row, following in pairwise([*rows, None]):
            assert row is not None
            wraps = following is not None and _wraps_by_itself(row, following)
            end = len(row.chars) if wraps else max(row.used(), int(wrapped))
            self.row(row, end - (wraps and row.wrap == WRAP_FILLED))
            if not wraps:
                self.look(PLAIN)
                if above and end < len(row.chars):
                    self.out.append("\x1b[K")  # a row that scrolled in may have taken on a background
                if following is not None:
                    self.out.append("\r\n")
            wrapped = wraps
        self.out.append(f"\x1b[<99u\x1b[={buffer.kitty_flags[0]}u")
        self.out += [f"\x1b[>{flags}u" for flags in buffer.kitty_flags[1:]]
        self.saved_cursor(buffer.saved)

    def row(self, row: Row, end: int) -> None:
        """Write the first cells of a row. Of those that would join the one before, the right one goes first."""
        for start, stop in reversed(list(pairwise([0, *_seams(row), end]))):
            if start < stop:
                if start or stop < end:
                    self.out.append(f"\x1b[{start + 1}G")
                self.cells(row, start, stop)

    def cells(self, row: Row, start: int, end: int) -> None:
        while start < end:
            style, stop = row.styles[start], start + 1
            while stop < end and row.styles[stop] == style:
                stop += 1
            self.look(style)
            self.out.append("".join(row.chars[start:stop]))
            start = stop

    def saved_cursor(self, saved: SavedCursor) -> None:
        """Put the cursor where a saved one is, with its style, charsets and origin mode."""
        self.look(PLAIN)
        self.out.append(f"{_ORIGIN * saved.origin}\x1b[{saved.y + 1};{saved.x + 1}H")
        self.look(saved.pen.style)
        self.charsets(saved.charsets, saved.charset)

    def charsets(self, charsets: Sequence[str], active: int) -> None:
        self.out += [f"\x1b{slot}{charset}" for slot, charset in zip("()*+", charsets, strict=True)]
        self.out.append(("\x0f", "\x0e", "\x1bn", "\x1bo")[active])

    def margins_and_tabs(self, screen: Screen) -> None:
        self.out.append("\x1b[3g")
        self.out += [f"\x1b[{x + 1}G\x1bH" for x in sorted(screen.tabs)]
        if (screen.top, screen.bottom) != (0, screen.lines - 1):
            self.out.append(f"\x1b[{screen.top + 1};{screen.bottom + 1}r")
        if screen.margin_mode:
            self.out.append(f"\x1b[?69h\x1b[{screen.left + 1};{screen.right + 1}s")

    def present_cursor(self, emulator: Emulator) -> None:
        screen = emulator.screen
        row, x, y = screen.rows[screen.y], screen.x, screen.y
        if not row.chars[x]:
            x -= 1
        # Writing the last cell again makes the wrap pending, unless it would join the one before.
        rewrite = screen.pending_wrap and x not in _seams(row)
        if not rewrite:
            x = screen.x
        if screen.origin:
            self.out.append(f"{_ORIGIN}\x1b[{y - screen.top + 1};{x - screen.left + 1}H")
        else:
            self.out.append(f"\x1b[{y + 1};{x + 1}H")
        if rewrite:
            self.cells(row, x, screen.x + 1)
        self.look(screen.pen.style)
        self.charsets(emulator.charsets, emulator.charset)
        if not screen.autowrap:
            self.out.append("\x1b[?7l")
        if screen.reverse_wrap:
            self.out.append("\x1b[?45h")
        if screen.insert:
            self.out.append("\x1b[4h")

    def modes(self, emulator: Emulator) -> None:
        modes = emulator.modes
        self.out += [f"\x1b[?{number}l" for number in MOUSE_MODES]
        if modes.mouse:
            self.out.append(f"\x1b[?{modes.mouse}h")
        if modes.newline:
            self.out.append("\x1b[20h")
        self.out.append(f"\x1b[>4;{modes.modify_other_keys}m\x1b[{modes.cursor_shape} q\x1b]2;{emulator.title}\x1b\\")
        for index, (red, green, blue) in emulator.palette.items():
            self.out.append(f"\x1b]4;{index};rgb:{red:02x}/{green:02x}/{blue:02x}\x1b\\")
        # 2026 is among the last: it shows the result.
        self.out += [f"\x1b[?{number}{'h' if getattr(modes, name) else 'l'}" for number, name in SWITCHES.items()]


def _wraps_by_itself(row: Row, following: Row) -> bool:
    """Whether writing both rows in one go breaks the line just here, so that the terminal knows it as one line."""
    if row.wrap == WRAP_NONE or len(row.chars) < 2 or _seams(row) or _seams(following):
        return False
    written = row.chars
    if row.wrap == WRAP_FILLED:
        written = row.chars[:-1]
        wide = not following.chars[1]
        if not wide or row.chars[-1] != " " or row.styles[-1] != Pen(following.styles[0]).blank:
            return False
    last = next(filter(None, reversed(written)), "")
    return not joins(last, following.chars[0][0])


def _seams(row: Row) -> list[int]:
    """Columns whose cell would join the one before if written right after it."""
    if "".join(row.chars).isascii():
        return []
    found, before = [], row.chars[0]
    for x, cell in enumerate(row.chars[1:], 1):
        if cell:
            if not cell.isascii() and joins(before, cell[0]):
                found.append(x)
            before = cell
    return found

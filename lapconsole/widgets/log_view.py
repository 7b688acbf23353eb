"""A log that follows its source, and holds perfectly still when somebody reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len, chop_cells
from textual.binding import BindingType
from textual.geometry import Size
from textual.message import Message
from textual.strip import Strip

from lapconsole import keys
from lapconsole.widgets.parts import Part, Parts, strip_of
from lapconsole.widgets.sheet import Sheet
from lapconsole.widgets.words import UNICODE, Glyphs, clean, clean_lines, plural

MAXIMUM_LINES = 5000
GAP_LINE = "… lines were written faster than they could be read …"
ANEW_LINE = "… a new log begins …"


@dataclass(frozen=True, slots=True)
class _Row:
    """One screen row: a line, or a piece of a wrapped one."""

    line: int
    text: str


def overlap(old: Sequence[str], new: Sequence[str]) -> int:
    """How many of the first lines of `new` are the last lines of `old`."""
    for size in range(min(len(old), len(new)), 0, -1):
        if new[0] == old[-size] and new[size - 1] == old[-1] and list(old[-size:]) == list(new[:size]):
            return size
    return 0


class LogView(Sheet):
    """The end of a log, fed with ever newer tails of it.

    Following, the newest line is at the bottom. Held, what is on the screen stays where it is whatever arrives, also
    when lines fall out at the top; the title says how many came since.
    """

    BINDINGS: ClassVar[list[BindingType]] = [*keys.bindings("sheet"), *keys.bindings("log")]

    @dataclass
    class SearchWanted(Message):
        """The search key was pressed."""

        log: LogView

    def __init__(self, *, glyphs: Glyphs = UNICODE, id: str | None = None) -> None:
        super().__init__(lambda width: [], title="Log", glyphs=glyphs, id=id)
        self._text: list[str] = []
        self._dropped = 0  # lines that fell out at the top, so that line numbers stay valid
        self._rows: list[_Row] = []
        self.following = True
        self.wrapping = True
        self.unseen = 0
        self.status = ""
        self._needle = ""
        self._match: int | None = None
        self._retitle()

    # -- content

    @property
    def text(self) -> list[str]:
        """The lines held."""
        return self._text

    def feed(self, tail: str, *, asked: int = 0) -> None:
        """Take over a newer tail of the log, of at most `asked` lines; what is already here is recognised."""
        lines = clean_lines(tail.rstrip("\n")) if tail.strip() else []
        known = overlap(self._text, lines)
        if not known and (known := overlap(self._text[:-1], lines)):
            # The last line was not complete when it was read.
            self._drop_last()
        new = lines[known:]
        if not new:
            return
        if self._text and not known:
            # A log shorter than what was asked for is there from its beginning: nothing is missing before it.
            new = [ANEW_LINE if len(lines) < asked else GAP_LINE, *new]
        self._append(new)

    def say(self, status: str) -> None:
        """Show a word about the source in the title, such as why it cannot be read."""
        if status != self.status:
            self.status = status
            self._retitle()

    def _append(self, new: list[str]) -> None:
        first = self._dropped + len(self._text)
        self._text.extend(new)
        for place, line in enumerate(new, start=first):
            self._rows.extend(self._wrapped(place, line))
        gone = self._trim()
        if not self.following:
            self.unseen += len(new)
        self._resize(gone)
        self._retitle()

    def _drop_last(self) -> None:
        del self._text[-1]
        end = self._dropped + len(self._text)
        while self._rows and self._rows[-1].line >= end:
            del self._rows[-1]

    def _trim(self) -> int:
        """Drop the oldest lines over the limit; gives the number of rows that went with them."""
        surplus = len(self._text) - MAXIMUM_LINES
        if surplus <= 0:
            return 0
        del self._text[:surplus]
        self._dropped += surplus
        gone = next((place for place, row in enumerate(self._rows) if row.line >= self._dropped), len(self._rows))
        del self._rows[:gone]
        return gone

    def _wrapped(self, place: int, line: str) -> list[_Row]:
        width = max(1, self.scrollable_content_region.width)
        if not self.wrapping or cell_len(line) <= width:
            return [_Row(place, line)]
        return [_Row(place, piece) for piece in chop_cells(line, width)]

    def _resize(self, gone: int) -> None:
        self.virtual_size = Size(self.scrollable_content_region.width, len(self._rows) + self._header)
        if self.following:
            self.scroll_to(y=len(self._rows), animate=False, force=True)
        elif gone:
            self.scroll_to(y=max(0, self.scroll_offset.y - gone), animate=False, force=True)
        self.refresh()

    def _rewrap(self) -> None:
        top = self._rows[self.scroll_offset.y].line if self.scroll_offset.y < len(self._rows) else None
        self._rows = [
            row for place, line in enumerate(self._text, start=self._dropped) for row in self._wrapped(place, line)
        ]
        self._resize(0)
        if not self.following and top is not None:
            self._go_to(top)

    def draw(self) -> None:
        width = self.scrollable_content_region.width
        if width > 0 and width != self._width:
            self._width = width
            self._rewrap()
        elif self.following:
            self._resize(0)

    # -- moving: any move up holds, the end follows again

    def action_up(self) -> None:
        self._hold()
        super().action_up()

    def action_page_up(self) -> None:
        self._hold()
        super().action_page_up()

    def action_first(self) -> None:
        self._hold()
        super().action_first()

    def action_down(self) -> None:
        super().action_down()
        self._follow_at_end(1)

    def action_page_down(self) -> None:
        super().action_page_down()
        self._follow_at_end(self._page)

    def action_last(self) -> None:
        self._follow()

    def action_pause(self) -> None:
        if self.following:
            self._hold()
        else:
            self._follow()

    def action_wrap(self) -> None:
        self.wrapping = not self.wrapping
        self._rewrap()
        self._retitle()

    def on_mouse_scroll_up(self) -> None:
        self._hold()

    def _hold(self) -> None:
        self.following = False
        self._retitle()

    def _follow(self) -> None:
        self.following, self.unseen, self._match = True, 0, None
        self._resize(0)
        self._retitle()

    def _follow_at_end(self, step: int) -> None:
        if self.scroll_offset.y + step >= len(self._rows) - self._page:
            self._follow()

    # -- search

    def action_search(self) -> None:
        self.post_message(self.SearchWanted(self))

    def search(self, needle: str) -> None:
        """Mark every occurrence of a text, whatever its case, and go to the last one."""
        self._needle, self._match = needle.lower(), None
        self.refresh()
        if self._needle:
            self.action_match(-1)
        else:
            self._retitle()

    def action_match(self, step: int) -> None:
        """Go to the next match below (1) or above (-1), round the end."""
        if not self._needle:
            return
        found = [place for place, line in enumerate(self._text, start=self._dropped) if self._needle in line.lower()]
        if not found:
            self._match = None
            self._retitle()
            return
        here = self._match if self._match is not None else found[-1] + 1
        after = [place for place in found if (place > here if step > 0 else place < here)]
        self._match = (after[0] if step > 0 else after[-1]) if after else (found[0] if step > 0 else found[-1])
        self.following = False
        self._go_to(self._match, centre=True)
        self.refresh()
        self._retitle(f"match {found.index(self._match) + 1} of {len(found)}")

    def _go_to(self, line: int, *, centre: bool = False) -> None:
        row = next((place for place, row in enumerate(self._rows) if row.line >= line), 0)
        self.scroll_to(y=max(0, row - (self._page // 2 if centre else 0)), animate=False, force=True)

    # -- drawing

    def _retitle(self, found: str = "") -> None:
        dot = f" {self._glyphs.dot} "
        words = ["Log", "following" if self.following else "held still"]
        if self.unseen:
            words.append(f"{plural(self.unseen, 'new line')} below")
        if self._needle:
            words.append(
                found or f'nothing matches "{clean(self._needle)}"' if self._match is None else found or "searching"
            )
        if not self.wrapping:
            words.append("long lines cut")
        if self.status:
            words.append(self.status)
        self.title = dot.join(words)

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        if y == 0:
            return self._title_line(width)
        place = y - self._header + self.scroll_offset.y
        if place >= len(self._rows):
            words = "Nothing has been logged yet." if not self._rows and y == 1 else ""
            return self._strip(((words, "muted"),), width)
        return self._strip(self._marked(self._rows[place]), width)

    def _strip(self, parts: Parts, width: int) -> Strip:
        return strip_of(self, parts, width, self.rich_style, ellipsis=self._glyphs.ellipsis)

    def _marked(self, row: _Row) -> Parts:
        tone = "muted" if row.text in (GAP_LINE, ANEW_LINE) else "strong" if row.line == self._match else "plain"
        if not self._needle:
            return ((row.text, tone),)
        parts: list[Part] = []
        text, low = row.text, row.text.lower()
        start = 0
        while (found := low.find(self._needle, start)) >= 0 and len(low) == len(text):
            parts += [(text[start:found], tone), (text[found : found + len(self._needle)], "match")]
            start = found + len(self._needle)
        return (*parts, (text[start:], tone))

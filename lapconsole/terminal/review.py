"""A look back at what a terminal has shown: scrolling, searching and selecting in a frozen document. No Textual.

Keys are those of less and of tmux's copy mode: arrows scroll, `/` searches, `v` shows a cursor and then marks.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from lapconsole.terminal.document import Document, Place, Span
from lapconsole.terminal.search import Search


class Unit(StrEnum):
    """What a selection grows by."""

    CELL = "cell"
    WORD = "word"
    LINE = "line"


class Wish(StrEnum):
    """What a key asks of whoever shows this."""

    LEAVE = "leave"
    COPY = "copy"
    SEARCH = "search"


class Mark(NamedTuple):
    """Columns of a row that are to stand out. `kind`: match, current or selection."""

    start: int
    end: int
    kind: str


_SCROLL = {"up": 1, "k": 1, "down": -1, "j": -1}
_PAGES = {
    "pageup": 1.0,
    "ctrl+b": 1.0,
    "shift+pageup": 1.0,
    "pagedown": -1.0,
    "ctrl+f": -1.0,
    "shift+pagedown": -1.0,
    "space": -1.0,
    "ctrl+u": 0.5,
    "ctrl+d": -0.5,
}
_SIDEWAYS = {"left": -1, "h": -1, "right": 1, "l": 1}
_WORDS = {"w": 1, "b": -1, "ctrl+right": 1, "ctrl+left": -1}


class Review:
    """Shows `height` lines of a document from line `top` on. `cursor` is None while keys only scroll."""

    def __init__(self, document: Document, height: int, home: int) -> None:
        """`home` is the top line of the live view, where the look back begins."""
        self.document = document
        self.height = height
        self.home = self.top = home
        self.cursor: Place | None = None
        self.anchor: Place | None = None
        self.unit = Unit.CELL
        self.search: Search | None = None
        self.hit: int | None = None
        self._origin: Place | None = None  # where a search began

    # Where it is

    @property
    def bottom(self) -> int:
        """The top line when the newest is shown; beyond `home` where the window cuts off the end of the screen."""
        return max(0, len(self.document) - self.height)

    @property
    def lines_back(self) -> int:
        """How many lines above the live view this one is."""
        return max(0, self.home - self.top)

    def scroll(self, lines: int) -> None:
        """Move by so many lines, back when positive, as far as there are any. A cursor stays in sight."""
        self.top = max(0, min(self.top - lines, self.bottom))
        if self.cursor is not None:
            line = min(max(self.cursor.line, self.top), min(self.top + self.height, len(self.document)) - 1)
            self._put(Place(line, self.cursor.column))

    def show(self, place: Place) -> None:
        """Bring a line into sight: at the near edge, or in the middle when it is far."""
        if self.top <= place.line < self.top + self.height:
            return
        far = not self.top - self.height <= place.line < self.top + 2 * self.height
        if far:
            top = place.line - self.height // 2
        elif place.line < self.top:
            top = place.line
        else:
            top = place.line - self.height + 1
        self.top = max(0, min(top, self.bottom))

    def resize(self, height: int) -> None:
        """The window has this many lines now; what is at its bottom stays there."""
        grown = height - self.height
        self.height = height
        self.home = max(0, min(self.home - grown, self.bottom))
        self.top = max(0, min(self.top - grown, self.bottom))

    def renew(self, document: Document, *, rebuilt: bool = False) -> None:
        """Go on in a later document, on the same lines; as far from the end as before if it is `rebuilt`."""
        shift = len(document) - len(self.document) if rebuilt else self.document.shift_to(document)
        below = len(self.document) - self.home
        self.document = document
        self.home = max(0, len(document) - below)
        self.top = max(0, min(self.top + shift, self.bottom))

    # Keys

    def key(self, key: str) -> Wish | None:
        """Take a key; gives what it asks for beyond moving about in here."""
        if key == "q":
            return Wish.LEAVE
        if key == "escape":
            return None if self.clear() else Wish.LEAVE
        if key == "slash":
            return Wish.SEARCH
        if key in ("y", "enter") and self.anchor is not None:
            return Wish.COPY
        if key in ("n", "N"):
            self.step(1 if key == "n" else -1)
        elif key in ("v", "V"):
            self._mark(Unit.CELL if key == "v" else Unit.LINE)
        elif key == "o" and self.cursor is not None and self.anchor is not None:
            self.anchor, here = self.cursor, self.anchor
            self._go(here)
        elif self.cursor is not None or key in ("h", "l", "left", "right", "w", "b"):
            self._move(key, self.cursor if self.cursor is not None else self._first_cursor())
        else:
            self.scroll(_SCROLL.get(key, 0) + self._pages(key) + len(self.document) * _ends(key))
        return None

    def _pages(self, key: str) -> int:
        return int(_PAGES.get(key, 0) * max(1, self.height - 1))

    def _mark(self, unit: Unit) -> None:
        """Show the cursor, then begin a selection at it; the same key again ends that."""
        if self.cursor is None:
            self._put(self._first_cursor())
            if unit is Unit.CELL:
                return
        if self.anchor is not None and self.unit is unit:
            self.anchor = None
            return
        self.anchor = self.anchor or self.cursor
        self.unit = unit

    def _first_cursor(self) -> Place:
        """Where the cursor begins: on the hit just found, else on the last line in sight that has text."""
        if self.search is not None and self.hit is not None:
            start = self.search.hits[self.hit].start
            if self.top <= start.line < self.top + self.height:
                return start
        lines = range(self.top, min(self.top + self.height, len(self.document)))
        return Place(next((y for y in reversed(lines) if self.document.lines[y].text.strip()), self.top), 0)

    def _move(self, key: str, place: Place) -> None:
        line, column = place
        if key in _SIDEWAYS:
            column += _SIDEWAYS[key]
            if _SIDEWAYS[key] > 0 and column < self.document.columns and not self._cell(line, column):
                column += 1
        elif key in _WORDS:
            line, column = self.document.next_word(place, _WORDS[key])
        elif key in ("home", "0", "circumflex_accent"):
            column = 0
        elif key in ("end", "dollar_sign"):
            column = len(self.document.characters(line)) - 1
        else:
            line -= _SCROLL.get(key, 0) + self._pages(key) + len(self.document) * _ends(key)
        self._go(Place(line, column))

    def _cell(self, line: int, column: int) -> str:
        chars = self.document.characters(line)
        return chars[column] if column < len(chars) else " "

    def _go(self, place: Place) -> None:
        self._put(place)
        assert self.cursor is not None
        self.show(self.cursor)

    def _put(self, place: Place) -> None:
        """Set the cursor, within the document and on the left half of a wide character."""
        line = max(0, min(place.line, len(self.document) - 1))
        column = max(0, min(place.column, self.document.columns - 1))
        if column and not self._cell(line, column):
            column -= 1
        self.cursor = Place(line, column)

    # Selection

    def select(self, place: Place, unit: Unit, *, extend: bool) -> None:
        """Begin a selection at a place, or take the one there is up to it."""
        if not extend or self.anchor is None:
            self.unit = unit
            self._put(place)
            self.anchor = self.cursor
        else:
            self._put(place)

    @property
    def selection(self) -> Span | None:
        """The cells that are selected; None when there are none."""
        if self.anchor is None or self.cursor is None:
            return None
        first, last = sorted((self.anchor, self.cursor))
        if self.unit is Unit.LINE:
            return self.document.whole_lines(first.line, last.line)
        if self.unit is Unit.WORD:
            return Span(self.document.word(first).start, self.document.word(last).end)
        wide = last.column + 1 < self.document.columns and not self._cell(last.line, last.column + 1)
        return Span(first, Place(last.line, last.column + 1 + wide))

    def text(self, limit: int) -> str:
        """The selected text, "" when there is none; a little more than `limit` characters if there are more."""
        span = self.selection
        return self.document.text(*span, limit) if span is not None else ""

    def clear(self) -> bool:
        """Take away the selection, else the cursor, else the search; False when there was none of them."""
        if self.anchor is not None:
            self.anchor = None
        elif self.cursor is not None:
            self.cursor = None
        elif self.search is not None:
            self.search = self.hit = None
        else:
            return False
        return True

    # Search

    def find(self, needle: str) -> None:
        """Look for a text from here back; `search_on` is to be called until it says that all is found."""
        if self._origin is None:
            last = min(self.top + self.height, len(self.document)) - 1
            self._origin = self.cursor or Place(last, self.document.columns)
        self.search = Search(self.document, needle) if needle else None
        self.hit = None

    def search_on(self, deadline: float) -> bool:
        """Search until a time. True when there is more to do."""
        search = self.search
        if search is None or search.done:
            return False
        search.work(deadline)
        if self.hit is None and self._origin is not None:
            self._to_hit(search.nearest(self._origin))
        return not search.done

    def settle(self) -> None:
        """What is typed is what is searched; the next search begins where this one has led."""
        self._origin = None

    def step(self, older: int) -> None:
        """Go to the next hit, older ones first, round the end."""
        if self.search is None or not self.search.hits:
            return
        here = -1 if self.hit is None else self.hit
        self._to_hit((here + older) % len(self.search.hits))

    def _to_hit(self, hit: int | None) -> None:
        if hit is None or self.search is None:
            return
        self.hit = hit
        start = self.search.hits[hit].start
        if self.cursor is not None:
            self._put(start)
        self.show(start)

    # What is shown

    def marks(self, line: int) -> Iterator[Mark]:
        """What stands out in a line; later ones lie over earlier ones."""
        if self.search is not None:
            for number in self.search.on_line(line):
                yield self._mark_of(self.search.hits[number], line, "current" if number == self.hit else "match")
        span = self.selection
        if span is not None and span.start.line <= line <= span.end.line:
            yield self._mark_of(span, line, "selection")

    def _mark_of(self, span: Span, line: int, kind: str) -> Mark:
        start = span.start.column if line == span.start.line else 0
        end = span.end.column if line == span.end.line else self.document.columns
        return Mark(start, end, kind)


def _ends(key: str) -> int:
    return {"home": 1, "g": 1, "end": -1, "G": -1}.get(key, 0)

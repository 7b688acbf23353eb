"""Search in a document, from the newest line back and a slice of time at a go, so that nothing waits for it."""

from __future__ import annotations

import re
from collections.abc import Callable
from time import monotonic

from lapconsole.terminal.document import Document, Place, Span

#: More are not looked for: nobody walks through them, and each takes memory.
MAX_HITS = 4_000


class Search:
    """All places of a text, the newest first. Lower case finds both; an upper case letter makes it exact.

    `hits` fills while `work` is called until `done`.
    """

    def __init__(self, document: Document, needle: str, *, clock: Callable[[], float] = monotonic) -> None:
        self.needle = needle
        self.hits: list[Span] = []
        self.done = False
        self._document = document
        self._groups = document.groups_back()
        self._clock = clock
        self._rows: dict[int, list[int]] = {}  # hits by line
        exact = needle != needle.lower()
        self._pattern = re.compile(re.escape(needle), 0 if exact else re.IGNORECASE)

    @property
    def full(self) -> bool:
        """Whether there may be more that are not looked for."""
        return len(self.hits) >= MAX_HITS

    def work(self, deadline: float) -> None:
        """Go on until done, or the time (by the clock) is up."""
        for count, group in enumerate(self._groups, 1):
            self._find_in(group)
            if self.full:
                break
            if count % 8 == 0 and self._clock() >= deadline:
                return
        self.done = True

    def _find_in(self, group: range) -> None:
        lines = self._document.lines
        text = lines[group.start].text
        if len(group) == 1 and not text.startswith("\0"):  # most lines: their characters are their cells
            line = group.start
            found = [
                Span(Place(line, match.start()), Place(line, match.end())) for match in self._pattern.finditer(text)
            ]
        else:
            joined = self._document.joined(group)
            found = [joined.span(match.start(), match.end()) for match in self._pattern.finditer(joined.text)]
        for span in reversed(found):
            for line in range(span.start.line, span.end.line + 1):
                self._rows.setdefault(line, []).append(len(self.hits))
            self.hits.append(span)

    def on_line(self, line: int) -> list[int]:
        """The numbers of the hits that touch a line."""
        return self._rows.get(line, [])

    def nearest(self, place: Place) -> int | None:
        """The first hit at a place or above it; else the newest; None when there is none yet, or none at all."""
        low, high = 0, len(self.hits)
        while low < high:
            middle = (low + high) // 2
            if self.hits[middle].start > place:
                low = middle + 1
            else:
                high = middle
        if low < len(self.hits):
            return low
        return 0 if self.hits and self.done else None

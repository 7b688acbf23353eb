"""A text that grows, as drawn rows: the few marks of Markdown that help reading, worked out once a line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len, chop_cells

from lapconsole.widgets.parts import Part, Parts
from lapconsole.widgets.words import clean

# A line longer than this is drawn in pieces, so that one without an end does not cost more with each word.
LONGEST_LINE = 8192

_FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})\s*([\w+#.-]*)")
_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*$")
_ITEM = re.compile(r"(\s*)([-*+]|\d{1,3}[.)])\s+(.*)")
_RULE = re.compile(r"\s{0,3}([-*_])(\s*\1){2,}\s*$")
_TABLE_RULE = re.compile(r"\|?(\s*:?-{2,}:?\s*\|)+\s*:?-*:?\s*$")
_INLINE = re.compile(
    r"(?P<code>`+)(?P<code_text>[^`].*?)(?P=code)(?!`)"
    r"|\*\*(?P<bold>[^\s*][^*]*)\*\*|__(?P<bold2>[^\s_][^_]*)__(?!\w)"
    r"|(?<![\w*])\*(?P<italic>[^\s*][^*]*)\*(?!\w)"
    r"|\[(?P<label>[^\]\n]+)\]\((?P<target>[^)\s]+)\)"
)
_PIECES = re.compile(r" +|[^ ]+")
_DEEPEST = 12


class Row(NamedTuple):
    """One row of the screen; `code` ones stand on a band of their own."""

    parts: Parts
    code: bool = False


BLANK = Row(())


def wrap_runs(runs: Sequence[Part], width: int) -> list[Parts]:
    """Runs of text in rows of at most `width` cells, broken at spaces where there are any."""
    width = max(1, width)
    if sum(_size(text) for text, _ in runs) <= width:
        return [tuple(runs)]
    rows: list[Parts] = []
    row: list[Part] = []
    used = 0
    for text, tone in runs:
        for piece in _PIECES.findall(text):
            size = _size(piece)
            if used + size > width:
                if piece[0] == " ":  # the end of a row needs no blanks
                    size, piece = width - used, piece[: width - used]
                    if not piece:
                        continue
                else:
                    if used:
                        rows.append(_row(row))
                        row, used = [], 0
                    if size > width:
                        *full, piece = chop_cells(piece, width)
                        rows.extend(((part, tone),) for part in full)
                        size = _size(piece)
            elif not used and rows and piece[0] == " ":
                continue
            row.append((piece, tone))
            used += size
    if row or not rows:
        rows.append(_row(row))
    return rows


def _row(pieces: list[Part]) -> Parts:
    """Pieces of a row with neighbours of one tone joined."""
    joined: list[Part] = []
    for text, tone in pieces:
        if joined and joined[-1][1] == tone:
            joined[-1] = (joined[-1][0] + text, tone)
        else:
            joined.append((text, tone))
    return tuple(joined)


def inline(text: str, tone: str = "plain") -> list[Part]:
    """A line's runs: code, bold, italic and links told apart, everything else as it is."""
    if not any(mark in text for mark in "`*_["):
        return [(text, tone)]
    runs: list[Part] = []
    at = 0
    for match in _INLINE.finditer(text):
        if match.start() > at:
            runs.append((text[at : match.start()], tone))
        if code := match["code_text"]:
            runs.append((code, "accent"))
        elif bold := match["bold"] or match["bold2"]:
            runs.append((bold, "strong"))
        elif italic := match["italic"]:
            runs.append((italic, "italic"))
        else:
            runs.append((match["label"], "accent"))
            if match["target"] != match["label"]:
                runs.append((f" ({match['target']})", "muted"))
        at = match.end()
    if at < len(text):
        runs.append((text[at:], tone))
    return runs


class FlowingText:
    """Rows of a text at one width. Given the text again, grown, only its new lines are worked out."""

    def __init__(self, width: int, *, indent: int = 2, plain: bool = False, tone: str = "plain") -> None:
        """`plain` text has no marks; each line of it is only wrapped."""
        self.rows: list[Row] = []
        self._indent: Part = (" " * indent, "plain")
        self._width = max(8, width - indent)
        self._plain = plain
        self._tone = tone
        self._forget()

    def _forget(self) -> None:
        self._text = ""
        self._done = 0  # characters of complete lines
        self._stable = 0  # their rows
        self._fence = ""
        self.rows.clear()

    def take(self, text: str) -> None:
        """Take over the text as it is now."""
        if text == self._text and self.rows:
            return
        if not text.startswith(self._text):
            self._forget()
        self._text = text
        del self.rows[self._stable :]
        while (end := self._line_end()) is not None:
            self.rows.extend(self._drawn(text[self._done : end]))
            self._done = end + 1 if text[end : end + 1] == "\n" else end
        self._stable = len(self.rows)
        fence = self._fence
        if self._done < len(text):
            self.rows.extend(self._drawn(text[self._done :]))
        self._fence = fence

    def _line_end(self) -> int | None:
        end = self._text.find("\n", self._done, self._done + LONGEST_LINE)
        if end >= 0:
            return end
        if len(self._text) - self._done < LONGEST_LINE:
            return None
        space = self._text.rfind(" ", self._done, self._done + LONGEST_LINE)
        return space + 1 if space > self._done else self._done + LONGEST_LINE

    def _drawn(self, line: str) -> Iterator[Row]:
        line = clean(line.expandtabs(4)).rstrip()
        if self._plain:
            yield from self._wrapped([(line, self._tone)])
        elif fence := _FENCE.match(line):
            yield from self._at_fence(fence[1], fence[2], line)
        elif self._fence:
            yield from self._code(line)
        else:
            yield from self._prose(line)

    def _at_fence(self, marks: str, language: str, line: str) -> Iterator[Row]:
        if not self._fence:
            self._fence = marks
            if language:
                yield Row((self._indent, (f" {language}", "muted")), code=True)
        elif marks.startswith(self._fence) and not language:
            self._fence = ""
        else:
            yield from self._code(line)

    def _code(self, line: str) -> Iterator[Row]:
        width = self._width - 2
        for piece in [line] if _size(line) <= width else chop_cells(line, max(1, width)):
            yield Row((self._indent, (f" {piece}", "plain")), code=True)

    def _prose(self, line: str) -> Iterator[Row]:
        if heading := _HEADING.match(line):
            yield from self._wrapped(inline(heading[2], "title"))
        elif _RULE.match(line) or ("|" in line and _TABLE_RULE.match(line)):
            yield Row((self._indent, ("-" * min(self._width, max(3, len(line))), "muted")))
        elif item := _ITEM.match(line):
            depth = min(len(item[1]), _DEEPEST)
            yield from self._wrapped(inline(item[3]), f"{' ' * depth}{item[2]} ")
        elif line.startswith(">"):
            yield from self._wrapped(inline(line.lstrip("> "), "muted"), "> ", repeat=True)
        else:
            yield from self._wrapped(inline(line, self._tone))

    def _wrapped(self, runs: Sequence[Part], lead: str = "", *, repeat: bool = False) -> Iterator[Row]:
        size = len(lead)
        for number, parts in enumerate(wrap_runs(runs, self._width - size)):
            start = lead if number == 0 or repeat else " " * size
            yield Row((self._indent, (start, "key"), *parts) if start else (self._indent, *parts))


def _size(text: str) -> int:
    return len(text) if text.isascii() else cell_len(text)

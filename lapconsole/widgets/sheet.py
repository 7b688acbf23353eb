"""A scrolling pane of drawn lines: timeline, fields, help and the error list are sheets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual.binding import BindingType
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

from lapconsole import keys
from lapconsole.widgets.parts import Parts, fit_parts, scroll_quietly, strip_of
from lapconsole.widgets.words import UNICODE, Glyphs

Drawing = Callable[[int], Sequence[Parts]]


class Sheet(ScrollView, can_focus=True, inherit_bindings=False):
    """Lines made by `drawing(width)`; with a title, the first line is a rule that bears it and stays in place.

    `draw` makes the lines anew and redraws those that differ.
    """

    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("sheet")

    def __init__(self, drawing: Drawing, *, title: str = "", glyphs: Glyphs = UNICODE, id: str | None = None) -> None:
        super().__init__(id=id)
        scroll_quietly(self)
        self._drawing = drawing
        self._glyphs = glyphs
        self._title = title
        self._lines: list[Parts] = []
        self._width = 0

    @property
    def lines(self) -> list[Parts]:
        """The lines as last drawn."""
        return self._lines

    @property
    def title(self) -> str:
        """The words on the rule above the lines."""
        return self._title

    @title.setter
    def title(self, title: str) -> None:
        if title != self._title:
            self._title = title
            self.refresh(Region(0, 0, self.size.width, 1))

    @property
    def _header(self) -> int:
        return 1 if self._title else 0

    def draw(self) -> None:
        """Make the lines anew; only those that changed are sent to the terminal."""
        width = self.scrollable_content_region.width
        if width <= 0:
            return
        old, self._lines = self._lines, list(self._drawing(width))
        if len(old) != len(self._lines) or width != self._width:
            self._width = width
            self.virtual_size = Size(width, len(self._lines) + self._header)
            self.refresh()
            return
        for place, (before, after) in enumerate(zip(old, self._lines, strict=True)):
            y = place - self.scroll_offset.y + self._header
            if before != after and self._header <= y < self.size.height:
                self.refresh(Region(0, y, self.size.width, 1))

    def on_resize(self) -> None:
        self.draw()

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        if self._header and y == 0:
            return self._title_line(width)
        place = y - self._header + self.scroll_offset.y
        if place >= len(self._lines):
            return Strip.blank(width, self.rich_style)
        return strip_of(self, self._lines[place], width, self.rich_style, ellipsis=self._glyphs.ellipsis)

    def _title_line(self, width: int) -> Strip:
        rule = self._glyphs.rule
        parts = ((f"{rule} ", "muted"), (self._title, "title" if self.has_focus else "strong"), (" ", "muted"))
        fitted = fit_parts(parts, width, ellipsis=self._glyphs.ellipsis)
        # What pads a short title is drawn as the rest of the rule.
        if fitted and fitted[-1][1] == "plain":
            fitted = (*fitted[:-1], (rule * len(fitted[-1][0]), "muted"))
        return strip_of(self, fitted, width, self.rich_style)

    @property
    def _page(self) -> int:
        return max(1, self.scrollable_content_region.height - self._header)

    def action_up(self) -> None:
        self.scroll_to(y=self.scroll_offset.y - 1, animate=False)

    def action_down(self) -> None:
        self.scroll_to(y=self.scroll_offset.y + 1, animate=False)

    def action_page_up(self) -> None:
        self.scroll_to(y=self.scroll_offset.y - self._page, animate=False)

    def action_page_down(self) -> None:
        self.scroll_to(y=self.scroll_offset.y + self._page, animate=False)

    def action_first(self) -> None:
        self.scroll_to(y=0, animate=False)

    def action_last(self) -> None:
        self.scroll_to(y=len(self._lines), animate=False)

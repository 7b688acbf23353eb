"""The error list: what failed, why, and what to press, after the toast is gone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from textual.widget import Widget

from lapconsole import keys
from lapconsole.screens.base import Page
from lapconsole.widgets.parts import Parts, wrap_parts
from lapconsole.widgets.sheet import Sheet
from lapconsole.widgets.words import clean


class Problem(NamedTuple):
    """Something that went wrong: when, what, why, and what to do."""

    at: datetime
    what: str
    why: str
    advice: str


class ProblemsScreen(Page):
    """Newest first."""

    BINDINGS = keys.bindings("problems")
    HINTS = ("page.back", "problems.clear")

    def body(self) -> Iterable[Widget]:
        self.sheet = Sheet(self._lines, title="What went wrong", glyphs=self.console.glyphs)
        yield self.sheet

    def _lines(self, width: int) -> Sequence[Parts]:
        problems = self.console.problems
        if not problems:
            return [(), (("Nothing went wrong since the console was started.", "muted"),)]
        lines: list[Parts] = [()]
        for problem in reversed(problems):
            lines.append(((problem.at.strftime("%H:%M:%SZ  "), "muted"), (clean(problem.what), "bad")))
            lines.extend(wrap_parts((" " * 11, "plain"), clean(problem.why), "plain", width))
            if problem.advice:
                lines.extend(wrap_parts((" " * 11, "plain"), clean(problem.advice), "muted", width))
            lines.append(())
        return lines

    def action_clear(self) -> None:
        self.console.problems.clear()
        self.sheet.draw()

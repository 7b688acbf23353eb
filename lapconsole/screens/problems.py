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
from lapconsole.widgets.words import age, clean


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
        lines, present = self._present_lines(width), {(one.what, one.since) for one in self.console.amiss}
        # What is told above is not told again.
        problems = [problem for problem in self.console.problems if (problem.what, problem.at) not in present]
        if not problems:
            what = "Nothing else went wrong" if present else "Nothing went wrong"
            return [*lines, (), ((f"{what} since the console was started.", "muted"),)]
        lines.append(())
        for problem in reversed(problems):
            lines.append(((problem.at.strftime("%H:%M:%SZ  "), "muted"), (clean(problem.what), "bad")))
            lines.extend(wrap_parts((" " * 11, "plain"), clean(problem.why), "plain", width))
            if problem.advice:
                lines.extend(wrap_parts((" " * 11, "plain"), clean(problem.advice), "muted", width))
            lines.append(())
        return lines

    def _present_lines(self, width: int) -> list[Parts]:
        """What does not work on the platform now, for how long."""
        console = self.console
        if not console.amiss:
            return []
        lines: list[Parts] = [(), (("Now, on the platform", "strong"),)]
        for problem in console.amiss:
            since = "" if problem.since is None else f"for {age((console.clock() - problem.since).total_seconds())}"
            lines.append(((f"{console.glyphs.stuck} {clean(problem.part)} ", "bad"), (since, "muted")))
            lines += wrap_parts(("  ", "plain"), clean(problem.message), "plain", width)
        return lines

    def action_clear(self) -> None:
        self.console.problems.clear()
        self.sheet.draw()

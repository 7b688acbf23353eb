"""The last line: the keys that matter here, as many as fit, and what is folded away."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from textual.strip import Strip
from textual.widget import Widget

from lapconsole.keys import BY_ID, Keymap
from lapconsole.widgets.parts import Part, Parts, one_line, plain, strip_of, tone

CLOSING = ("app.help", "app.quit")


class HintLine(Widget):
    """`enter open  a attach  …  ? help`: the hints named first stay longest; `note` stands at the right."""

    def __init__(self, keymap: Keymap) -> None:
        super().__init__()
        one_line(self, "bottom")
        self._keymap = keymap
        self._actions: tuple[str, ...] = ()
        self._note = ""

    def show(self, actions: Sequence[str], note: str = "") -> None:
        """Hint at these actions, by id."""
        if (tuple(actions), note) != (self._actions, self._note):
            self._actions, self._note = tuple(actions), note
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        note = f" {self._note} " if self._note else " "
        room = width - cell_len(note)
        # Help is always named, at the end: it is where everything that does not fit is found. And the way out.
        closing = tuple(part for action in CLOSING if action in self._actions for part in self._hint(action))
        parts: list[Part] = [(" ", "plain")]
        for action in self._actions:
            if action in CLOSING:
                continue
            hint = self._hint(action)
            if cell_len(plain((*parts, *hint, *closing))) > room:
                break
            parts.extend(hint)
        parts.extend(closing)
        gap = max(0, width - cell_len(plain(parts)) - cell_len(note))
        base = self.rich_style + tone(self, "line")
        return strip_of(self, (*parts, (" " * gap, "plain"), (note, "muted")), width, base)

    def _hint(self, action: str) -> Parts:
        return ((self._keymap.first(action), "key"), (f" {BY_ID[action].hint}  ", "muted"))

"""All keys, made from the registry, with a person's own in place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual.widget import Widget

from lapconsole.keys import ACTIONS, TITLES, show
from lapconsole.screens.base import Page
from lapconsole.widgets.parts import Parts
from lapconsole.widgets.sheet import Sheet

KEYS = 18


class HelpScreen(Page):
    """The keys of the scopes in reach first, then all others."""

    def __init__(self, scopes: Sequence[str]) -> None:
        super().__init__()
        self._scopes = [*scopes, *(scope for scope in TITLES if scope not in scopes)]

    def body(self) -> Iterable[Widget]:
        yield Sheet(self._lines, title="Keys", glyphs=self.console.glyphs)

    def _lines(self, width: int) -> Sequence[Parts]:
        keymap = self.console.keymap
        lines: list[Parts] = []
        for scope in self._scopes:
            lines += [(), ((TITLES[scope], "title"),)]
            for action in ACTIONS:
                if action.scope == scope:
                    own = "  (yours)" if action.id in keymap.overrides else ""
                    name = f"  {action.id}" if width >= 100 else ""
                    keys = (f"  {show(keymap.keys(action.id)):<{KEYS}}", "key")
                    lines.append(
                        (keys, (f"{action.words:<52}" if name else action.words, "plain"), (name + own, "muted"))
                    )
        lines += [
            (),
            (("In an agent's terminal", "title"),),
            (("  ctrl+]            ", "key"), ("The only key the console keeps: then d leaves, esc goes on", "plain")),
            (),
            (('Change keys in the settings file: "preferences": {"keys": {"app.quit": "f10"}}', "muted"),),
        ]
        return lines

"""Choosing one of a few: agents, tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from lapconsole.screens.base import Dialog
from lapconsole.widgets.words import clean


class Pick(Dialog[str], inherit_bindings=False):
    """Dismissed with the id of the choice, or None. What is typed narrows the list down."""

    DEFAULT_CSS = """
    Pick OptionList { height: auto; max-height: 16; border: none; padding: 0; background: $surface; margin-top: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", show=False),
        Binding("down", "move(1)", show=False, priority=True),
        Binding("up", "move(-1)", show=False, priority=True),
    ]

    def __init__(self, title: str, choices: Sequence[tuple[str, str]]) -> None:
        """`choices` are (id, words)."""
        super().__init__()
        self._title = title
        self._choices = [(key, clean(words)) for key, words in choices]

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = Content(self._title)
            dialog.border_subtitle = Content("type to narrow down, enter chooses, esc goes back")
            yield Input(placeholder="words that must occur", compact=True, max_length=200)
            yield OptionList(markup=False, compact=True)

    def on_mount(self) -> None:
        line = self.query_one(Input)
        line.cursor_blink = False
        line.focus()
        self._fill("")

    def _fill(self, text: str) -> None:
        words = text.casefold().split()
        found = [(key, shown) for key, shown in self._choices if all(word in shown.casefold() for word in words)]
        options = self.query_one(OptionList)
        options.clear_options()
        options.add_options([Option(Content(shown), id=key) for key, shown in found])
        options.highlighted = 0 if found else None

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._fill(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        option = self.query_one(OptionList).highlighted_option
        if option is not None:
            self.dismiss(option.id)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.dismiss(event.option_id)

    def action_move(self, step: int) -> None:
        options = self.query_one(OptionList)
        (options.action_cursor_down if step > 0 else options.action_cursor_up)()

    def action_leave(self) -> None:
        self.dismiss(None)

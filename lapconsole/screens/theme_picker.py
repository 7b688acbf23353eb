"""Choosing a theme: moving through the list shows it at once."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from lapconsole.screens.base import Dialog, console_of


class ThemePicker(Dialog[None], inherit_bindings=False):
    """Enter keeps the theme, escape goes back to the one there was."""

    DEFAULT_CSS = """
    ThemePicker OptionList { height: auto; border: none; padding: 0; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "cancel", show=False),
        Binding("j", "down", show=False),
        Binding("k", "up", show=False),
    ]

    def compose(self) -> ComposeResult:
        console = console_of(self)
        self._before = console.theme
        names = sorted(console.themes.by_name)
        width = max(map(len, names), default=0)
        options = [
            Option(Content(f"{name:<{width}}  {console.themes.descriptions.get(name, '')}"), id=name) for name in names
        ]
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = Content("Theme")
            dialog.border_subtitle = Content("enter keeps it, esc goes back")
            options_list = OptionList(*options, compact=True)
            options_list.highlighted = names.index(self._before) if self._before in names else 0
            yield options_list

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        if event.option_id is not None:
            self.app.theme = event.option_id

    def on_option_list_option_selected(self) -> None:
        console_of(self).keep_theme()
        self.dismiss(None)

    def action_up(self) -> None:
        self.query_one(OptionList).action_cursor_up()

    def action_down(self) -> None:
        self.query_one(OptionList).action_cursor_down()

    def action_cancel(self) -> None:
        self.app.theme = self._before
        self.dismiss(None)

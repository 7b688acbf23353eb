"""The one-line input under a list or a log: filters or searches while it is typed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input


class FilterLine(Input):
    """Sends Changed with each key; enter keeps the text and closes the line, escape empties it and closes."""

    DEFAULT_CSS = """
    FilterLine {
        height: 1;
        background: $surface;
        &.-textual-compact { padding: 0 1 !important; }
        &:focus { background: $panel; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "drop", show=False),
        Binding("down", "submit", show=False),
    ]

    @dataclass
    class Closed(Message):
        """The line is done with; `text` is what stays in force."""

        line: FilterLine
        text: str

        @property
        def control(self) -> FilterLine:
            return self.line

    def __init__(self, text: str, placeholder: str) -> None:
        super().__init__(text, placeholder=placeholder, compact=True, select_on_focus=False, max_length=200)
        self.cursor_blink = False

    def action_drop(self) -> None:
        self.post_message(self.Closed(self, ""))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.post_message(self.Closed(self, self.value))

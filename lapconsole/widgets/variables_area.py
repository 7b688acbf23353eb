"""A text area for KEY=VALUE lines that shows stars for the values."""

from __future__ import annotations

import re

from rich.cells import cell_len
from rich.text import Text
from textual.widgets import TextArea

_NAME = re.compile(r"\s*(export )?\s*\w{0,64}\s*|\s*#.*")


class VariablesArea(TextArea):
    """Values are masked cell by cell, so the cursor stays where it belongs; `revealed` shows them."""

    def __init__(self, id: str) -> None:
        super().__init__(
            id=id, compact=True, soft_wrap=False, tab_behavior="focus", placeholder="one a line, e.g. API_KEY=value"
        )
        self.cursor_blink = False
        self._revealed = False

    @property
    def revealed(self) -> bool:
        """Whether values are shown."""
        return self._revealed

    @revealed.setter
    def revealed(self, revealed: bool) -> None:
        self._revealed = revealed
        self.notify_style_update()  # drops the drawn lines
        self.refresh()

    def get_line(self, line_index: int) -> Text:
        line = super().get_line(line_index)
        if self._revealed:
            return line
        name, equals, value = line.plain.partition("=")
        if not equals and not _NAME.fullmatch(name):
            name, value = "", name  # the later lines of something pasted
        return Text(name + equals + "*" * cell_len(value), end="", no_wrap=True)

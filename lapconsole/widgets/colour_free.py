"""Drawing without any colour, for those who set NO_COLOR: weight and reverse video stay, and say what colour did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.color import Color as RichColor
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter

if TYPE_CHECKING:
    from textual.app import App

# Backgrounds that alone say where the cursor or a selection is.
_CHOSEN = (
    "cursor-background",
    "match-background",
    "block-cursor-background",
    "input-cursor-background",
    "input-selection-background",
    "screen-selection-background",
)
_NO_COLOURS = Style.from_color(RichColor.parse("default"), RichColor.parse("default"))
_REVERSED = _NO_COLOURS + Style(reverse=True)


class ColourFree(LineFilter):
    """Takes every colour away; what a background alone marked as chosen is shown in reverse."""

    def __init__(self, app: App[Any]) -> None:
        super().__init__()
        self._app = app
        self._variables: Mapping[str, str] | None = None
        self._chosen: set[RichColor] = set()

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        chosen = self._backgrounds()
        return [
            Segment(text, None if style is None else style + (_REVERSED if style.bgcolor in chosen else _NO_COLOURS))
            if control is None
            else Segment(text, style, control)
            for text, style, control in segments
        ]

    def _backgrounds(self) -> set[RichColor]:
        variables = self._app.theme_variables
        if variables is not self._variables:
            self._variables = variables
            grounds = [Color.parse(variables[name]) for name in ("background", "surface", "panel") if name in variables]
            named = [Color.parse(variables[name]) for name in _CHOSEN if name in variables]
            # Some are translucent, and are seen as a mixture with what is below.
            mixed = {(ground + colour).rich_color for ground in grounds for colour in named}
            self._chosen = mixed - {ground.rich_color for ground in grounds}
        return self._chosen

"""Drawing with parts: a line is a tuple of (text, tone), and a tone is a style the theme decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from rich.cells import cell_len, set_cell_size
from rich.color import Color as RichColor
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.strip import Strip

from lapconsole.widgets.words import Glyphs, wrap

if TYPE_CHECKING:
    from textual.app import App
    from textual.css.types import DockEdge
    from textual.widget import Widget

Part = tuple[str, str]
Parts = tuple[Part, ...]

_TONES: WeakKeyDictionary[App[Any], tuple[Mapping[str, str], dict[str, Style]]] = WeakKeyDictionary()


class Look(NamedTuple):
    """What a drawing function needs besides its data: the time it is, and the glyphs to use."""

    now: datetime
    glyphs: Glyphs


def plain(parts: Iterable[Part]) -> str:
    """The text of `parts` without tones."""
    return "".join(text for text, _ in parts)


def fit_parts(parts: Parts, width: int, *, right: bool = False, ellipsis: str = "…") -> Parts:
    """`parts` in exactly `width` cells: padded, or cut at the end with an ellipsis."""
    if width <= 0:
        return ()
    spare = width - sum(cell_len(text) for text, _ in parts)
    if spare >= 0:
        padding: Parts = ((" " * spare, "plain"),) if spare else ()
        return padding + parts if right else parts + padding
    result: list[Part] = []
    left = width - 1
    for text, tone in parts:
        size = cell_len(text)
        if size > left:
            result.append((set_cell_size(text, left) + ellipsis, tone))
            break
        result.append((text, tone))
        left -= size
    return tuple(result)


def wrap_parts(label: Part, text: str, tone: str, width: int) -> list[Parts]:
    """A label and wrapped text beside it, the text's later lines set under its first."""
    indent = cell_len(label[0])
    first, *rest = wrap(text, width - indent)
    return [(label, (first, tone)), *(((" " * indent, "plain"), (line, tone)) for line in rest)]


def scroll_quietly(widget: Widget) -> None:
    """A slim scrollbar that takes its column whether it shows or not, so that nothing moves when it comes.

    Said here and not in a style sheet: what is parsed before the first frame delays it.
    """
    widget.styles.scrollbar_size_vertical = 1
    widget.styles.scrollbar_gutter = "stable"
    widget.styles.overflow_x = "hidden"


def one_line(widget: Widget, edge: DockEdge) -> None:
    """Give a widget one line at an edge of the screen."""
    widget.styles.dock = edge
    widget.styles.height = 1


def tone(widget: Widget, name: str) -> Style:
    """The theme's style for a tone, a band or the cursor line; it is laid over a widget's own style."""
    return tones(widget.app)[name]


def tones(app: App[Any]) -> Mapping[str, Style]:
    """All tones of the app's present theme.

    Worked out once a theme, not as component classes of every widget: those cost more than all else before the first
    frame.
    """
    variables = app.theme_variables  # a new mapping with each theme
    known = _TONES.get(app)
    if known is None or known[0] is not variables:
        known = _TONES[app] = (variables, _styles(variables))
    return known[1]


def _styles(variables: Mapping[str, str]) -> dict[str, Style]:
    def colour(name: str) -> RichColor:
        return Color.parse(variables[name]).rich_color

    styles = {name: Style(color=colour(f"tone-{name}")) for name in ("muted", "good", "busy", "warn", "key")}
    styles |= {name: Style(color=colour(f"tone-{name}"), bold=True) for name in ("strong", "title", "bad")}
    styles |= {
        f"band-{name}": Style(color=colour("band-text"), bgcolor=colour(f"band-{name}"), bold=name == "production")
        for name in ("local", "production", "staging", "other")
    }
    styles["plain"] = Style()
    styles["italic"] = Style(italic=True)
    styles["accent"] = Style(color=colour("accent"))
    styles["match"] = Style(bgcolor=colour("match-background"), bold=True)
    styles["line"] = Style(bgcolor=colour("line-background"))
    styles["cursor"] = Style(bgcolor=colour("cursor-background")) + Style.parse(variables["cursor-style"])
    return styles


def strip_of(widget: Widget, parts: Parts, width: int, base: Style, *, ellipsis: str = "…") -> Strip:
    """`parts` as a strip of exactly `width` cells on the `base` style."""
    styles = tones(widget.app)
    segments = [Segment(text, base + styles[name]) for text, name in fit_parts(parts, width, ellipsis=ellipsis) if text]
    return Strip(segments, width)

"""What every screen of the console has: the line of truth, the hint line, and news of the live model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from textual.app import ComposeResult
from textual.screen import ModalScreen, Screen
from textual.widget import Widget

from lapconsole import keys
from lapconsole.live.model import Changes
from lapconsole.widgets.hint_line import HintLine
from lapconsole.widgets.parts import Look
from lapconsole.widgets.status_line import StatusLine

if TYPE_CHECKING:
    from lapconsole.app import LapConsole

Answer = TypeVar("Answer")


def console_of(widget: Widget) -> LapConsole:
    """The console a widget lives in."""
    return cast("LapConsole", widget.app)


class ConsoleScreen(Screen[None], inherit_bindings=False):
    """A screen between status line and hint line. Subclasses say what is in it and what to do with changes."""

    def compose(self) -> ComposeResult:
        yield StatusLine(self.console.label)
        yield from self.body()
        yield HintLine(self.console.keymap)

    @property
    def console(self) -> LapConsole:
        """The app, by its type."""
        return console_of(self)

    @property
    def look(self) -> Look:
        """The present time and the glyphs to draw with."""
        return Look(self.console.clock(), self.console.glyphs)

    @property
    def crumb(self) -> str:
        """Where we are, for the status line."""
        return ""

    def body(self) -> Iterable[Widget]:
        """The widgets between the two lines."""
        raise NotImplementedError

    def hints(self) -> tuple[Sequence[str], str]:
        """Action ids for the hint line, most useful first, and a note for its right end."""
        raise NotImplementedError

    def model_changed(self, changes: Changes) -> None:
        """Entities or the link changed. Called for screens out of sight, too."""

    def tick(self) -> None:
        """A second has passed; only the screen in sight is told."""

    def on_mount(self) -> None:
        self._stop_observing = self.console.model.observe(self._observed)
        self.draw_frame()

    def on_unmount(self) -> None:
        self._stop_observing()

    def on_screen_resume(self) -> None:
        self.draw_frame()

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw_frame)

    def _observed(self, changes: Changes) -> None:
        if self.is_mounted:
            self.model_changed(changes)
            self.draw_frame()

    def draw_frame(self) -> None:
        """Bring status line and hint line up to date."""
        if not self.is_current:
            return
        console = self.console
        for line in self.query(StatusLine):
            model, triage = console.model, console.triage
            faults = triage.needing, len(triage.stuck), len(console.problems)
            line.show(model.link, triage.calm, *faults, self.crumb, self.look, console.walls, console.amiss)
        for hint_line in self.query(HintLine):
            hint_line.show(*self.hints())


class Page(ModalScreen[None], inherit_bindings=False):
    """Something to read over a screen; escape closes it."""

    DEFAULT_CSS = """
    Page { background: $background; }
    Page Sheet { padding: 0 1; }
    """
    BINDINGS = keys.bindings("page")
    HINTS: tuple[str, ...] = ("page.back",)

    @property
    def console(self) -> LapConsole:
        """The app, by its type."""
        return console_of(self)

    def compose(self) -> ComposeResult:
        yield from self.body()
        yield HintLine(self.console.keymap)

    def body(self) -> Iterable[Widget]:
        """What there is to read."""
        raise NotImplementedError

    def on_mount(self) -> None:
        self.query_one(HintLine).show(self.HINTS)

    def action_back(self) -> None:
        self.dismiss(None)


class Dialog(ModalScreen[Answer], inherit_bindings=False):
    """A question in a box over a screen, which shows through."""

    DEFAULT_CSS = """
    Dialog { background: $background 60%; align: center middle; }
    /* Where a box's keys stand, at the bottom, no toast may lie. */
    Dialog ToastRack { dock: top; align: right top; margin: 0; }
    .dialog {
        width: 72;
        max-width: 96%;
        height: auto;
        max-height: 96%;
        padding: 1 2;
        background: $surface;
        border: round $accent;
        border-title-color: $tone-title;
        border-title-style: bold;
        border-subtitle-color: $tone-muted;
    }
    .dialog .ask { margin-top: 1; }
    .dialog Input { margin-top: 1; background: $panel; }
    .dialog.-danger { border: round $error; border-title-color: $tone-bad; }
    """

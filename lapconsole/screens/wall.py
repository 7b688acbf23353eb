"""The wall: the terminals of up to nine sessions side by side, watched only, each cut to the part around its cursor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from textual.containers import Container, Vertical
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Static
from textual.worker import Worker

from lapconsole import keys
from lapconsole.client.models import Session
from lapconsole.live.model import Changes
from lapconsole.screens.base import ConsoleScreen, console_of
from lapconsole.terminal.attachment import Attachment, Phase, State
from lapconsole.terminal.surface import Surface
from lapconsole.widgets.activity import activity_parts
from lapconsole.widgets.parts import Look, Part, Parts, strip_of, tone
from lapconsole.widgets.phase_bar import status_parts
from lapconsole.widgets.words import clean, plural

MOST = 9
# A screen is worth showing from this many cells on, with the line above it.
LEAST_COLUMNS, LEAST_LINES = 38, 11
FRAMES_PER_SECOND = 5
# Lines shown below the cursor: there stands what a prompt asks, or its keys.
BELOW_CURSOR = 3

_TONES = {Phase.LOST: "warn", Phase.STOPPED: "bad", Phase.ENDED: "strong"}


def shape(count: int, columns: int, lines: int) -> tuple[int, int]:
    """Columns and rows of the grid for at most `count` screens in this many cells: as near to a square as it gets."""
    across = max(1, min(3, columns // LEAST_COLUMNS))
    down = max(1, min(3, lines // LEAST_LINES))
    wanted = next((side for side in (1, 2) if side * side >= count), 3)
    across = min(across, wanted)
    return across, min(down, -(-count // across))


class Glimpse(Surface):
    """The part of a terminal around its cursor, at the left."""

    def __init__(self) -> None:
        super().__init__(scrollback=0)
        self._interval = 1 / FRAMES_PER_SECOND

    def _follow_cursor(self) -> bool:
        """Show the cursor with a few lines below it; without one, the last lines that hold anything."""
        emulator, before = self.emulator, self._pan
        last = emulator.cursor[1] + BELOW_CURSOR
        if not emulator.cursor_visible:
            last = max((y for y, row in enumerate(emulator.text()) if row), default=0)
        hidden = max(0, emulator.lines - self.size.height)
        self._pan = min(max(0, last + 1 - self.size.height), hidden)
        return self._pan != before


class Caption(Widget):
    """One line over a screen."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: Parts = ()
        self._line = "line"

    def show(self, parts: Parts, *, chosen: bool) -> None:
        """Take over what it says; drawn again only when it reads differently."""
        line = "cursor" if chosen else "line"
        if (parts, line) != (self._parts, self._line):
            self._parts, self._line = parts, line
            self.refresh()

    def render_line(self, y: int) -> Strip:
        return strip_of(self, self._parts, self.size.width, self.rich_style + tone(self, self._line))


class Tile(Vertical):
    """One session's screen under its caption. Watches from `start` to `stop`."""

    def __init__(self, number: int, session: Session) -> None:
        super().__init__()
        self.number = number
        self.session = session
        self.chosen = False
        self.caption = Caption()
        self.glimpse = Glimpse()
        self._attachment: Attachment | None = None
        self._worker: Worker[None] | None = None

    def compose(self) -> Iterable[Widget]:
        yield self.caption
        yield self.glimpse

    @property
    def state(self) -> State:
        """How its link is."""
        return self._attachment.state if self._attachment is not None else State(Phase.FINDING)

    def start(self) -> None:
        """Watch the terminal, if it is not watched already."""
        if self._worker is None:
            console = console_of(self)
            self._attachment = Attachment(lambda: console.platform, self.session.id, (80, 24), self, glance=True)
            self._worker = self.run_worker(self._attachment.run(), group="glimpse", exit_on_error=False)

    def stop(self) -> None:
        """Watch it no more; what was seen last stays."""
        if self._worker is not None:
            self._worker.cancel()
            self._worker = None

    async def show_output(self, data: bytes) -> None:
        self.glimpse.feed(data)
        await self.glimpse.ready()

    async def show_repaint(self, data: bytes, size: tuple[int, int], *, fresh: bool) -> bool:
        return self.glimpse.repaint(data, *size, fresh=fresh)

    def attachment_changed(self) -> None:
        if self.is_attached:
            self.draw()

    def attachment_news(self, words: str) -> None:
        """Nothing passing is told here: there is no room for it."""

    def draw(self) -> None:
        """Bring the caption up to date."""
        console = console_of(self)
        look = Look(console.clock(), console.glyphs)
        session, dot = self.session, (f" {look.glyphs.dot} ", "muted")
        mark = look.glyphs.cursor if self.chosen else " "
        parts: list[Part] = [(f"{mark}{self.number} ", "key"), (clean(session.agent_name or session.label), "strong")]
        parts += [dot, *self._how(look)]
        if title := clean(session.title or ""):
            parts += [dot, (title, "plain")]
        self.caption.show(tuple(parts), chosen=self.chosen)

    def _how(self, look: Look) -> Parts:
        """What keeps it from being seen, else what the agent is doing."""
        state = self.state
        if state.phase is Phase.LIVE:
            return activity_parts(self.session, look) or status_parts(self.session, look)
        if state.phase in (Phase.FINDING, Phase.CONNECTING):
            return (("connecting", "busy"),)
        cause = clean(state.cause)
        said = cause if state.phase in (Phase.ENDED, Phase.STOPPED) else f"{state.phase.value}: {cause}"
        return ((said, _TONES.get(state.phase, "busy")),)


class WallScreen(ConsoleScreen):
    """Screens of sessions, as many as there is room for. They are watched while the wall is on top.

    Whose session ends leaves it, and who becomes ready joins it at the end.
    """

    DEFAULT_CSS = """
    WallScreen {
        #grid { layout: grid; grid-gutter: 0 1; height: 1fr; }
        Tile { width: 1fr; height: 1fr; }
        Caption { height: 1; }
        #none { display: none; height: 1fr; content-align: center middle; color: $tone-muted; }
        &.-empty #none { display: block; }
        &.-empty #grid { display: none; }
    }
    """
    BINDINGS = keys.bindings("wall")
    HINTS = ("wall.attach", "wall.take_over", "wall.back", "app.help")

    def __init__(self, ready: Callable[[], Sequence[Session]]) -> None:
        """`ready` gives the sessions to be shown, the first MOST of them."""
        super().__init__()
        self._ready = ready
        self.tiles = [Tile(number, session) for number, session in enumerate(ready()[:MOST], start=1)]
        self._chosen = 0
        self._shape = (1, 1)
        self._on_top = False

    @property
    def crumb(self) -> str:
        return f"Sessions {self.console.glyphs.dot} Wall"

    def body(self) -> Iterable[Widget]:
        yield Container(*self.tiles, id="grid")
        yield Static("No session is ready now. One that becomes ready appears here.", id="none", markup=False)

    @property
    def shown(self) -> list[Tile]:
        """The screens there is room for."""
        return self.tiles[: self._shape[0] * self._shape[1]]

    def hints(self) -> tuple[Sequence[str], str]:
        hidden = len(self.tiles) - len(self.shown)
        note = f"no room for {plural(hidden, 'more screen')}" if hidden else "a number attaches to its screen"
        return self.HINTS, note

    # -- news

    def on_resize(self) -> None:
        self._arrange()

    def _arrange(self) -> None:
        """Lay out what there is to show."""
        # All but the status line and the hint line.
        self._shape = across, down = shape(len(self.tiles), self.size.width, self.size.height - 2)
        grid = self.query_one("#grid").styles
        grid.grid_size_columns, grid.grid_size_rows = across, down
        self._chosen = max(0, min(self._chosen, len(self.shown) - 1))
        self.set_class(not self.tiles, "-empty")
        self._settle()

    def on_screen_resume(self) -> None:
        self._on_top = True
        self._settle()

    def on_screen_suspend(self) -> None:
        self._on_top = False
        self._settle()

    def _settle(self) -> None:
        """Watch what is in sight, and nothing else."""
        for place, tile in enumerate(self.tiles):
            tile.display = place < len(self.shown)
            (tile.start if self._on_top and tile.display else tile.stop)()
        self._draw()

    def model_changed(self, changes: Changes) -> None:
        for tile in self.tiles:
            if tile.session.id in changes.sessions:
                tile.session = self.console.model.sessions.get(tile.session.id, tile.session)
        if changes.sessions:
            self._follow()
        self._draw()

    def _follow(self) -> None:
        """Let go of the screens of sessions that have ended, and take in those that are ready now.

        One that comes up anew, after a restart, keeps its place.
        """
        known, before = self.console.model.sessions, self.tiles
        chosen = before[self._chosen] if before else None
        stay = [tile for tile in before if tile.session.id in known and not tile.session.ended]
        shown = {tile.session.id for tile in stay}
        new = [Tile(0, session) for session in self._ready() if session.id not in shown][: MOST - len(stay)]
        if len(stay) == len(before) and not new:
            return
        for tile in before:
            if tile not in stay:
                tile.stop()
                tile.remove()
        self.tiles = [*stay, *new]
        for number, tile in enumerate(self.tiles, start=1):
            tile.number = number
        self._chosen = self.tiles.index(chosen) if chosen in self.tiles else self._chosen
        self.query_one("#grid").mount_all(new)
        self._arrange()

    def _draw(self) -> None:
        for place, tile in enumerate(self.tiles):
            tile.chosen = place == self._chosen
            tile.draw()

    # -- actions

    def action_move(self, right: int, down: int) -> None:
        across, count = self._shape[0], len(self.shown)
        column, place = self._chosen % across + right, self._chosen + right + down * across
        if 0 <= column < across and 0 <= place < count:
            self._chosen = place
            self._draw()

    def action_pick(self, number: int) -> None:
        if number <= len(self.shown):
            self._chosen = number - 1
            self._draw()
            self.action_attach()

    def action_attach(self, take_over: bool = False) -> None:
        if self.shown:
            self.console.operations.attach(self.shown[self._chosen].session, take_over=take_over)

    def action_back(self) -> None:
        self.dismiss(None)

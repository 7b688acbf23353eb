"""The replay screen: a session's recorded terminal, with pause, speed and seek."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from time import monotonic

from textual.app import ComposeResult
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from lapconsole import keys
from lapconsole.client.errors import ClientError, Unsupported
from lapconsole.screens.attach import AttachLine
from lapconsole.screens.base import console_of
from lapconsole.screens.operations import next_step
from lapconsole.terminal.cast import IDLE_SECONDS, Cast, Player, read, read_on
from lapconsole.terminal.replay import ReplayView
from lapconsole.widgets.hint_line import HintLine
from lapconsole.widgets.parts import Parts
from lapconsole.widgets.words import ASCII, clean

_BARS = (40, 20, 10)
# How often a recording that is still written is fetched anew, once its end is reached; over a thin link less often.
GROW_SECONDS = 2.0
_GROW_SHARE = 20


class ReplayScreen(Screen[None], inherit_bindings=False):
    """Plays the recording of one session. One that is still written grows: at its end it waits for more."""

    DEFAULT_CSS = """
    ReplayScreen {
        layers: base notice;
        background: $background;
        AttachLine { dock: bottom; height: 1; margin-bottom: 1; background: $line-background; }
        #notice {
            layer: notice; dock: bottom; display: none; width: 100%; height: auto; max-height: 60%;
            margin: 0 1 2 1; padding: 0 1; background: $surface; border: round $warning;
        }
        .terminal--edge { color: $tone-muted; }
    }
    """
    BINDINGS = keys.bindings("replay")
    HINTS = (
        "replay.pause",
        "replay.close",
        "replay.back_little",
        "replay.on_little",
        "replay.faster",
        "replay.slower",
        "replay.trim",
        "replay.start",
        "replay.end",
        "app.help",
    )

    def __init__(self, session_id: str) -> None:
        super().__init__()
        self._session_id = session_id
        self._state = "fetching"
        self._damage = ""
        self._grows = False

    def compose(self) -> ComposeResult:
        yield ReplayView()
        yield AttachLine()
        yield HintLine(console_of(self).keymap)
        yield Static(id="notice", markup=False)

    def on_mount(self) -> None:
        self.query_one(HintLine).show(self.HINTS)
        if console_of(self).glyphs is ASCII:
            self.view.edges = ":."
        self._tell()
        self.run_worker(self._load(), group="recording", exit_on_error=False)

    @property
    def view(self) -> ReplayView:
        """Where it is played."""
        return self.query_one(ReplayView)

    async def _load(self) -> None:
        platform = console_of(self).platform
        if platform is None:
            self._refuse("There is no connection yet.", "Play it again when the top line says live.")
            return
        began, self._grows = monotonic(), self._is_written()
        try:
            source = await platform.recording(self._session_id)
        except Unsupported as error:
            advice = "Recording is switched on in the form of the agent or of a new session, before it starts."
            self._refuse(f"There is nothing to play: {error}.", advice)
            return
        except ClientError as error:
            self._refuse(f"The recording cannot be fetched: {error}.", next_step(error))
            return
        self._state = "reading"
        self._tell()
        took = monotonic() - began
        player = await asyncio.to_thread(_player, source, not self._grows)
        self._take(player)
        del source
        while self._grows:
            await asyncio.sleep(max(GROW_SECONDS, _GROW_SHARE * took))
            if self.is_current and player.ended and not player.behind:
                took = await self._grow(player)

    def _is_written(self) -> bool:
        """Whether the recording may still become longer."""
        session = console_of(self).model.sessions.get(self._session_id)
        return session is not None and session.status == "ready"

    async def _grow(self, player: Player) -> float:
        """Fetch what has come since, if anything has; how long the fetching took."""
        cast, duration = player.cast, player.duration
        platform, began, more = console_of(self).platform, monotonic(), self._is_written()
        if platform is None:
            return 0.0
        try:
            source = await platform.recording(self._session_id)
        except ClientError:
            self._grows = more  # the link may come back; else the screen that is here is what there is
            return monotonic() - began
        took = monotonic() - began
        if not source.startswith(cast.header):  # another one: the session was restarted
            self._grows = False
        else:
            before, self._grows = len(cast), more
            await asyncio.to_thread(read_on, cast, source, whole=not more)
            self._damage = cast.damage
            if len(cast) > before:
                self.view.grew(duration)
        self._tell()
        return took

    def _take(self, player: Player) -> None:
        cast: Cast = player.cast
        self._damage = cast.damage
        if len(cast):
            self._state = ""
            self.view.load(player)
        elif cast.damage:
            self._refuse(f"The recording cannot be read: {cast.damage}.", "Look at the file on the platform.")
        else:
            self._refuse("Nothing has been recorded yet.", "Play it again when the agent has shown something.")
            self._grows = False

    def _refuse(self, what: str, advice: str) -> None:
        self._state = "nothing to play"
        notice = self.query_one("#notice", Static)
        key = console_of(self).keymap.first("replay.close")
        closing = Content.assemble((key, "$tone-key"), " leave")
        notice.update(Content("\n").join([Content(clean(what)).stylize("bold"), Content(clean(advice)), closing]))
        notice.display = True
        self._tell()

    # What is told

    def on_replay_view_moved(self) -> None:
        self._tell()

    def _tell(self) -> None:
        self.query_one(AttachLine).show(self._who(), *self._place())

    def _who(self) -> Parts:
        player = self.view.player
        session = console_of(self).model.sessions.get(self._session_id)
        name = clean(session.agent_name or session.harness_id) if session is not None else ""
        parts: Parts = ((f"{name}  ", "strong"), (self._session_id[:8], "muted"))
        if self._damage:
            parts = (*parts, (f"  {self._damage}", "warn"))
        if player is not None and player.note:
            parts = (*parts, (f"  {player.note}", "plain"))
        return parts

    def _place(self) -> Iterator[Parts]:
        """Time, speed and a bar, in fewer and fewer words."""
        player, view = self.view.player, self.view
        if player is None or self._state:
            yield ((self._state, "busy"),)
            return
        total = player.duration
        end = "waiting for more" if self._grows else "ended"
        state: Parts = (("playing" if view.playing else end if player.ended else "paused", "good"),)
        if player.behind and player.progress < 0.99:
            state = ((f"seeking {player.progress:.0%}", "busy"),)
        time: Parts = ((f"  {clock(player.position)}", "strong"), (f" / {clock(total)}", "muted"))
        speed: Parts = ((f"  {view.speed:g}x", "plain"),)
        idle: Parts = ((f"  idle {IDLE_SECONDS:g} s at most", "muted"),) if player.trimmed else ()
        glyphs = console_of(self).glyphs
        for width in _BARS:
            done = round(width * (player.position / total if total else 1.0))
            bar: Parts = (("  " + glyphs.full * done, "accent"), (glyphs.empty * (width - done), "muted"))
            yield (*state, *speed, *(idle if width == _BARS[0] else ()), *time, *bar)
        yield (*state, *speed, *time)

    # Keys

    def on_screen_suspend(self) -> None:
        for view in self.query(ReplayView):  # none while the screen closes
            view.play(False)

    def action_pause(self) -> None:
        self.view.play(not self.view.playing)

    def action_seek(self, seconds: float) -> None:
        """Go on by so many seconds, or back."""
        if (player := self.view.player) is not None:
            self.view.seek(player.position + seconds)

    def action_skip(self, share: float) -> None:
        """Go on by a share of the whole, or back."""
        if (player := self.view.player) is not None:
            self.view.seek(player.position + share * player.duration)

    def action_go(self, share: float) -> None:
        """Go to the start, 0, or the end, 1."""
        if (player := self.view.player) is not None:
            self.view.seek(share * player.duration)

    def action_speed(self, steps: int) -> None:
        self.view.faster(steps)

    def action_trim(self) -> None:
        if (player := self.view.player) is not None:
            self.view.trim(not player.trimmed)

    def action_back(self) -> None:
        self.dismiss(None)


def _player(source: bytes, whole: bool) -> Player:
    return Player(read(source, whole=whole))


def clock(seconds: float) -> str:
    """`3:07`, with hours where there are any."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

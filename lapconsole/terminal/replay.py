"""The surface a recording is played on: its clock, its speed, and work in turns too short to be felt."""

from __future__ import annotations

import asyncio
from time import monotonic

from textual.message import Message

from lapconsole.terminal.cast import Player
from lapconsole.terminal.surface import SYNC_HOLD_SECONDS, Surface

SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
# Work is done for this long at a time, then whatever else is ready runs.
_TURN_SECONDS = 0.004
_BREATH_SECONDS = 0.001
_TICK_SECONDS = 0.25
_ROWS = 16
_FRAME_SECONDS = 1 / 30
# Time in which the machine slept or had too much to do is not played.
_LONGEST_TICK = 0.5


class ReplayView(Surface):
    """Plays a recording once `load`ed; posts `Moved` when what there is to tell of it has changed."""

    class Moved(Message):
        """The position, the speed or whether it plays has changed."""

    def __init__(self) -> None:
        super().__init__(scrollback=0)
        self.player: Player | None = None
        self.playing = False
        self._speed = SPEEDS.index(1.0)
        self._news = asyncio.Event()
        self._follows = False  # the terminal has the size it had

    @property
    def speed(self) -> float:
        """How many seconds of the recording a second takes."""
        return SPEEDS[self._speed]

    def load(self, player: Player) -> None:
        """Play this from its start."""
        self.player = player
        self.playing = True
        self.run_worker(self._run(player), group="replay", exclusive=True)

    def grew(self, before: float) -> None:
        """The recording is longer than the `before` seconds it had: play on where that end was reached."""
        if self.player is not None:
            self.playing = self.playing or self.player.position >= before
            self.player.grow()
            self._changed()

    def play(self, on: bool) -> None:
        """Play, from the start where it has ended; or hold still."""
        if self.player is not None and on and self.player.ended:
            self.player.seek(0.0)
        self.playing = on and self.player is not None
        self._changed()

    def seek(self, seconds: float) -> None:
        """Go to this moment of the recording."""
        if self.player is not None:
            self.player.seek(seconds)
            self._changed()

    def trim(self, on: bool) -> None:
        """Leave idle time out, or play it."""
        if self.player is not None:
            self.player.trim(on)
            self._changed()

    def faster(self, steps: int) -> None:
        """Change the speed by so many steps of SPEEDS."""
        self._speed = min(max(0, self._speed + steps), len(SPEEDS) - 1)
        self._changed()

    def _changed(self) -> None:
        self._news.set()
        self.post_message(self.Moved())

    async def _run(self, player: Player) -> None:
        """Move the position while playing, and have the screen follow."""
        last = monotonic()
        while True:
            await self._catch_up(player)
            if monotonic() - last > _LONGEST_TICK:  # a long way to go: playing goes on from here
                last = monotonic()
            played = self.playing
            try:
                async with asyncio.timeout(self._pause(player)):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            now = monotonic()
            elapsed, last = min(now - last, _LONGEST_TICK), now
            if self.playing and played:
                player.seek(player.position + elapsed * self.speed)
                self.playing = not player.ended

    def _pause(self, player: Player) -> float | None:
        """Seconds until something is to be done; None when only a key can change anything."""
        if not self.playing:
            return None
        until_next = player.until_next
        return _TICK_SECONDS if until_next is None else min(max(_FRAME_SECONDS, until_next / self.speed), _TICK_SECONDS)

    async def _catch_up(self, player: Player) -> None:
        """Do all the work there is, then show the screen."""
        while player.behind:
            if player.heavy:
                await asyncio.to_thread(player.step)
            else:
                player.work(_TURN_SECONDS)
            self.post_message(self.Moved())
            await asyncio.sleep(_BREATH_SECONDS)
        await self._display(player)
        self.post_message(self.Moved())

    async def _display(self, player: Player) -> None:
        """Draw what has changed, some rows at a time; nothing half done while it plays."""
        emulator = player.emulator
        self.mark = f"{emulator.columns}x{emulator.lines} recorded"
        emulator.take_replies()
        emulator.take_notices()
        while self._link_behind():
            await asyncio.sleep(_FRAME_SECONDS)
        if emulator is not self.emulator:
            self.emulator = emulator
            self._sync_since = None
            rows = list(range(emulator.lines))
        else:
            self._note_sync()
            if self.playing and self._sync_since is not None and monotonic() - self._sync_since < SYNC_HOLD_SECONDS:
                return
            rows = sorted(emulator.take_dirty())
        # Once even without rows: the cursor may have moved.
        for first in range(0, max(1, len(rows)), _ROWS):
            self._draw(rows[first : first + _ROWS])
            await asyncio.sleep(_BREATH_SECONDS)

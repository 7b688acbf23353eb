"""Draws the screen in a thread: one full of colours takes longer than the event loop may be held.

What is drawn is a still copy of the emulator, so output goes on meanwhile; whoever waits for a repaint keeps what
follows it back.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from lapconsole.terminal.emulator import Emulator

MAX_SCROLLBACK = 10_000
MAX_REPAINT = 8 * 1024 * 1024
"""Bytes of a repaint with scrollback: it is one message, and viewers take messages of some size only."""
DRAW_SECONDS = 30.0

T = TypeVar("T")


class Repaint:
    """A repaint on order, shared by all who want the same one."""

    def __init__(self, drawing: "asyncio.Future[tuple[bytes, int]]") -> None:
        self._drawing = drawing
        self._wanted = 0

    @property
    def done(self) -> bool:
        return self._drawing.done()

    @property
    def cancelled(self) -> bool:
        return self._drawing.cancelled()

    @property
    def data(self) -> bytes:
        """The escape stream, once it is done."""
        return self._drawing.result()[0]

    @property
    def scrollback(self) -> int:
        """How many lines of scrollback it brings, once it is done."""
        return self._drawing.result()[1]

    def order(self, ready: Callable[[], None]) -> None:
        """Calls `ready` when it is done."""
        self._wanted += 1
        self._drawing.add_done_callback(lambda drawing: None if drawing.cancelled() else ready())

    def cancel(self) -> None:
        """One who ordered it wants it no more; without any left it is not drawn."""
        self._wanted -= 1
        if not self._wanted:
            self._drawing.cancel()


class Painter:
    """Draws one emulator's screen, each state of it once."""

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._still: Emulator | None = None
        self._repaints: dict[int, Repaint] = {}

    def changed(self) -> None:
        """What was drawn so far is the past."""
        if self._still is not None:
            self._still = None
            self._repaints = {}

    def repaint(self, emulator: "Emulator", scrollback: int) -> Repaint:
        """What brings any terminal of this size to the present screen, after the newest `scrollback` lines."""
        repaint = self._repaints.get(scrollback)
        if repaint is None or repaint.cancelled:
            repaint = self._repaints[scrollback] = Repaint(self._draw(emulator, lambda still: paint(still, scrollback)))
        return repaint

    async def draw(self, emulator: "Emulator", drawing: "Callable[[Emulator], T]") -> T:
        """The result of `drawing` for the present screen. Raises TimeoutError after DRAW_SECONDS."""
        async with asyncio.timeout(DRAW_SECONDS):
            return await self._draw(emulator, drawing)

    def close(self) -> None:
        """Draws nothing more."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)

    def _draw(self, emulator: "Emulator", drawing: "Callable[[Emulator], T]") -> "asyncio.Future[T]":
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor  # Late: set-up need not wait for it.

            self._executor = ThreadPoolExecutor(1, thread_name_prefix="painter")
        if self._still is None:
            self._still = emulator.copy(still=True)
        return asyncio.get_running_loop().run_in_executor(self._executor, drawing, self._still)


def paint(still: "Emulator", scrollback: int) -> tuple[bytes, int]:
    """The repaint, and how many lines of scrollback it brings: fewer than wanted if it would be too large."""
    data = still.repaint(scrollback)
    scrollback = min(scrollback, still.scrollback_lines) if scrollback else 0
    while scrollback and len(data) > MAX_REPAINT:
        scrollback = scrollback * MAX_REPAINT // (len(data) + MAX_REPAINT // 4)
        data = still.repaint(scrollback)
    return data, scrollback

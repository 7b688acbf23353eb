"""How a process hears every event of the log, its own and those of others, once and in order."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from backend.store.events import Event

logger = logging.getLogger(__name__)


class Follower:
    """Tells every event that is committed by any process, once and in order.

    Whoever appends to the log keeps others from it until its commit (`events.store`), so numbers become visible in
    order and a position is all there is to remember.
    """

    def __init__(
        self,
        position: int,
        read: Callable[[int], Awaitable[list[Event]]],
        tell: Callable[[Sequence[Event]], None],
        look_seconds: float,
    ) -> None:
        """`read` gives the next events after a position, none at the end of the log. It is looked at every
        `look_seconds`.
        """
        self._position = position
        self._read = read
        self._tell = tell
        self._look_seconds = look_seconds
        self._behind = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        self._tasks.append(asyncio.create_task(self._follow(), name="event log"))

    async def aclose(self) -> None:
        """End that."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def committed(self, events: Sequence[Event]) -> None:
        """Take what this process has just committed; if others came first, it is told after them."""
        if events[0].seq == self._position + 1:
            self._take(events)
        elif events[-1].seq > self._position:
            self._behind.set()

    def _take(self, events: Sequence[Event]) -> None:
        if news := [event for event in events if event.seq > self._position]:
            self._position = news[-1].seq
            self._tell(news)

    async def _follow(self) -> None:
        failed = False
        while True:
            try:
                async with asyncio.timeout(self._look_seconds):
                    await self._behind.wait()
            except TimeoutError:
                pass
            self._behind.clear()
            try:
                while found := await self._read(self._position):
                    self._take(found)
                failed = False
            except Exception as error:
                if not failed:
                    logger.warning("the event log cannot be read, again every %g s: %s", self._look_seconds, error)
                failed = True

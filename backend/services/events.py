"""The event feed: every subscriber gets every event after its position, in order, however slow it is.

The log in the database is the source. The newest events are also kept in memory, so a crowd of subscribers at the
end of the log costs no queries.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from backend.store import events
from backend.store.database import Database
from backend.store.errors import StoreAway
from backend.store.events import Event

RECENT: Final = 256
"""Events kept in memory."""
BATCH: Final = 200
"""Events handed to a subscriber at once."""


class FeedClosed(Exception):
    """The platform is shutting down."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events a subscriber wants; None is no filter."""

    types: Collection[str] | None = None
    agent_id: str | None = None
    session_id: str | None = None

    def takes(self, event: Event) -> bool:
        """Whether `event` is wanted."""
        return (
            (self.types is None or event.type in self.types)
            and (self.agent_id is None or event.agent_id == self.agent_id)
            and (self.session_id is None or event.session_id == self.session_id)
        )


class EventFeed:
    """Fans the event log out to subscribers in this process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._recent: deque[Event] = deque(maxlen=RECENT)
        self.changed = asyncio.Event()
        """Set by the next commit with events, or by `close`; then replaced by a fresh one."""
        self.closed = False
        database.on_commit(self._committed)

    async def subscribe(self, after: int | None, wanted: Filter) -> "Subscription":
        """Start after the event with sequence number `after`; None starts at the end of the log."""
        async with self._database.read() as tx:
            newest = await events.newest(tx)
            oldest = await events.oldest(tx)
        # Beyond the end: numbers of another database. Before the start: events that are pruned.
        lost = after is not None and (after > newest or after < oldest - 1)
        return Subscription(self, newest if after is None or lost else after, wanted, lost=lost)

    def close(self) -> None:
        """End all subscriptions: `next` raises FeedClosed from now on."""
        self.closed = True
        self.changed.set()

    async def read(self, after: int) -> list[Event]:
        """The events right after a position, at most BATCH; empty at the end of the log."""
        if self._recent and self._recent[0].seq <= after + 1:
            skip = after + 1 - self._recent[0].seq
            return [self._recent[index] for index in range(skip, min(len(self._recent), skip + BATCH))]
        return await self.read_log(after)

    async def read_log(self, after: int) -> list[Event]:
        """The same, from the database in any case."""
        async with self._database.read() as tx:
            return await events.read(tx, after=after, limit=BATCH)

    def _committed(self, committed: Sequence[Event]) -> None:
        for event in committed:
            if self._recent and event.seq != self._recent[-1].seq + 1:
                self._recent.clear()  # one is missing here: the log has it
            self._recent.append(event)
        if not self.closed:
            self.changed.set()
            self.changed = asyncio.Event()


class Subscription:
    """One reader's position in the log.

    `position` is the sequence number up to which it has read; `lost` says that the events it asked for are gone, so
    that it must list everything anew.
    """

    def __init__(self, feed: EventFeed, position: int, wanted: Filter, *, lost: bool) -> None:
        self.position = position
        self.lost = lost
        self._feed = feed
        self._wanted = wanted

    async def next(self, seconds: float) -> list[Event]:
        """The next events that match the filter; empty when none came within `seconds`. Raises FeedClosed."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    # Taken before reading: what commits between the read and the wait then still wakes us.
                    changed = self._feed.changed
                    found = await self._known()
                    if matching := self._take(found):
                        return matching
                    if found:
                        continue
                    if self._feed.closed:
                        raise FeedClosed
                    await changed.wait()
        except TimeoutError:
            # A commit whose writer was cancelled in that very moment went unheard: only the log knows of it.
            return self._take(await self._known(log=True))

    async def _known(self, *, log: bool = False) -> list[Event]:
        """What comes next, in any case from the `log`; nothing while the database is away, and all of it later."""
        try:
            return await (self._feed.read_log if log else self._feed.read)(self.position)
        except StoreAway:
            return []

    def _take(self, found: list[Event]) -> list[Event]:
        """Move past the events found, and keep those that are wanted."""
        if found:
            self.position = found[-1].seq
        return [event for event in found if self._wanted.takes(event)]

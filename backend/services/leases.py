"""Leases: each duty is one platform process's at a time, and each process tells that it is alive (compare-and-set).

So is each session's turn, where several processes may share the database. A turn that its process did not end in good
order leaves a trace: who comes next has to find out first what became of it.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from backend.domain import clock
from backend.store import leases as store
from backend.store.database import Database, Transaction

logger = logging.getLogger(__name__)

LEASE_SECONDS: Final = 10.0
"""How long a process that was lost counts as alive; with the time until the others look, less than 15 s."""
RENEW_SECONDS: Final = 3.0

FORGET_SECONDS: Final = 86_400.0

_PRESENCE = "process "
_TURN = "turn "
_GOING = "a process has ended"


def holder_of(data_dir: Path) -> str:
    """The name of the process on this data directory: there is one at a time, and its successor has the same name.

    So what it left when it was killed is its successor's at once, without waiting for a lease to expire.
    """
    return f"{socket.gethostname()}:{data_dir}"


class Leases:
    """What this process holds, and renews from `start` on. What is not renewed within `seconds` is anyone's.

    Processes on one database should have one clock: what theirs differ by is missing from `seconds`.
    """

    def __init__(self, database: Database, holder: str, seconds: float = LEASE_SECONDS, *, shared: bool = True) -> None:
        """Not `shared`: no other process can use the database, and turns need no leases."""
        self.holder = holder
        self.shared = shared
        self._database = database
        self._seconds = seconds
        self._held: set[str] = set()
        self._alive: set[str] = set()
        self._renewed_at = time.monotonic()
        self._observers: list[Callable[[], None]] = []
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        database.on_call(self._called)

    @property
    def alone(self) -> bool:
        """Whether no other process was alive when this one last looked."""
        return not self._alive

    def when_lost(self, observer: Callable[[], None]) -> None:
        """Call `observer` when another process is not alive any more, or this one may not have looked so. It must not
        raise.
        """
        self._observers.append(observer)

    def start(self) -> None:
        """Renew from now on what is held, and look who is alive."""
        self._task = asyncio.create_task(self._keep(), name="leases")

    async def announce(self) -> None:
        """Tell the other processes that this one is alive, and renew all it holds."""
        held = set(self._held)
        async with self._database.begin() as tx:
            await self._take(tx, self._presence)
            kept = await store.renew(tx, held, self.holder, self._until()) if held else held
            alive = await self.others(tx)
        self._held -= held - kept
        lost = self._alive - alive
        late = time.monotonic() - self._renewed_at > self._seconds
        self._alive, self._renewed_at = alive, time.monotonic()
        if lost:
            logger.info("leases: not alive any more: %s", ", ".join(sorted(lost)))
        if lost or late:
            for observer in self._observers:
                observer()

    async def take(self, duty: str) -> bool:
        """Take a duty, which is kept until `release`; False when it is another process's."""
        if duty in self._held and time.monotonic() - self._renewed_at < self._seconds / 2:
            return True
        async with self._database.begin() as tx:
            taken = await self._take(tx, duty)
        (self._held.add if taken else self._held.discard)(duty)
        return taken

    async def others(self, tx: Transaction) -> set[str]:
        """The other processes that are alive."""
        return await store.holders(tx, _PRESENCE, clock.now()) - {self.holder}

    async def enter(self, tx: Transaction, session_id: str) -> bool:
        """Take a session's turn if nobody has it, or has left it without giving it back. Once that is committed, call
        `entered`.
        """
        name = _TURN + session_id
        return not self.shared or name in self._held or await store.enter(tx, name, self.holder, self._until())

    def entered(self, session_id: str) -> None:
        """The turn is ours, until `give_back`."""
        if self.shared:
            self._held.add(_TURN + session_id)

    async def take_turn(self, session_id: str) -> bool:
        """Take a session's turn also when it was left; False while another process has it."""
        return not self.shared or await self.take(_TURN + session_id)

    async def give_back(self, session_id: str) -> None:
        """A turn has ended in good order."""
        name = _TURN + session_id
        if name in self._held:
            self._held.discard(name)
            async with self._database.begin() as tx:
                await store.give_back(tx, name, self.holder)

    async def elsewhere(self, session_id: str) -> bool:
        """Whether another process has a session's turn."""
        if not self.shared:
            return False
        async with self._database.read() as tx:
            return await store.holder_of(tx, _TURN + session_id, clock.now()) not in (None, self.holder)

    async def left_turns(self) -> set[str]:
        """The sessions whose turns were left, as their process was lost; those of long ago are forgotten."""
        before = clock.text(datetime.now(UTC) - timedelta(seconds=FORGET_SECONDS))
        async with self._database.begin() as tx:
            await store.forget(tx, before)
            return {name.removeprefix(_TURN) for name in await store.left(tx, _TURN, clock.now())}

    async def release(self) -> None:
        """Give up everything, at the end of the process. Turns that go on without it are left."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        async with self._database.begin() as tx:
            await store.leave(tx, _TURN, self.holder, clock.now())
            await store.release(tx, self.holder)
            await tx.call(_GOING)

    @property
    def _presence(self) -> str:
        return f"{_PRESENCE}{self.holder}"

    async def _take(self, tx: Transaction, name: str) -> bool:
        return await store.take(tx, name, self.holder, now=clock.now(), until=self._until())

    def _until(self) -> str:
        return clock.text(datetime.now(UTC) + timedelta(seconds=self._seconds))

    def _called(self, word: str) -> None:
        if word == _GOING:
            self._wake.set()

    async def _keep(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self.announce()
            except Exception:
                logger.exception("leases: they could not be renewed")

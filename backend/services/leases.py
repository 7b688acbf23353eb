"""Leases: each duty is one platform process's at a time, and each process tells that it is alive (compare-and-set)."""

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backend.domain import clock
from backend.store import leases as store
from backend.store.database import Database, Transaction

_PRESENCE = "process "


def holder_of(data_dir: Path) -> str:
    """The name of the process on this data directory: there is one at a time, and its successor has the same name.

    So what it left when it was killed is its successor's at once, without waiting for a lease to expire.
    """
    return f"{socket.gethostname()}:{data_dir}"


class Leases:
    """What this process holds. A lease not renewed within `seconds` is anyone's."""

    def __init__(self, database: Database, holder: str, seconds: float) -> None:
        self.holder = holder
        self._database = database
        self._seconds = seconds

    async def announce(self) -> None:
        """Tell the other processes, for the next while, that this one runs its sessions."""
        await self.take(f"{_PRESENCE}{self.holder}")

    async def take(self, duty: str) -> bool:
        """Take or renew a duty; False when it is another process's."""
        now = datetime.now(UTC)
        until = now + timedelta(seconds=self._seconds)
        async with self._database.begin() as tx:
            return await store.take(tx, duty, self.holder, now=clock.text(now), until=clock.text(until))

    async def others(self, tx: Transaction) -> set[str]:
        """The other processes that are alive."""
        return await store.holders(tx, _PRESENCE, clock.now()) - {self.holder}

    async def release(self) -> None:
        """Give up everything, at the end of the process."""
        async with self._database.begin() as tx:
            await store.release(tx, self.holder)

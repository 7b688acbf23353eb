"""How much of the disk a sandbox takes. There are no quotas to rely on, so the driver looks."""

import asyncio
import contextlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

TICK_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 20.0
"""Between two looks at a sandbox while the disk does not fill."""
SHARE_OF_TIME: Final = 20
"""A look that takes long comes this many times more seldom than it takes."""
DU_SECONDS: Final = 120.0
PART: Final = 8
"""Free space lost since the last look, as a part of the limit, after which to look at once."""


class DiskWatch:
    """Looks at the sandboxes that `running` names, and calls `over` with one that takes more than the limit."""

    def __init__(
        self,
        directory: Path,
        limit_mb: int,
        running: Callable[[], Iterable[str]],
        members: Callable[[str], Iterable[int]],
        over: Callable[[str], None],
    ) -> None:
        self._directory = directory
        self._limit = limit_mb * 1024 * 1024
        self._running = running
        self._members = members
        self._over = over
        self._due: dict[str, float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        free = self._free()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now, names = self._free(), list(self._running())
            filling = free - now > self._limit // PART
            free = now if filling else max(free, now)
            self._due = {name: self._due.get(name, 0.0) for name in names}
            for name in names:
                if filling or time.monotonic() >= self._due[name]:
                    with contextlib.suppress(OSError):  # Busy, or without `du`: it is looked at again.
                        await self._look(name)

    async def _look(self, name: str) -> None:
        began = time.monotonic()
        taken = await _used(self._directory / name)
        if taken <= self._limit:
            taken += await asyncio.to_thread(self._unlinked, name)
        if taken > self._limit:
            self._over(name)
        ended = time.monotonic()
        self._due[name] = ended + max(LOOK_SECONDS, SHARE_OF_TIME * (ended - began))

    def _unlinked(self, name: str) -> int:
        return _unlinked(self._members(name), self._directory)

    def _free(self) -> int:
        try:
            return shutil.disk_usage(self._directory).free
        except OSError:
            return 0


async def _used(root: Path) -> int:
    """Bytes on disk below a directory, whatever its depth; 0 when nobody can tell."""
    process = await asyncio.create_subprocess_exec(
        *("du", "-skx", "--", str(root)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PATH": os.defpath, "LC_ALL": "C"},
    )
    try:
        async with asyncio.timeout(DU_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        return 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    number = output.split(b"\t", 1)[0]
    return int(number) * 1024 if number.isdigit() else 0


def _unlinked(pids: Iterable[int], directory: Path) -> int:
    """Bytes of files that processes hold open although they are removed, so that `du` does not see them."""
    device = directory.stat().st_dev
    found: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode) and status.st_nlink == 0 and status.st_dev == device:
                        found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())

"""The recordings of ended sessions: `<data>/recordings/<session id>.cast`, until newer ones need the space."""

import asyncio
import contextlib
import logging
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO, Final

from backend.sandboxes.contract import Rescue

FILE: Final = "recording.cast"
"""Where a harness records, in its sandbox's directory."""
MEGABYTE: Final = 1024 * 1024
_SUFFIX: Final = ".cast"

logger = logging.getLogger(__name__)


class Recordings:
    """The kept files. `max_mb` bounds one of them, `kept_mb` all of them together."""

    def __init__(self, data_dir: Path, *, max_mb: int, kept_mb: int) -> None:
        self.max_bytes = (max_mb + 1) * MEGABYTE
        """The harness stops at `max_mb`, then adds a marker."""
        self._directory = data_dir / "recordings"
        self._kept_bytes = kept_mb * MEGABYTE

    def rescue(self, session_id: str) -> Rescue:
        """What a driver is to save of a sandbox that it removes."""
        return Rescue(FILE, self._path(session_id), self.max_bytes)

    async def open(self, session_id: str) -> BinaryIO | None:
        """The kept recording; None when there is none."""
        return await asyncio.to_thread(_open, self._path(session_id))

    async def remove(self, session_ids: Collection[str]) -> None:
        """Forget the recordings of sessions that are gone."""
        await asyncio.to_thread(_remove, [self._path(session_id) for session_id in session_ids])

    async def tidy(self, known: Collection[str]) -> None:
        """Remove what belongs to no session of `known`: the platform may have ended before it could."""
        kept = {self._path(session_id) for session_id in known}
        await asyncio.to_thread(_remove, [path for _, _, path in _listing(self._directory) if path not in kept])
        await self.trim()

    async def trim(self) -> None:
        """Remove the oldest until the rest fits."""
        await asyncio.to_thread(self._trim)

    def _trim(self) -> None:
        room = self._kept_bytes
        for _, size, path in sorted(_listing(self._directory), reverse=True):
            room -= size
            if room < 0:
                logger.info("removing the recording %s: all of them may take %d bytes", path.name, self._kept_bytes)
                _remove([path])

    def _path(self, session_id: str) -> Path:
        return self._directory / f"{session_id}{_SUFFIX}"


def _listing(directory: Path) -> list[tuple[float, int, Path]]:
    """Time of the last change, size and path of all files, also of those left half written."""
    found = []
    for path in directory.iterdir() if directory.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):  # one may go meanwhile
            status = path.lstat()
            found.append((status.st_mtime, status.st_size, path))
    return found


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _remove(paths: Collection[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            logger.warning("cannot remove %s: %s", path, error.strerror)

"""Records what the terminal shows as asciicast v3: a header line, then `[interval, code, data]` lines.

Codes used: o output, r resize, m marker, x exit. Nothing typed is recorded. Lines are made and written in a thread, a
quarter of a second apart, so a slow disk holds nobody up.
"""

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import IO

from backend.harness.log import Log

NAME = "recording.cast"
FLUSH_SECONDS = 0.25
MERGE_SECONDS = 0.01
"""Output closer together is one event."""
CLOSE_SECONDS = 3.0
MAX_PENDING = 8 * 1024 * 1024
"""Characters that may wait for the disk; when it is slower than that the recording ends."""
RESERVE = 256
"""Bytes below the limit that are kept for the marker that says it was reached."""

Event = tuple[float, str, list[str]]
"""When (seconds, monotonic), the code, and the parts of the data."""


class Recording:
    """One file, begun with the first `started`. Afterwards nothing raises: a recording that fails is only logged."""

    def __init__(self, path: Path, max_bytes: int, log: Log) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._log = log
        self._file: IO[bytes] | None = None
        self._size = 0
        self._written_at = 0  # Milliseconds, of the last event in the file: roundings must not add up.
        self._events: list[Event] = []
        self._pending = 0
        self._over: str | None = None  # Why nothing more is recorded.
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None

    def started(self, columns: int, rows: int) -> None:
        """The agent has started, maybe not for the first time, on a terminal of this size."""
        if self._file is not None:
            self._add("m", "started again")
            self._add("r", f"{columns}x{rows}")
            return
        header = {
            "version": 3,
            "term": {"cols": columns, "rows": rows, "type": "xterm-256color"},
            "timestamp": int(time.time()),
        }
        line = json.dumps(header).encode() + b"\n"
        self._written_at = _milliseconds(time.monotonic())
        try:
            self.path.touch(mode=0o600)
            self._file = self.path.open("wb", buffering=0)
            self._file.write(line)
        except OSError as error:
            self._stop(f"cannot write {self.path.name}: {error.strerror}")
        self._size = len(line)

    def output(self, text: str) -> None:
        """The terminal was sent `text`."""
        if self._over is not None:
            return
        if self._pending > MAX_PENDING:
            self._stop("the disk is too slow")
            return
        if self._events:
            at, code, parts = self._events[-1]
            if code == "o" and time.monotonic() - at < MERGE_SECONDS:
                parts.append(text)
                self._pending += len(text)
                return
        self._add("o", text)

    def resized(self, columns: int, rows: int) -> None:
        self._add("r", f"{columns}x{rows}")

    def exited(self, status: int) -> None:
        """The agent ended; `status` as a shell tells it, 128 + n for signal n."""
        self._add("x", str(status))
        self._flush_soon(0)

    async def flush(self) -> None:
        """Returns when all so far is in the file."""
        self._write()
        while self._writing is not None:
            await asyncio.wait([self._writing])

    async def close(self) -> None:
        """Writes what is left, as far as the disk takes it in time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.flush(), CLOSE_SECONDS)
        self._over = self._over or "closed"
        if self._timer is not None:
            self._timer.cancel()
        if self._file is not None and self._writing is None:
            with contextlib.suppress(OSError):
                self._file.close()

    def _add(self, code: str, data: str) -> None:
        if self._over is None:
            self._events.append((time.monotonic(), code, [data]))
            self._pending += len(data)
            self._flush_soon(FLUSH_SECONDS)

    def _flush_soon(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            if self._timer.when() <= loop.time() + seconds:
                return
            self._timer.cancel()
        self._timer = loop.call_later(seconds, self._write)

    def _write(self) -> None:
        """Has all events so far written, after those that are being written."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is None and self._events and self._over is None:
            events, self._events, self._pending = self._events, [], 0
            self._writing = asyncio.get_running_loop().run_in_executor(None, self._append, events)
            self._writing.add_done_callback(self._written)

    def _written(self, writing: "asyncio.Future[None]") -> None:
        self._writing = None
        if not writing.cancelled() and (error := writing.exception()) is not None:
            self._stop(f"cannot write {self.path.name}: {error}")
        self._write()

    def _append(self, events: list[Event]) -> None:
        """Writes events, all or none; called in a thread. Raises OSError."""
        assert self._file is not None
        lines, size = [], self._size
        for at, code, parts in events:
            milliseconds = _milliseconds(at)
            line = _line(milliseconds - self._written_at, code, "".join(parts))
            if size + len(line) > self._max_bytes - RESERVE:
                self._over = f"{self._max_bytes / (1024 * 1024):.3g} MB reached"
                lines.append(_line(milliseconds - self._written_at, "m", f"recording ended: {self._over}"))
                break
            lines.append(line)
            size += len(line)
            self._written_at = milliseconds
        rest = b"".join(lines)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(self._size)
            raise
        self._size = size

    def _stop(self, reason: str) -> None:
        self._over = reason
        self._events = []
        self._log.write(f"recording ended: {reason}")


def _milliseconds(at: float) -> int:
    return round(at * 1000)


def _line(milliseconds: int, code: str, data: str) -> bytes:
    # Halves of characters cannot be encoded, and what one replaces them with must not break the JSON.
    return json.dumps([milliseconds / 1000, code, data], ensure_ascii=False).encode(errors="replace") + b"\n"

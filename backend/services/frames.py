"""Events of a turn on their way to one client, as server-sent events (LAP REST 3.8)."""

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

MAX_FRAMES: Final = 8 * 1024 * 1024
"""Bytes of events that may wait for a client; one that is further behind is let go."""


class Frames:
    """Events on their way to one client."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._news = asyncio.Event()
        self._closed = False
        self.failed = False

    def put(self, frame: Mapping[str, Any]) -> None:
        """Send a frame; one that would wait behind too many others ends them all."""
        if self._closed:
            return
        self.failed = self.failed or frame["type"] == "error"
        text = json.dumps(frame, ensure_ascii=False, separators=(",", ":")).encode()
        self._bytes += len(text)
        if self._bytes > MAX_FRAMES:
            self._waiting.clear()
            text = json.dumps(failure("event stream interrupted")).encode()
            self._closed = True
        self._waiting.append(text)
        self._news.set()

    def close(self) -> None:
        """No frame will follow."""
        self._closed = True
        self._news.set()

    async def next(self) -> bytes | None:
        """All frames that wait, as server-sent events; None at the end."""
        while not self._waiting:
            if self._closed:
                return None
            self._news.clear()
            await self._news.wait()
        frames = b"".join(b"data: %b\n\n" % frame for frame in self._waiting)
        self._waiting.clear()
        self._bytes = 0
        return frames


def failure(text: str) -> dict[str, str]:
    """The frame that tells that a stream failed (LAP REST 3.8)."""
    return {"type": "error", "message": text}

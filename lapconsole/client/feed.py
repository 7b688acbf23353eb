"""A platform's event feed: server-sent events, read for as long as they come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lapconsole.client import urls
from lapconsole.client.errors import PlatformError, Unreachable, Unsupported
from lapconsole.client.models import Event
from lapconsole.client.platform import Platform

if TYPE_CHECKING:
    import httpx

# The platform sends a heartbeat every 15 s; a feed silent for longer than this is broken.
IDLE_SECONDS = 40.0

# Not compressed: what compresses also collects, and events would come late.
STREAM_HEADERS = {"accept": "text/event-stream", "accept-encoding": "identity", "cache-control": "no-store"}

_FRAME_BYTES = 4 << 20


async def events(
    platform: Platform, after: int | None = None, *, idle_seconds: float = IDLE_SECONDS
) -> AsyncGenerator[Event, None]:
    """Events as they happen, from sequence number `after` on, or from now.

    The first is a notice, "feed.opened" or "feed.reset" (what follows `after` is no longer kept: list again), with the
    feed's position in `seq`. Ends when the platform closes the feed. Raises Unsupported where there is no feed,
    PlatformError for another refusal, Unreachable when it breaks or falls silent. Close it (`aclosing`) when leaving
    early.
    """
    headers = STREAM_HEADERS if after is None else {**STREAM_HEADERS, "last-event-id": str(after)}
    try:
        async with platform.stream(urls.EVENTS, headers=headers) as response:
            if not is_stream(response):
                raise Unsupported("this platform has no event feed")
            async with aclosing(read(platform, response, idle_seconds, "event feed")) as found:
                async for event in found:
                    yield event
    except PlatformError as error:
        if error.status in (404, 405):
            raise Unsupported("this platform has no event feed") from None
        raise


def is_stream(response: httpx.Response) -> bool:
    """Whether the answer is a stream of server-sent events."""
    return str(response.headers.get("content-type", "")).startswith("text/event-stream")


async def read(
    platform: Platform, response: httpx.Response, idle_seconds: float, name: str
) -> AsyncGenerator[Event, None]:
    """The events of a stream until it ends. Raises Unreachable when it is silent for `idle_seconds`."""
    reader, parts = FeedReader(), response.aiter_bytes()
    while True:
        try:
            async with asyncio.timeout(idle_seconds):
                part = await anext(parts, None)
        except TimeoutError:
            cause = f"the {name} was silent for {idle_seconds:g} s"
            raise Unreachable(platform.base_url, cause, silent_seconds=idle_seconds) from None
        if part is None:
            return
        for event in reader.feed(part):
            yield event


@dataclass(slots=True)
class _Frame:
    id: str | None = None
    event: str = "message"
    data: str | None = None


class FeedReader:
    """Splits a byte stream into server-sent events, as the HTML standard's event stream format says."""

    def __init__(self) -> None:
        self._rest = b""
        self._after_return = False
        self._frame = _Frame()
        self._size = 0

    def feed(self, part: bytes) -> Iterator[Event]:
        """The events that `part` completes. Raises PlatformError when one grows beyond 4 MB."""
        if not part:
            return
        if self._after_return and part.startswith(b"\n"):
            part = part[1:]
        self._after_return = part.endswith(b"\r")
        lines = (self._rest + part).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop()
        self._size += len(part)
        if self._size > _FRAME_BYTES:
            raise PlatformError(200, "TOO_LARGE", "the event feed sent an event larger than 4 MB")
        for line in lines:
            if line:
                self._field(line.decode("utf-8", errors="replace"))
                continue
            frame, self._frame = self._frame, _Frame()
            self._size = len(self._rest)
            if (event := _event(frame)) is not None:
                yield event

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            self._frame.id = value
        elif name == "event":
            self._frame.event = value
        elif name == "data":
            self._frame.data = value if self._frame.data is None else f"{self._frame.data}\n{value}"


def _event(frame: _Frame) -> Event | None:
    """The event of a frame; None for one without data or that is not JSON."""
    if frame.data is None:
        return None
    try:
        data = json.loads(frame.data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    if frame.id is not None and frame.id.isascii() and frame.id.isdigit() and len(frame.id) < 19:
        data.setdefault("seq", int(frame.id))
    return Event.from_json(data, type=frame.event)

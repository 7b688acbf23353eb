"""Logs of containers: one that is looked at again and again is followed by one stream and answered from memory."""

import asyncio
import math
import random
import sys
import time
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from backend.sandboxes.kubernetes.client import KubernetesClient
from backend.sandboxes.kubernetes.errors import ApiError

MAX_TAIL: Final = 10_000
"""Lines that can be asked for, and that are kept."""
MAX_SIZE: Final = 1 << 20
"""Bytes kept of one log."""
MAX_STREAMS: Final = 64
UNSEEN_SECONDS: Final = 30.0
"""A log that nobody has looked at for so long is not followed any more."""
FIRST_DELAY: Final = 1.0
"""After a stream that did not last, or did not come about; each further one may take twice as long..."""
MAX_DELAY: Final = 30.0
"""...up to this. Meanwhile every look is a request, as it is before a log is followed."""

_PROOF_SECONDS: Final = 10.0
"""A stream that lasted so long worked; when it is cut, the next may begin at once."""
_BATCH: Final = 1_000
_BATCH_PAUSE: Final = 0.05
"""Between so many lines: a container that writes without end is read at 20,000 lines a second at most."""
_LINE_SIZE: Final = 96
"""What keeping a line takes beside its text."""


class Tail:
    """The end of a log, from a read with time stamps on; `add` takes the lines of the stream that follows it."""

    def __init__(self, text: str) -> None:
        """`text`: of a read of MAX_TAIL lines; the last one has its end."""
        self._lines: deque[tuple[float, str]] = deque()
        """When each was written (seconds since the epoch, by the node's clock), and what."""
        self._size = 0
        self._at = 0.0
        """Of the newest line."""
        stamped = text.split("\n")[:-1]
        self._whole = len(stamped) < MAX_TAIL
        """Nothing is missing before the first line."""
        moments = [self._put(line) for line in stamped]
        self._joined_at = self._at
        from_second = max(0, math.floor(self._at) - 1)
        self._again = Counter(line for line, at in zip(stamped, moments, strict=True) if at >= from_second)
        """What the stream brings once more: it can begin at a whole second only, and does one before the last line's,
        for what is written through two pipes is not strictly in order."""
        stamp = datetime.fromtimestamp(from_second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.since_time: Final = stamp if stamped else None
        """From when on to follow; None: from the beginning."""

    def add(self, line: str) -> None:
        """The next line of the stream, with its time stamp."""
        if self._again:
            if self._again[line] > 1:
                self._again[line] -= 1
                return
            if self._again.pop(line, 0) or self._split(line)[0] <= self._joined_at:
                return  # read before, or older than what was
            self._again.clear()
        self._put(line)

    def end(self, tail_lines: int, since_seconds: int | None) -> str | None:
        """What a read would bring; None when not enough is kept to tell. The node's clock is taken to be as ours."""
        oldest = time.time() - since_seconds if since_seconds else -math.inf
        enough = self._whole or len(self._lines) >= tail_lines or (self._lines and self._lines[0][0] < oldest)
        if not enough:
            return None
        chosen: list[str] = []
        for at, text in reversed(self._lines):
            if len(chosen) == tail_lines:
                break
            if at >= oldest:
                chosen.append(text)
        return "".join(f"{text}\n" for text in reversed(chosen))

    def _split(self, line: str) -> tuple[float, str]:
        stamp, _, text = line.partition(" ")
        try:
            return datetime.fromisoformat(stamp).timestamp(), text
        except (ValueError, OverflowError):
            return self._at, line

    def _put(self, line: str) -> float:
        self._at, text = self._split(line)
        self._lines.append((self._at, text))
        self._size += sys.getsizeof(text) + _LINE_SIZE
        while len(self._lines) > MAX_TAIL or self._size > MAX_SIZE:
            self._size -= sys.getsizeof(self._lines.popleft()[1]) + _LINE_SIZE
            self._whole = False
        return self._at


@dataclass(eq=False, slots=True)
class _Log:
    """A log that was looked at lately."""

    pod: str
    """uid"""
    looked_at: float
    beginning: bool = False
    """It is being read in order to be followed."""
    task: asyncio.Task[None] | None = None
    tail: Tail | None = None
    """While the stream is open."""
    unseen: asyncio.Timeout | None = None
    failures: int = 0
    retry_at: float = field(default=-math.inf)

    def looked(self, now: float) -> None:
        self.looked_at = now
        if self.unseen is not None and not self.unseen.expired():
            self.unseen.reschedule(now + UNSEEN_SECONDS)

    def hold_off(self, *, worked: bool = False, seconds: float = 0.0) -> None:
        """Do not follow it again for `seconds`, and for a while more unless it worked."""
        self.failures = 0 if worked else self.failures + 1
        if self.failures:
            delay = min(MAX_DELAY, FIRST_DELAY * 2 ** min(self.failures - 1, 16))
            seconds += delay * random.uniform(0.5, 1)
        self.retry_at = asyncio.get_running_loop().time() + seconds

    def drop(self) -> None:
        if self.task is not None:
            self.task.cancel()


class Logs:
    """Reads logs of one container name. A single look is one request; from a second one on a log is followed.

    The stream ends when the container does, and when nobody has looked for UNSEEN_SECONDS. While it is cut, or there
    are MAX_STREAMS others, every look is a request, so that an answer is never older than the stream is quick.
    """

    def __init__(self, client: KubernetesClient, container: str) -> None:
        self._client = client
        self._container = container
        self._logs: OrderedDict[str, _Log] = OrderedDict()
        """By name of the sandbox; the last one looked at comes last."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def read(
        self, name: str, pod: str, tail_lines: int, since_seconds: int | None, *, running: str | None
    ) -> str:
        """The end of the log of the pod named `pod`; `running` is its uid while its container runs. Raises ApiError.

        `tail_lines` is clamped to 1..MAX_TAIL; `since_seconds` leaves out what is older.
        """
        tail_lines = max(1, min(tail_lines, MAX_TAIL))
        log = self._look(name, running)
        text = None
        if log is not None and log.tail is not None:
            text = log.tail.end(tail_lines, since_seconds)
        elif log is not None and self._may_follow(log):
            text = await self._begin(name, pod, log, tail_lines, since_seconds)
        if text is not None:
            return text
        return await self._client.log(pod, self._container, tail_lines=tail_lines, since_seconds=since_seconds or None)

    def forget(self, name: str) -> None:
        """The sandbox has been removed."""
        if log := self._logs.pop(name, None):
            log.drop()

    async def close(self) -> None:
        """End all streams."""
        self._closed = True
        self._logs.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _look(self, name: str, running: str | None) -> _Log | None:
        """The log if it has been looked at before, lately."""
        now = asyncio.get_running_loop().time()
        while self._logs and (oldest := next(iter(self._logs))) and self._logs[oldest].looked_at < now - UNSEEN_SECONDS:
            self.forget(oldest)
        known = self._logs.get(name)
        if known is not None and known.pod == running:
            known.looked(now)
            self._logs.move_to_end(name)
            return known
        self.forget(name)
        if running is not None and not self._closed:
            self._logs[name] = _Log(running, now)
        return None

    def _may_follow(self, log: _Log) -> bool:
        free = log.task is None and not log.beginning and len(self._tasks) < MAX_STREAMS
        return free and asyncio.get_running_loop().time() >= log.retry_at

    async def _begin(self, name: str, pod: str, log: _Log, tail_lines: int, since_seconds: int | None) -> str | None:
        """Read the log and begin to follow it."""
        log.beginning = True
        begun = False
        try:
            text = await self._client.log(pod, self._container, tail_lines=MAX_TAIL, timestamps=True)
            begun = not text or text.endswith("\n")
        finally:
            log.beginning = False
            if not begun:  # refused, in the middle of a line, or so slow that who looks has given up
                log.hold_off()
        if not begun:
            return None
        tail = Tail(text)
        if self._logs.get(name) is log and len(self._tasks) < MAX_STREAMS:
            log.task = asyncio.create_task(self._follow(pod, log, tail))
            self._tasks.add(log.task)
            log.task.add_done_callback(self._tasks.discard)
        return tail.end(tail_lines, since_seconds)

    async def _follow(self, pod: str, log: _Log, tail: Tail) -> None:
        loop = asyncio.get_running_loop()
        began, wait = loop.time(), 0.0
        try:
            async with asyncio.timeout_at(log.looked_at + UNSEEN_SECONDS) as log.unseen:
                await self._take_lines(pod, log, tail)
        except TimeoutError:
            pass  # nobody looks
        except ApiError as error:
            wait = error.retry_after or 0.0
        finally:
            log.task = log.tail = log.unseen = None
            log.hold_off(worked=loop.time() - began >= _PROOF_SECONDS, seconds=wait)

    async def _take_lines(self, pod: str, log: _Log, tail: Tail) -> None:
        stream = self._client.follow_log(pod, self._container, since_time=tail.since_time, timestamps=True)
        async with stream as lines:
            log.tail = tail
            count = 0
            async for line in lines:
                tail.add(line)
                count += 1
                if count % _BATCH == 0:
                    await asyncio.sleep(_BATCH_PAUSE)

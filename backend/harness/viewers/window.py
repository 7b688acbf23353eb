"""How much may be on its way to a viewer that tells what it has got (`seen`): never more than it takes in a moment.

Between the harness and a viewer stand buffers that nobody can empty: what lies there a key's echo has to wait for, and
it can't be skipped. On a thin link they hold seconds. So as much is sent as arrives within DELAY_SECONDS, found out by
how long it takes, and the rest is kept here, where it can be dropped for a repaint.
"""

import math
from collections import deque

DELAY_SECONDS = 0.05
"""On top of the shortest time a viewer has needed so far."""
FIRST = 8_192
"""A window smaller than this has shrunk: the link is thin."""
LEAST = 2_048
MOST = 1 << 20
LEAST_QUEUED = 8_192


class Window:
    """Counts bytes out and in. Lets everything pass until the viewer has told for the first time what it has got."""

    def __init__(self) -> None:
        self.size = FIRST
        self._told = False
        self._sent = 0
        self._got = 0
        self._marks: deque[tuple[int, float]] = deque()  # what had been sent, and when
        self._shortest = math.inf
        self._judged = 0  # what is got up to here has been sent before the size last shrank

    @property
    def full(self) -> bool:
        """Whether nothing more should be sent for now."""
        return self._told and self._sent - self._got >= self.size

    def queue_limit(self, most: int) -> int:
        """How many bytes may wait to be sent before a repaint is the better way: no more than are on their way."""
        return min(most, max(LEAST_QUEUED, self.size)) if self._told else most

    def sent(self, size: int, now: float) -> None:
        """Output has been sent."""
        self._sent += size
        if len(self._marks) < 4096:  # else the viewer tells nothing, or there is no end of tiny frames
            self._marks.append((self._sent, now))

    def got(self, total: int, now: float) -> None:
        """The viewer has got so many bytes since it came."""
        self._told = True
        total = min(total, self._sent)
        if total <= self._got:
            return
        fresh, filled = total - self._got, self._sent - self._got
        self._got = total
        sent_at = now
        while self._marks and self._marks[0][0] <= total:
            sent_at = self._marks.popleft()[1]
        delay = now - sent_at
        self._shortest = min(self._shortest, delay)
        if delay > self._shortest + DELAY_SECONDS:
            if total > self._judged:
                self._judged = self._sent
                self.size = max(LEAST, self.size // 2)
        elif filled >= self.size // 2:
            self.size = min(MOST, self.size + fresh)

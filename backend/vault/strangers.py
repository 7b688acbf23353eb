"""Connections to a shared proxy that have not proven yet whose they are: how many, how long, and how often in vain."""

import logging
import time
from collections import Counter
from typing import Final

OPEN: Final = 256
"""At a time from one address."""
ALL_OPEN: Final = 4_096
SECONDS: Final = 15.0
"""For the first request to come."""
_TELL_SECONDS: Final = 10.0

logger = logging.getLogger("vault")


class Strangers:
    """Counts them. What is wrong with their credentials is told now and then, however often it happens."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._told = 0.0
        self._accused: dict[str, float] = {}

    def enter(self, address: str) -> bool:
        """Whether one more may come from an address."""
        if self._open[address] >= OPEN or self._open.total() >= ALL_OPEN:
            return False
        self._open[address] += 1
        return True

    def leave(self, address: str) -> None:
        """One is gone, or known now."""
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]

    def refused(self, address: str, session: str | None) -> bool:
        """A wrong credential was shown, in the name of `session` if there is one. Whether that is to be told of it."""
        now = time.monotonic()
        self._refused[address] += 1
        if now - self._told >= _TELL_SECONDS:
            self._told = now
            often = ", ".join(f"{count} from {each}" for each, count in self._refused.most_common(5))
            logger.warning("requests with a wrong credential: %s", often)
            self._refused.clear()
        if session is None:
            return False
        if now - self._accused.get(session, -_TELL_SECONDS) < _TELL_SECONDS:
            return False
        self._accused = {name: at for name, at in self._accused.items() if now - at < _TELL_SECONDS} | {session: now}
        return True

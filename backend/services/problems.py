"""What keeps the platform from its work at present, in words, and since when."""

import asyncio
import logging
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from backend.domain import clock
from backend.sandboxes.contract import SandboxDriver
from backend.services.reconciler import Reconciler
from backend.services.vault import VaultService

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
STUCK: Final = "the reconciler has not got through a tick for long: sessions are not looked after; restart the platform"


class Problem(NamedTuple):
    """Something that does not work: which part of the platform, what is the matter, and since when."""

    part: str
    message: str
    since: str


class Problems:
    """Looks every few seconds. What is gone at the next look was nothing to tell."""

    def __init__(self, driver: SandboxDriver, vault: VaultService | None, reconciler: Reconciler) -> None:
        self._driver = driver
        self._vault = vault
        self._reconciler = reconciler
        self._seen: dict[str, Problem] = {}
        self._lasting: dict[str, Problem] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def now(self) -> list[Problem]:
        """What is the matter at present, the oldest first."""
        return sorted(self._lasting.values(), key=lambda problem: problem.since)

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._watch(), name="problems")

    async def aclose(self) -> None:
        """End that."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def look(self) -> None:
        """See what is the matter; what comes to stay, and what goes, is logged."""
        before, seen = self._seen, dict[str, Problem]()
        for part, message in self._found():
            key = f"{part} {re.sub(r'[0-9]+', '#', message)}"  # the same problem, whatever it counts
            known = before.get(key)
            seen[key] = Problem(part, message, known.since if known else clock.now())
        lasting = {key: problem for key, problem in seen.items() if key in before}
        for key in lasting.keys() - self._lasting.keys():
            logger.warning("%s: %s", lasting[key].part, lasting[key].message)
        for key in self._lasting.keys() - lasting.keys():
            logger.info("%s: no more: %s", self._lasting[key].part, self._lasting[key].message)
        self._seen, self._lasting = seen, lasting

    def _found(self) -> Iterator[tuple[str, str]]:
        for message in self._driver.problems():
            yield "sandboxes", message
        if self._vault is not None and self._vault.status.state != "on":
            why = self._vault.status.reason or "no reason is given"
            yield "vault", f"nothing leaves the sandboxes: {why}; it is started again by itself"
        elif self._vault is not None and self._vault.status.reason:
            yield "vault", self._vault.status.reason
        if not self._reconciler.fresh:
            yield "worker", STUCK

    async def _watch(self) -> None:
        while True:
            try:
                self.look()
            except Exception:
                logger.exception("problems: the look failed")
            await asyncio.sleep(LOOK_SECONDS)

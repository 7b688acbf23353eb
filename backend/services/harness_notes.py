"""Carries what a harness tells of its agent and terminal into the session's record, at a pace the log can bear."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from backend.domain import activity, terminal
from backend.services.harness_client import HarnessState

WRITE_SECONDS: Final = 0.5
"""Writes come this far apart on average: an animated title is no reason to fill the event log."""
URGENT_WRITES: Final = 4
"""So many writes that somebody waits for may run ahead of that pace; the next ones then pay for them."""

COLUMNS: Final = ("terminal", "activity", "attached", "viewers", "harness_session_id")


class HarnessNotes:
    """The newest state told, and the task that writes what is new in it: only the present counts, never the backlog.

    `stored` has what the session's row says in COLUMNS. `write` stores the given columns.
    """

    def __init__(self, stored: Mapping[str, Any], write: Callable[[Mapping[str, Any]], Awaitable[None]]) -> None:
        self._stored = {name: stored[name] for name in COLUMNS}
        self._told = dict(self._stored)
        self._write = write
        self._news = asyncio.Event()

    def take(self, state: HarnessState) -> None:
        """Note what the harness tells now."""
        # Harnesses of earlier versions tell only how many are attached.
        viewers = state.viewers if state.attached is None else len(state.attached)
        self._told = {
            "terminal": state.terminal,
            "activity": state.activity,
            "attached": list(state.attached or ()),
            "viewers": viewers,
            # Another one once the agent's server had to be started anew, and has lost the first.
            "harness_session_id": state.session or self._stored["harness_session_id"],
        }
        if self._changes():
            self._news.set()

    async def write_for_ever(self) -> None:
        """Write what is told. Raises what `write` raises."""
        loop = asyncio.get_running_loop()
        free_at = loop.time()
        while True:
            await self._news.wait()
            ahead = URGENT_WRITES * WRITE_SECONDS if self._urgent() else 0.0
            self._news.clear()
            if (delay := free_at - ahead - loop.time()) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._news.wait()  # something that waits for nothing may come
                self._news.set()
                continue
            if changes := self._changes():
                await self._write(changes)
                self._stored |= changes
                self._news.set()  # for what was told meanwhile
                free_at = max(free_at, loop.time()) + WRITE_SECONDS

    def _urgent(self) -> bool:
        told, stored = self._told, self._stored
        return terminal.urgent(told["terminal"], stored["terminal"]) or activity.urgent(
            told["activity"], stored["activity"]
        )

    def _changes(self) -> dict[str, Any]:
        stored = self._stored
        return {
            name: value
            for name, value in self._told.items()
            if not (terminal.same(value, stored[name]) if name == "terminal" else value == stored[name])
        }

"""Keeps a console connected, for ever: finds the platform's address, follows it, and finds it anew after a break."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from lapconsole.live.model import Link, LinkState, LiveModel

if TYPE_CHECKING:
    from lapconsole.client.platform import Platform
    from lapconsole.connection import Address, Connection

FIRST_RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 30.0
RESOLVE_SECONDS = 60.0
BROKEN_ATTEMPTS = 2  # failed attempts after which the platform may be somewhere else


class Follower:
    """Runs until cancelled. `connected` is told of each platform followed, before the first answer."""

    def __init__(
        self,
        connection: Connection,
        model: LiveModel,
        clock: Callable[[], datetime],
        connected: Callable[[Platform], None],
    ) -> None:
        self._connection = connection
        self._model = model
        self._clock = clock
        self._connected = connected
        self._broken = asyncio.Event()

    async def run(self) -> None:
        """Follow the platform, wherever it is."""
        stop_observing = self._model.observe(lambda changes: self._watch_link())
        try:
            address = await self._resolve()
            while True:
                address = await self._follow(address)
        finally:
            stop_observing()

    async def _follow(self, address: Address) -> Address:
        """Follow the platform at an address until it is found at another one, which is returned."""
        # Not before the first frame: these bring the network libraries with them.
        from lapconsole.client.platform import Platform
        from lapconsole.live.sync import Sync

        async with Platform(address.base_url, address.key) as platform:
            self._connected(platform)
            sync = asyncio.create_task(Sync(platform, self._model).run(), name="sync")
            try:
                while True:
                    self._broken.clear()
                    await self._broken.wait()
                    found = await self._resolve()
                    if found != address:
                        return found
            finally:
                sync.cancel()
                with suppress(asyncio.CancelledError):
                    await sync

    def _watch_link(self) -> None:
        # A refused key is no reason to wait: another platform may have taken the port since.
        link = self._model.link
        if not link.current and link.attempt and (link.key_refused or link.attempt % BROKEN_ATTEMPTS == 0):
            self._broken.set()

    async def _resolve(self) -> Address:
        """Ask for the address until there is one; the line on top tells of each failure."""
        from lapconsole.connection import ConnectionFailed

        pause, attempt = FIRST_RETRY_SECONDS, 0
        while True:
            try:
                async with asyncio.timeout(RESOLVE_SECONDS):
                    return await self._connection.resolve()
            except ConnectionFailed as error:
                reason = str(error)
            except TimeoutError:
                reason = f"the platform did not start within {RESOLVE_SECONDS:g} s"
            attempt += 1
            now, link = self._clock(), self._model.link
            never = link.state is LinkState.CONNECTING
            self._model.set_link(
                Link(
                    LinkState.CONNECTING if never else LinkState.STALE,
                    now if link.current else link.since,
                    reason,
                    attempt,
                    now + timedelta(seconds=pause),
                )
            )
            await asyncio.sleep(pause)
            pause = min(2 * pause, LAST_RETRY_SECONDS)

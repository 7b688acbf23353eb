"""Following a platform: a refused key has the connection asked anew, as another platform may have the port now."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from lapconsole.client.platform import Platform
from lapconsole.connection import Address
from lapconsole.follow import Follower
from lapconsole.live.model import LinkState, LiveModel
from tests.client.fakes import KEY, running


class Moved:
    """A connection whose first address is that of a platform with another key."""

    label = "embedded"

    def __init__(self, *addresses: Address) -> None:
        self._addresses = list(addresses)

    async def resolve(self) -> Address:
        return self._addresses.pop(0) if len(self._addresses) > 1 else self._addresses[0]

    def parting(self) -> str:
        return ""

    async def close(self) -> None:
        return None


async def test_a_refused_key_has_the_address_asked_again() -> None:
    async with running() as fake:
        model, followed = LiveModel(), list[Platform]()
        addresses = (Address(fake.url, "another-key", "embedded"), Address(fake.url, KEY, "embedded"))
        follower = Follower(Moved(*addresses), model, lambda: datetime.now(UTC), followed.append)
        task = asyncio.create_task(follower.run())
        try:
            async with asyncio.timeout(10):
                while model.link.state is not LinkState.LIVE:
                    await asyncio.sleep(0.01)
            assert len(followed) == 2
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

"""Which platform a console talks to: one at a fixed address, or the embedded one, found or started on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from lapconsole.embedded import EmbeddedPlatform


class Address(NamedTuple):
    """Where a platform is, the key it takes, and the short name a person knows it by."""

    base_url: str
    key: str
    label: str


class ConnectionFailed(Exception):
    """No address could be had; the text says why and what to do next. Trying again later may succeed."""


class Connection(Protocol):
    """A platform the console can ask for as often as it likes: after each break it resolves again.

    `label` is known before the first `resolve`, so the first frame can show it.
    """

    @property
    def label(self) -> str: ...

    async def resolve(self) -> Address:
        """Return the present address; raises ConnectionFailed."""
        ...

    def parting(self) -> str:
        """One line for whoever leaves: whether the platform goes on, and how to end it."""
        ...

    async def close(self) -> None:
        """Release what `resolve` started. Safe to call twice and from another event loop."""
        ...


class FixedConnection:
    """A platform at a known address, which is never started or stopped from here."""

    def __init__(self, address: Address) -> None:
        self._address = address

    @property
    def label(self) -> str:
        return self._address.label

    async def resolve(self) -> Address:
        return self._address

    def parting(self) -> str:
        return f"The platform at {self._address.base_url} goes on; it is not ended from here."

    async def close(self) -> None:
        return None


class EmbeddedConnection:
    """The platform on this machine: joined where one runs, else started, and then ended by `close`."""

    def __init__(self, platform: EmbeddedPlatform) -> None:
        self._platform = platform

    @property
    def label(self) -> str:
        return "embedded"

    async def resolve(self) -> Address:
        url, key = await self._platform.ensure()
        return Address(url, key, self.label)

    def parting(self) -> str:
        return self._platform.parting()

    async def close(self) -> None:
        await self._platform.stop()

"""Vaults that run elsewhere and serve sandboxes on other machines: all of them are told of every sandbox."""

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final

from backend.domain import egress
from backend.services.errors import VaultError
from backend.services.vault_grants import bundle
from backend.services.vault_links import Introduce, Line, Link, Noted, Status, Way
from backend.settings import Settings
from backend.vault import identity
from backend.vault.control import Frames, StreamChannel

logger = logging.getLogger(__name__)

CONNECT_SECONDS: Final = 10.0
RESOLVE_SECONDS: Final = 10.0
"""Between two looks at which addresses the vaults have."""
BEAT_SECONDS: Final = 15.0

Place = tuple[str, int]


class RemoteVaults:
    """Those that the settings name. Each that comes or comes back is told all; one that is away is no obstacle."""

    near = False

    def __init__(self, settings: Settings) -> None:
        assert settings.vault_proxy is not None
        self._named = settings.vault_places
        self._proxy = egress.split(settings.vault_proxy)
        self._context = identity.platform_side(settings.vault_key_value)
        # Replicas of one platform share the key, and so this name; another platform has another.
        key = settings.encryption_key_value
        self._platform = hmac.digest(key, b"name for vaults", hashlib.sha256).hex()[:32]
        self._lines: dict[Place, Line] = {}
        self._tasks: dict[Place, asyncio.Task[None]] = {}
        self._authorities: dict[Place, str] = {}
        self._up = asyncio.Event()
        self._why = "they are being connected to"

    @property
    def status(self) -> Status:
        away = {place: line for place, line in self._lines.items() if not line.ready}
        if len(away) == len(self._lines):
            first = next((f"{_text(place)}: {line.why}" for place, line in away.items()), self._why)
            return Status("down", f"none of {len(away) or 'the'} vaults is connected: {first}")
        if away:
            place, line = next(iter(away.items()))
            return Status("on", f"{len(away)} of {len(self._lines)} vaults away: {_text(place)}: {line.why}")
        return Status("on")

    @property
    def links(self) -> Sequence[Link]:
        return [line.link for line in self._lines.values() if line.link]

    async def run(self, introduce: Introduce, noted: Noted) -> None:
        try:
            while True:
                found = await self._resolved()
                for place in found - self._lines.keys():
                    self._lines[place] = Line(self._connector(place), self._changed, BEAT_SECONDS)
                    self._tasks[place] = asyncio.create_task(
                        self._lines[place].run(self._introducer(place, introduce), noted), name=f"vault {_text(place)}"
                    )
                if found:  # a name that cannot be resolved now is no reason to give up who is known
                    for place in [each for each, line in self._lines.items() if each not in found and not line.ready]:
                        await self._give_up(place)
                await asyncio.sleep(RESOLVE_SECONDS)
        finally:
            for place in tuple(self._tasks):
                await self._give_up(place)

    async def until_ready(self) -> None:
        await self._up.wait()

    async def way(self) -> Way:
        ours = "".join(sorted(set(self._authorities.values())))
        if not ours:
            raise VaultError(f"no vault has shown its certificate yet ({self.status.reason})")
        host, port = self._proxy
        try:
            # Sandboxes resolve no names: they are given an address.
            (address, *_) = await _addresses(host, port)
        except (OSError, TimeoutError) as error:
            raise VaultError(f"the vaults' proxy {host} (LAP_VAULT_PROXY) cannot be resolved: {error}") from error
        every = await asyncio.to_thread(bundle, ours)
        return Way(_text((address, port)), {}, {"authorities": {"certificate": ours, "bundle": every}})

    async def told(self, link: Link, sandbox: str, *, known: bool) -> None:
        """Nothing more: who connects proves which sandbox it is."""

    async def listen(self, sandbox: str, listeners: Mapping[str, socket.socket]) -> None:
        raise VaultError(f"sandbox {sandbox} has listeners, which cannot be passed to vaults elsewhere")

    def forget(self, sandbox: str) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is open but what `run` closes."""

    async def _resolved(self) -> set[Place]:
        found: set[Place] = set()
        for host, port in self._named:
            try:
                found |= {(address, port) for address in await _addresses(host, port)}
            except (OSError, TimeoutError) as error:
                self._why = f"{host} (LAP_VAULT_ADDRESSES) cannot be resolved: {error}"
                logger.warning("vault: %s", self._why)
        return found

    async def _give_up(self, place: Place) -> None:
        task = self._tasks.pop(place)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del self._lines[place]
        self._authorities.pop(place, None)

    def _connector(self, place: Place) -> Any:
        async def connected() -> tuple[Frames, dict[str, Any]]:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    streams = await asyncio.open_connection(
                        *place, ssl=self._context, server_hostname=identity.VAULT_NAME
                    )
            except TimeoutError as error:
                raise VaultError(f"no connection within {CONNECT_SECONDS:.0f} s") from error
            return StreamChannel(*streams), {"platform": self._platform}

        return connected

    def _introducer(self, place: Place, introduce: Introduce) -> Introduce:
        async def introduced(link: Link, told: Mapping[str, Any]) -> None:
            await introduce(link, told)
            self._authorities[place] = str(told["ca"])
            logger.info("vault: connected to %s", _text(place))

        return introduced

    def _changed(self) -> None:
        (self._up.set if any(line.ready for line in self._lines.values()) else self._up.clear)()


async def _addresses(host: str, port: int) -> list[str]:
    """All that a name stands for. Raises OSError, TimeoutError."""
    if egress.address(host) is not None:
        return [host]
    async with asyncio.timeout(CONNECT_SECONDS):
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(ipaddress.ip_address(str(entry[4][0]).partition("%")[0])) for entry in found})


def _text(place: Place) -> str:
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

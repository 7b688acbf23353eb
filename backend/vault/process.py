"""The vault of one platform on the same machine: a folder, a Unix socket, listeners that are passed to it.

It reads nothing but its folder, writes nothing but notes to the platform, and lives as long as there are sandboxes.
"""

import asyncio
import gc
import hmac
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backend.vault import control
from backend.vault.authority import Authority
from backend.vault.control import Channel, ControlError
from backend.vault.dns import Resolver
from backend.vault.front import Front
from backend.vault.keeper import BACKLOG, HELLO_SECONDS, Keeper, Peer
from backend.vault.sessions import Session

_ALONE_SECONDS: Final = 60.0
"""How long a vault without a sandbox waits for a platform."""
_FORGOTTEN_SECONDS: Final = 3_600.0
"""How long one with sandboxes does when none of them has a connection: the next platform starts another."""

logger = logging.getLogger("vault")


@dataclass(frozen=True, slots=True)
class _Listener:
    """A socket that was passed to us, and what serves it."""

    sock: socket.socket
    server: Any


class Process(Keeper):
    """All that the vault process of one platform has open."""

    def __init__(self, directory: Path) -> None:
        super().__init__(Authority.load(directory))
        self._directory = directory
        self._secret = (directory / control.SECRET).read_text().strip()
        self._listeners: dict[str, dict[str, _Listener]] = {}
        self._alone = asyncio.get_running_loop().time()

    async def run(self, port: int, ready: Callable[[int], None]) -> None:
        """Serve until told to end, or until nobody needs it."""
        loop = asyncio.get_running_loop()
        listener = _bound(port)
        self.port = listener.getsockname()[1]
        server = await loop.create_server(lambda: Front(self.vault), sock=listener, backlog=BACKLOG)
        door = control.listening(self._directory)
        self.own(self._admit(door))
        ready(self.port)
        gc.collect()
        gc.freeze()
        try:
            await self.until_ended()
        finally:
            server.close()
            door.close()

    async def _admit(self, door: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(door)
            self.own(self._serve(Channel(sock)))

    async def _serve(self, channel: Channel) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                message, _ = await channel.receive()
            secret = str(message.get("secret", ""))
            if channel.peer != os.getuid() or not hmac.compare_digest(secret.encode(), self._secret.encode()):
                await channel.send({"id": message.get("id"), "error": "not this vault's platform"})
                return
            for other in self.peers:
                other.drop()  # of a platform that was restarted
            try:
                await self.attend(Peer(channel, "", task.cancel), message)
            finally:
                if not self.peers and not self.sessions.by_name:
                    self.end.set()
        except (ControlError, TimeoutError, OSError) as error:
            logger.info("control: %s", error)
        finally:
            channel.close()

    async def done(
        self, peer: Peer, message: dict[str, Any], descriptors: list[int]
    ) -> tuple[dict[str, Any], list[int]]:
        match message.get("do"):
            case "listen":
                await self._listen(str(message["name"]), list(message["kinds"]), descriptors)
                return {}, []
            case "lend":
                passed = self._listeners.get(message["name"], {})
                return {"kinds": list(passed)}, [each.sock.fileno() for each in passed.values()]
        return await super().done(peer, message, descriptors)

    async def _listen(self, name: str, kinds: list[str], descriptors: list[int]) -> None:
        session = self.sessions.by_name[name]
        if len(kinds) != len(descriptors) or not set(kinds) <= set(control.KINDS):
            raise ValueError("each listener needs its kind")
        loop = asyncio.get_running_loop()
        opened = self._listeners.setdefault(name, {})
        for kind, descriptor in zip(kinds, descriptors, strict=True):
            sock = socket.socket(fileno=os.dup(descriptor))
            sock.setblocking(False)
            server: Any
            if kind == "dns":
                server, _ = await loop.create_datagram_endpoint(lambda: Resolver(session, self.upstreams), sock=sock)
            else:
                server = await loop.create_server(self._maker(session, kind), sock=sock, backlog=BACKLOG)
            if kind in opened:
                opened[kind].server.close()
            opened[kind] = _Listener(sock, server)

    def _maker(self, session: Session, kind: str) -> Callable[[], Front]:
        return lambda: Front(self.vault, session, transparent=kind == "transparent")

    def close(self, name: str) -> None:
        for listener in self._listeners.pop(name, {}).values():
            listener.server.close()
        super().close(name)

    def swept(self) -> None:
        now = asyncio.get_running_loop().time()
        if self.talking or self.peers:
            self._alone = now
        patience = _FORGOTTEN_SECONDS if self.sessions.by_name else _ALONE_SECONDS
        if now - self._alone > patience or not self._directory.exists():
            self.end.set()


def _bound(port: int) -> socket.socket:
    """A listener on loopback: on the port that sandboxes know, or on any if that is taken."""
    for wanted in (port, 0):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", wanted))
        except OSError:
            sock.close()
            if not wanted:
                raise
        else:
            return sock
    raise OSError("no port")

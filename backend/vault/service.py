"""A vault for sandboxes on other machines: who connects to its proxy proves which sandbox it is, each time.

Any number of platform processes connect to its control port, under TLS that proves both sides (see identity). It keeps
nothing on disk: after a start it is closed, and told so to whoever probes it, until a platform has told it all.
"""

import asyncio
import gc
import logging
import socket
from collections.abc import Callable
from typing import Any, Final

from backend.vault import identity
from backend.vault.authority import Authority
from backend.vault.control import ControlError, StreamChannel
from backend.vault.front import Front
from backend.vault.keeper import BACKLOG, HELLO_SECONDS, Keeper, Peer
from backend.vault.strangers import Strangers

_HANDSHAKE_SECONDS: Final = 10.0
_PROBE_SECONDS: Final = 5.0
_PLATFORM_NAME: Final = 64
_DRAIN_SECONDS: Final = 50.0
"""Within the minute that a pod gets to end."""
_LOOK_SECONDS: Final = 0.1

logger = logging.getLogger("vault")


class Service(Keeper):
    """All that one vault of a cluster has open."""

    def __init__(self, secret: str) -> None:
        super().__init__(Authority.derived(secret))
        self._secret = secret
        self._told = False
        self.vault.strangers = Strangers()

    async def run(self, host: str, ports: tuple[int, int, int], ready: Callable[[dict[str, int]], None]) -> None:
        """Serve until told to end. `ports`: of the proxy, the control connections and the probes, 0 for any."""
        loop = asyncio.get_running_loop()
        proxy = await loop.create_server(lambda: Front(self.vault), host, ports[0], backlog=BACKLOG)
        self.port = _port(proxy)
        control = await asyncio.start_server(
            self._serve,
            host,
            ports[1],
            ssl=identity.vault_side(self._secret),
            ssl_handshake_timeout=_HANDSHAKE_SECONDS,
        )
        probes = await asyncio.start_server(self._probed, host, ports[2], limit=4_096)
        ready({"port": self.port, "control_port": _port(control), "health_port": _port(probes)})
        gc.collect()
        gc.freeze()
        try:
            await self.until_ended()
        finally:
            for server in (proxy, control, probes):
                server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = StreamChannel(reader, writer)
        where = writer.get_extra_info("peername")[0]
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                message, _ = await channel.receive()
            platform = message.get("platform")
            if message.get("do") != "hello" or not isinstance(platform, str) or not 0 < len(platform) <= _PLATFORM_NAME:
                await channel.send({"id": message.get("id"), "error": "the first word is hello, with a name"})
                return
            logger.info("control: platform %s connected from %s", platform, where)
            await self.attend(Peer(channel, platform, channel.drop), message)
        except (ControlError, TimeoutError, OSError) as error:
            logger.info("control: %s: %s", where, error)
        finally:
            channel.close()

    def all_told(self) -> None:
        self._told = True

    async def drained(self) -> None:
        """Let sandboxes finish what they have begun: another vault takes what they begin from now on."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _DRAIN_SECONDS
        while self.talking and not self.hurry.is_set() and loop.time() < until:
            await asyncio.sleep(_LOOK_SECONDS)

    async def _probed(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """`/healthz`: it runs; `/readyz`: it knows the sessions of a platform."""
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                target = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)[1:2]
                if target == [b"/healthz"]:
                    status, text = "200 OK", b"it runs\n"
                elif target != [b"/readyz"]:
                    status, text = "404 Not Found", b"only /healthz and /readyz\n"
                elif self._told and not self.end.is_set():
                    status, text = "200 OK", b"it knows its sessions\n"
                else:
                    why = b"it is ending\n" if self.end.is_set() else b"no platform has told it its sessions yet\n"
                    status, text = "503 Service Unavailable", why
                head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\n"
                writer.write(f"{head}Connection: close\r\n\r\n".encode() + text)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()


def _port(server: Any) -> int:
    sock: socket.socket = server.sockets[0]
    return int(sock.getsockname()[1])

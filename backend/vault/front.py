"""A sandbox's connection to the vault: whose it is, what is spoken on it and to which target."""

import asyncio
import contextlib
import logging
import socket
import ssl
import struct
from typing import Final

from backend.domain.egress import BadHost, normal
from backend.vault.authority import Authority
from backend.vault.exchange import Exchange
from backend.vault.http1_server import Http1Server
from backend.vault.http2_client import Http2Pool
from backend.vault.http2_server import Http2Server
from backend.vault.limits import CONNECTIONS, HANDSHAKE_SECONDS
from backend.vault.link import Closed, Link, tunnel
from backend.vault.sessions import BLOCKED, Session, Sessions
from backend.vault.strangers import SECONDS as STRANGER_SECONDS
from backend.vault.strangers import Strangers
from backend.vault.upstream import Refused, Unreachable, Upstreams

logger = logging.getLogger(__name__)

_TLS_HANDSHAKE: Final = 0x16
_SO_ORIGINAL_DST: Final = 80
_IP6T_SO_ORIGINAL_DST: Final = 80
_SILENT_SECONDS: Final = 0.5
"""After which a client that says nothing is taken to wait for the server's first word."""
_OPAQUE: Final = "only HTTP passes, unless allow_out names the port (host:port)"
_METHOD_LETTERS: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")


class Vault:
    """What all connections share."""

    def __init__(self, authority: Authority, sessions: Sessions, upstreams: Upstreams) -> None:
        self.authority = authority
        self.sessions = sessions
        self.upstreams = upstreams
        self.http2 = Http2Pool(upstreams)
        self.ca = authority.pem
        self.strangers: Strangers | None = None
        """Of a proxy that anybody may connect to."""


class Front(Link):
    """One accepted connection. `session` is known where the listener is one sandbox's own."""

    def __init__(self, vault: Vault, session: Session | None = None, *, transparent: bool = False) -> None:
        super().__init__()
        self._vault = vault
        self.session = session
        self._transparent = transparent
        self.task: asyncio.Task[None] | None = None
        self.busy = False
        """Whether an answer is awaited, so that the client's end means it wants it no more."""
        self.address = ""
        """Where it comes from, on a proxy that anybody may connect to."""
        self._stranger: asyncio.TimerHandle | None = None

    def connected(self) -> None:
        if sock := self.socket:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not (self._enter() if self.session is None else self.join(self.session)):
            self.abort()
            return
        self.task = asyncio.ensure_future(self._run())

    def _enter(self) -> bool:
        """Come as a stranger, where they are counted."""
        if self._vault.strangers is None:
            return True
        assert self._transport is not None
        self.address = str((self._transport.get_extra_info("peername") or ("",))[0])
        if not self._vault.strangers.enter(self.address):
            return False
        self._stranger = self._loop.call_later(STRANGER_SECONDS, self.abort)
        return True

    def _leave(self) -> None:
        """Be a stranger no more."""
        if self._stranger is not None and self._vault.strangers is not None:
            self._stranger.cancel()
            self._stranger = None
            self._vault.strangers.leave(self.address)

    def join(self, session: Session) -> bool:
        """Belong to a session; False when it has too many connections already, or has ended."""
        if session.closed or len(session.connections) >= CONNECTIONS:
            return False
        self._leave()
        self.session = session
        session.connections.add(self)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._leave()
        if self.session is not None:
            self.session.connections.discard(self)
        if self.task is not None:
            self.task.cancel()

    def ended(self) -> None:
        if self.busy and self.task is not None:
            self.task.cancel()

    async def _run(self) -> None:
        try:
            await (self._transparently() if self._transparent else self._explicitly())
            self.close()
        except (Closed, ssl.SSLError):
            self.abort()
        except asyncio.CancelledError:
            self.abort()
        except Exception:
            logger.exception("a connection failed")
            self.abort()

    # The explicit proxy.

    async def _explicitly(self) -> None:
        connect = await Http1Server(self, self._vault, self.session, None, None).run()
        if connect is None:
            return
        session, (host, port) = connect
        await self._sniffed(session, host, port, known=True)

    async def _transparently(self) -> None:
        assert self.session is not None
        target = _original_target(self.socket)
        if target is None:
            return
        host, port = target
        # An address that the vault itself has told for a name stands for the name.
        await self._sniffed(self.session, self.session.names_of.get(host, host), port, known=False)

    async def _sniffed(self, session: Session, host: str, port: int, *, known: bool) -> None:
        """Go on with what the client speaks. `known`: the client named the host itself, and must stay with it."""
        try:
            first = await self.read(_SILENT_SECONDS if session.policy.names_port(host, port) else HANDSHAKE_SECONDS)
        except Closed:
            if not session.policy.names_port(host, port) or not self.alive:
                raise
            first = b""
        else:
            if not first:
                return
        self.unread(first)
        if first[:1] and first[0] == _TLS_HANDSHAKE:
            await self._under_tls(session, host, port, known=known)
        elif first[:1] and first[0] in _METHOD_LETTERS and not first.startswith((b"PRI ", b"SSH-")):
            await Http1Server(self, self._vault, session, (False, host, port, known), None).run()
        else:
            await self._opaque(session, host, port)

    async def _under_tls(self, session: Session, host: str, port: int, *, known: bool) -> None:
        context = self._vault.authority.context(host, http2=True)
        await self.start_tls(context, server=True)
        refused = None
        named = getattr(self._tls, "vault_name", None)
        if named is not None:
            try:
                asked = normal(named)
            except BadHost:
                asked = ""
            if known and asked != host:
                refused = f"TLS asks for {asked or 'no host'}, the connection is to {host}"
            elif not known:
                host = asked or host
        if self.protocol == "h2":
            exchange = Exchange(session, self._vault.upstreams, self._vault.http2)
            await Http2Server(self, exchange, host, port, refused).run()
            return
        fixed = (True, host, port, known or named is not None)
        await Http1Server(self, self._vault, session, fixed, refused).run()

    async def _opaque(self, session: Session, host: str, port: int) -> None:
        if not session.verdict(host, port).allowed or not session.policy.names_port(host, port):
            verdict = session.verdict(host, port)
            rule = verdict.rule if not verdict.allowed else _OPAQUE
            session.note(BLOCKED, "TCP", host, port, "", rule)
            return
        try:
            upstream = await self._vault.upstreams.connect(session, host, port)
        except Refused as refused:
            session.note(BLOCKED, "TCP", host, port, "", str(refused))
            return
        except Unreachable:
            return
        await tunnel(self, upstream)


def _original_target(sock: socket.socket | None) -> tuple[str, int] | None:
    """Where a redirected connection was going."""
    if sock is None:
        return None
    try:
        if sock.family == socket.AF_INET6:
            data = sock.getsockopt(socket.IPPROTO_IPV6, _IP6T_SO_ORIGINAL_DST, 28)
            port = struct.unpack_from("!H", data, 2)[0]
            host = socket.inet_ntop(socket.AF_INET6, data[8:24])
        else:
            data = sock.getsockopt(socket.SOL_IP, _SO_ORIGINAL_DST, 16)
            port = struct.unpack_from("!H", data, 2)[0]
            host = socket.inet_ntop(socket.AF_INET, data[4:8])
        return normal(host), port
    except (OSError, struct.error, BadHost):
        return None

"""Connections to servers: resolved once, every address checked, then connected to exactly that address."""

import asyncio
import functools
import ipaddress
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import h11

from backend.domain.egress import Address, address
from backend.vault import heads
from backend.vault.bodies import Body, Whole
from backend.vault.limits import CONNECT_SECONDS, HEAD_BYTES, KEPT, KEPT_SECONDS, RESPONSE_SECONDS
from backend.vault.link import Closed, Link
from backend.vault.messages import Request, Response, Unfit, end_to_end, head, index, size
from backend.vault.sessions import Session

_OURS: Final = (b"host", b"content-length")

Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]


class Refused(Exception):
    """A rule forbids it; the text is the rule."""


class Unreachable(Exception):
    """The server cannot be reached, or does not answer as it should. The text says why."""


async def system_resolver(host: str, port: int) -> list[Address]:
    """All addresses of a name, as the machine resolves it. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))


@dataclass(slots=True)
class _Kept:
    connection: "Http1Connection"
    since: float


class Upstreams:
    """Opens connections for sessions and keeps idle ones, each for its own session only."""

    def __init__(self, resolve: Resolve = system_resolver) -> None:
        self._resolve = resolve
        self._contexts: dict[bool, ssl.SSLContext] = {}
        self._kept: dict[tuple[Session, bool, str, int], list[_Kept]] = {}

    async def resolve(self, session: Session, host: str, port: int) -> Sequence[Address]:
        """The addresses that a session may connect to for a host. Raises Refused, Unreachable."""
        ip = address(host)
        if ip is not None:
            addresses: Sequence[Address] = [ip]
        else:
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    addresses = await self._resolve(host, port)
            except (OSError, UnicodeError) as error:
                raise Unreachable(f"{host} cannot be resolved: {getattr(error, 'strerror', None) or error}") from error
            except TimeoutError as error:
                raise Unreachable(f"{host} was not resolved within {CONNECT_SECONDS:.0f} s") from error
        if not addresses:
            raise Unreachable(f"{host} has no address")
        verdict = session.policy.of_addresses(host, port, addresses)
        if not verdict.allowed:
            raise Refused(verdict.rule)
        return addresses

    async def connect(self, session: Session, host: str, port: int) -> Link:
        """A TCP connection. Raises Refused, Unreachable."""
        problem = "no address"
        for ip in await self.resolve(session, host, port):
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    _, link = await asyncio.get_running_loop().create_connection(Link, str(ip), port)
            except TimeoutError:
                problem = f"no answer within {CONNECT_SECONDS:.0f} s"
            except OSError as error:
                problem = error.strerror or str(error)
            else:
                return link
        raise Unreachable(f"{host} port {port}: {problem}")

    async def open(self, session: Session, request: Request, protocols: bool) -> Link:
        """A connection that is ready for HTTP; over TLS, HTTP/2 is offered if `protocols`."""
        link = await self.connect(session, request.host, request.port)
        if request.secure:
            try:
                await link.start_tls(self._context(protocols), server=False, name=request.host)
            except (ssl.SSLError, Closed) as error:
                link.abort()
                raise Unreachable(f"{request.host} port {request.port}: TLS: {_tls_reason(error)}") from error
            except BaseException:
                link.abort()
                raise
        return link

    def take(self, session: Session, request: Request) -> "Http1Connection | None":
        """An idle connection to the request's target."""
        kept = self._kept.get((session, request.secure, request.host, request.port))
        while kept:
            found = kept.pop()
            if found.connection.idle and time.monotonic() - found.since < KEPT_SECONDS:
                return found.connection
            found.connection.close()
        return None

    def keep(self, session: Session, request: Request, connection: "Http1Connection") -> None:
        """Keep a connection for the next request, if it can take one."""
        if not connection.reusable or session.closed:
            connection.close()
            return
        kept = self._kept.setdefault((session, request.secure, request.host, request.port), [])
        kept.append(_Kept(connection, time.monotonic()))
        if len(kept) > KEPT:
            kept.pop(0).connection.close()

    def adopt(self, session: Session, request: Request, connection: "Http1Connection") -> None:
        """Keep a connection that was opened and not used yet."""
        kept = self._kept.setdefault((session, request.secure, request.host, request.port), [])
        kept.append(_Kept(connection, time.monotonic()))

    def sweep(self, *, all_of: Session | None = None) -> None:
        """Close connections that were idle for long, or all that a session has."""
        now = time.monotonic()
        for key, kept in list(self._kept.items()):
            stay = [
                each
                for each in kept
                if key[0] is not all_of and each.connection.idle and now - each.since < KEPT_SECONDS
            ]
            for each in kept:
                if each not in stay:
                    each.connection.close()
            if stay:
                self._kept[key] = stay
            else:
                del self._kept[key]

    def close(self) -> None:
        for kept in self._kept.values():
            for each in kept:
                each.connection.close()
        self._kept.clear()

    def _context(self, http2: bool) -> ssl.SSLContext:
        found = self._contexts.get(http2)
        if found is None:
            found = self._contexts[http2] = ssl.create_default_context()
            found.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
        return found


class Http1Connection:
    """HTTP/1.1 to a server, one request at a time.

    h11 reads what is not plain, and the bodies that need reading; heads are written, and bodies of known length
    counted, here.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._http: h11.Connection | None = None
        """Reads the response at hand, if its head was not plain."""
        self._sending: asyncio.Task[None] | None = None
        self._complete = True
        """Whether request and response have come to their ends, after which the server keeps the connection."""

    @property
    def idle(self) -> bool:
        """Whether a request may be sent: nothing came unasked, not even the end."""
        return self._link.alive and self._link.quiet

    @property
    def reusable(self) -> bool:
        return self._complete and self.idle and (self._sending is None or self._sending.done())

    def close(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
        self._link.abort()

    async def send(self, request: Request) -> Response:
        """Send a request, and return as soon as the response begins. Raises Closed, Unreachable."""
        headers = [(b"Host", request.authority), *end_to_end(request.headers, _OURS)]
        if request.upgrade:
            headers += [(b"Connection", b"Upgrade"), (b"Upgrade", request.upgrade)]
        if request.body is not None:
            if request.length is None:
                headers.append((b"Transfer-Encoding", b"chunked"))
            else:
                headers.append((b"Content-Length", b"%d" % request.length))
        try:
            data = head(b"%b %b HTTP/1.1\r\n" % (request.method.encode(), request.path), headers)
        except Unfit as error:
            raise Unreachable(f"the request cannot be sent: {error}") from error
        self._complete = False
        self._http = None
        if request.body is None:
            self._link.write(data)
        elif isinstance(request.body, Whole):
            self._link.write(data + request.body.data)
        else:
            self._link.write(data)
            self._sending = asyncio.ensure_future(self._send_body(request.body, request.length))
        return await self._response(request)

    async def _send_body(self, body: Body, length: int | None) -> None:
        try:
            while data := await body.read():
                if length is None:
                    data = b"%x\r\n%b\r\n" % (len(data), data)
                elif (length := length - len(data)) < 0:
                    raise Closed("the request is longer than announced")
                self._link.write(data)
                await self._link.drain()
            if length:
                raise Closed("the request is shorter than announced")
            if length is None:
                self._link.write(b"0\r\n\r\n")
        except BaseException:
            # Half a body must not look like a whole one.
            self._link.abort()
            raise

    async def _read(self) -> bytes:
        try:
            return await self._link.read(RESPONSE_SECONDS)
        except Closed:
            if self._sending is not None and self._sending.done() and (error := self._sending.exception()):
                raise error from None
            raise

    async def _response(self, request: Request) -> Response:
        data = await self._read()
        if request.method != "HEAD" and not request.upgrade and (found := heads.response(data)):
            keeps = b"close" not in found.said.get(b"connection", b"").lower()
            data, length = data[found.end :], found.length
            body: Body = _CountedBody(self, data, length, keeps)
            if len(data) >= length:
                body = Whole(data[:length])
            return Response(found.status, found.reason, found.headers, body, length)
        return await self._parsed(request, data)

    async def _next(self) -> Any:
        assert self._http is not None
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._read())
        return event

    async def _parsed(self, request: Request, data: bytes) -> Response:
        """The response as h11 reads it."""
        http = self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
        http.send(_opening(request.method == "HEAD", request.upgrade))
        http.send(_END)
        try:
            http.receive_data(data)
            while True:
                event = await self._next()
                if isinstance(event, h11.InformationalResponse) and event.status_code == 101 and request.upgrade:
                    self._link.unread(http.trailing_data[0])
                    return Response(101, bytes(event.reason), event.headers.raw_items(), None, upgraded=self._link)
                if isinstance(event, h11.Response):
                    break
                if not isinstance(event, h11.InformationalResponse):
                    raise Closed("the server closed the connection without an answer")
        except h11.RemoteProtocolError as error:
            if not self._link.alive:
                raise Closed("the server closed the connection without an answer") from error
            raise Unreachable(f"{request.host} sent no HTTP: {error}") from error
        headers = event.headers.raw_items()
        if size(b"", headers) > HEAD_BYTES:
            raise Unreachable(f"{request.host} sent more than {HEAD_BYTES} bytes of headers")
        said = index(headers)
        counted = said.get(b"content-length")
        length = int(counted.partition(b",")[0]) if counted and b"transfer-encoding" not in said else None
        keeps = event.http_version == b"1.1" and b"close" not in said.get(b"connection", b"").lower()
        parsed: Body | None
        if request.method == "HEAD" or event.status_code in (204, 304):
            parsed = None
            self._ended(keeps, http.trailing_data[0])
        elif length is not None:
            parsed = _CountedBody(self, http.trailing_data[0], length, keeps)
        else:
            parsed = _ParsedBody(self, keeps)
        return Response(event.status_code, bytes(event.reason), headers, parsed, length)

    def _ended(self, keeps: bool, rest: bytes = b"") -> None:
        # Whoever sends more than was asked for is not asked again.
        self._complete = keeps and not rest

    async def read_parsed(self, keeps: bool) -> bytes:
        """The next piece of a body that h11 reads, b"" at the end."""
        assert self._http is not None
        try:
            event = await self._next()
        except h11.RemoteProtocolError as error:
            raise Closed(f"the response broke off: {error}") from error
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            self._ended(keeps and self._http.their_state is h11.DONE, self._http.trailing_data[0])
            return b""
        raise Closed("the response broke off")

    async def read_counted(self, left: int, keeps: bool) -> bytes:
        """The next piece of a body of which so much is left."""
        data = await self._link.read(RESPONSE_SECONDS)
        if not data:
            raise Closed("the response broke off")
        return self.counted(data, left, keeps)

    def counted(self, data: bytes, left: int, keeps: bool) -> bytes:
        """What of `data` belongs to a body of which so much is left."""
        if len(data) >= left:
            self._ended(keeps, data[left:])
        return data[:left]


class _CountedBody:
    """A response's body of known length."""

    __slots__ = ("_connection", "_first", "_keeps", "_left")

    def __init__(self, connection: Http1Connection, first: bytes, length: int, keeps: bool) -> None:
        self._connection = connection
        self._left = length
        self._keeps = keeps
        self._first = connection.counted(first, length, keeps) if first or not length else b""

    async def read(self) -> bytes:
        if not self._left:
            return b""
        data, self._first = self._first, b""
        if not data:
            data = await self._connection.read_counted(self._left, self._keeps)
        self._left -= len(data)
        return data


class _ParsedBody:
    """A response's body in chunks, or up to the end of the connection."""

    __slots__ = ("_connection", "_ended", "_keeps")

    def __init__(self, connection: Http1Connection, keeps: bool) -> None:
        self._connection = connection
        self._keeps = keeps
        self._ended = False

    async def read(self) -> bytes:
        data = b""
        while not data and not self._ended:
            data = await self._connection.read_parsed(self._keeps)
            # An empty piece is no end.
            self._ended = not data
        return data


_END: Final = h11.EndOfMessage()


@functools.cache
def _opening(is_head: bool, upgrade: bytes | None) -> h11.Request:
    """What h11 must know of a request to read its response."""
    headers = [(b"Host", b"x")]
    if upgrade:
        headers += [(b"Connection", b"Upgrade"), (b"Upgrade", upgrade)]
    return h11.Request(method=b"HEAD" if is_head else b"GET", target=b"/", headers=headers)


def _tls_reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    return getattr(error, "reason", None) or str(error)

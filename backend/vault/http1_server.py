"""HTTP/1.1 with a sandbox: the explicit proxy, and what is spoken within its tunnels."""

import asyncio
import functools
from typing import TYPE_CHECKING, Any, Final

import h11

from backend.domain import stubs
from backend.domain.egress import BadHost, split
from backend.domain.stubs import PATTERN
from backend.vault import heads
from backend.vault.bodies import Body, Whole
from backend.vault.exchange import Exchange, refusal
from backend.vault.heads import RequestHead
from backend.vault.limits import BODY_SECONDS, HEAD_BYTES, HEAD_SECONDS, IDLE_SECONDS, WHOLE_BODY
from backend.vault.link import Closed, Link, tunnel
from backend.vault.messages import Request, Response, Unfit, end_to_end, head, index, size, value
from backend.vault.sessions import BLOCKED, Session

if TYPE_CHECKING:
    from backend.vault.front import Front, Vault

_UNREAD_SECONDS: Final = 5.0
_SOON: Final = 0.001

Fixed = tuple[bool, str, int, bool]
"""Secure, host, port of a connection that has one target; and whether a Host header must say so."""
Connect = tuple[Session, tuple[str, int]]
"""A CONNECT that was granted: whose, and whereto."""


class Refusing(Exception):
    """The request gets this answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


class _ParsedBody:
    """The body of the request at hand, as h11 reads it."""

    __slots__ = ("_ended", "_server")

    def __init__(self, server: "Http1Server") -> None:
        self._server = server
        self._ended = False

    async def read(self) -> bytes:
        while not self._ended:
            event = await self._server.next_event(BODY_SECONDS)
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if not isinstance(event, h11.EndOfMessage):
                raise Closed("the request broke off")
            self._ended = True
        return b""


class _CountedBody:
    """The body of the request at hand, of known length."""

    __slots__ = ("_link", "left")

    def __init__(self, link: Link, length: int) -> None:
        self._link = link
        self.left = length

    async def read(self) -> bytes:
        if not self.left:
            return b""
        data = await self._link.read(BODY_SECONDS)
        if not data:
            raise Closed("the request broke off")
        self._link.unread(data[self.left :])
        data = data[: self.left]
        self.left -= len(data)
        return data


class Http1Server:
    """Serves one connection, one request after the other."""

    def __init__(
        self, link: "Front", vault: "Vault", session: Session | None, fixed: Fixed | None, refused: str | None
    ) -> None:
        self._link = link
        self._vault = vault
        self._session = session
        self._fixed = fixed
        self._refused = refused
        self._http: h11.Connection | None = None
        """Reads the request at hand, if its head was not plain."""
        self._continued = False
        self._counted: _CountedBody | None = None
        self._exchanges: dict[str, Exchange] = {}

    async def next_event(self, seconds: float) -> Any:
        http = self._http
        assert http is not None
        while True:
            event = http.next_event()
            if event is not h11.NEED_DATA:
                return event
            if http.they_are_waiting_for_100_continue and not self._continued:
                self._continued = True
                self._link.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            http.receive_data(await self._link.read(seconds))

    def _all_read(self, request: RequestHead) -> bool:
        """Whether the request is read to its end, which is that of its head if it has no body."""
        if self._counted is not None:
            return not self._counted.left
        if self._http is None or not (request.chunked or request.length):
            return True
        return self._http.their_state in (h11.DONE, h11.MUST_CLOSE)

    def _give_back(self) -> None:
        """Put back what h11 has taken of what follows the request."""
        if self._http is not None:
            self._link.unread(self._http.trailing_data[0])
            self._http = None

    async def run(self) -> Connect | None:
        """Serve until the connection ends, or a CONNECT is granted."""
        while True:
            try:
                request = await self._next_request()
            except h11.RemoteProtocolError as error:
                await self._answer_bad(error)
                return None
            if request is None:
                return None
            upgraded = None
            try:
                if request.method == b"CONNECT" and self._fixed is None:
                    return self._connect(request)
                response = await self._respond(request)
                upgraded = response.upgraded
                self._link.busy = False
                if upgraded is not None:
                    await self._switch(response, upgraded)
                    return None
            except Refusing as refusing:
                response = refusing.response
            finally:
                self._link.busy = False
                if upgraded is not None:
                    upgraded.close()
            if not await self._send(request, response):
                if not self._all_read(request):
                    await self._linger()
                return None

    async def _next_request(self) -> RequestHead | None:
        """The next request, None at the end of all. Raises h11.RemoteProtocolError."""
        self._give_back()
        self._counted = None
        data = await self._link.read(IDLE_SECONDS)
        if not data:
            return None
        found = heads.request(data)
        if found is None:
            return await self._parsed(data)
        self._link.unread(data[found.end :])
        if found.length:
            self._counted = _CountedBody(self._link, found.length)
        return found

    async def _parsed(self, data: bytes) -> RequestHead | None:
        """The next request as h11 reads it; who has begun one must come to its end soon."""
        http = self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self._continued = False
        http.receive_data(data)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + HEAD_SECONDS
        while (event := http.next_event()) is h11.NEED_DATA:
            http.receive_data(await self._link.read(max(deadline - loop.time(), _SOON)))
        if not isinstance(event, h11.Request):
            return None
        headers = event.headers.raw_items()
        return RequestHead(bytes(event.method), bytes(event.target), bytes(event.http_version), headers, index(headers))

    async def _answer_bad(self, error: h11.RemoteProtocolError) -> None:
        response = refusal(error.error_status_hint, "bad-request", f"no valid HTTP: {error}")
        assert isinstance(response.body, Whole)
        first = b"HTTP/1.1 %d %b\r\n" % (response.status, response.reason)
        self._link.write(head(first, response.headers) + response.body.data)
        await self._linger()

    # Requests.

    async def _respond(self, given: RequestHead) -> Response:
        if given.version not in (b"1.0", b"1.1"):
            raise Refusing(refusal(505, "bad-request", "only HTTP/1.1 and HTTP/2 pass"))
        if not given.end and size(given.target, given.headers) > HEAD_BYTES:
            raise Refusing(refusal(431, "bad-request", f"more than {HEAD_BYTES} bytes of headers"))
        length = given.length
        if given.chunked and length is not None:
            raise Refusing(refusal(400, "bad-request", "both Content-Length and Transfer-Encoding"))
        session, request = self._targeted(given)
        if given.chunked:
            request.body = _ParsedBody(self)
        elif length:
            request.body, request.length = self._counted or _ParsedBody(self), length
        elif length is not None:
            request.body, request.length = Whole(b""), 0
        if _upgrades(given.said):
            request.upgrade = b"websocket"
        exchange = self._exchanges.get(session.name)
        if exchange is None or not exchange.serves(session):
            exchange = self._exchanges[session.name] = Exchange(session, self._vault.upstreams, self._vault.http2)
        if self._refused is not None:
            return exchange.blocked(request, self._refused, "host-mismatch")
        if request.body is None or isinstance(request.body, Whole):
            self._link.busy = True  # nothing more is to come: an end is the client's farewell
        return await exchange.answer(request)

    def _targeted(self, given: RequestHead) -> tuple[Session, Request]:
        if self._fixed is not None:
            assert self._session is not None
            return self._session, self._within_tunnel(given, self._fixed)
        target = given.target
        if target.startswith(b"/"):
            return self._to_ourselves(given)
        session = self._authorized(given)
        scheme, _, rest = target.partition(b"://")
        place, slash, path = rest.partition(b"/")
        place, question, query = place.partition(b"?")  # "http://host?query" has no path
        if scheme.lower() != b"http" or not place:
            raise Refusing(refusal(400, "bad-request", "only http:// addresses; others go through CONNECT"))
        host, port = _split(place, 80)
        self._check_host(session, given, False, host, port, path)
        path = b"/" + (question + query if question else b"") + (path if slash else b"")
        return session, _request(given, False, host, port, path.partition(b"#")[0])

    def _within_tunnel(self, given: RequestHead, fixed: Fixed) -> Request:
        assert self._session is not None
        secure, host, port, known = fixed
        target = given.target
        if not target.startswith(b"/") and target != b"*":
            scheme, _, rest = target.partition(b"://")
            place, _, path = rest.partition(b"/")
            if scheme.lower() != (b"https" if secure else b"http") or _split(place, 443 if secure else 80) != (
                host,
                port,
            ):
                raise Refusing(refusal(400, "bad-request", "the address is not of this connection's host"))
            target = b"/" + path
        if not known:
            # Whom the client means stands in Host alone; where that leads is looked up and checked as ever.
            named = given.said.get(b"host", b"")
            if named:
                host, port = _split(named, port)[0], port
        else:
            self._check_host(self._session, given, secure, host, port, target)
        return _request(given, secure, host, port, target)

    def _check_host(
        self,
        session: Session,
        given: RequestHead,
        secure: bool,
        host: str,
        port: int,
        path: bytes,
    ) -> None:
        named = given.said.get(b"host", b"")
        if not named and given.version == b"1.0":
            return
        if _split(named, 443 if secure else 80) != (host, port):
            shown = named[:100].decode("latin-1")
            rule = f"Host says {shown}, the connection is to {host}:{port}"
            session.note(BLOCKED, given.method.decode("ascii"), host, port, path.decode("latin-1"), rule)
            raise Refusing(refusal(403, "host-mismatch", rule, host))

    def _authorized(self, given: RequestHead) -> Session:
        if self._session is not None:
            return self._session
        shown = value(given.headers, b"proxy-authorization")
        session = self._vault.sessions.authorized(shown) if shown else None
        if session is None or (self._link.session not in (None, session)):
            response = refusal(407, "proxy-authorization", "the vault does not know this sandbox")
            response.headers.append((b"Proxy-Authenticate", b'Basic realm="vault"'))
            if shown and self._vault.strangers is not None:
                self._tell_of_wrong(given, shown)
                response.headers.append((b"Connection", b"close"))
            raise Refusing(response)
        if self._link.session is None and not self._link.join(session):
            raise Refusing(refusal(503, "too-many-connections", "too many connections of this sandbox at a time"))
        return session

    def _tell_of_wrong(self, given: RequestHead, shown: bytes) -> None:
        """Note that somebody has tried to be a sandbox, with that one."""
        assert self._vault.strangers is not None
        claimed = self._vault.sessions.claimed(shown)
        if self._vault.strangers.refused(self._link.address, claimed.name if claimed else None) and claimed:
            place = given.target.partition(b"://")[2].partition(b"/")[0] or given.target
            try:
                host, port = split(place.decode("latin-1"), 80)
            except BadHost:
                host, port = "", 0
            rule = f"407: a wrong credential in the name of this sandbox, from {self._link.address}"
            claimed.note(BLOCKED, given.method.decode("ascii"), host, port, "", rule)

    def _to_ourselves(self, given: RequestHead) -> tuple[Session, Request]:
        """What is sent to the proxy's own address: its certificate, and requests for the LLM gateway.

        A gateway on the machine's loopback cannot be named in a sandbox; who holds a stub of its key is let through.
        """
        path = given.target
        if path == b"/ca.crt":
            kind = [(b"Content-Type", b"application/x-pem-file")]
            raise Refusing(Response(200, b"OK", kind, Whole(self._vault.ca), len(self._vault.ca), ours=True))
        session = self._session
        if session is None:
            joined = b"\n".join(stubs.decoded_basic(content) or content for _, content in given.headers)
            found = (self._vault.sessions.of_stub(match[0]) for match in PATTERN.finditer(joined))
            session = next((each for each in found if each is not None), None)
        if session is None or session.gateway is None:
            raise Refusing(refusal(404, "", "this is the vault's proxy, and the request names no gateway key it knows"))
        if self._link.session is None:
            self._link.join(session)
        gateway = session.gateway
        return session, _request(given, gateway.secure, gateway.host, gateway.port, path)

    def _connect(self, given: RequestHead) -> Connect:
        if given.length is not None or given.chunked:
            raise Refusing(refusal(400, "bad-request", "CONNECT has no body"))
        session = self._authorized(given)
        host, port = _split(given.target, None)
        if session.closed:
            raise Refusing(refusal(503, "no-rules", "the session has ended", host))
        verdict = session.verdict(host, port)
        if not verdict.allowed:
            session.note(BLOCKED, "CONNECT", host, port, "", verdict.rule)
            raise Refusing(refusal(403, "egress-policy", verdict.rule, host))
        self._link.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self._give_back()
        return session, (host, port)

    # Responses.

    async def _send(self, given: RequestHead, response: Response) -> bool:
        """Write a response; whether another request may follow."""
        link, body = self._link, response.body
        keeps = given.version == b"1.1" and self._all_read(given) and b"close" not in _connection(given.said)
        length = value(response.headers, b"content-length") if body is None else b""
        if response.ours:
            headers = [each for each in response.headers if each[0].lower() != b"content-length"]
            if closes := b"close" in value(headers, b"connection").lower():
                keeps = False
        else:
            headers, closes = end_to_end(response.headers, (b"content-length",)), False
        chunked = False
        if body is None:
            if length or (given.method != b"HEAD" and response.status not in (204, 304)):
                headers.append((b"Content-Length", length or b"0"))
        elif response.length is not None:
            headers.append((b"Content-Length", b"%d" % response.length))
        elif given.version == b"1.1":
            chunked = True
            headers.append((b"Transfer-Encoding", b"chunked"))
        else:
            keeps = False
        if not keeps and not closes:
            headers.append((b"Connection", b"close"))
        done = False
        try:
            data = head(b"HTTP/1.1 %d %b\r\n" % (response.status, response.reason), headers)
            if body is None or given.method == b"HEAD":
                link.write(data)
            elif isinstance(body, Whole):
                link.write(data + body.data)
            else:
                link.write(data)
                await self._send_body(body, response.length, chunked)
            await link.drain()
            done = True
        except Unfit as error:
            raise Closed(f"the server's answer cannot be passed on: {error}") from None
        finally:
            if not done:
                response.close()
        return keeps

    async def _send_body(self, body: Body, length: int | None, chunked: bool) -> None:
        link = self._link
        while data := await body.read():
            if length is not None and (length := length - len(data)) < 0:
                raise Closed("the server's answer is longer than announced")
            link.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
            await link.drain()
        if length:
            raise Closed("the server's answer is shorter than announced")
        if chunked:
            link.write(b"0\r\n\r\n")

    async def _switch(self, response: Response, upstream: Link) -> None:
        """Go on as the server and the client have agreed."""
        headers = [
            *end_to_end(response.headers, (b"content-length",)),
            (b"Connection", b"Upgrade"),
            (b"Upgrade", b"websocket"),
        ]
        self._link.write(head(b"HTTP/1.1 101 Switching Protocols\r\n", headers))
        self._give_back()
        await tunnel(self._link, upstream, response.forth, response.back)

    async def _linger(self) -> None:
        """Take the rest of a request that is answered already, so that the answer is not lost with a reset."""
        taken = 0
        try:
            async with asyncio.timeout(_UNREAD_SECONDS):
                while taken < WHOLE_BODY:
                    data = await self._link.read(_UNREAD_SECONDS)
                    if not data:
                        return
                    taken += len(data)
        except (TimeoutError, Closed):
            return


def _request(given: RequestHead, secure: bool, host: str, port: int, path: bytes) -> Request:
    return Request(given.method.decode("ascii"), secure, host, port, path, given.headers, None, None, http2=False)


def _connection(said: dict[bytes, bytes]) -> bytes:
    return said.get(b"connection", b"").lower()


def _upgrades(said: dict[bytes, bytes]) -> bool:
    return b"upgrade" in said and b"upgrade" in _connection(said) and said[b"upgrade"].lower() == b"websocket"


@functools.lru_cache(1_024)
def _split(text: bytes, default_port: int | None) -> tuple[str, int]:
    try:
        return split(text.decode("utf-8"), default_port)
    except (BadHost, UnicodeDecodeError) as error:
        raise Refusing(refusal(400, "bad-request", f"the host cannot be read: {error}")) from None

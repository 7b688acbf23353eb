"""One request of a sandbox, from its rules to the server's answer: verdict, credentials out, credentials back."""

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from backend.domain import stubs
from backend.domain.stubs import LONGEST, PATTERN, PREFIX, Needles, Replacer
from backend.vault.bodies import Body, BodyError, Coding, Filtered, Fitted, Whole, deflated, inflated
from backend.vault.frames import Frames
from backend.vault.http2_client import Http2Pool
from backend.vault.limits import WHOLE_BODY
from backend.vault.link import Closed
from backend.vault.messages import Headers, Request, Response, value
from backend.vault.sessions import BLOCKED, MISSED, SWAPPED, Scope, Session
from backend.vault.upstream import Http1Connection, Refused, Unreachable, Upstreams

SMALL: Final = 64 * 1024
"""Responses up to this many bytes keep a right Content-Length whatever is replaced in them."""
INFLATED: Final = 8 * 1024 * 1024
_REPEATABLE: Final = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE")
_HEADER_UNFIT: Final = re.compile(rb"[\r\n\0]")


def refusal(status: int, kind: str, rule: str, host: str = "") -> Response:
    """What a client gets instead of an answer. `kind` goes into `x-vault-blocked`."""
    text = {
        403: "the vault refused this request",
        502: "the vault could not reach the server",
        503: "the vault has no rules for this sandbox yet: it stays closed until the platform sends them",
    }.get(status, "the vault refused this request")
    body = json.dumps({"error": text, "code": "EGRESS", "rule": rule, "host": host}).encode() + b"\n"
    headers = [(b"Content-Type", b"application/json"), (b"Content-Length", str(len(body)).encode())]
    if kind:
        headers.append((b"X-Vault-Blocked", kind.encode()))
    if status in (400, 408, 413, 431, 501, 505):  # what comes next on the connection cannot be told
        headers.append((b"Connection", b"close"))
    phrase = HTTPStatus(status).phrase.encode()
    return Response(status, phrase, headers, Whole(body), len(body), ours=True)


@dataclass(slots=True)
class _Seen:
    """Stubs met in one request."""

    swapped: set[bytes]
    missed: set[bytes]
    why: str = ""


class Exchange:
    """Passes requests of one session on."""

    def __init__(self, session: Session, upstreams: Upstreams, http2: Http2Pool) -> None:
        self._session = session
        self._upstreams = upstreams
        self._http2 = http2

    def serves(self, session: Session) -> bool:
        """Whether it is this session's."""
        return self._session is session

    async def answer(self, request: Request) -> Response:
        """The answer to a request, whoever gives it. Raises Closed when there can be none any more."""
        session = self._session
        request.shown = request.path.decode("latin-1")
        if session.closed:
            return refusal(503, "no-rules", "the session has ended", request.host)
        verdict = session.verdict(request.host, request.port)
        if not verdict.allowed:
            return self.blocked(request, verdict.rule)
        scope = session.scope(request.host, request.port, secure=request.secure)
        seen = _Seen(set(), set())
        try:
            await self._swap(request, scope, seen)
            response = await self._send(request)
            if response.upgraded is not None and (session.held or session.backward):
                response.forth = Frames(lambda text: self._text_frame(request, text)).feed
                response.back = Frames(self._frame_back).feed
            return await self._restored(request, response, seen)
        except Refused as refused:
            return self.blocked(request, str(refused))
        except BodyError as error:
            return refusal(400, "bad-body", str(error), request.host)
        except Unreachable as error:
            return refusal(502, "", str(error), request.host)
        except Closed as error:
            return refusal(502, "", f"the server's answer broke off: {error}", request.host)
        finally:
            # A streamed body is still on its way when the answer comes: what it has swapped is told at its end.
            self._tell(request, seen)

    def blocked(self, request: Request, rule: str, kind: str = "egress-policy") -> Response:
        """Refuse a request and note it."""
        shown = request.shown or request.path.decode("latin-1")
        self._session.note(BLOCKED, request.method, request.host, request.port, shown, rule)
        return refusal(403, kind, rule, request.host)

    def _tell(self, request: Request, seen: _Seen) -> None:
        if seen.swapped:
            self._told_swap(request, seen.swapped)
        if seen.missed:
            names = [stub.decode() for stub in seen.missed]
            self._session.note(MISSED, request.method, request.host, request.port, request.shown, seen.why, names)

    def _told_swap(self, request: Request, found: Iterable[bytes]) -> None:
        rule = self._session.verdict(request.host, request.port).rule
        names = [stub.decode() for stub in found]
        self._session.note(SWAPPED, request.method, request.host, request.port, request.shown, rule, names)

    # On the way out.

    async def _swap(self, request: Request, scope: Scope, seen: _Seen) -> None:
        if PREFIX in request.path:
            request.path = self._text(request.path, scope, scope.forward(stubs.in_url), seen)
        headers: Headers = []
        for name, content in request.headers:
            if PREFIX in content or content[:6].lower() == b"basic ":
                content = self._header(name, content, scope, seen)
            headers.append((name, content))
        request.headers = headers
        if self._session.backward:
            self._ask_for_what_can_be_read(request)
        if request.upgrade and (self._session.held or self._session.backward):
            # Compressed frames could not be looked into.
            request.headers = [each for each in request.headers if each[0].lower() != b"sec-websocket-extensions"]
        if request.body is not None and (scope.inside or scope.outside):
            await self._swap_body(request, scope, seen)

    def _text(self, text: bytes, scope: Scope, replacements: Needles, seen: _Seen) -> bytes:
        replaced = Replacer(replacements, seen.swapped.add).whole(text)
        self._note_misses(text, scope, seen)
        return replaced

    def _note_misses(self, text: bytes, scope: Scope, seen: _Seen, but: str = "") -> None:
        for match in PATTERN.finditer(text):
            stub = match[0]
            name = scope.outside.get(stub)
            if name is not None:
                seen.missed.add(stub)
                seen.why = f"{name} is not for this host"
            elif stub not in self._session.by_stub:
                seen.missed.add(stub)
                seen.why = "a stub of no credential of this session"
            elif but:
                seen.missed.add(stub)
                seen.why = but

    def _header(self, name: bytes, content: bytes, scope: Scope, seen: _Seen) -> bytes:
        replacements = scope.forward(stubs.raw)
        if name.lower() in (b"authorization", b"proxy-authorization") and (decoded := stubs.decoded_basic(content)):
            if PREFIX not in decoded:
                return content
            replaced = self._text(decoded, scope, replacements, seen)
            if replaced == decoded:
                return content
            encoded = stubs.encoded_basic(replaced)
            self._session.remember_basic(encoded, content.partition(b" ")[2].strip())
            return b"Basic " + encoded
        replaced = self._text(content, scope, replacements, seen)
        return content if _HEADER_UNFIT.search(replaced) else replaced

    def _ask_for_what_can_be_read(self, request: Request) -> None:
        """Only codings that credentials can be found in, and none for a part of a body."""
        if given := value(request.headers, b"accept-encoding"):
            accepted = b"identity" if value(request.headers, b"range") else b"gzip, deflate"
            keep = b"gzip" in given.lower() and accepted != b"identity"
            request.headers = [each for each in request.headers if each[0].lower() != b"accept-encoding"]
            request.headers.append((b"Accept-Encoding", accepted if keep else b"identity"))

    async def _swap_body(self, request: Request, scope: Scope, seen: _Seen) -> None:
        assert request.body is not None
        kind = value(request.headers, b"content-type").decode("latin-1")
        encode = stubs.encoder_of(kind)
        try:
            coding = Coding(value(request.headers, b"content-encoding"))
        except BodyError:
            return
        if request.length is not None and request.length <= WHOLE_BODY:
            data = await read_whole(request, WHOLE_BODY)
            request.body = Whole(data)
            clear = data if coding.plain else inflated(data, coding, INFLATED)
            if clear is not None:
                if PREFIX in clear:
                    self._swap_whole(request, scope, seen, clear, coding)
                return
        if encode is None:
            request.body = Watched(request.body, lambda text: self._miss(request, text, scope, kind))
            return
        replacements = scope.forward(encode)

        body = request.body
        if coding.plain:
            body = Watched(body, lambda text: self._miss(request, text, scope, ""))
        # Found perhaps long after the answer has begun: told at once.
        told = lambda stub: self._told_swap(request, [stub])  # noqa: E731
        request.body = Filtered(body, replacements, coding, deflate=True, found=told)
        request.length = None

    def _miss(self, request: Request, text: bytes, scope: Scope, kind: str) -> None:
        seen = _Seen(set(), set())
        but = f"bodies of type {kind.partition(';')[0]} are not changed" if kind else ""
        self._note_misses(text, scope, seen, but)
        self._tell(request, seen)

    def _swap_whole(self, request: Request, scope: Scope, seen: _Seen, clear: bytes, coding: Coding) -> None:
        kind = value(request.headers, b"content-type").decode("latin-1")
        encode = stubs.encoder_of(kind)
        if encode is None:
            self._note_misses(clear, scope, seen, f"bodies of type {kind.partition(';')[0]} are not changed")
            return
        replaced = self._text(clear, scope, scope.forward(encode), seen)
        if replaced != clear:
            data = replaced if coding.plain else deflated(replaced, coding)
            request.body = Whole(data)
            request.length = len(data)
            # What vouches for the body the client wrote is wrong for the one the server gets.
            request.headers = [each for each in request.headers if each[0].lower() not in (b"content-md5", b"digest")]

    def _text_frame(self, request: Request, text: bytes) -> bytes:
        if PREFIX not in text or self._session.closed:
            return text
        scope = self._session.scope(request.host, request.port, secure=request.secure)
        encode = stubs.in_json if text.lstrip()[:1] in (b"{", b"[", b'"') else stubs.raw
        seen = _Seen(set(), set())
        replaced = self._text(text, scope, scope.forward(encode), seen)
        self._tell(request, seen)
        return replaced

    def _frame_back(self, text: bytes) -> bytes:
        needles = self._session.backward
        return Replacer(needles).whole(text) if needles.within(text) else text

    async def _send(self, request: Request) -> Response:
        session = self._session
        if request.http2:
            response = await self._http2.send(session, request)
            if response is not None:
                return response
        if not request.upgrade and (kept := self._upstreams.take(session, request)) is not None:
            try:
                return self._kept_after(request, kept, await kept.send(request))
            except Closed:
                kept.close()
                # It may have been closed just as it was used. What can be sent again is, once, anew.
                if request.method not in _REPEATABLE or not isinstance(request.body, Whole | None):
                    raise Unreachable("the server closed the connection") from None
                if request.body is not None:
                    request.body.rewind()
            except BaseException:
                kept.close()
                raise
        link = await self._upstreams.open(session, request, protocols=False)
        connection = Http1Connection(link)
        try:
            return self._kept_after(request, connection, await connection.send(request))
        except Closed as error:
            connection.close()
            raise Unreachable(str(error)) from error
        except BaseException:
            connection.close()
            raise

    def _kept_after(self, request: Request, connection: Http1Connection, response: Response) -> Response:
        if response.upgraded is not None:
            return response
        if response.body is None or isinstance(response.body, Whole):
            self._upstreams.keep(self._session, request, connection)
        else:
            response.body = _Returning(response.body, lambda: self._upstreams.keep(self._session, request, connection))
            response.close = connection.close
        return response

    # On the way in.

    async def _restored(self, request: Request, response: Response, seen: _Seen) -> Response:
        needles = self._session.backward
        body, length = response.body, response.length
        if length is not None and length <= SMALL and not (body is None or isinstance(body, Whole)):
            data = await _all_of(response)
            if len(data) != length:
                raise Unreachable("the server's answer is not as long as it says")
            response.body = Whole(data)
        if not needles:
            return response
        joined = b"\n".join(content for _, content in response.headers)
        replacer = Replacer(needles)
        if needles.within(joined):
            response.headers = [(name, replacer.whole(content)) for name, content in response.headers]
        if response.body is None or response.upgraded is not None:
            return response
        try:
            coding = Coding(value(response.headers, b"content-encoding"))
        except BodyError:
            if seen.swapped:
                response.close()
                return refusal(502, "", "the server's answer is in a coding that was not asked for", request.host)
            return response
        if coding.plain and response.length is not None:
            if response.length <= SMALL:
                assert isinstance(response.body, Whole)
                replaced = replacer.whole(response.body.data)
                response.body, response.length = Whole(replaced), len(replaced)
                return response
            kind = value(response.headers, b"content-type").decode("latin-1")
            if response.status == 206 or stubs.encoder_of(kind or "application/octet-stream") is None:
                response.body = Fitted(response.body, needles)
                return response
        if not coding.plain and response.status == 206:
            return response
        response.body = Filtered(response.body, needles, coding, deflate=False)
        response.length = None
        response.headers = [each for each in response.headers if each[0].lower() != b"content-encoding"]
        return response


class Watched:
    """A body that passes as it is, and is looked at for stubs."""

    __slots__ = ("_body", "_look", "_rest")

    def __init__(self, body: Body, look: Callable[[bytes], None]) -> None:
        self._body = body
        self._look = look
        self._rest = b""

    async def read(self) -> bytes:
        data = await self._body.read()
        text = self._rest + data
        if PREFIX in text:
            # The last match may go on in the next piece; it is met again there, and a note counts it once.
            self._look(text)
        self._rest = text[-(LONGEST - 1) :] if PREFIX in text[-(LONGEST - 1) :] else text[-(len(PREFIX) - 1) :]
        return data


class _Returning:
    """A body after which its connection is free again."""

    __slots__ = ("_body", "_ended")

    def __init__(self, body: Body, ended: Callable[[], None]) -> None:
        self._body = body
        self._ended: Callable[[], None] | None = ended

    async def read(self) -> bytes:
        data = await self._body.read()
        if not data and self._ended is not None:
            ended, self._ended = self._ended, None
            ended()
        return data


async def read_whole(request: Request, most: int) -> bytes:
    """All of a body of known length."""
    assert request.body is not None
    parts, size = [], 0
    while data := await request.body.read():
        size += len(data)
        if size > most:
            raise BodyError("longer than announced")
        parts.append(data)
    return b"".join(parts)


async def _all_of(response: Response) -> bytes:
    assert response.body is not None
    parts = []
    while data := await response.body.read():
        parts.append(data)
    return b"".join(parts)

"""HTTP/2 with a sandbox, within one of its tunnels: each request is an exchange of its own."""

import asyncio
from typing import Final

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from backend.domain.egress import BadHost, split
from backend.vault.bodies import Body, Whole
from backend.vault.exchange import Exchange, refusal
from backend.vault.http2_flow import Inbox, Window, send_body
from backend.vault.limits import BODY_SECONDS, HEAD_BYTES, IDLE_SECONDS, RESETS, STREAM_WINDOW, STREAMS
from backend.vault.link import Closed, Link
from backend.vault.messages import Request, Response, end_to_end, value

_CONNECTION_WINDOW: Final = 4 * STREAM_WINDOW
_ENHANCE_YOUR_CALM: Final = h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
_PSEUDO: Final = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})


class _StreamBody:
    """The body of one request."""

    __slots__ = ("_inbox",)

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    async def read(self) -> bytes:
        return await self._inbox.read(BODY_SECONDS)


class Http2Server:
    """Serves one connection."""

    def __init__(self, link: Link, exchange: Exchange, host: str, port: int, refused: str | None) -> None:
        self._link = link
        self._exchange = exchange
        self._host = host
        self._port = port
        self._refused = refused
        self._http = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding=None, validate_inbound_headers=True)
        )
        self._http.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: HEAD_BYTES,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
            },
        )
        self._http.decoder.max_header_list_size = HEAD_BYTES
        self._window = Window(self._http, self._flush)
        self._inboxes: dict[int, Inbox] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._resets = 0

    async def run(self) -> None:
        """Until the connection ends."""
        self._http.initiate_connection()
        self._http.increment_flow_control_window(_CONNECTION_WINDOW)
        self._flush()
        try:
            while self._resets < RESETS:
                try:
                    data = await self._link.read(IDLE_SECONDS)
                except Closed:
                    if self._tasks and self._link.alive:
                        continue  # it waits for an answer
                    return
                if not data:
                    return
                try:
                    events = self._http.receive_data(data)
                except h2.exceptions.ProtocolError:
                    self._flush()
                    return
                for event in events:
                    self._take(event)
                self._flush()
                await self._link.drain()
            self._http.close_connection(_ENHANCE_YOUR_CALM)
            self._flush()
        finally:
            for task in self._tasks.values():
                task.cancel()
            for inbox in self._inboxes.values():
                inbox.fail(Closed("the connection has ended"))
            self._window.wake()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _flush(self) -> None:
        self._link.write(self._http.data_to_send())

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived(stream_id=int(number), headers=headers):
                inbox = self._inboxes[number] = Inbox(self._http, number, self._flush)
                ended = event.stream_ended is not None
                self._tasks[number] = asyncio.ensure_future(self._serve(number, list(headers or ()), inbox, ended))
            case h2.events.DataReceived(stream_id=int(number)):
                if number in self._inboxes:
                    self._inboxes[number].put(event.data or b"", event.flow_controlled_length or 0)
                else:
                    self._http.acknowledge_received_data(event.flow_controlled_length or 0, number)
            case h2.events.StreamEnded(stream_id=int(number)):
                if number in self._inboxes:
                    self._inboxes[number].end()
            case h2.events.StreamReset(stream_id=int(number)):
                self._resets += 1
                if number in self._inboxes:
                    self._inboxes[number].fail(Closed("the client gave up"))
                if number in self._tasks:
                    self._tasks[number].cancel()
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._window.wake()

    async def _serve(self, number: int, headers: list[tuple[bytes, bytes]], inbox: Inbox, ended: bool) -> None:
        response: Response | None = None
        code = None
        try:
            response = await self._answer(headers, inbox, ended)
            await self._send(number, response)
        except (Closed, h2.exceptions.ProtocolError):
            code = h2.errors.ErrorCodes.INTERNAL_ERROR
        except asyncio.CancelledError:
            code = h2.errors.ErrorCodes.CANCEL
        finally:
            if response is not None and code is not None:
                response.close()
            if code is None and not inbox.ended:
                code = h2.errors.ErrorCodes.NO_ERROR  # the rest of the request is not wanted
            if code is not None:
                try:
                    self._http.reset_stream(number, code)
                except h2.exceptions.ProtocolError:
                    pass
            inbox.discard()
            self._flush()
            self._inboxes.pop(number, None)
            self._tasks.pop(number, None)

    async def _answer(self, headers: list[tuple[bytes, bytes]], inbox: Inbox, ended: bool) -> Response:
        pseudo = {name: content for name, content in headers if name in _PSEUDO}
        plain = [(name, content) for name, content in headers if not name.startswith(b":")]
        method = pseudo.get(b":method", b"").decode("latin-1")
        path = pseudo.get(b":path", b"")
        if method == "CONNECT" or not path:
            return refusal(400, "bad-request", "no CONNECT within a connection", self._host)
        cookies = [content for name, content in plain if name == b"cookie"]
        if len(cookies) > 1:  # HTTP/2 may split them, HTTP/1.1 must not
            plain = [each for each in plain if each[0] != b"cookie"] + [(b"cookie", b"; ".join(cookies))]
        length = value(plain, b"content-length")
        body: Body | None = None if ended else _StreamBody(inbox)
        request = Request(
            method, True, self._host, self._port, path, plain, body, int(length) if length else None, http2=True
        )
        if ended and method not in ("GET", "HEAD", "DELETE", "OPTIONS", "TRACE"):
            request.body, request.length = Whole(b""), 0
        rule = self._refused or self._mismatch(pseudo.get(b":authority") or value(plain, b"host"))
        if rule is not None:
            return self._exchange.blocked(request, rule, "host-mismatch")
        return await self._exchange.answer(request)

    def _mismatch(self, authority: bytes) -> str | None:
        try:
            if split(authority.decode("utf-8"), 443) == (self._host, self._port):
                return None
        except (BadHost, UnicodeDecodeError):
            pass
        shown = authority[:100].decode("latin-1")
        return f":authority says {shown}, the connection is to {self._host}:{self._port}"

    async def _send(self, number: int, response: Response) -> None:
        headers = [(name.lower(), content) for name, content in end_to_end(response.headers, (b"content-length",))]
        length = value(response.headers, b"content-length") if response.body is None else response.length
        if length not in (None, b""):
            headers.append((b"content-length", length if isinstance(length, bytes) else str(length).encode()))
        head = [(b":status", str(response.status).encode()), *headers]
        self._http.send_headers(number, head, end_stream=response.body is None)
        self._flush()
        if response.body is not None:
            await send_body(self._http, self._link, self._window, number, response.body, response)

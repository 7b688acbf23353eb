"""HTTP/2 to servers, for clients that speak it: several requests share one connection of their session."""

import asyncio
import time
from typing import Final

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from backend.vault.http2_flow import Inbox, Window, send_body
from backend.vault.limits import HEAD_BYTES, KEPT_SECONDS, RESPONSE_SECONDS, STREAM_WINDOW, STREAMS
from backend.vault.link import Closed, Link
from backend.vault.messages import Headers, Request, Response, end_to_end, value
from backend.vault.sessions import Session
from backend.vault.upstream import Http1Connection, Unreachable, Upstreams

_CONNECTION_WINDOW: Final = 4 * STREAM_WINDOW
_KNOWN_HTTP1: Final = 256

Key = tuple[Session, str, int]


class Http2Pool:
    """One HTTP/2 connection for each session and server."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self._connections: dict[Key, _Connection] = {}
        self._opening: dict[Key, asyncio.Lock] = {}
        self._http1: dict[Key, float] = {}

    async def send(self, session: Session, request: Request) -> Response | None:
        """The response's beginning; None when the server speaks HTTP/1.1 only. Raises Refused, Unreachable."""
        key = (session, request.host, request.port)
        if time.monotonic() < self._http1.get(key, 0.0):
            return None
        async with self._opening.setdefault(key, asyncio.Lock()):
            connection = self._connections.get(key)
            if connection is None or not connection.usable:
                link = await self._upstreams.open(session, request, protocols=True)
                if link.protocol != "h2":
                    if len(self._http1) > _KNOWN_HTTP1:
                        self._http1.clear()
                    self._http1[key] = time.monotonic() + 10 * KEPT_SECONDS
                    self._upstreams.adopt(session, request, Http1Connection(link))
                    return None
                if connection is not None:
                    connection.retire()
                connection = self._connections[key] = _Connection(link)
        try:
            return await connection.send(request)
        except Closed as error:
            raise Unreachable(str(error)) from error

    def sweep(self, *, all_of: Session | None = None) -> None:
        """Close connections that were idle for long, or all that a session has."""
        for key, connection in list(self._connections.items()):
            if key[0] is all_of:
                connection.close()
            if key[0] is all_of or connection.idle_for > KEPT_SECONDS or not connection.usable:
                connection.retire()
                del self._connections[key]
                self._opening.pop(key, None)
        if all_of is not None:
            self._http1 = {key: until for key, until in self._http1.items() if key[0] is not all_of}
            self._opening = {key: lock for key, lock in self._opening.items() if key[0] is not all_of}


class _Stream:
    """One request under way."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self.head: asyncio.Future[Headers] = asyncio.get_running_loop().create_future()
        self.response: Response | None = None
        self.trailers: Headers | None = None
        self.sending: asyncio.Task[None] | None = None


class _StreamBody:
    """The body of one response."""

    def __init__(self, connection: "_Connection", number: int, stream: _Stream) -> None:
        self._connection = connection
        self._number = number
        self._stream = stream

    async def read(self) -> bytes:
        data = await self._stream.inbox.read(RESPONSE_SECONDS)
        if not data:
            if self._stream.response is not None:
                self._stream.response.trailers = self._stream.trailers
            self._connection.finish(self._number)
        return data


class _Connection:
    """HTTP/2 to one server."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self._http.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: HEAD_BYTES,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            },
        )
        self._http.decoder.max_header_list_size = HEAD_BYTES
        self._window = Window(self._http, self._flush)
        self._streams: dict[int, _Stream] = {}
        self._free = asyncio.Event()
        self._since = time.monotonic()
        self._leaving = False
        self._http.initiate_connection()
        self._http.increment_flow_control_window(_CONNECTION_WINDOW)
        self._flush()
        self._reading = asyncio.ensure_future(self._read())

    @property
    def usable(self) -> bool:
        return self._link.alive and not self._leaving and not self._reading.done()

    @property
    def idle_for(self) -> float:
        return 0.0 if self._streams else time.monotonic() - self._since

    def retire(self) -> None:
        """Close once what is under way is done."""
        self._leaving = True
        if not self._streams:
            self.close()

    def close(self) -> None:
        self._leaving = True
        self._reading.cancel()
        self._link.close()

    def _flush(self) -> None:
        self._link.write(self._http.data_to_send())

    async def send(self, request: Request) -> Response:
        """Raises Closed, Unreachable."""
        try:
            async with asyncio.timeout(RESPONSE_SECONDS):
                while len(self._streams) >= min(STREAMS, self._http.remote_settings.max_concurrent_streams):
                    self._free.clear()
                    await self._free.wait()
        except TimeoutError:
            raise Unreachable("the server takes no more requests") from None
        if not self.usable:
            raise Closed("the server closed the connection")
        headers = [
            (b":method", request.method.encode()),
            (b":scheme", b"https"),
            (b":authority", request.authority),
            (b":path", request.path),
            *((name.lower(), content) for name, content in end_to_end(request.headers, (b"host", b"content-length"))),
        ]
        if b"trailers" in value(request.headers, b"te").lower():
            headers.append((b"te", b"trailers"))
        if request.body is not None and request.length is not None:
            headers.append((b"content-length", str(request.length).encode()))
        number = self._http.get_next_available_stream_id()
        try:
            self._http.send_headers(number, headers, end_stream=request.body is None)
        except h2.exceptions.ProtocolError as error:
            raise Unreachable(f"the request cannot be sent: {error}") from error
        stream = self._streams[number] = _Stream(Inbox(self._http, number, self._flush))
        self._flush()
        try:
            if request.body is not None:
                sending = send_body(self._http, self._link, self._window, number, request.body)
                stream.sending = asyncio.ensure_future(self._guarded(number, sending))
            async with asyncio.timeout(RESPONSE_SECONDS):
                head = await stream.head
        except TimeoutError:
            self.finish(number)
            raise Closed("no answer in time") from None
        except BaseException:
            self.finish(number)
            raise
        return self._response(number, stream, head, request)

    async def _guarded(self, number: int, sending) -> None:  # type: ignore[no-untyped-def]
        try:
            await sending
        except (Closed, h2.exceptions.ProtocolError) as error:
            # Half a body must not look like a whole one.
            stream = self._streams.get(number)
            if stream is not None and not stream.head.done():
                stream.head.set_exception(Closed(f"the request could not be sent: {error}"))
            self._reset(number)

    def _response(self, number: int, stream: _Stream, head: Headers, request: Request) -> Response:
        status = int(value(head, b":status"))
        headers = [(name, content) for name, content in head if not name.startswith(b":")]
        length = value(headers, b"content-length")
        body = _StreamBody(self, number, stream)
        bodiless = request.method == "HEAD" or status in (204, 304)
        if bodiless:
            self.finish(number)
        response = Response(status, b"", headers, None if bodiless else body, int(length) if length else None)
        response.close = lambda: self.finish(number)
        stream.response = response
        return response

    def finish(self, number: int) -> None:
        """Be done with a stream, whether its end has come or not."""
        stream = self._streams.pop(number, None)
        if stream is None:
            return
        if stream.sending is not None and not stream.sending.done():
            stream.sending.cancel()
        stream.inbox.discard()
        if not stream.inbox.ended:
            self._reset(number)
        if stream.head.done() and not stream.head.cancelled():
            stream.head.exception()
        self._since = time.monotonic()
        self._free.set()
        self._flush()
        if self._leaving and not self._streams:
            self.close()

    def _reset(self, number: int) -> None:
        try:
            self._http.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
        except h2.exceptions.ProtocolError:
            return
        self._flush()

    async def _read(self) -> None:
        error = Closed("the server closed the connection")
        try:
            while data := await self._link.read(RESPONSE_SECONDS):
                for event in self._http.receive_data(data):
                    self._take(event)
                self._flush()
                await self._link.drain()
        except (Closed, h2.exceptions.ProtocolError) as broken:
            error = Closed(f"HTTP/2: {broken}")
        finally:
            self._leaving = True
            self._link.close()
            self._window.wake()
            for stream in tuple(self._streams.values()):
                stream.inbox.fail(error)
                if not stream.head.done():
                    stream.head.set_exception(error)
            self._free.set()

    def _take(self, event: h2.events.Event) -> None:
        number = getattr(event, "stream_id", None)
        stream = self._streams.get(number) if number is not None else None
        match event:
            case h2.events.ResponseReceived() if stream is not None and not stream.head.done():
                stream.head.set_result([(bytes(name), bytes(content)) for name, content in event.headers or ()])
            case h2.events.TrailersReceived() if stream is not None:
                stream.trailers = [(bytes(name), bytes(content)) for name, content in event.headers or ()]
            case h2.events.DataReceived():
                if stream is not None:
                    stream.inbox.put(event.data or b"", event.flow_controlled_length or 0)
                elif number is not None:
                    try:
                        self._http.acknowledge_received_data(event.flow_controlled_length or 0, number)
                    except h2.exceptions.ProtocolError:
                        return
            case h2.events.StreamEnded() if stream is not None:
                stream.inbox.end()
            case h2.events.StreamReset() if stream is not None:
                error = Closed("the server gave up the request")
                stream.inbox.fail(error)
                if not stream.head.done():
                    stream.head.set_exception(error)
            case h2.events.ConnectionTerminated():
                self._leaving = True
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._window.wake()
                self._free.set()

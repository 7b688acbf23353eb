"""HTTP/1.1 as a server: one connection's requests, bounded bodies, answers, event streams. Routes are elsewhere."""

import asyncio
import json
import socket
from collections.abc import AsyncIterable, Callable, Coroutine
from typing import Any, cast

import h11

MAX_BODY = 32 * 1024 * 1024
IDLE_SECONDS = 60.0
"""How long a connection may take to send a whole request."""
LINGER_SECONDS = 2.0
KEEPALIVE_SECONDS = 10.0
KEEPALIVE = b":keepalive\n\n"
MAX_UNSENT = 262_144
"""Bytes of events that may wait for a watcher; one who is further behind is cut off and may come again."""
STALL_SECONDS = 60.0
"""How long a long answer may wait for its client."""

Headers = list[tuple[str, str]]
JSON = [("content-type", "application/json")]
EVENTS = [("content-type", "text/event-stream"), ("cache-control", "no-cache")]
Watch = Callable[[Callable[[bytes], None]], Callable[[], None]]
"""Calls what it is given with frames, at once and from then on; returns what ends that."""


class HttpConnection(asyncio.Protocol):
    """One connection, one request at a time, until it becomes an event stream or something else.

    A subclass says in `_begin_request` which requests are refused before their body, and answers in `_answer`.
    """

    def __init__(self, connections: set[Any], gave_up: Callable[[str], None]) -> None:
        self._connections = connections
        self._gave_up = gave_up
        self._h11 = h11.Connection(h11.SERVER)
        self._body = bytearray()
        self._max_body = MAX_BODY
        self._timer: asyncio.TimerHandle | None = None
        self._unwatch: Callable[[], None] | None = None
        self._max_unsent = MAX_UNSENT
        self._deaf = False
        self._answering: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._request: h11.Request | None = None

    def _begin_request(self, request: h11.Request) -> None:
        """Refuses what needs no body to be refused; may set `_max_body`."""
        raise NotImplementedError

    def _answer(self, request: h11.Request) -> bool:
        """Answers the whole request; False when the connection is not for another one, or not yet."""
        raise NotImplementedError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections.add(self)
        self._close_in(IDLE_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._release()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._answering is not None:
            self._transport.pause_reading()  # A request that comes early waits here, and no more than that.
        try:
            self._h11.receive_data(data)
            self._advance()
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint, "not a valid HTTP/1.1 request")

    def eof_received(self) -> None:
        self._transport.close()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def close(self) -> None:
        """Ends the connection, also an event stream."""
        self._transport.close()

    def _advance(self) -> None:
        while not self._deaf and self._answering is None:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                if self._h11.they_are_waiting_for_100_continue:
                    self._write(h11.InformationalResponse(status_code=100, headers=[]))
                return
            if event is h11.PAUSED:
                return
            if isinstance(event, h11.Request):
                self._request = event
                self._body.clear()
                self._max_body = MAX_BODY
                self._begin_request(event)
                if not self._deaf and int(dict(event.headers).get(b"content-length", b"0")) > self._max_body:
                    self._refuse_body()
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > self._max_body:
                    self._refuse_body()
            elif isinstance(event, h11.EndOfMessage):
                assert self._request is not None
                if not self._answer(self._request):
                    return
            else:
                self._transport.close()
                return

    def _answered(self) -> bool:
        """Makes ready for the next request; False when there will be none."""
        self._body = bytearray()
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            self._transport.close()
            return False
        self._h11.start_next_cycle()
        self._close_in(IDLE_SECONDS)
        return True

    def _answer_later(self, answer: Coroutine[Any, Any, None]) -> bool:
        """Has `answer` respond in its own time, unless the client leaves; the next request waits for it."""
        self._cancel_timer()
        self._answering = asyncio.get_running_loop().create_task(self._finish(answer))
        return False

    async def _finish(self, answer: Coroutine[Any, Any, None]) -> None:
        try:
            await answer
        except Exception as error:  # A client that waits for an answer must at least see that there will be none.
            self._gave_up(f"a request was given up: {error!r}")
            self._transport.abort()
        self._answering = None
        if not self._transport.is_closing() and self._answered():
            self._transport.resume_reading()
            self._advance()

    def _stream(self, watch: Watch | None, alive: bytes = KEEPALIVE, max_unsent: int = MAX_UNSENT) -> bool:
        """Turns the response into an event stream that lasts until the connection ends; `alive` is sent now and then.

        What `watch` tells at once comes before the first `alive`.
        """
        self._deaf = True
        self._max_unsent = max_unsent
        self._cancel_timer()
        self._transport.set_write_buffer_limits(high=max_unsent)
        self._write(h11.Response(status_code=200, headers=EVENTS))
        if watch is not None:
            self._unwatch = watch(self._send_event)
        self._keep_alive(alive)
        return False

    def _send_event(self, data: bytes) -> None:
        if self._transport.get_write_buffer_size() > self._max_unsent:
            self._transport.abort()
        elif not self._transport.is_closing():
            self._write(h11.Data(data=data))

    def _keep_alive(self, alive: bytes) -> None:
        self._send_event(alive)
        self._timer = asyncio.get_running_loop().call_later(KEEPALIVE_SECONDS, self._keep_alive, alive)

    def _json(self, value: Any, status: int = 200) -> None:
        self._respond(status, JSON, json.dumps(value, ensure_ascii=False).encode())

    def _respond(self, status: int, headers: Headers, body: bytes) -> None:
        self._write(h11.Response(status_code=status, headers=[*headers, ("content-length", str(len(body)))]))
        if self._request is None or self._request.method != b"HEAD":
            self._write(h11.Data(data=body))
        self._write(h11.EndOfMessage())

    async def _respond_in_pieces(self, status: int, headers: Headers, pieces: AsyncIterable[bytes]) -> None:
        """A long response, as fast as the client takes it. Raises TimeoutError when that is too slow."""
        self._write(h11.Response(status_code=status, headers=headers))
        async for piece in pieces:
            self._write(h11.Data(data=piece))
            async with asyncio.timeout(STALL_SECONDS):
                await self._writable.wait()
        self._write(h11.EndOfMessage())

    def _refuse_body(self) -> None:
        self._refuse(413, f"the body is larger than {self._max_body} bytes")

    def _refuse(self, status: int, reason: str) -> None:
        """Answers and closes; waits a little for a peer that is still sending, else it would never see the answer."""
        self._deaf = True
        if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._respond(status, [*JSON, ("connection", "close")], json.dumps({"error": reason}).encode())
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._close_in(LINGER_SECONDS)

    def _write(self, event: Any) -> None:
        if data := self._h11.send(event):
            self._transport.write(data)

    def _close_in(self, seconds: float) -> None:
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._transport.close)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _release(self) -> None:
        """Gives the transport up, or what is left once it is lost."""
        self._cancel_timer()
        self._connections.discard(self)
        if self._answering is not None:
            self._answering.cancel()
        if self._unwatch is not None:
            self._unwatch()


def headers_of(request: h11.Request) -> Headers:
    """Names in lower case, and values."""
    return [(name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers]


def path_and_query(request: h11.Request) -> tuple[str, dict[str, str]]:
    """The path, and the query's parameters (the last of each name counts)."""
    path, _, query = request.target.decode("ascii").partition("?")
    if not query:
        return path, {}
    from urllib.parse import parse_qsl  # Late: most requests have no query.

    return path, dict(parse_qsl(query))

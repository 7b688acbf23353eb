"""HTTP/1.1 on the harness's listener: routes, authorization, event streams, and the way to a WebSocket."""

import asyncio
import hmac
import importlib
import json
import os
import socket
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, cast

import h11

from backend.harness.log import Log
from backend.harness.painting import MAX_SCROLLBACK
from backend.harness.state import State

if TYPE_CHECKING:
    from backend.harness.setup import Setup

MAX_BODY = 32 * 1024 * 1024
MAX_LOG_LINES = 10_000
DEFAULT_LOG_LINES = 200
IDLE_SECONDS = 60.0
"""How long a connection may take to send a whole request."""
LINGER_SECONDS = 2.0
KEEPALIVE_SECONDS = 10.0
MAX_UNSENT = 262_144
"""Bytes of events that may wait for a watcher; one who is further behind is cut off and may come again."""

Headers = list[tuple[str, str]]
JSON = [("content-type", "application/json")]
TEXT = [("content-type", "text/plain; charset=utf-8")]
CAST = [("content-type", "application/x-asciicast")]
EVENTS = [("content-type", "text/event-stream"), ("cache-control", "no-cache")]
FILE_CHUNK = 65_536
STALL_SECONDS = 60.0
"""How long a download may wait for its client."""
TUI_MESSAGE = "this is a TUI harness — connect to /tty"


class Harness:
    """What the connections share."""

    def __init__(self, token: str, state: State, log: Log, new_setup: "Callable[[], Setup]") -> None:
        self.state = state
        self.log = log
        self.connections: set[Connection] = set()
        self._token = token.strip().encode()
        self._new_setup = new_setup
        self._setup: Setup | None = None

    @property
    def setup(self) -> "Setup | None":
        """The set-up, once `POST /session` has begun it."""
        return self._setup

    def begin(self, body: bytes) -> str:
        """Begins the set-up that `body` asks for; raises ValueError when the body is not one. Returns the session id.

        Only the first good body counts: a repeated request gets the same id and changes nothing.
        """
        if self._setup is None:
            setup = self._new_setup()
            setup.begin(body)
            self._setup = setup
        return self._setup.session_id

    def allows(self, headers: Headers, query_token: str | None = None) -> bool:
        """Whether the bearer token, or without one `query_token`, is ours. Never without a token of our own."""
        given = query_token
        for name, value in headers:
            scheme, _, rest = value.strip().partition(" ")
            if name == "authorization" and scheme.lower() == "bearer":
                given = rest.strip()
        return bool(self._token) and given is not None and hmac.compare_digest(given.encode(), self._token)


class Connection(asyncio.Protocol):
    """One connection, one request at a time, until it becomes an event stream or a WebSocket."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._h11 = h11.Connection(h11.SERVER)
        self._body = bytearray()
        self._request: h11.Request | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._unwatch: Callable[[], None] | None = None
        self._deaf = False
        self._answering: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._harness.connections.add(self)
        self._close_in(IDLE_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._release()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
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
                self._begin_request(event)
            elif isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > MAX_BODY:
                    self._refuse(413, f"the body is larger than {MAX_BODY} bytes")
            elif isinstance(event, h11.EndOfMessage):
                if not self._answer():
                    return
            else:
                self._transport.close()
                return

    def _begin_request(self, request: h11.Request) -> None:
        """Refuses what needs no body to be refused: nobody without the token makes us keep one."""
        headers = _headers(request)
        path, query = _split(request)
        if _wants_websocket(headers):
            if path != "/tty":
                self._refuse(400, "the only WebSocket is /tty")
            elif not self._harness.allows(headers, query.get("token")):
                self._refuse(401, "unauthorized")
        elif path != "/healthz" and not self._harness.allows(headers):
            self._refuse(401, "unauthorized")
        elif int(dict(headers).get("content-length", "0")) > MAX_BODY:
            self._refuse(413, f"the body is larger than {MAX_BODY} bytes")

    def _answer(self) -> bool:
        """Answers the whole request; False when the connection is not for another one."""
        assert self._request is not None
        request, harness = self._request, self._harness
        headers = _headers(request)
        if _wants_websocket(headers):
            return self._become_viewer(headers)
        path, query = _split(request)
        match request.method, path.strip("/").split("/"):
            case b"GET", ["healthz"]:
                setup = harness.setup
                program, directory = (setup.program, str(setup.directory)) if setup else (None, None)
                self._json({"ok": True, "cmd": program, "repo": directory, "auth_required": True})
            case b"GET", ["state"]:
                self._json(harness.state.snapshot())
            case b"GET", ["watch"]:
                return self._stream(watch=True)
            case b"GET", ["event"]:
                return self._stream(watch=False)
            case b"GET", ["log"]:
                lines = query.get("tail", "")
                number = min(int(lines), MAX_LOG_LINES) if lines.isascii() and lines.isdigit() else DEFAULT_LOG_LINES
                self._respond(200, TEXT, harness.log.tail(number).encode())
            case b"GET", ["screen"]:
                return self._answer_later(self._send_screen(query))
            case b"GET", ["recording"]:
                return self._answer_later(self._send_recording())
            case b"POST", ["session"]:
                try:
                    self._json({"id": harness.begin(bytes(self._body))})
                except ValueError as error:
                    self._json({"error": str(error)}, 400)
            case b"GET", ["session", _, "message"]:
                self._json([])
            case b"POST", ["session", _, "message"]:
                if harness.setup is None or harness.setup.tui:
                    self._json({"text": TUI_MESSAGE})
                else:
                    self._json({"error": "messages to this harness are not available in this version"}, 501)
            case b"POST", ["session", _, "abort"]:
                self._json({})
            case _:
                self._json({"error": "not found"}, 404)
        return self._answered()

    def _answered(self) -> bool:
        """Makes ready for the next request; False when there will be none."""
        self._body = bytearray()
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            self._transport.close()
            return False
        self._h11.start_next_cycle()
        self._close_in(IDLE_SECONDS)
        return True

    def _become_viewer(self, headers: Headers) -> bool:
        terminal = self._harness.setup.terminal if self._harness.setup else None
        if terminal is None:
            state = self._harness.state
            reason = state.failure or f"there is no terminal (set-up: {state.setup}, phase: {state.phase})"
            self._refuse(503, reason)
            return False
        from backend.harness.viewers import accept  # Late: the first answer must not wait for it.

        early = self._h11.trailing_data[0]
        self._release()
        assert self._request is not None
        viewer = accept(terminal, self._transport, self._request.target.decode("ascii"), headers)
        if viewer is not None and early:
            viewer.data_received(early)
        return False

    def _answer_later(self, answer: Coroutine[Any, Any, None]) -> bool:
        """Has `answer` respond in its own time; the next request waits for it."""
        self._cancel_timer()
        self._transport.pause_reading()
        self._answering = asyncio.get_running_loop().create_task(self._finish(answer))
        return False

    async def _finish(self, answer: Coroutine[Any, Any, None]) -> None:
        try:
            await answer
        except Exception as error:  # A client that waits for an answer must at least see that there will be none.
            self._harness.log.write(f"a request was given up: {error!r}")
            self._transport.abort()
        self._answering = None
        if not self._transport.is_closing() and self._answered():
            self._transport.resume_reading()
            self._advance()

    async def _send_screen(self, query: Mapping[str, str]) -> None:
        from backend.harness.screen import FORMATS  # Late: few ask for it.

        name, lines = query.get("format", "text"), query.get("scrollback", "0")
        setup = self._harness.setup
        if name not in FORMATS:
            self._json({"error": f"format must be one of {', '.join(FORMATS)}"}, 400)
        elif not (lines.isascii() and lines.isdigit() and len(lines) < 9):
            self._json({"error": "scrollback must be a number of lines"}, 400)
        elif setup is not None and not setup.tui:
            self._json({"error": "this harness has no terminal"}, 404)
        elif setup is None or setup.terminal is None:
            self._json({"error": "there is no screen yet: the agent has not started"}, 409)
        else:
            content_type, render = FORMATS[name]
            scrollback = min(int(lines), MAX_SCROLLBACK)
            body = await setup.terminal.draw(lambda screen: render(screen, scrollback))
            self._respond(200, [("content-type", content_type)], body)

    async def _send_recording(self) -> None:
        recording = self._harness.setup.recording if self._harness.setup else None
        if recording is None:
            self._json({"error": "there is no recording"}, 404)
            return
        async with asyncio.timeout(STALL_SECONDS):
            await recording.flush()
        try:
            file = await asyncio.to_thread(recording.path.open, "rb")
        except OSError as error:
            self._json({"error": f"the recording cannot be read: {error.strerror}"}, 404)
            return
        with file:
            left = os.fstat(file.fileno()).st_size
            self._write(h11.Response(status_code=200, headers=[*CAST, ("content-length", str(left))]))
            while left:
                chunk = await asyncio.to_thread(file.read, min(left, FILE_CHUNK))
                if not chunk:
                    raise OSError("the recording has become shorter")
                self._write(h11.Data(data=chunk))
                left -= len(chunk)
                async with asyncio.timeout(STALL_SECONDS):
                    await self._writable.wait()
            self._write(h11.EndOfMessage())

    def _stream(self, watch: bool) -> bool:
        """Turns the response into an event stream that lasts until the connection ends."""
        self._deaf = True
        self._cancel_timer()
        self._transport.set_write_buffer_limits(high=MAX_UNSENT)
        self._write(h11.Response(status_code=200, headers=EVENTS))
        if watch:
            self._unwatch = self._harness.state.watch(self._send_event)
        self._keep_alive()
        return False

    def _send_event(self, data: bytes) -> None:
        if self._transport.get_write_buffer_size() > MAX_UNSENT:
            self._transport.abort()
        elif not self._transport.is_closing():
            self._write(h11.Data(data=data))

    def _keep_alive(self) -> None:
        self._send_event(b":keepalive\n\n")
        self._timer = asyncio.get_running_loop().call_later(KEEPALIVE_SECONDS, self._keep_alive)

    def _json(self, value: Any, status: int = 200) -> None:
        self._respond(status, JSON, json.dumps(value, ensure_ascii=False).encode())

    def _respond(self, status: int, headers: Headers, body: bytes) -> None:
        self._write(h11.Response(status_code=status, headers=[*headers, ("content-length", str(len(body)))]))
        self._write(h11.Data(data=body))
        self._write(h11.EndOfMessage())

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
        self._cancel_timer()
        self._harness.connections.discard(self)
        if self._answering is not None:
            self._answering.cancel()
        if self._unwatch is not None:
            self._unwatch()


def preload() -> None:
    """Loads what the first viewer needs, in a quiet moment."""
    importlib.import_module("backend.harness.viewers")


def _headers(request: h11.Request) -> Headers:
    return [(name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers]


def _split(request: h11.Request) -> tuple[str, dict[str, str]]:
    """The path, and the query's parameters (the last of each name counts)."""
    path, _, query = request.target.decode("ascii").partition("?")
    if not query:
        return path, {}
    from urllib.parse import parse_qsl  # Late: most requests have no query.

    return path, dict(parse_qsl(query))


def _wants_websocket(headers: Headers) -> bool:
    return any(name == "upgrade" and "websocket" in value.lower() for name, value in headers)

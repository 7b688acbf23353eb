"""What the harness answers on its listener: routes, authorization, the ways to a WebSocket and the agent's server."""

import asyncio
import hashlib
import hmac
import importlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, BinaryIO

import h11

from backend.harness.bus import HEARTBEAT, MAX_UNSENT, frame
from backend.harness.http_connection import STALL_SECONDS, Headers, HttpConnection, headers_of, path_and_query
from backend.harness.log import Log
from backend.harness.painting import MAX_SCROLLBACK
from backend.harness.state import State
from backend.harness.upstream import Broken

if TYPE_CHECKING:
    from backend.harness.agent_server import AgentServer
    from backend.harness.setup import Setup

MAX_MESSAGE = 80 * 1024 * 1024
MAX_LOG_LINES = 10_000
DEFAULT_LOG_LINES = 200
FILE_CHUNK = 65_536

TEXT = [("content-type", "text/plain; charset=utf-8")]
CAST = [("content-type", "application/x-asciicast")]
TUI_MESSAGE = "this is a TUI harness — connect to /tty"
_FORWARDED = ("content-type", "accept", "last-event-id", "x-opencode-directory")
_RETURNED = ("content-type", "content-length", "cache-control", "location")
_CALLS = ("message", "prompt_async", "abort")
"""Headers of requests to, and answers of, the agent's server that go through."""


def digest_of(token: str) -> bytes:
    """The SHA-256 of a token, by which it is known without being kept."""
    return hashlib.sha256(token.strip().encode()).digest()


class Harness:
    """What the connections share."""

    def __init__(self, digest: bytes, state: State, log: Log, new_setup: "Callable[[], Setup]") -> None:
        """`digest` is of the token that callers must have."""
        self.state = state
        self.log = log
        self.connections: set[Connection] = set()
        self._digest = digest
        self._new_setup = new_setup
        self._setup: Setup | None = None

    @property
    def asks_agent(self) -> bool:
        """Whether requests are for an API harness's server."""
        return self._setup is not None and not self._setup.tui

    @property
    def agent_server(self) -> "AgentServer | None":
        """The API harness's server, once it can be asked."""
        return self._setup.server if self._setup is not None else None

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
        """Whether the bearer token, or without one `query_token`, is ours."""
        given = query_token
        for name, value in headers:
            scheme, _, rest = value.strip().partition(" ")
            if name == "authorization" and scheme.lower() == "bearer":
                given = rest.strip()
        if given is None or not hmac.compare_digest(digest_of(given), self._digest):
            return False
        self.log.hide(given)
        return True


class Connection(HttpConnection):
    """One connection, until it becomes an event stream or a WebSocket."""

    def __init__(self, harness: Harness) -> None:
        super().__init__(harness.connections, harness.log.write)
        self._harness = harness

    def _begin_request(self, request: h11.Request) -> None:
        """Refuses what needs no body to be refused: nobody without the token makes us keep one."""
        headers = headers_of(request)
        path, query = path_and_query(request)
        if _wants_websocket(headers):
            if path != "/tty":
                self._refuse(400, "the only WebSocket is /tty")
            elif not self._harness.allows(headers, query.get("token")):
                self._refuse(401, "unauthorized")
        elif path != "/healthz" and not self._harness.allows(headers):
            self._refuse(401, "unauthorized")
        elif path != "/session" and self._harness.asks_agent:
            self._max_body = MAX_MESSAGE

    def _answer(self, request: h11.Request) -> bool:
        harness = self._harness
        headers = headers_of(request)
        if _wants_websocket(headers):
            return self._become_viewer(headers)
        path, query = path_and_query(request)
        match request.method, path.strip("/").split("/"):
            case b"GET", ["healthz"]:
                setup = harness.setup
                program, directory = (setup.program, str(setup.directory)) if setup else (None, None)
                self._json({"ok": True, "cmd": program, "repo": directory, "auth_required": True})
            case b"GET", ["state"]:
                self._json(harness.state.snapshot())
            case b"GET", ["watch"]:
                return self._stream(harness.state.watch)
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
            case b"GET", ["event"] if harness.agent_server is not None:
                alive = frame({"type": HEARTBEAT, "properties": {}})
                return self._stream(harness.agent_server.bus.listen, alive, MAX_UNSENT)
            case _, route if harness.asks_agent:
                if harness.agent_server is None:
                    self._json({"error": harness.state.failure or "not ready"}, 503)
                else:
                    return self._answer_later(self._ask_agent(harness.agent_server, request, route))
            case b"GET", ["event"]:
                return self._stream(None)
            case b"GET", ["session", _, "message"]:
                self._json([])
            case b"POST", ["session", _, "message"]:
                self._json({"text": TUI_MESSAGE})
            case b"POST", ["session", _, "abort"]:
                self._json({})
            case _:
                self._json({"error": "not found"}, 404)
        return self._answered()

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

    async def _ask_agent(self, server: "AgentServer", request: h11.Request, route: list[str]) -> None:
        """Hands the request to the agent's server, and its answer back."""
        method, body = request.method.decode("ascii"), bytes(self._body)
        self._body = bytearray()
        if not server.running and _only_ends(method, route):
            self._json({"ok": True})
            return
        headers = {name: value for name, value in headers_of(request) if name in _FORWARDED}
        of_session = _is_of_session(route) or _is_of_session(route, *_CALLS)
        if of_session and not route[1].startswith("ses"):
            self._json({"error": "not found"}, 404)  # opencode would call this a fault of its own.
            return
        try:
            if method == "POST" and _is_of_session(route, "message", "prompt_async"):
                body = server.translated(body)
            async with server.ask(method, request.target.decode("ascii"), headers, body) as answer:
                if answer.status == 404 and of_session:
                    self._json({"error": "not found"}, 404)
                    return
                if method == "POST" and _is_of_session(route, "message"):
                    await server.told()
                returned = [(name, value) for name, value in answer.headers.items() if name in _RETURNED]
                await self._respond_in_pieces(answer.status, returned, answer.pieces)
        except ValueError as error:
            self._json({"error": str(error)}, 400)
        except Broken as error:
            if self._h11.our_state is not h11.SEND_RESPONSE:
                raise  # Too late for another answer: the client must see that this one is not whole.
            self._harness.log.write(str(error))
            self._json({"error": str(error)}, 502)

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
            size = os.fstat(file.fileno()).st_size
            await self._respond_in_pieces(200, [*CAST, ("content-length", str(size))], _pieces_of(file, size))


async def _pieces_of(file: BinaryIO, size: int) -> AsyncIterator[bytes]:
    """The first `size` bytes. Raises OSError when there are fewer."""
    while size:
        chunk = await asyncio.to_thread(file.read, min(size, FILE_CHUNK))
        if not chunk:
            raise OSError("the file has become shorter")
        yield chunk
        size -= len(chunk)


def preload() -> None:
    """Loads what the first viewer needs, in a quiet moment."""
    importlib.import_module("backend.harness.viewers")


def _is_of_session(route: list[str], *calls: str) -> bool:
    """Whether a path is `/session/ID`, or one of these `calls` below it."""
    return route[0] == "session" and (len(route) == 3 and route[2] in calls if calls else len(route) == 2)


def _only_ends(method: str, route: list[str]) -> bool:
    """Whether a request asks for nothing but an end, which a server that has ended has come to."""
    return (method == "DELETE" and _is_of_session(route)) or (method == "POST" and _is_of_session(route, "abort"))


def _wants_websocket(headers: Headers) -> bool:
    return any(name == "upgrade" and "websocket" in value.lower() for name, value in headers)

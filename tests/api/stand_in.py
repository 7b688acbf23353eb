"""A platform on a real port whose sandboxes are stand-ins: a directory each, and one harness that says what it is told.

The harness speaks the wire contract of the harness program as far as the platform uses it.
"""

import asyncio
import contextlib
import json
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect

from backend.api.sockets import TerminalSocket
from backend.app import create_app
from backend.sandboxes.contract import Rescue, Sandbox, SandboxSpec, SandboxState
from backend.sandboxes.local import rescuing
from backend.settings import Settings
from tests.api.conftest import AGENTS, KEY, SESSIONS
from tests.plain_driver import PlainDriver
from tests.waiting import until

Terminal = Callable[[WebSocket], Awaitable[None]]
Answer = Callable[[Request], Awaitable[Response]]


class Server(uvicorn.Server):
    """An ASGI application on a port of its own, within the test's event loop."""

    def __init__(self, app: ASGIApp, *, lifespan: str = "off") -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        super().__init__(
            uvicorn.Config(
                app,
                ws=TerminalSocket,
                lifespan=lifespan,
                log_config=None,
                log_level="error",  # type: ignore[arg-type]
                access_log=False,
                timeout_graceful_shutdown=2,
            )
        )

    def capture_signals(self) -> Any:
        return contextlib.nullcontext()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.serve([self.listener]))
        try:
            await until(lambda: self.started or task.done(), "the server listens")
            yield
        finally:
            self.should_exit = True
            await task
            self.listener.close()


async def echo(terminal: WebSocket) -> None:
    """Sends back what it gets, in the kind of frame it came in."""
    while (message := await terminal.receive())["type"] == "websocket.receive":
        if message.get("bytes") is not None:
            await terminal.send_bytes(message["bytes"])
        else:
            await terminal.send_text(message["text"])


class Harness:
    """The stand-in harness. `terminal` is what happens on /tty once it is accepted, `state` what /watch tells."""

    def __init__(self, *routes: Route) -> None:
        self.state: dict[str, Any] = {"setup": "done", "viewers": 0, "phases": [], "agent": {}}
        self.terminal: Terminal = echo
        self.choose: Callable[[list[str]], str | None] = lambda offered: offered[0] if offered else None
        self.answering: asyncio.Event | None = None
        self.offers: list[list[str]] = []
        self.closed: list[tuple[int, str]] = []
        self.opened = 0
        self.bodies: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.answers: dict[str, Answer] = {}
        self._changed = asyncio.Event()
        self._server = Server(
            Starlette(
                routes=[
                    *routes,
                    Route("/healthz", self._ok),
                    Route("/session", self._open, methods=["POST"]),
                    Route("/session/{id}/abort", self._ok, methods=["POST"]),
                    Route("/watch", self._watch),
                    Route("/{path}", self._answer),
                    WebSocketRoute("/tty", self._tty),
                ]
            )
        )
        self.url = self._server.url
        self.running = self._server.running

    def tell(self, **changes: Any) -> None:
        """Change what /watch tells."""
        self.state |= changes
        self._changed.set()
        self._changed = asyncio.Event()

    def vanish(self) -> None:
        """Cut all connections, as a harness that is killed does."""
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()  # type: ignore[union-attr]

    @property
    def connections(self) -> int:
        return len(self._server.server_state.connections)

    async def _ok(self, _request: Request) -> Response:
        return JSONResponse({})

    async def _open(self, request: Request) -> Response:
        self.bodies.append(await request.json())
        return JSONResponse({"id": "tty"})

    async def _watch(self, _request: Request) -> Response:
        async def frames() -> AsyncIterator[str]:
            while True:
                changed = self._changed
                yield f"data: {json.dumps(self.state)}\n\n"
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await changed.wait()
                    continue
                yield ":keepalive\n\n"

        return StreamingResponse(frames(), media_type="text/event-stream")

    async def _answer(self, request: Request) -> Response:
        path = request.path_params["path"]
        self.asked.append(f"{path}?{request.url.query}")
        if path in self.answers:
            return await self.answers[path](request)
        return JSONResponse({"error": "not found"}, 404)

    async def _tty(self, terminal: WebSocket) -> None:
        self.opened += 1
        self.offers.append(terminal.scope["subprotocols"])
        if self.answering:
            await self.answering.wait()
        await terminal.accept(self.choose(terminal.scope["subprotocols"]))
        sent_on = terminal._receive

        async def receive() -> Any:
            message = await sent_on()
            if message["type"] == "websocket.disconnect":
                self.closed.append((message["code"], message.get("reason") or ""))
            return message

        terminal._receive = receive
        with contextlib.suppress(WebSocketDisconnect):
            await self.terminal(terminal)


class Sandboxes(PlainDriver):
    """A driver whose sandboxes all have the one harness."""

    def __init__(self, directory: Path, url: str) -> None:
        self._directory = directory
        self._url = url
        self._gone: dict[str, asyncio.Future[str]] = {}

    def root(self, session: dict[str, Any]) -> Path:
        return self._directory / session["task_arn"]

    def end(self, session: dict[str, Any], why: str) -> None:
        """The sandbox's harness ends by itself."""
        self._gone[session["task_arn"]].set_result(why)

    async def create(self, spec: SandboxSpec) -> Sandbox:
        (self._directory / spec.name).mkdir(parents=True)
        self._gone[spec.name] = asyncio.get_running_loop().create_future()
        return Sandbox(spec.name, self._url, {})

    async def state(self, name: str) -> SandboxState:
        return SandboxState.RUNNING if (self._directory / name).exists() else SandboxState.GONE

    async def wait_gone(self, name: str) -> str:
        gone = self._gone.setdefault(name, asyncio.get_running_loop().create_future())
        return await asyncio.shield(gone)

    async def delete(self, name: str, rescue: Rescue | None = None) -> None:
        if rescue:
            rescuing.copy(self._directory / name, rescue)
        shutil.rmtree(self._directory / name, ignore_errors=True)

    async def list(self) -> list[str]:
        return [path.name for path in self._directory.iterdir()] if self._directory.exists() else []


class Platform:
    """The running platform, and what it runs on."""

    def __init__(self, settings: Settings, harness: Harness, sandboxes: Sandboxes) -> None:
        self.app = create_app(settings, sandboxes)
        self.server = Server(self.app, lifespan="on")
        self.settings = settings
        self.harness = harness
        self.sandboxes = sandboxes
        self.http = httpx.AsyncClient(
            base_url=self.server.url, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False
        )

    async def agent(self, **fields: Any) -> dict[str, Any]:
        response = await self.http.post(AGENTS, json={"model": "m", "harness_id": "claude-code", **fields})
        assert response.status_code == 200, response.text
        return response.json()

    async def create(self, agent: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        agent = agent or await self.agent()
        response = await self.http.post(f"{AGENTS}/{agent['id']}/session", json=fields)
        assert response.status_code == 200, response.text
        return response.json()

    async def ready(self, agent: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        """A new session, ready."""
        created = await self.create(agent, **fields)
        return await self.until(created, lambda session: session["status"] == "ready", "the session is ready")

    async def session(self, session: dict[str, Any]) -> dict[str, Any]:
        return (await self.http.get(f"{SESSIONS}/{session['id']}")).json()

    async def until(
        self, session: dict[str, Any], condition: Callable[[dict[str, Any]], Any], what: str
    ) -> dict[str, Any]:
        """The session once `condition` holds for it."""

        async def seen() -> dict[str, Any] | None:
            now = await self.session(session)
            return now if condition(now) else None

        return await until(seen, what)

    async def events(self, session: dict[str, Any], kind: str = "session.updated") -> list[dict[str, Any]]:
        params = {"session_id": session["id"], "types": kind}
        return (await self.http.get("/api/v1/events/log", params=params)).json()["data"]


@contextlib.asynccontextmanager
async def stand_in(settings: Settings, harness: Harness | None = None) -> AsyncIterator[Platform]:
    """A running platform on `settings`, and its harness."""
    harness = harness or Harness()
    async with harness.running():
        platform = Platform(settings, harness, Sandboxes(settings.data_dir / "sandboxes", harness.url))
        async with platform.http, platform.server.running():
            yield platform

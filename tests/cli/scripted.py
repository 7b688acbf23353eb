"""A platform on loopback that answers as a test scripts it, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.conversation import Session

KEY = "sk-test-0123456789abcdef"
MANAGED = "/api/v1/managed_agents"
AGENT_ID = "11111111-1111-4111-8111-111111111111"
SESSION_ID = "22222222-2222-4222-8222-222222222222"


def agent(name: str, *, harness_id: str = "claude-code", tui: bool = True) -> dict[str, Any]:
    id = AGENT_ID if name == "coder" else str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
    return {"id": id, "name": name, "harness_id": harness_id, "supports_tui": tui}


def session(status: str = "ready", phase: str | None = None, **fields: Any) -> dict[str, Any]:
    tty_url = f"{MANAGED}/sessions/{SESSION_ID}/tty" if status == "ready" else None
    named = {"id": SESSION_ID, "agent_id": AGENT_ID, "status": status, "phase": phase or status}
    return named | {"supports_tui": True, "tty_url": tty_url, "tty_token": "tty-secret"} | fields


@dataclass
class Script:
    """What the platform says. `readings` are a session's states, one a GET, the last one for ever; so are `logs`.

    `listed` are the rows of the list of sessions: the last reading when there are none.
    """

    agents: list[dict[str, Any]] = field(default_factory=lambda: [agent("coder")])
    readings: list[dict[str, Any] | int] = field(default_factory=lambda: [session()])
    diagnosis: dict[str, Any] | None = None
    mended: str | None = None
    tty_status: int | None = None
    tty_close: int | None = None
    greeting: str = "hello from the agent\r\n"
    ignores_search: bool = False
    page: int = 200
    talk: Session = field(default_factory=Session)
    logs: list[str] = field(default_factory=lambda: [""])
    skills: list[dict[str, Any]] = field(default_factory=list)
    listed: list[dict[str, Any]] = field(default_factory=list)

    base: str = ""
    requests: list[str] = field(default_factory=list)
    keys_seen: set[str] = field(default_factory=set)
    typed: bytes = b""
    sizes: list[tuple[int, int]] = field(default_factory=list)
    tty_tokens: list[str] = field(default_factory=list)
    attached: int = 0

    def asked(self, prefix: str) -> list[str]:
        """The requests that begin so, such as "GET /api"."""
        return [request for request in self.requests if request.startswith(prefix)]


@contextmanager
def serving(script: Script) -> Iterator[Script]:
    """Serve the script until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    script.base = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(_app(script), log_level="critical", ws="websockets-sansio", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        yield script
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)
        listener.close()
        assert not thread.is_alive()


def _app(script: Script) -> Starlette:
    def refusal(request: Request) -> Response | None:
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        script.requests.append(f"{request.method} {target}")
        given = request.headers.get("authorization", "")
        script.keys_seen.add(given)
        return None if given == f"Bearer {KEY}" else JSONResponse({"error": "unauthorized"}, 401)

    async def list_agents(request: Request) -> Response:
        refused = refusal(request)
        if refused:
            return refused
        query = request.query_params
        limit, offset = min(int(query.get("limit", 50)), script.page), int(query.get("offset", 0))
        search = "" if script.ignores_search else query.get("search", "")
        rows = [row for row in script.agents if search.lower() in row["name"].lower()]
        page = rows[offset : offset + limit]
        return JSONResponse({"data": page, "total": len(rows), "limit": limit, "offset": offset})

    async def list_sessions(request: Request) -> Response:
        readings = [reading for reading in script.readings if isinstance(reading, dict)]
        return refusal(request) or JSONResponse(script.listed or readings[-1:])

    async def create_session(request: Request) -> Response:
        return refusal(request) or JSONResponse(session("creating", "creating_sandbox"))

    async def read_session(request: Request) -> Response:
        refused = refusal(request)
        if refused:
            return refused
        reading = script.readings.pop(0) if len(script.readings) > 1 else script.readings[0]
        if isinstance(reading, int):
            return JSONResponse({"error": "scripted"}, reading)
        return JSONResponse(reading)

    async def stop(request: Request) -> Response:
        return refusal(request) or JSONResponse({"id": SESSION_ID, "status": "dead"})

    async def restart(request: Request) -> Response:
        return refusal(request) or JSONResponse(session("ready"))

    async def mend(request: Request) -> Response:
        refused = refusal(request)
        if refused:
            return refused
        if script.mended is None:
            return JSONResponse({"error": "nothing is missing", "code": "CONFLICT"}, 409)
        return JSONResponse({"id": SESSION_ID, "did": script.mended})

    async def top_up(request: Request) -> Response:
        return refusal(request) or JSONResponse({"provisioned": 2})

    async def sandbox_logs(request: Request) -> Response:
        log = script.logs.pop(0) if len(script.logs) > 1 else script.logs[0]
        return refusal(request) or PlainTextResponse(log)

    async def list_skills(request: Request) -> Response:
        return refusal(request) or JSONResponse({"data": script.skills})

    async def diagnose(request: Request) -> Response:
        refused = refusal(request)
        if refused:
            return refused
        return JSONResponse(script.diagnosis) if script.diagnosis else JSONResponse({"error": "not found"}, 404)

    async def tty(websocket: WebSocket) -> None:
        script.tty_tokens.append(websocket.headers.get("authorization", ""))
        if script.tty_status is not None:
            await websocket.send_denial_response(PlainTextResponse("", script.tty_status))
            return
        await websocket.accept()
        if script.tty_close is not None:
            await websocket.close(script.tty_close)
            return
        script.attached += 1
        await websocket.send_text(script.greeting)
        try:
            await _echo(script, websocket)
        except WebSocketDisconnect:
            script.attached -= 1

    async def health(_: Request) -> Response:
        return JSONResponse({"ok": True})

    return Starlette(
        routes=[
            Route("/healthz", health),
            Route(f"{MANAGED}/agents", list_agents),
            Route(f"{MANAGED}/agents/{{id}}/session", create_session, methods=["POST"]),
            Route(f"{MANAGED}/sessions", list_sessions),
            Route(f"{MANAGED}/sessions/{{id}}", read_session),
            Route(f"{MANAGED}/sessions/{{id}}/diagnose", diagnose),
            Route(f"{MANAGED}/sessions/{{id}}/stop", stop, methods=["POST"]),
            Route(f"{MANAGED}/sessions/{{id}}/restart", restart, methods=["POST"]),
            Route(f"{MANAGED}/sessions/{{id}}/mend", mend, methods=["POST"]),
            Route("/api/v1/admin/warm_pool/top_up", top_up, methods=["POST"]),
            Route(f"{MANAGED}/sessions/{{id}}/sandbox_logs", sandbox_logs),
            Route("/api/v1/skills", list_skills),
            *script.talk.routes(),
            WebSocketRoute(f"{MANAGED}/sessions/{{id}}/tty", tty),
        ]
    )


async def _echo(script: Script, websocket: WebSocket) -> None:
    """Echo keys; the word "exit" ends the agent as a harness does."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect
        if text := message.get("text"):
            control = json.loads(text)
            script.sizes.append((control["cols"], control["rows"]))
            await websocket.send_text(f"size {control['cols']}x{control['rows']}\r\n")
        elif keys := message.get("bytes"):
            script.typed += keys
            await websocket.send_text(keys.decode("utf-8", "replace"))
            if script.typed.endswith(b"exit"):
                await websocket.send_text("\r\n\x1b[2m[bridge] process exited (code=7, signal=0)\x1b[0m\r\n")
                await websocket.close(1000)
                script.attached -= 1
                return

"""A small real platform for tests of the console: REST and event feed over HTTP, and a terminal over a WebSocket.

It answers what a test tells it to, and breaks where a test wants it to break.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from lapconsole.live import LiveModel

KEY = "sk-test-key"
MANAGED = "/api/v1/managed_agents"
SECONDS = 10.0  # no condition takes longer, or the test has failed


@dataclass
class Request:
    """One request as it came in; header names in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    reader: asyncio.StreamReader = field(repr=False)


@dataclass
class Reply:
    """What to answer: `body` is sent as JSON unless it is bytes."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        body = (
            self.body if isinstance(self.body, bytes) else b"" if self.body is None else json.dumps(self.body).encode()
        )
        headers = {"content-type": "application/json", "content-length": str(len(body)), **self.headers}
        head = f"HTTP/1.1 {self.status} Status\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return head.encode() + b"\r\n" + body


Handler = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


class FakePlatform:
    """Agents, sessions and events as JSON, served on a loopback port."""

    def __init__(self) -> None:
        self.agents: dict[str, dict[str, Any]] = {}
        self.sessions: dict[str, dict[str, Any]] = {}
        self.log: list[tuple[int, str, dict[str, Any]]] = []
        self.requests: list[Request] = []
        self.has_feed = True
        self.can_page = True
        self.port = 0
        self._scripted: dict[tuple[str, str], deque[Reply | Handler]] = defaultdict(deque)
        self._always: dict[tuple[str, str], Reply | Handler] = {}
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._feeds: list[asyncio.StreamWriter] = []
        self._news = asyncio.Condition()

    # What a test says

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def feeds(self) -> int:
        """Number of open event feeds."""
        return len(self._feeds)

    def once(self, method: str, path: str, *replies: Reply | Handler) -> None:
        """Answer the next requests for a path with these, one each."""
        self._scripted[method, path].extend(replies)

    def always(self, method: str, path: str, reply: Reply | Handler | None) -> None:
        """Answer every request for a path with this; None goes back to the platform's own answer."""
        if reply is None:
            self._always.pop((method, path), None)
        else:
            self._always[method, path] = reply

    def add_agent(self, agent_id: str, **fields: Any) -> dict[str, Any]:
        agent = {"id": agent_id, "name": agent_id, "harness_id": "codex", "model": "m", "supports_tui": True, **fields}
        self.agents[agent_id] = agent
        return agent

    def add_session(self, session_id: str, agent_id: str = "a", status: str = "ready", **fields: Any) -> dict[str, Any]:
        session = {"id": session_id, "agent_id": agent_id, "status": status, "phase": "ready", **fields}
        session.setdefault(
            "created_at", f"2026-01-01T00:{len(self.sessions) // 60 % 60:02}:{len(self.sessions) % 60:02}Z"
        )
        self.sessions[session_id] = session
        return session

    async def emit(self, type: str, entity: dict[str, Any] | None = None, **fields: Any) -> int:
        """Log an event and send it to all open feeds; its sequence number."""
        seq = self.log[-1][0] + 1 if self.log else 1
        kind = type.partition(".")[0]
        data = {"seq": seq, "type": type, "at": "2026-01-01T10:00:00.000Z", **fields}
        if entity is not None:
            data[kind] = entity
            data.setdefault(f"{kind}_id", entity["id"])
        self.log.append((seq, type, data))
        for writer in list(self._feeds):
            await self._send(writer, _frame(type, data, seq))
        return seq

    async def send_to_feeds(self, raw: bytes) -> None:
        """Send these bytes to all open feeds, whatever they are."""
        for writer in list(self._feeds):
            await self._send(writer, raw)

    async def end_feeds(self) -> None:
        """Close all feeds in an orderly way."""
        for writer in list(self._feeds):
            await self._send(writer, b"")
            writer.close()

    def drop_connections(self) -> None:
        """Break all connections off."""
        for task, writer in list(self._connections.items()):
            writer.transport.abort()
            task.cancel()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on requests or feeds holds."""
        async with asyncio.timeout(SECONDS), self._news:
            await self._news.wait_for(condition)

    def asked(self, path: str, method: str = "GET") -> list[Request]:
        """The requests for a path so far."""
        return [request for request in self.requests if (request.method, request.path) == (method, path)]

    # Serving

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and break all connections off."""
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._connections)
        self.drop_connections()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        try:
            while (request := await _read_request(reader)) is not None:
                self.requests.append(request)
                await self._changed()
                await self._answer(request, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            del self._connections[task]
            if writer in self._feeds:
                self._feeds.remove(writer)
            writer.close()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> None:
        key = request.method, request.path
        reply = self._scripted[key].popleft() if self._scripted[key] else self._always.get(key)
        if reply is None and request.headers.get("authorization") != f"Bearer {KEY}":
            reply = Reply(401, {"error": "unauthorized"})
        if reply is None and request.path == "/api/v1/events" and self.has_feed:
            reply = self._feed
        if reply is None:
            reply = self._own_answer(request)
        if isinstance(reply, Reply):
            writer.write(reply.encoded())
            await writer.drain()
        else:
            await reply(request, writer)

    def _own_answer(self, request: Request) -> Reply:
        limit, offset = int(request.query.get("limit", 50)), int(request.query.get("offset", 0))
        if request.path == f"{MANAGED}/agents":
            rows = list(self.agents.values())
            page = rows[offset : offset + limit]
            return Reply(body={"data": page, "total": len(rows), "limit": limit, "offset": offset})
        if request.path == f"{MANAGED}/sessions":
            wanted = request.query.get("agent_id")
            rows = [row for row in reversed(self.sessions.values()) if wanted in (None, row["agent_id"])]
            start = offset if self.can_page else 0
            return Reply(body=rows[start : start + limit])
        return Reply(404, {"error": "not found", "code": "NOT_FOUND"})

    async def _feed(self, request: Request, writer: asyncio.StreamWriter) -> None:
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        newest = self.log[-1][0] if self.log else 0
        after = int(request.headers.get("last-event-id", newest))
        await self._send(writer, _frame("feed.opened", {"seq": after}))
        for seq, type, data in self.log:
            if seq > after:
                await self._send(writer, _frame(type, data, seq))
        self._feeds.append(writer)
        await self._changed()
        await request.reader.read()  # until the client leaves
        self._feeds.remove(writer)
        await self._changed()

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        try:
            writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            await writer.drain()
        except OSError:
            pass

    async def _changed(self) -> None:
        async with self._news:
            self._news.notify_all()


def _frame(type: str, data: dict[str, Any], seq: int | None = None) -> bytes:
    head = f"id: {seq}\n" if seq is not None else ""
    return f"{head}event: {type}\ndata: {json.dumps(data)}\n\n".encode()


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    parts = urlsplit(target)
    return Request(
        method, parts.path, dict(parse_qsl(parts.query)), headers, json.loads(body) if body else None, reader
    )


@asynccontextmanager
async def running(platform: FakePlatform | None = None) -> AsyncIterator[FakePlatform]:
    """A fake platform that listens."""
    platform = platform or FakePlatform()
    await platform.start()
    try:
        yield platform
    finally:
        await platform.stop()


async def hold(request: Request, writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


async def cut(request: Request, writer: asyncio.StreamWriter) -> None:
    """Break off in the middle of an answer."""
    writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{"data": [')
    await writer.drain()
    writer.close()
    raise ConnectionResetError


def raw(*parts: bytes) -> Handler:
    """Send exactly these bytes and close."""

    async def handler(request: Request, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        writer.close()
        raise ConnectionResetError

    return handler


def sse(*chunks: bytes) -> Handler:
    """A feed that sends these pieces, one write each, and ends in an orderly way."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    return raw(head, *chunks)


async def until(model: LiveModel, condition: Callable[[], object]) -> None:
    """Wait until a condition on a live model holds."""
    changed = asyncio.Event()
    stop = model.observe(lambda _: changed.set())
    try:
        async with asyncio.timeout(SECONDS):
            while not condition():
                changed.clear()
                await changed.wait()
    finally:
        stop()


def ids(entities: Iterable[Any]) -> list[str]:
    """The ids of agents or sessions."""
    return [entity.id for entity in entities]

"""A small HTTP server that says what a test tells it to, and a model of the API server's objects on top of it."""

import asyncio
import base64
import contextlib
import json
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import SecretStr

Json = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What the client reads of the platform's settings."""

    kubeconfig: str | None = None
    k8s_api_server: str | None = None
    kube_config_b64: SecretStr | None = None
    k8s_skip_tls_verify: bool = False
    k8s_namespace: str = "lap"


def kubeconfig(url: str, user: Json | None = None) -> str:
    """The text of one for the server at `url`."""
    return json.dumps(  # JSON is YAML
        {
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": user if user is not None else {"token": "not-so-secret"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
    )


def settings_for(url: str, user: Json | None = None) -> Settings:
    text = kubeconfig(url, user)
    return Settings(kube_config_b64=SecretStr(base64.b64encode(text.encode()).decode()))


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any

    @property
    def watches(self) -> bool:
        return self.query.get("watch") == "1"


class Reply:
    """How a test answers: `json`, or `stream`, then any number of `send`, and the end; or `cut` at any time."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.chunked = False

    async def json(self, body: Any, status: int = 200, **headers: str) -> None:
        await self.text(json.dumps(body), status, content_type="application/json", **headers)

    async def text(self, body: str, status: int = 200, content_type: str = "text/plain", **headers: str) -> None:
        data = body.encode()
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(data)}\r\n{more}\r\n"
        await self.raw(head.encode() + data)

    async def stream(self) -> None:
        self.chunked = True
        await self.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")

    async def send(self, what: Json | bytes) -> None:
        data = what if isinstance(what, bytes) else json.dumps(what).encode() + b"\n"
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def event(self, kind: str, item: Json) -> None:
        await self.send({"type": kind, "object": item})

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def cut(self) -> None:
        self._writer.transport.abort()


Handler = Callable[[Request, Reply], Awaitable[None]]


class ScriptedServer:
    """Answers each request with `handler`, which may be replaced at any time. Can go away and come back."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.requests: list[Request] = []
        self.connections: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def listens(self) -> bool:
        return self._server is not None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 22)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections and cut those there are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        for writer in list(self.connections):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections.add(writer)
        begun = b""
        try:
            while request := await _request(reader, begun):
                self.requests.append(request)
                reply = Reply(writer)
                begun = await _answered(_answer(self.handler(request, reply)), reader)
                if reply.chunked:
                    if not writer.transport.is_closing():
                        await reply.raw(b"0\r\n\r\n")
                    return
        except OSError:
            pass
        finally:
            self._tasks.discard(task)
            self.connections.discard(writer)
            writer.close()


async def _answered(answering: Coroutine[Any, Any, None], reader: asyncio.StreamReader) -> bytes:
    """Until it is, or who asked has left; the beginning of the next request."""
    work, rest = asyncio.create_task(answering), asyncio.create_task(reader.read(1))
    try:
        await asyncio.wait({work, rest}, return_when=asyncio.FIRST_COMPLETED)
        return rest.result() if rest.done() else b""
    finally:
        for task in (work, rest):
            task.cancel()
        results = await asyncio.gather(work, rest, return_exceptions=True)
        if isinstance(results[0], Exception):
            raise results[0]


async def _answer(handling: Awaitable[None]) -> None:
    with contextlib.suppress(OSError):
        await handling


async def _request(reader: asyncio.StreamReader, begun: bytes) -> Request | None:
    try:
        head = (begun + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, OSError):
        return None
    first, *lines = head.split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    length = int(headers.get("content-length", "0"))
    body = json.loads(await reader.readexactly(length)) if length else None
    parts = urlsplit(target)
    return Request(method, parts.path, dict(parse_qsl(parts.query)), headers, body)


def recorded_watches() -> dict[str, list[Json]]:
    """Watch events of a real cluster by kind: a sandbox made, suspended, resumed, its pod deleted, and deleted."""
    recorded = json.loads(Path(__file__).with_name("recordings").joinpath("lifecycle.json").read_text())
    return {plural: recorded[plural] for plural in ("events", "pods", "sandboxes")}


def status(code: int, reason: str, message: str, **more: Any) -> Json:
    """A Status object as the API server sends it."""
    return {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code, **more,
    }  # fmt: skip


EXPIRED = status(410, "Expired", "too old resource version: 1 (2)")


@dataclass
class Kind:
    """The objects of one path, every change to them, and the faults of its server."""

    items: dict[str, Json] = field(default_factory=dict)
    log: list[tuple[int, str, Json]] = field(default_factory=list)
    floor: int = 0
    """Watches from before it are answered with 410."""

    def longer(self, length: int) -> bool:
        return len(self.log) > length


class FakeApi:
    """Lists and watches as the API server: versions, pages, bookmarks, 410. Paths are given in full."""

    def __init__(self) -> None:
        self.version = 10
        self.kinds: dict[str, Kind] = {}
        self.moved = asyncio.Condition()
        self.before: Handler | None = None
        """Asked first; what has been answered when it raises `Answered` is not answered again."""
        self.bookmarks = False
        self.page_version: dict[str, tuple[int, list[Json]]] = {}
        self.groups: dict[str, list[str]] = {"/apis/agents.x-k8s.io/v1beta1": ["sandboxes"]}

    def kind(self, path: str) -> Kind:
        return self.kinds.setdefault(path, Kind())

    async def put(self, path: str, name: str, **content: Any) -> Json:
        """Create or change an object; `metadata` is merged into the one it gets."""
        self.version += 1
        kind = self.kind(path)
        known = kind.items.get(name)
        metadata = {"name": name, "resourceVersion": str(self.version), "uid": f"uid-{name}"}
        if "/namespaces/" in path:
            metadata["namespace"] = path.partition("/namespaces/")[2].split("/")[0]
        item = {**content, "metadata": {**content.get("metadata", {}), **metadata}}
        kind.items[name] = item
        await self._tell(kind, "MODIFIED" if known else "ADDED", item)
        return item

    async def remove(self, path: str, name: str) -> None:
        self.version += 1
        kind = self.kind(path)
        item = kind.items.pop(name)
        await self._tell(
            kind, "DELETED", {**item, "metadata": {**item["metadata"], "resourceVersion": str(self.version)}}
        )

    def forget(self) -> None:
        """Compact: nobody can go on from before now."""
        for kind in self.kinds.values():
            kind.floor = self.version
        self.page_version.clear()

    async def bookmark(self) -> None:
        """Tell all watches the present version."""
        self.version += 1
        for kind in self.kinds.values():
            kind.log.append((self.version, "BOOKMARK", {"metadata": {"resourceVersion": str(self.version)}}))
        async with self.moved:
            self.moved.notify_all()

    async def _tell(self, kind: Kind, change: str, item: Json) -> None:
        kind.log.append((self.version, change, item))
        async with self.moved:
            self.moved.notify_all()

    async def __call__(self, request: Request, reply: Reply) -> None:
        if self.before is not None:
            try:
                await self.before(request, reply)
            except Answered:
                return
        if request.path.startswith("/apis/") and request.path.count("/") == 3:
            if (plurals := self.groups.get(request.path)) is None:
                await reply.text("404 page not found\n", 404)
            else:
                await reply.json({"kind": "APIResourceList", "resources": [{"name": plural} for plural in plurals]})
        elif request.watches:
            await self._watch(request, reply)
        else:
            await self._list(request, reply)

    async def _list(self, request: Request, reply: Reply) -> None:
        limit = int(request.query.get("limit", "0"))
        if token := request.query.get("continue"):
            if token not in self.page_version:
                await reply.json(EXPIRED, 410)
                return
            version, items = self.page_version.pop(token)
        else:
            version, items = self.version, list(self.kind(request.path).items.values())
        metadata: Json = {"resourceVersion": str(version)}
        if limit and len(items) > limit:
            token = f"{request.path}@{version}+{len(items)}=="
            self.page_version[token] = (version, items[limit:])
            metadata |= {"continue": token, "remainingItemCount": len(items) - limit}
        await reply.json({"kind": "List", "metadata": metadata, "items": items[:limit] if limit else items})

    async def _watch(self, request: Request, reply: Reply) -> None:
        kind = self.kind(request.path)
        version = int(request.query["resourceVersion"])
        await reply.stream()
        if version < kind.floor:
            await reply.event("ERROR", EXPIRED)
            return
        sent = 0
        while True:
            for at, change, item in kind.log[sent:]:
                sent += 1
                if at > version:
                    await reply.event(change, item)
            async with self.moved:
                await self.moved.wait_for(partial(kind.longer, sent))


class Answered(Exception):
    """Raised by `FakeApi.before` when it has answered the request itself."""

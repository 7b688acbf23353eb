"""HTTP/1.1 on asyncio streams: requests, answers, watches and followed logs, with what the faults do to them."""

import asyncio
import contextlib
import json
import ssl
from collections import Counter
from collections.abc import Coroutine
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.kubernetes.double import errors
from tests.kubernetes.double.api import Answer, Api, Request, Target, Watch
from tests.kubernetes.double.logs import Logs
from tests.kubernetes.double.rules import Rules
from tests.kubernetes.double.store import Change, Entry

MAX_BODY = 3 * 1024 * 1024
_REASONS = {200: "OK", 201: "Created", 204: "No Content"}
_VERSION = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.2",
    "gitCommit": "98b35193b2ac7a23a673325f5e9b830ecd5ba406",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "go1.26.6",
    "compiler": "gc",
    "platform": "linux/amd64",
}


class _Watcher:
    """One open watch. Lines are gathered and written together in the next turn of the loop."""

    def __init__(self, watch: Watch, writer: asyncio.StreamWriter) -> None:
        self.watch, self._writer = watch, writer
        self._lines: list[bytes] = []
        self.ended = asyncio.Event()

    def offer(self, change: Change) -> None:
        watch, entry, old = self.watch, change.entry, change.old
        if watch.namespace and entry.meta.get("namespace") != watch.namespace:
            return
        kind = change.type
        if watch.match is not None:
            before = old is not None and watch.match(old.obj)
            after = kind != "DELETED" and watch.match(entry.obj)
            if not before and not after and not (kind == "DELETED" and watch.match(entry.obj)):
                return
            kind = "DELETED" if not after else "MODIFIED" if before else "ADDED"
        self.put(kind, entry.json(watch.version))

    def show(self, entry: Entry) -> None:
        """What is there when the watch begins."""
        watch = self.watch
        if watch.namespace and entry.meta.get("namespace") != watch.namespace:
            return
        if watch.match is None or watch.match(entry.obj):
            self.put("ADDED", entry.json(watch.version))

    def bookmark(self, version: int, *, end: bool = False) -> None:
        resource = self.watch.resource
        meta = {"resourceVersion": str(version), "creationTimestamp": None}
        if end:
            meta |= {"annotations": {"k8s.io/initial-events-end": "true"}}  # type: ignore[dict-item]
        api_version = resource.api_version(self.watch.version)
        self.put("BOOKMARK", json.dumps({"kind": resource.kind, "apiVersion": api_version, "metadata": meta}).encode())

    def put(self, kind: str, text: bytes) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_soon(self._flush)
        self._lines.append(b'{"type":"%s","object":%s}\n' % (kind.encode(), text))

    def _flush(self) -> None:
        data, self._lines = b"".join(self._lines), []
        if not self._writer.is_closing():
            self._writer.write(b"%x\r\n%s\r\n" % (len(data), data))


class Server:
    """The listener of one double. `asked`: requests by (verb, resource, namespace), watches as verb "watch"."""

    def __init__(self, api: Api, rules: Rules, logs: Logs, *, user: str, token: str, bookmark_seconds: float) -> None:
        self.api, self.rules, self._logs = api, rules, logs
        self._user, self._token, self._bookmark_seconds = user, token, bookmark_seconds
        self.asked: Counter[tuple[str, str, str]] = Counter()
        self.broken: list[Exception] = []
        """What the double itself could not do."""
        self.watchers: dict[str, set[_Watcher]] = {}
        self.followers: set[asyncio.StreamWriter] = set()
        """Of logs that are being followed."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        api.store.listeners.append(self._changed)

    async def listen(self, port: int, tls: ssl.SSLContext | None) -> int:
        """The port it listens on (0: any)."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", port, ssl=tls, backlog=512, reuse_address=True, limit=MAX_BODY
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and cut all connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in tuple(self._writers):
            writer.transport.abort()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def cut_watches(self, plural: str | None = None) -> None:
        for name, watchers in self.watchers.items():
            for watcher in tuple(watchers) if plural in (None, name) else ():
                watcher.ended.set()

    def cut_logs(self) -> None:
        for writer in tuple(self.followers):
            writer.transport.abort()

    def bookmark(self) -> None:
        """A bookmark for every watch that asked for them, now."""
        for watcher in (watcher for watchers in self.watchers.values() for watcher in watchers):
            if watcher.watch.bookmarks:
                watcher.bookmark(self.api.store.version)

    def _changed(self, change: Change) -> None:
        for watcher in self.watchers.get(change.entry.resource.plural, ()):
            watcher.offer(change)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            while (request := await _read(reader, writer)) is not None:
                if not await self._answer(request, reader, writer):
                    break
        except (OSError, asyncio.IncompleteReadError, ValueError, asyncio.CancelledError):
            pass  # The client is gone, speaks no HTTP, or we end.
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection can be used for another request."""
        broken = False
        try:
            result = await self._result(request)
            if isinstance(result, tuple):
                target, broken = result
                return await self._stream(target, request, broken, reader, writer)
            answer = result
        except errors.Refused as refused:
            answer = Answer(refused.code, json.dumps(refused.body).encode(), headers=tuple(refused.headers.items()))
        except errors.NoSuchPath:
            answer = Answer(404, b"404 page not found\n", "text/plain; charset=utf-8")
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            self.broken.append(error)
            body = errors.Refused(500, "InternalError", f"Internal error occurred: {error!r}").body
            answer = Answer(500, json.dumps(body).encode())
        return await _write(writer, answer, broken)

    async def _result(self, request: Request) -> Answer | tuple[Target, bool]:
        """The answer to what names no resource; else the target and whether the answer is to break off."""
        if request.headers.get("authorization") != f"Bearer {self._token}" and request.path != "/readyz":
            raise errors.unauthorized()
        if request.path in ("/readyz", "/livez", "/healthz"):
            return Answer(200, b"ok", "text/plain; charset=utf-8")
        if request.path == "/version":
            return _json(_VERSION)
        found = self.api.catalog.discovery(request.path.rstrip("/"))
        if found is not None:
            return _json(found)
        target = self.api.target(request)
        what = "/".join(filter(None, (target.resource.plural, target.subresource)))
        asked = (target.verb, what, target.namespace)
        self.asked[asked] += 1
        rule = self.rules.match(*asked)
        if rule is None:
            return target, False
        if rule.delay:
            await asyncio.sleep(rule.delay)
        if rule.forbid:
            place = (target.namespace, target.name, target.subresource)
            raise errors.forbidden(self._user, target.verb, target.resource, *place)
        if rule.refusal is not None:
            raise rule.refusal
        return target, rule.broken

    async def _stream(
        self,
        target: Target,
        request: Request,
        broken: bool,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        if target.subresource == "log":
            name = (target.namespace, target.name)
            if request.query.get("follow") in ("true", "1") and self._logs.read(*name, request.query) is not None:
                return await _until_gone(reader, self._follow(writer, *name, request.query))
            text = self._logs.read(*name, request.query)
            answer = Answer(204) if text is None else Answer(200, text.encode(), "text/plain")
            return await _write(writer, answer, broken)
        result = self.api.handle(target, request)
        if isinstance(result, Answer):
            return await _write(writer, result, broken)
        return await _until_gone(reader, self._watch(result, writer, broken)) and not broken

    async def _follow(self, writer: asyncio.StreamWriter, namespace: str, name: str, query: dict[str, str]) -> None:
        _start_chunks(writer, "text/plain")
        self.followers.add(writer)
        try:
            async for text in self._logs.follow(namespace, name, query):
                if text:
                    data = text.encode()
                    writer.write(b"%x\r\n%s\r\n" % (len(data), data))
                    await writer.drain()
            writer.write(b"0\r\n\r\n")
        finally:
            self.followers.discard(writer)

    async def _watch(self, watch: Watch, writer: asyncio.StreamWriter, broken: bool) -> None:
        store, plural = self.api.store, watch.resource.plural
        watcher = _Watcher(watch, writer)
        _start_chunks(writer, "application/json")
        try:
            if watch.since is None:
                for entry in store.entries(plural, watch.namespace):
                    watcher.show(entry)
                if watch.initial_end:
                    watcher.bookmark(store.version, end=True)
            else:
                for change in store.since(plural, watch.since):
                    watcher.offer(change)
        except errors.Refused as refused:
            watcher.put("ERROR", json.dumps(refused.body).encode())
            watcher.ended.set()
        if broken:
            writer.write(b'400\r\n{"type":"ADDED","object":{"kind"')
            await writer.drain()
            writer.transport.abort()
            return
        self.watchers.setdefault(plural, set()).add(watcher)
        try:
            await self._hold(watcher, writer)
        finally:
            self.watchers[plural].discard(watcher)

    async def _hold(self, watcher: _Watcher, writer: asyncio.StreamWriter) -> None:
        """Until its time is up or it is cut, with bookmarks meanwhile."""
        loop = asyncio.get_running_loop()
        watch = watcher.watch
        end = None if watch.seconds is None else loop.time() + watch.seconds
        while not watcher.ended.is_set() and (end is None or loop.time() < end):
            left = self._bookmark_seconds if end is None else min(self._bookmark_seconds, end - loop.time())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(watcher.ended.wait(), left)
            if watch.bookmarks and not watcher.ended.is_set():
                watcher.bookmark(self.api.store.version)
        await asyncio.sleep(0)  # What was gathered goes first.
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def _json(value: object) -> Answer:
    return Answer(200, json.dumps(value).encode())


async def _until_gone(reader: asyncio.StreamReader, work: Coroutine[Any, Any, None]) -> bool:
    """Run `work` until it is done or the client has gone; whether it was done."""
    streaming = asyncio.create_task(work)
    leaving = asyncio.create_task(reader.read(1))
    try:
        await asyncio.wait((streaming, leaving), return_when=asyncio.FIRST_COMPLETED)
        return not leaving.done()
    finally:
        streaming.cancel()
        leaving.cancel()
        await asyncio.gather(streaming, leaving, return_exceptions=True)


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    """The next request; None when the client has closed. Raises ValueError for what is no HTTP."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.split("\r\n")
    method, where, _ = first.split(" ", 2)
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
    }
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    elif length := int(headers.get("content-length", 0)):
        if length > MAX_BODY:
            raise ValueError("too large a body")
        body = await reader.readexactly(length)
    parts = urlsplit(where)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return Request(method, unquote(parts.path), query, headers, body)


async def _write(writer: asyncio.StreamWriter, answer: Answer, broken: bool) -> bool:
    """Send the answer, or only half of it when it is to break off."""
    lines = [f"HTTP/1.1 {answer.code} {_REASONS.get(answer.code, 'Refused')}", f"Content-Length: {len(answer.body)}"]
    if answer.code != 204:
        lines.append(f"Content-Type: {answer.content_type}")
    lines += [f"{name}: {value}" for name, value in answer.headers]
    data = "\r\n".join(lines).encode() + b"\r\n\r\n" + answer.body
    if broken:
        writer.write(data[: len(data) - len(answer.body) // 2 - 1])
        await writer.drain()
        writer.close()
        return False
    writer.write(data)
    await writer.drain()
    return True


def _start_chunks(writer: asyncio.StreamWriter, content_type: str) -> None:
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())

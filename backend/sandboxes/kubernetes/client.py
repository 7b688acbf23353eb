"""Requests to the Kubernetes API: raw JSON in and out over the official client; errors say what to do."""

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from urllib.parse import quote, urlencode

from backend.sandboxes.kubernetes.connection import Connection, ConnectionSettings, in_thread
from backend.sandboxes.kubernetes.errors import (
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotConfigured,
    NotFound,
    NotServed,
    Senseless,
    Throttled,
    Unauthorized,
    Unreachable,
    cause_of,
    refusal,
)

if TYPE_CHECKING:
    import aiohttp

__all__ = [
    "ALL",
    "EVENTS",
    "NODES",
    "PODS",
    "SERVICES",
    "ApiError",
    "Conflict",
    "ConnectionSettings",
    "Forbidden",
    "Gone",
    "Invalid",
    "Json",
    "KubernetesClient",
    "NotConfigured",
    "NotFound",
    "NotServed",
    "Resource",
    "Senseless",
    "Throttled",
    "Unauthorized",
    "Unreachable",
]

Json = dict[str, Any]
Objects = list[Json]
T = TypeVar("T")

ALL: Final = ""
"""As a namespace: all of them."""
PAGE: Final = 250
"""Objects a page: a page of pods is parsed in about 20 ms, during which the loop does nothing else."""

_CONNECT_SECONDS: Final = 5.0
_SILENCE_SECONDS: Final = 15.0
_CALL_SECONDS: Final = 60.0
_OPEN_SECONDS: Final = 20.0
"""Until the server has accepted a watch or the following of a log."""
_WATCH_SECONDS: Final = 300
_CALLS_AT_ONCE: Final = 32
_RENEW_SECONDS: Final = 10.0
"""Credentials are read anew this often at most."""
_MAX_BODY: Final = 256 << 20
_MAX_ERROR: Final = 64 << 10
_MAX_LINE: Final = 16 << 20
_MAX_LOG: Final = 4 << 20
_MAX_LOG_READ: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object, as its URL names it."""

    group: str
    """"" for the core group."""
    version: str
    plural: str
    namespaced: bool = True

    @property
    def title(self) -> str:
        """As access rules and error messages name it: `pods`, `sandboxes.agents.x-k8s.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


PODS: Final = Resource("", "v1", "pods")
SERVICES: Final = Resource("", "v1", "services")
EVENTS: Final = Resource("", "v1", "events")
NODES: Final = Resource("", "v1", "nodes", namespaced=False)
SANDBOX_GROUP: Final = "agents.x-k8s.io"
SANDBOX_VERSIONS: Final = ("v1beta1", "v1alpha1")


class KubernetesClient:
    """Talks to one cluster, on one event loop.

    Any number of calls may run at once; every one has a timeout and raises ApiError. Credentials are read anew when
    the server no longer takes them (token files, exec plugins, renewed certificates).
    """

    def __init__(self, settings: ConnectionSettings, connection: Connection) -> None:
        self.namespace = settings.k8s_namespace
        """Ours; used wherever a call names none."""
        self._settings = settings
        self._connection = connection
        self._renewing = asyncio.Lock()
        self._renewed = -_RENEW_SECONDS
        self._calls = asyncio.Semaphore(_CALLS_AT_ONCE)
        self._sandboxes: Resource | None = None
        self._closed = False

    @classmethod
    async def connect(cls, settings: ConnectionSettings) -> "KubernetesClient":
        """With the first of KUBE_CONFIG_B64, KUBECONFIG, the pod's service account, ~/.kube/config.

        Reads configuration only, asks nothing of the server. Raises NotConfigured.
        """
        return cls(settings, await in_thread(partial(Connection, settings)))

    async def close(self) -> None:
        """Close all connections; what is still under way, or comes later, raises Unreachable."""
        self._closed = True
        await self._connection.close()

    @property
    def host(self) -> str:
        """host:port of the API server, for texts."""
        return self._connection.host

    async def served_version(self, group: str, versions: Iterable[str], plural: str) -> str | None:
        """The first of `versions` in which the server has `plural`, None when in none."""
        for version in versions:
            with contextlib.suppress(NotFound):
                found = await self._json("GET", f"/apis/{quote(group)}/{quote(version)}", "get", f"/apis/{group}")
                if any(resource.get("name") == plural for resource in _objects(found.get("resources"))):
                    return version
        return None

    async def sandboxes(self, *, again: bool = False) -> Resource:
        """The Sandbox resource in the best version served, asked once (or `again`). Raises NotServed."""
        if self._sandboxes is None or again:
            self._sandboxes = None
            version = await self.served_version(SANDBOX_GROUP, SANDBOX_VERSIONS, "sandboxes")
            if version is None:
                raise NotServed(
                    "agent-sandbox is not installed in the cluster",
                    "kubectl apply the manifest of a release of kubernetes-sigs/agent-sandbox",
                    status=404,
                )
            self._sandboxes = Resource(SANDBOX_GROUP, version, "sandboxes")
        return self._sandboxes

    async def list(self, resource: Resource, *, namespace: str | None = None, labels: str = "") -> Objects:
        """All objects; `namespace` may be ALL, `labels` is a label selector."""
        return (await self.list_with_version(resource, namespace=namespace, labels=labels))[0]

    async def list_with_version(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        labels: str = "",
        trim: Callable[[Json], Json] = lambda item: item,
    ) -> tuple[Objects, str]:
        """All objects, each through `trim` as its page comes in, and the resourceVersion to watch from.

        The list is the newest state, not one from the server's cache (resourceVersion "0"): that may lie in the past,
        so after a listing anew what has been deleted would come back for a while, and it cannot be asked for in pages.
        """
        items: Objects = []
        token = ""
        while True:
            try:
                page = await self.page(resource, namespace=namespace, labels=labels, limit=PAGE, token=token)
            except Gone:
                if not token:
                    raise
                # Reading it took longer than the server keeps pages. In one piece that cannot happen.
                page = await self.page(resource, namespace=namespace, labels=labels)
                items.clear()
            items += map(trim, page["items"])
            version, token = page["metadata"].get("resourceVersion"), page["metadata"].get("continue")
            if not token:
                return items, version if isinstance(version, str) else ""

    async def page(
        self, resource: Resource, *, namespace: str | None = None, labels: str = "", limit: int = 0, token: str = ""
    ) -> Json:
        """One List object: up to `limit` items (0: all), from the continue `token` on. Raises Gone when it is old.

        "items" is a list of objects and "metadata" an object, whatever the server says. Every item has its kind and
        apiVersion as when it comes alone; a list of built-in objects has them only once.
        """
        query = {"limit": limit or "", "continue": token, "labelSelector": labels}
        page = await self._json("GET", self._path(resource, namespace), "list", _scope(resource, namespace), query)
        metadata = page.get("metadata")
        common = {"apiVersion": page.get("apiVersion"), "kind": str(page.get("kind") or "").removesuffix("List")}
        known = {key: value for key, value in common.items() if value}
        return page | {
            "items": [known | item for item in _objects(page.get("items"))],
            "metadata": metadata if isinstance(metadata, dict) else {},
        }

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Json:
        """One object."""
        return await self._json("GET", self._path(resource, namespace, name), "get", resource.title)

    async def create(self, resource: Resource, body: Json, *, namespace: str | None = None) -> Json:
        """Create; the answer is the object as stored. Conflict with reason AlreadyExists when it is there."""
        return await self._json("POST", self._path(resource, namespace), "create", resource.title, body=body)

    async def delete(self, resource: Resource, name: str, *, namespace: str | None = None, uid: str = "") -> Json:
        """Delete, dependents in the background; with `uid` only that very object (Conflict otherwise)."""
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        path = self._path(resource, namespace, name)
        return await self._json("DELETE", path, "delete", resource.title, body=options)

    async def log(
        self,
        pod: str,
        container: str = "",
        *,
        tail_lines: int | None = None,
        since_seconds: int | None = None,
        previous: bool = False,
        timestamps: bool = False,
    ) -> str:
        """The log so far, its last 4 MiB at most, "" when the pod is not scheduled.

        With `timestamps` every line begins with when it was written (RFC 3339) and a space. ApiError with status 400
        when the container has not started, or never did before (`previous`).
        """
        query = _log_query(container, tail_lines, timestamps) | {"limitBytes": _MAX_LOG_READ}
        if since_seconds is not None:
            query["sinceSeconds"] = since_seconds
        if previous:
            query["previous"] = "true"
        path = self._path(PODS, None, pod) + "/log"
        async with self._calls, self._answer("GET", path, "get", "pods/log", query) as answer:
            chunks: deque[bytes] = deque()
            size = 0
            while chunk := await self._chunk(answer):
                chunks.append(chunk)
                size += len(chunk)
                while size - len(chunks[0]) >= _MAX_LOG:
                    size -= len(chunks.popleft())
        return b"".join(chunks)[-_MAX_LOG:].decode(errors="replace")

    @contextlib.asynccontextmanager
    async def follow_log(
        self,
        pod: str,
        container: str = "",
        *,
        tail_lines: int | None = None,
        since_time: str | None = None,
        timestamps: bool = False,
    ) -> AsyncIterator[AsyncIterator[str]]:
        """`async with client.follow_log(...) as lines: async for line in lines`: until the container ends.

        `since_time` (RFC 3339, whole seconds) leaves out what is older; `timestamps` as with `log`. Raises Unreachable
        when it is cut; a silent container is silent for as long as it likes.
        """
        query = _log_query(container, tail_lines, timestamps) | {"follow": "true"}
        if since_time is not None:
            query["sinceTime"] = since_time
        path = self._path(PODS, None, pod) + "/log"
        async with self._answer("GET", path, "get", "pods/log", query, stream=True) as answer:
            yield _Lines(partial(self._chunk, answer), lambda line: line.decode(errors="replace"))

    def watch(
        self,
        resource: Resource,
        resource_version: str,
        *,
        namespace: str | None = None,
        timeout_seconds: int = _WATCH_SECONDS,
    ) -> AbstractAsyncContextManager[AsyncIterator[Json]]:
        """`async with client.watch(...) as events`: entered once the server has accepted; then {"type", "object"}.

        Ends when the server ends it, after `timeout_seconds` at the latest; ERROR events are raised as ApiError. A
        connection that is dead without a word is noticed by TCP within about a minute, else shortly after the timeout.
        """
        query = {
            "watch": "1",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": timeout_seconds,
        }
        on = _scope(resource, namespace)
        return self._watch(self._path(resource, namespace), on, query, timeout_seconds + _SILENCE_SECONDS)

    @contextlib.asynccontextmanager
    async def _watch(
        self, path: str, on: str, query: Mapping[str, Any], silence: float
    ) -> AsyncIterator[AsyncIterator[Json]]:
        def event(line: bytes) -> Json:
            found = self._parsed(line)
            if not isinstance(found.get("object"), dict):
                raise self._senseless("an event without an object")
            if found.get("type") == "ERROR":
                raise refusal(found["object"], 0, {}, "watch", on)
            return found

        async with self._answer("GET", path, "watch", on, query, stream=True, silence=silence) as answer:
            yield _Lines(partial(self._chunk, answer), event)

    def _path(self, resource: Resource, namespace: str | None, name: str = "") -> str:
        parts = ["/apis", resource.group] if resource.group else ["/api"]
        parts.append(resource.version)
        where = self.namespace if namespace is None else namespace
        if resource.namespaced and where != ALL:
            parts += ["namespaces", quote(where, safe="")]
        parts.append(resource.plural)
        if name:
            parts.append(quote(name, safe=""))
        return "/".join(parts)

    async def _json(
        self,
        method: str,
        path: str,
        verb: str,
        on: str,
        query: Mapping[str, Any] | None = None,
        *,
        body: Json | None = None,
    ) -> Json:
        """One call whose answer is an object."""
        answered = self._answer(method, path, verb, on, query or {}, body=body)
        async with self._calls, answered as answer:
            chunks: list[bytes] = []
            size = 0
            while chunk := await self._chunk(answer):
                chunks.append(chunk)
                if (size := size + len(chunk)) > _MAX_BODY:
                    raise self._senseless("an answer without end")
        return self._parsed(b"".join(chunks))

    @contextlib.asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        verb: str,
        on: str,
        query: Mapping[str, Any],
        *,
        body: Json | None = None,
        stream: bool = False,
        silence: float | None = None,
    ) -> "AsyncIterator[aiohttp.ClientResponse]":
        """The answer when it is a good one; at the end its connection is closed unless all of it was read.

        `silence` is how many seconds a stream may say nothing (None: any number).
        """
        if given := {key: value for key, value in query.items() if value != ""}:
            path += "?" + urlencode(given)
        send = partial(self._send, method, path, body, stream, silence)
        used = (self._connection, self._connection.generation)
        try:
            answer = await send()
        except Unreachable as error:
            if not error.untrusted or not await self._renew(*used):
                raise
            answer = await send()
        if answer.status == 401 and await self._renew(*used):
            answer.close()
            answer = await send()
        try:
            if answer.status >= 300:  # redirects have been followed
                raise refusal(await self._error_body(answer), answer.status, answer.headers, verb, on)
            yield answer
        finally:
            answer.close()

    async def _send(
        self, method: str, path: str, body: Json | None, stream: bool, silence: float | None
    ) -> "aiohttp.ClientResponse":
        import aiohttp

        timeout = aiohttp.ClientTimeout(
            total=None if stream else _CALL_SECONDS,
            sock_connect=_CONNECT_SECONDS,
            sock_read=silence if stream else _SILENCE_SECONDS,
        )
        headers = {"Accept": "application/json, */*", "Accept-Encoding": "identity"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                return await self._connection.send(method, path, headers, body, timeout)
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            raise self._unreachable(error) from None

    async def _chunk(self, answer: "aiohttp.ClientResponse") -> bytes:
        """What has come of the body, b"" at its end."""
        import aiohttp

        try:
            return await answer.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise self._unreachable(error) from None

    async def _error_body(self, answer: "aiohttp.ClientResponse") -> Json | str:
        text = b""
        with contextlib.suppress(Unreachable):
            while len(text) < _MAX_ERROR and (chunk := await self._chunk(answer)):
                text += chunk
        with contextlib.suppress(ValueError):
            if isinstance(found := json.loads(text), dict):
                return found
        return text.decode(errors="replace")

    def _parsed(self, text: bytes) -> Json:
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(found := json.loads(text), dict):
                return found
        raise self._senseless("what is cut short or no JSON object")

    def _senseless(self, what: str) -> Senseless:
        return Senseless(f"the Kubernetes API at {self.host} sent {what}")

    def _unreachable(self, error: BaseException) -> Unreachable:
        cause, untrusted = cause_of(error)
        return Unreachable(f"cannot reach the Kubernetes API at {self.host}: {cause}", untrusted=untrusted)

    async def _renew(self, used: Connection, generation: int) -> bool:
        """Read configuration and credentials anew; whether another try is worth it."""
        async with self._renewing:
            if self._connection is not used or used.generation != generation:
                return True  # someone else was quicker
            if time.monotonic() - self._renewed < _RENEW_SECONDS:
                return False
            self._renewed = time.monotonic()
            try:
                fresh = await in_thread(partial(Connection, self._settings))
            except NotConfigured:
                return False
            if self._closed:
                return False
            if not used.take_credentials(fresh):
                self._connection = fresh
                await used.close()
            return True


class _Lines(Generic[T]):
    """The lines of a stream, without their ends, each converted; the last one may lack its end."""

    def __init__(self, read: Callable[[], Any], convert: Callable[[bytes], T]) -> None:
        self._read = read
        self._convert = convert
        self._whole: deque[bytes] = deque()
        self._begun: list[bytes] = []
        self._size = 0

    def __aiter__(self) -> "_Lines[T]":
        return self

    async def __anext__(self) -> T:
        while not self._whole:
            if chunk := await self._read():
                self._split(chunk)
            elif self._begun:
                self._end_line(b"")
            else:
                raise StopAsyncIteration
        return self._convert(self._whole.popleft())

    def _split(self, chunk: bytes) -> None:
        *ended, rest = chunk.split(b"\n")
        for line in ended:
            self._end_line(line)
        if rest:
            self._begun.append(rest)
            self._size += len(rest)
            if self._size > _MAX_LINE:
                raise Senseless("the Kubernetes API sent a line without end")

    def _end_line(self, rest: bytes) -> None:
        self._whole.append(b"".join((*self._begun, rest)))
        self._begun.clear()
        self._size = 0


def _objects(found: object) -> list[Json]:
    """The objects in what should be a list of them."""
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _scope(resource: Resource, namespace: str | None) -> str:
    return f"{resource.title} in all namespaces" if resource.namespaced and namespace == ALL else resource.title


def _log_query(container: str, tail_lines: int | None, timestamps: bool) -> dict[str, Any]:
    given = {"container": container or None, "tailLines": tail_lines, "timestamps": "true" if timestamps else None}
    return {key: value for key, value in given.items() if value is not None}

"""A cluster full of sandboxes, and one stand-in for the harnesses of them all."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from backend.domain.agents import HARNESSES
from backend.sandboxes.contract import SandboxSpec
from backend.sandboxes.kubernetes import manifests
from backend.sandboxes.kubernetes.manifests import PodSettings
from tests.kubernetes.double import Double

KEEPALIVE_SECONDS = 10.0
"""As often as a harness sends one."""
PODS = PodSettings(dict.fromkeys(HARNESSES, "sandbox:1"), cpu_request="10m", memory_request="64Mi")
_STATE = json.dumps(
    {"setup": "done", "phases": [], "viewers": 0, "attached": [], "agent": {"running": True, "pid": 7}, "session": None}
)
_ANSWERS = {
    ("GET", "/healthz"): '{"ok": true}',
    ("GET", "/state"): _STATE,
    ("POST", "/session"): '{"id": "tty"}',
}


def identity(number: int) -> tuple[str, str]:
    """The ids of a session and of its sandbox."""
    return f"00000000-0000-4000-8000-{number:012x}", f"s-{number:032x}"


async def populate(double: Double, sessions: int, *, broken_every: int = 0) -> None:
    """The sandboxes of that many sessions: their pods run or, of some, their image cannot be pulled."""
    for number in range(sessions):
        session_id, name = identity(number)
        if broken_every and number % broken_every == 0:
            double.script(name, "pull-error")
        spec = SandboxSpec(name, session_id, "a1", "claude-code", "token")
        double.put("sandboxes", _placed(manifests.sandbox(spec, PODS, "v1beta1"), double))
    for sandbox in double.list("sandboxes"):
        name = sandbox["metadata"]["name"]
        owner = {**sandbox, "apiVersion": "agents.x-k8s.io/v1beta1", "kind": "Sandbox"}
        double.put("services", _placed(manifests.service(owner, "ClusterIP"), double))
        await double.until("pods", name, lambda pod: bool(pod and pod["status"].get("containerStatuses")))


def _placed(body: dict[str, Any], double: Double) -> dict[str, Any]:
    return {**body, "metadata": {**body["metadata"], "namespace": double.namespace}}


class Harnesses:
    """Answers for the harnesses of all sandboxes at one address: each is set up at once, and nothing ever happens."""

    def __init__(self) -> None:
        self.watched: set[asyncio.StreamWriter] = set()
        """Connections of open watches."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", backlog=2048)
        self.port = server.sockets[0].getsockname()[1]
        beating = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            server.close()
            for task in (beating, *self._tasks):
                task.cancel()
            await asyncio.gather(beating, *self._tasks, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(KEEPALIVE_SECONDS)
            for writer in self.watched:
                _chunk(writer, ":keepalive\n\n")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or we end
        finally:
            self._tasks.discard(task)
            self.watched.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, path, _ = head.split(" ", 2)
        if length := head.lower().partition("content-length:")[2].split("\r\n")[0].strip():
            await reader.readexactly(int(length))
        if path == "/watch":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            _chunk(writer, f"data: {_STATE}\n\n")
            self.watched.add(writer)
            await reader.read()  # until the client goes
            return
        body = _ANSWERS.get((method, path), "{}").encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()


def _chunk(writer: asyncio.StreamWriter, text: str) -> None:
    data = text.encode()
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))

"""`python -m backend.vault --directory DIR [--port N]`: the vault process of one platform.

It reads nothing but its folder, writes nothing but notes to the platform, and lives as long as there are sandboxes.
"""

import argparse
import asyncio
import contextlib
import ctypes
import gc
import hmac
import json
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backend.domain import stubs
from backend.vault import control
from backend.vault.authority import CERTIFICATE_FILE, Authority
from backend.vault.control import Channel, ControlError
from backend.vault.dns import Resolver
from backend.vault.front import Front, Vault
from backend.vault.sessions import Malformed, Session, Sessions
from backend.vault.upstream import Upstreams

_PR_SET_DUMPABLE: Final = 4
_NOTES_SECONDS: Final = 0.1
_SWEEP_SECONDS: Final = 10.0
_HELLO_SECONDS: Final = 5.0
_ALONE_SECONDS: Final = 60.0
"""How long a vault without a sandbox waits for a platform."""
_FORGOTTEN_SECONDS: Final = 3_600.0
"""How long one with sandboxes does when none of them has a connection: the next platform starts another."""
_BACKLOG: Final = 512

logger = logging.getLogger("vault")


@dataclass(frozen=True, slots=True)
class _Listener:
    """A socket that was passed to us, and what serves it."""

    sock: socket.socket
    server: Any


class Process:
    """All that one vault process has open."""

    def __init__(self, directory: Path, authority: Authority) -> None:
        self._directory = directory
        self._secret = (directory / control.SECRET).read_text().strip()
        self._sessions = Sessions(self._noted)
        self._upstreams = Upstreams()
        self._vault = Vault(authority, self._sessions, self._upstreams)
        self._vault.ca = (directory / CERTIFICATE_FILE).read_bytes()
        self._news = asyncio.Event()
        self._channel: Channel | None = None
        self._listeners: dict[str, dict[str, _Listener]] = {}
        self._port = 0
        self._end = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, directory: Path, port: int, ready: Callable[[int], None]) -> None:
        """Serve until told to end, or until nobody needs it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end.set)
        listener = _bound(port)
        self._port = listener.getsockname()[1]
        server = await loop.create_server(lambda: Front(self._vault), sock=listener, backlog=_BACKLOG)
        door = control.listening(directory)
        self._own(self._admit(door))
        self._own(self._tell())
        self._own(self._sweep())
        ready(self._port)
        gc.collect()
        gc.freeze()
        await self._end.wait()
        server.close()
        door.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for name in tuple(self._sessions.by_name):
            self._close(name)
        self._upstreams.close()

    def _own(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # The platform.

    async def _admit(self, door: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(door)
            self._own(self._serve(Channel(sock)))

    async def _serve(self, channel: Channel) -> None:
        try:
            async with asyncio.timeout(_HELLO_SECONDS):
                message, _ = await channel.receive()
            secret = str(message.get("secret", ""))
            if channel.peer != os.getuid() or not hmac.compare_digest(secret.encode(), self._secret.encode()):
                await channel.send({"id": message.get("id"), "error": "not this vault's platform"})
                return
            if self._channel is not None:
                self._channel.close()  # a platform that was restarted
            self._channel = channel
            names = sorted(self._sessions.by_name)
            told = {"pid": os.getpid(), "port": self._port, "sessions": names}
            await channel.send({"id": message.get("id"), "ok": told})
            self._news.set()
            while True:
                message, descriptors = await channel.receive()
                await self._obey(channel, message, descriptors)
        except (ControlError, TimeoutError, OSError) as error:
            logger.info("control: %s", error)
        finally:
            channel.close()
            if self._channel is channel:
                self._channel = None
                if not self._sessions.by_name:
                    self._end.set()

    async def _obey(self, channel: Channel, message: dict[str, Any], descriptors: list[int]) -> None:
        try:
            answer = await self._done(message, descriptors)
        except (Malformed, KeyError, TypeError, OSError, ValueError) as error:
            await channel.send({"id": message.get("id"), "error": f"{type(error).__name__}: {error}"})
        else:
            lent = []
            if message["do"] == "lend":
                lent = [each.sock.fileno() for each in self._listeners.get(message["name"], {}).values()]
            await channel.send({"id": message.get("id"), "ok": answer}, lent)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    async def _done(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        match message.get("do"):
            case "open":
                session = self._sessions.open(str(message["name"]), message["session"])
                self._upstreams.sweep(all_of=session)
            case "listen":
                await self._listen(str(message["name"]), list(message["kinds"]), descriptors)
            case "lend":
                return {"kinds": list(self._listeners.get(message["name"], {}))}
            case "close":
                self._close(str(message["name"]))
            case "keep":
                wanted = {str(name) for name in message["names"]}
                for name in set(self._sessions.by_name) - wanted:
                    self._close(name)
            case "stats":
                connections = sum(len(session.connections) for session in self._sessions.by_name.values())
                return {
                    "sessions": len(self._sessions.by_name),
                    "connections": connections,
                    "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 -- no path of each is wanted
                    "rss_kb": _rss(),
                }
            case other:
                raise ValueError(f"nothing called {other!r}")
        return {}

    async def _listen(self, name: str, kinds: list[str], descriptors: list[int]) -> None:
        session = self._sessions.by_name[name]
        if len(kinds) != len(descriptors) or not set(kinds) <= set(control.KINDS):
            raise ValueError("each listener needs its kind")
        loop = asyncio.get_running_loop()
        opened = self._listeners.setdefault(name, {})
        for kind, descriptor in zip(kinds, descriptors, strict=True):
            sock = socket.socket(fileno=os.dup(descriptor))
            sock.setblocking(False)
            server: Any
            if kind == "dns":
                server, _ = await loop.create_datagram_endpoint(lambda: Resolver(session, self._upstreams), sock=sock)
            else:
                server = await loop.create_server(self._maker(session, kind), sock=sock, backlog=_BACKLOG)
            if kind in opened:
                opened[kind].server.close()
            opened[kind] = _Listener(sock, server)

    def _maker(self, session: Session, kind: str) -> Callable[[], Front]:
        return lambda: Front(self._vault, session, transparent=kind == "transparent")

    def _close(self, name: str) -> None:
        for listener in self._listeners.pop(name, {}).values():
            listener.server.close()
        session = self._sessions.by_name.get(name)
        self._sessions.close(name)
        if session is not None:
            self._upstreams.sweep(all_of=session)
            self._vault.http2.sweep(all_of=session)

    # What was seen.

    def _noted(self) -> None:
        self._news.set()

    async def _tell(self) -> None:
        while True:
            await self._news.wait()
            await asyncio.sleep(_NOTES_SECONDS)  # what comes in bursts is told once
            self._news.clear()
            if self._channel is None:
                continue  # kept until a platform is there
            told: list[dict[str, Any]] = []
            for session in tuple(self._sessions.by_name.values()):
                notes, dropped = session.take_notes()
                told += [_told(session, note) for note in notes]
                if dropped:
                    told.append({"name": session.name, "dropped": dropped})
            if told:
                with contextlib.suppress(ControlError):
                    await self._channel.send({"notes": told})

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        alone = loop.time()
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self._upstreams.sweep()
            self._vault.http2.sweep()
            talking = any(
                isinstance(each, Front) for session in self._sessions.by_name.values() for each in session.connections
            )
            if talking or self._channel is not None:
                alone = loop.time()
            patience = _FORGOTTEN_SECONDS if self._sessions.by_name else _ALONE_SECONDS
            if loop.time() - alone > patience or not self._directory.exists():
                self._end.set()


def _told(session: Session, note: Any) -> dict[str, Any]:
    seen = []
    for stub in note.stubs:
        credential = session.by_stub.get(stub.encode())
        name = credential.name if credential else None
        seen.append({"stub": stub, "credential": name, "real_tail": stubs.tail(credential.value) if credential else ""})
    return {
        "name": session.name,
        "kind": note.kind,
        "method": note.method,
        "host": note.host,
        "port": note.port,
        "path": note.path,
        "rule": note.rule,
        "stubs": seen,
        "at": note.at,
        "count": note.count,
    }


def _bound(port: int) -> socket.socket:
    """A listener on loopback: on the port that sandboxes know, or on any if that is taken."""
    for wanted in (port, 0):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", wanted))
        except OSError:
            sock.close()
            if not wanted:
                raise
        else:
            return sock
    raise OSError("no port")


def _rss() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def _hide() -> None:
    """Let no process of the same user read this one's memory, nor stop it in a debugger; and leave no core behind."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m backend.vault")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s vault: %(message)s", stream=sys.stderr)
    _hide()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65_536)), hard))

    def ready(port: int) -> None:
        print(json.dumps({"port": port, "pid": os.getpid()}), flush=True)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)

    try:
        import uvloop
    except ImportError:
        run: Callable[..., Any] = asyncio.run
    else:
        run = uvloop.run

    async def serve() -> None:
        process = Process(options.directory, Authority.load(options.directory))
        await process.run(options.directory, options.port, ready)

    try:
        run(serve())
    except (OSError, ValueError) as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

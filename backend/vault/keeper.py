"""What every vault process does, whoever its platforms are: keeps sessions, obeys, tells what it has seen, tidies."""

import asyncio
import contextlib
import logging
import os
import resource
import signal
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from backend.domain import stubs
from backend.vault import version
from backend.vault.authority import Authority
from backend.vault.control import ControlError, Frames
from backend.vault.front import Front, Vault
from backend.vault.sessions import Malformed, Note, Session, Sessions
from backend.vault.upstream import Upstreams

BACKLOG: Final = 512
HELLO_SECONDS: Final = 5.0
_NOTES_SECONDS: Final = 0.1
_SWEEP_SECONDS: Final = 10.0
_TAKEN_SECONDS: Final = 60.0
"""For a platform to store notes."""
_BATCH: Final = 250
"""Notes told at once, of which each may have a few thousand bytes."""

logger = logging.getLogger("vault")

Told = list[dict[str, Any]]


@dataclass(slots=True, eq=False)
class Peer:
    """A platform process that is connected. `platform`: which sessions it may touch, those of its database."""

    channel: Frames
    platform: str
    drop: Callable[[], object]
    """Ends its connection."""
    batch: int = 0
    untaken: Told = field(default_factory=list)
    """Told to it, and not yet acknowledged."""
    since: float = 0.0


class Keeper:
    """The parts that all connections of a vault process share."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.sessions = Sessions(self._noted)
        self.upstreams = Upstreams()
        self.vault = Vault(authority, self.sessions, self.upstreams)
        self.peers: list[Peer] = []
        self.port = 0
        self._owners: dict[str, tuple[str, Peer]] = {}
        """By session: its platform, and who opened it last."""
        self._untold: defaultdict[str, Told] = defaultdict(list)
        """By platform: notes that were told to who has gone without taking them."""
        self._news = asyncio.Event()
        self.end = asyncio.Event()
        self.hurry = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def own(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` beside the rest, until it or the process ends."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def until_ended(self) -> None:
        """Work until told to end, then leave nothing open."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        self.own(self._tell())
        self.own(self._sweep())
        await self.end.wait()
        await self.drained()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for name in tuple(self.sessions.by_name):
            self.close(name)
        self.upstreams.close()

    def _signalled(self) -> None:
        if self.end.is_set():
            self.hurry.set()
        self.end.set()

    async def drained(self) -> None:
        """Wait for what need not be cut off, once told to end; `hurry` is set when told again."""

    # Platforms.

    async def attend(self, peer: Peer, hello: dict[str, Any]) -> None:
        """Welcome a platform that has proven itself, and obey it until its connection breaks."""
        self.peers.append(peer)
        try:
            names = sorted(name for name, (platform, _) in self._owners.items() if platform == peer.platform)
            told = {"pid": os.getpid(), "version": version.code(), "port": self.port, "sessions": names}
            await peer.channel.send({"id": hello.get("id"), "ok": told | {"ca": self.authority.pem.decode()}})
            self._news.set()
            while True:
                message, descriptors = await peer.channel.receive()
                await self._obey(peer, message, descriptors)
        finally:
            self.peers.remove(peer)
            self._untold[peer.platform] += peer.untaken
            self._news.set()

    async def _obey(self, peer: Peer, message: dict[str, Any], descriptors: list[int]) -> None:
        try:
            answer, lent = await self.done(peer, message, descriptors)
        except (Malformed, KeyError, TypeError, OSError, ValueError) as error:
            await peer.channel.send({"id": message.get("id"), "error": f"{type(error).__name__}: {error}"})
        else:
            await peer.channel.send({"id": message.get("id"), "ok": answer}, lent)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    async def done(
        self, peer: Peer, message: dict[str, Any], descriptors: list[int]
    ) -> tuple[dict[str, Any], list[int]]:
        """Do what a platform asks for; the answer, and descriptors to go with it."""
        match message.get("do"):
            case "open":
                name = str(message["name"])
                self._check_owner(peer, name)
                session = self.sessions.open(name, message["session"])
                self._owners[name] = peer.platform, peer
                self.upstreams.sweep(all_of=session)
            case "close":
                self._check_owner(peer, str(message["name"]))
                self.close(str(message["name"]))
            case "told":
                self.all_told()
            case "took":
                if message["batch"] == peer.batch:
                    peer.untaken = []
                    self._news.set()
            case "stats":
                connections = sum(len(session.connections) for session in self.sessions.by_name.values())
                return {
                    "sessions": len(self.sessions.by_name),
                    "connections": connections,
                    "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208 -- no path of each is wanted
                    "rss_kb": _rss(),
                }, []
            case other:
                raise ValueError(f"nothing called {other!r}")
        return {}, []

    def _check_owner(self, peer: Peer, name: str) -> None:
        if name in self._owners and self._owners[name][0] != peer.platform:
            raise ValueError(f"{name} belongs to another platform")

    def all_told(self) -> None:
        """A platform has opened all sessions it has."""

    def close(self, name: str) -> None:
        """End a session, its connections and its credentials."""
        session = self.sessions.by_name.get(name)
        if session is not None:
            platform, _ = self._owners.pop(name)
            self._untold[platform] += _taken(session)
            self._news.set()
            self.sessions.close(name)
            self.upstreams.sweep(all_of=session)
            self.vault.http2.sweep(all_of=session)

    # What was seen.

    def _noted(self) -> None:
        self._news.set()

    async def _tell(self) -> None:
        while True:
            await self._news.wait()
            await asyncio.sleep(_NOTES_SECONDS)  # what comes in bursts is told once
            self._news.clear()
            for peer in tuple(self.peers):
                if not peer.untaken and (told := self._for(peer)):
                    peer.untaken = told
                    peer.batch += 1
                    peer.since = asyncio.get_running_loop().time()
                    with contextlib.suppress(ControlError):  # whose end gives them to another
                        await peer.channel.send({"notes": told, "batch": peer.batch})

    def _for(self, peer: Peer) -> Told:
        """What a platform process is to be told next: of sessions it opened last, or whose opener is gone."""
        waiting = self._untold[peer.platform]
        for name, session in self.sessions.by_name.items():
            if len(waiting) >= _BATCH:
                break  # what is not taken now is counted where it is
            platform, opener = self._owners[name]
            if platform == peer.platform and (opener is peer or opener not in self.peers):
                waiting += _taken(session)
        told, self._untold[peer.platform] = waiting[:_BATCH], waiting[_BATCH:]
        return told

    # Tidying up.

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.upstreams.sweep()
            self.vault.http2.sweep()
            now = asyncio.get_running_loop().time()
            for peer in tuple(self.peers):
                if peer.untaken and now - peer.since > _TAKEN_SECONDS:
                    logger.warning("control: a platform takes no notes: its connection is closed")
                    peer.drop()
            for platform in [each for each, told in self._untold.items() if not told]:
                del self._untold[platform]
            self.swept()

    def swept(self) -> None:
        """Called now and then."""

    @property
    def talking(self) -> bool:
        """Whether any session has a connection."""
        return any(
            isinstance(each, Front) for session in self.sessions.by_name.values() for each in session.connections
        )


def _taken(session: Session) -> Told:
    notes, dropped = session.take_notes()
    told = [_told(session, note) for note in notes]
    if dropped:
        told.append({"name": session.name, "dropped": dropped})
    return told


def _told(session: Session, note: Note) -> dict[str, Any]:
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


def _rss() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024

"""Connections from the platform to vaults: each made again whenever it breaks, and introduced to what it must know."""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from backend.services.errors import VaultError
from backend.vault.control import ControlError, Frames

logger = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 10.0
FIRST_RETRY: Final = 0.2
LAST_RETRY: Final = 10.0

Notes = list[dict[str, Any]]
Noted = Callable[[Notes, Callable[[], None]], None]
"""Takes what a vault has seen, and what to call once it is stored."""
Introduce = Callable[["Link", Mapping[str, Any]], Awaitable[None]]
"""Tells a vault all it must know, given its answer to `hello`. Raises ControlError."""


@dataclass(frozen=True, slots=True)
class Status:
    """`state` is on, off, or down; `reason` says why it is not on, or not wholly."""

    state: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """How a sandbox gets to its vault: the proxy's host:port, and what its hand-over has besides."""

    place: str
    env: Mapping[str, str]
    hand_over: Mapping[str, Any]


class Vaults(Protocol):
    """The vault processes of a platform, wherever they run."""

    near: bool
    """Whether they share the machine with the sandboxes, and with the platform its loopback."""

    @property
    def status(self) -> Status: ...

    @property
    def links(self) -> Sequence["Link"]:
        """To all that hear of changes."""
        ...

    async def run(self, introduce: Introduce, noted: Noted) -> None:
        """Stay connected, for ever."""
        ...

    async def until_ready(self) -> None:
        """Return once one has been told all."""
        ...

    async def way(self) -> Way:
        """Raises VaultError."""
        ...

    async def told(self, link: "Link", sandbox: str, *, known: bool) -> None:
        """Called when a vault has been told of a sandbox again; `known`: it knew it still. Raises ControlError."""
        ...

    async def listen(self, sandbox: str, listeners: Mapping[str, socket.socket]) -> None:
        """Give a sandbox's own listeners to its vault. Raises VaultError."""
        ...

    def forget(self, sandbox: str) -> None:
        """Let go of what is kept of a sandbox that is gone."""
        ...

    def close(self) -> None: ...


class Declined(ControlError):
    """The vault answers that it does not do what it was asked for."""


class Link:
    """Requests to one vault process and their answers."""

    def __init__(self, channel: Frames, noted: Noted) -> None:
        self._channel = channel
        self._noted = noted
        self._number = 0
        self._waiting: dict[int, asyncio.Future[tuple[dict[str, Any], list[int]]]] = {}
        self._taking: set[asyncio.Task[None]] = set()
        self.broken: asyncio.Task[None] = asyncio.create_task(self._read())
        """Ends, with ControlError, when the connection does."""
        self.broken.add_done_callback(_noticed)

    async def ask(self, do: str, descriptors: Sequence[int] = (), **what: Any) -> dict[str, Any]:
        """The answer to a request. Raises ControlError."""
        answer, came = await self._answer(do, descriptors, what)
        for descriptor in came:
            os.close(descriptor)
        return answer

    async def borrow(self, sandbox: str) -> dict[str, socket.socket]:
        """Duplicates of the listeners that the vault has of a sandbox, by kind. Raises ControlError."""
        answer, came = await self._answer("lend", (), {"name": sandbox})
        sockets = [socket.socket(fileno=descriptor) for descriptor in came]
        return dict(zip(answer["kinds"], sockets, strict=True))

    async def _answer(
        self, do: str, descriptors: Sequence[int], what: Mapping[str, Any]
    ) -> tuple[dict[str, Any], list[int]]:
        self._number += 1
        number = self._number
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await self._channel.send({"id": number, "do": do, **what}, descriptors)
            async with asyncio.timeout(ANSWER_SECONDS):
                message, came = await answer
        except TimeoutError as error:
            raise ControlError(f"no answer to {do!r} within {ANSWER_SECONDS:.0f} s") from error
        finally:
            self._waiting.pop(number, None)
        if "error" in message:
            raise Declined(f"{do}: {message['error']}")
        return dict(message["ok"]), came

    async def _read(self) -> None:
        try:
            while True:
                message, descriptors = await self._channel.receive()
                if (waiting := self._waiting.get(message.get("id", 0))) and not waiting.done():
                    waiting.set_result((message, descriptors))
                    continue
                for descriptor in descriptors:
                    os.close(descriptor)
                if "notes" in message:
                    batch = message.get("batch")
                    self._noted(message["notes"], lambda batch=batch: self._took(batch))  # type: ignore[misc]
        finally:
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(ControlError("the control connection is broken"))

    def _took(self, batch: int | None) -> None:
        """Let the vault forget notes that are stored."""
        if self.broken.done():
            return
        task = asyncio.create_task(self._tell_taken(batch))
        self._taking.add(task)
        task.add_done_callback(self._taking.discard)

    async def _tell_taken(self, batch: int | None) -> None:
        with contextlib.suppress(ControlError):  # it tells them to another then
            await self.ask("took", batch=batch)

    def drop(self) -> None:
        """Break the connection, so that it is made anew."""
        self._channel.drop()

    def close(self) -> None:
        for task in (self.broken, *self._taking):
            task.cancel()
        self._channel.close()


def _noticed(task: "asyncio.Task[None]") -> None:
    """Whoever has given up a link before its end need not hear of it."""
    if not task.cancelled():
        task.exception()


class Line:
    """The connection to one vault, for ever."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[tuple[Frames, dict[str, Any]]]],
        changed: Callable[[], None],
        beat_seconds: float | None = None,
    ) -> None:
        """`connect` gives a channel and what to say in `hello`; `changed` is called when `ready` is another.

        `beat_seconds`: how often to make sure that the other side still answers.
        """
        self._connect = connect
        self._changed = changed
        self._beat_seconds = beat_seconds
        self.link: Link | None = None
        self.ready = False
        self.why = "it is being started"

    async def run(self, introduce: Introduce, noted: Noted) -> None:
        wait = FIRST_RETRY
        while True:
            started = time.monotonic()
            try:
                await self._serve(introduce, noted)
            except (ControlError, VaultError, OSError, ValueError) as error:
                self.why = str(error) or type(error).__name__
                logger.warning("vault: %s", self.why)
            except Exception:
                self.why = "the platform's part of it broke; its log says why"
                logger.exception("vault")
            finally:
                self._set_ready(False)
                if self.link is not None:
                    self.link.close()
                    self.link = None
            wait = FIRST_RETRY if time.monotonic() - started > LAST_RETRY else min(wait * 2, LAST_RETRY)
            await asyncio.sleep(wait)

    async def _serve(self, introduce: Introduce, noted: Noted) -> None:
        """Connect, tell all, then stay until the connection breaks."""
        channel, hello = await self._connect()
        link = self.link = Link(channel, noted)
        await introduce(link, await link.ask("hello", **hello))
        self._set_ready(True)
        beating = asyncio.create_task(self._beat(link))
        try:
            await link.broken
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)

    async def _beat(self, link: Link) -> None:
        while self._beat_seconds is not None:
            await asyncio.sleep(self._beat_seconds)
            try:
                await link.ask("stats")
            except Declined:
                continue  # an answer, too
            except ControlError:
                link.drop()

    def _set_ready(self, ready: bool) -> None:
        if ready is not self.ready:
            self.ready = ready
            self._changed()

"""Staying attached to a session's terminal: find it, connect, pass bytes both ways, and come back when it breaks."""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic
from typing import Protocol

from lapconsole.client import urls
from lapconsole.client.errors import BadInput, ClientError, PlatformError, TtyClosed, TtyRefused
from lapconsole.client.models import PHASES, Session
from lapconsole.client.tty import Tty

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 30.0
NOT_READY_SECONDS = 1.0
# A connection that held this long starts over with the first retry.
STEADY_SECONDS = 10.0

FRAME_BYTES = 16 * 1024
# Typed but not yet sent: what comes on top, such as a huge paste into a link that stands still, is refused.
UNSENT_BYTES = 1 << 20

# The last a harness sends when the agent has ended (LAP harness 1.6).
_ENDED = re.compile(rb"\[bridge\] process exited \(code=(-?\d{1,5}), signal=(\d{1,5})\)(?:\x1b\[0?m)?\s*\Z")
_TAIL_BYTES = 400
_CANCEL = b"\x18"  # ends an escape sequence that the last connection left half said


class Phase(StrEnum):
    """Where an attachment stands."""

    FINDING = "finding the session"
    NOT_READY = "not ready"
    CONNECTING = "connecting"
    LIVE = "live"
    LOST = "link lost"  # tries again by itself
    ENDED = "agent ended"  # attaching again starts it anew
    STOPPED = "not attached"  # trying again is for the person to decide


#: Phases in which nothing more happens before `again` is called.
FINAL = (Phase.ENDED, Phase.STOPPED)


@dataclass(frozen=True, slots=True)
class State:
    """Where an attachment stands and why. `retry_at`: when it tries again by itself, by the monotonic clock."""

    phase: Phase
    cause: str = ""
    advice: str = ""
    retry_at: float | None = None


class Sessions(Protocol):
    """The part of a platform this needs."""

    @property
    def base_url(self) -> str: ...

    async def session(self, session_id: str) -> Session: ...


class _Outbox:
    """What waits to be sent on one connection. It dies with it: nothing typed into one reaches the next."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size: tuple[int, int] | None = size
        self.keys = bytearray()
        self.wake = asyncio.Event()
        self.wake.set()

    async def send_all(self, tty: Tty) -> None:
        """Send sizes and keys as they come. Returns when the terminal has ended."""
        try:
            while True:
                await self.wake.wait()
                self.wake.clear()
                if self.size is not None:
                    size, self.size = self.size, None
                    await tty.resize(*size)
                while self.keys:
                    frame = bytes(self.keys[:FRAME_BYTES])
                    del self.keys[:FRAME_BYTES]
                    await tty.send(frame)
        except TtyClosed:
            return


class Attachment:
    """One session's terminal, for as long as `run` runs.

    `find_platform` gives the platform to ask, None while there is no connection to it;
    `output` takes what the terminal shows, and may wait to slow it down; `changed` is told each new state.
    """

    def __init__(
        self,
        find_platform: Callable[[], Sessions | None],
        session_id: str,
        size: tuple[int, int],
        *,
        output: Callable[[bytes | str], Awaitable[None]],
        changed: Callable[[State], None],
    ) -> None:
        self.session: Session | None = None
        self.state = State(Phase.FINDING)
        self._find_platform = find_platform
        self._session_id = session_id
        self._size = size
        self._output = output
        self._changed = changed
        self._outbox: _Outbox | None = None
        self._again = asyncio.Event()
        self._failures = 0

    def type(self, data: bytes) -> bool:
        """Send keys. False when they are not sent: there is no connection, or it takes no more."""
        if self._outbox is None or len(self._outbox.keys) + len(data) > UNSENT_BYTES:
            return False
        self._outbox.keys += data
        self._outbox.wake.set()
        return True

    def resize(self, columns: int, lines: int) -> None:
        """The screen has this size now."""
        self._size = (columns, lines)
        if self._outbox is not None:
            self._outbox.size = self._size
            self._outbox.wake.set()

    def again(self) -> None:
        """Try now, instead of waiting; starts an agent that has ended."""
        self._again.set()

    async def run(self) -> None:
        """Attach, and attach again, until cancelled."""
        while True:
            self._again.clear()
            try:
                state = await self._attach()
            except Exception as error:  # whatever it is, the screen stays and can be left
                log.exception("attaching failed")
                state = State(Phase.STOPPED, f"internal error: {type(error).__name__}", "The log has more.")
            self._failures = self._failures + 1 if state.phase is Phase.LOST else 0
            await self._pause(state)

    async def _pause(self, state: State) -> None:
        """Wait for the time to try again, or for somebody who wants it."""
        if state.phase in FINAL:
            self._set(state)
            await self._again.wait()
            return
        seconds = NOT_READY_SECONDS
        if state.phase is Phase.LOST:
            seconds = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(self._failures - 1, 10))
            seconds *= random.uniform(0.8, 1.2)  # so that many consoles do not come back at the same moment
        self._set(State(state.phase, state.cause, state.advice, monotonic() + seconds))
        try:
            async with asyncio.timeout(seconds):
                await self._again.wait()
        except TimeoutError:
            return

    def _set(self, state: State) -> None:
        self.state = state
        self._changed(state)

    async def _attach(self) -> State:
        """Attach once. Gives why it is over."""
        if self.state.phase is not Phase.NOT_READY:
            self._set(State(Phase.FINDING))
        try:
            platform = self._find_platform()
            if platform is None:
                return State(Phase.NOT_READY, "no connection to the platform yet", "Attaches by itself.")
            session = self.session = await platform.session(self._session_id)
            if obstacle := _obstacle(session):
                return obstacle
            address = urls.tty_address(platform.base_url, session)
            self._set(State(Phase.CONNECTING))
            tty = await Tty.connect(address.url, address.token)
        except ClientError as error:
            return _why_not(error)
        async with tty:
            return await self._live(tty)

    async def _live(self, tty: Tty) -> State:
        outbox = self._outbox = _Outbox(self._size)
        sending = asyncio.create_task(outbox.send_all(tty))
        tail, began = b"", monotonic()
        try:
            self._set(State(Phase.LIVE))
            await self._output(_CANCEL)
            async for data in tty:
                raw = data.encode() if isinstance(data, str) else data
                tail = (tail + raw)[-_TAIL_BYTES:]
                await self._output(raw)
        finally:
            self._outbox = None
            sending.cancel()
            await asyncio.wait([sending])
        if monotonic() - began > STEADY_SECONDS:
            self._failures = 0
        return _why_over(tty.closed, tail)


def _obstacle(session: Session) -> State | None:
    """Why there is no terminal to attach to, if so."""
    if session.supports_tui is False:
        return State(Phase.STOPPED, f"{session.harness_id or 'this harness'} has no terminal: it works by messages")
    if session.status == "creating":
        detail = f": {session.phase_detail}" if session.phase_detail else ""
        step = f" ({session.step}/{len(PHASES)})" if session.step else ""
        return State(
            Phase.NOT_READY, f"not ready: phase {session.phase or 'creating'}{step}{detail}", "Attaches by itself."
        )
    if session.terminal:
        reason = f": {session.failure_reason}" if session.failure_reason else ""
        return State(
            Phase.STOPPED, f"the session is {session.status}{reason}", "Restart it from the list, then attach."
        )
    return None


def _why_not(error: ClientError) -> State:
    if isinstance(error, TtyRefused):
        if error.status in (401, 403):
            cause = f"{error.status}: the terminal token was refused"
            return State(Phase.STOPPED, cause, "Restart the session to give it a new one, then try again.")
        return State(Phase.STOPPED, str(error)) if error.status == 404 else _lost(str(error))
    if isinstance(error, PlatformError):
        if error.key_refused:
            cause = f"{error.status}: the platform refused the key"
            return State(Phase.STOPPED, cause, "Leave, and start the console with the right key.")
        if error.status == 404:
            return State(Phase.STOPPED, "404: there is no such session any more", "The list shows what there is.")
        return _lost(f"{error.status}: {error.message}")
    if isinstance(error, BadInput):
        return State(Phase.STOPPED, str(error))
    return _lost(str(error))


def _lost(cause: str) -> State:
    return State(Phase.LOST, cause, "It tries again by itself; what is typed meanwhile is not sent.")


def _why_over(closed: TtyClosed | None, tail: bytes) -> State:
    if match := _ENDED.search(tail):
        code, signal = int(match[1]), int(match[2])
        how = f"killed by signal {signal}" if signal else f"exit code {code}"
        return State(Phase.ENDED, f"the agent has ended ({how})")
    if closed is not None and closed.code == 1000:
        return State(Phase.ENDED, f"the session closed its terminal{f': {closed.reason}' if closed.reason else ''}")
    return _lost(str(closed) if closed is not None else "the terminal closed")

"""Staying attached to a session's terminal: find it, connect, drive or watch it, and come back when it breaks."""

from __future__ import annotations

import asyncio
import getpass
import logging
import random
import re
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from time import monotonic
from typing import Protocol

from lapconsole.client import tty_messages, urls
from lapconsole.client.errors import BadInput, ClientError, PlatformError, TtyClosed, TtyRefused
from lapconsole.client.models import PHASES, Session, safe_line
from lapconsole.client.tty import Tty, size_fields
from lapconsole.client.tty_messages import (
    DRIVE,
    MAX_SCROLLBACK,
    OFFER_DRIVE,
    WATCH,
    Exit,
    ModeGiven,
    Repaint,
    Size,
    Viewer,
    Viewers,
    Welcome,
)

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 30.0
NOT_READY_SECONDS = 1.0
# A connection that held this long starts over with the first retry.
STEADY_SECONDS = 10.0
WELCOME_SECONDS = 10.0

# Lines of scrollback to ask for before all: at once where the first screen came this quickly, and over a link that is
# not so quick when somebody looks back. The rest of it comes to whoever looks back, there to its very top.
FIRST_SCROLLBACK = 2000
QUICK_SECONDS = 0.5
# After so long without an answer it is asked for again.
ANSWER_SECONDS = 30.0

FRAME_BYTES = 16 * 1024
# Typed but not yet sent: what comes on top, such as a huge paste into a link that stands still, is refused.
UNSENT_BYTES = 1 << 20

# The harness is told of so much output taken at once, of less after a while: it sends no more than arrives in a moment.
SEEN_BYTES = 16 * 1024
SEEN_SECONDS = 0.02

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


@dataclass(frozen=True, slots=True)
class Seat:
    """Our place at a terminal. `original`: the platform knows only the original protocol, in which whoever is there
    drives and nobody is told of the others. `size`: the terminal's columns and lines, None where it follows ours.
    """

    mode: str
    original: bool = False
    id: str = ""
    size: tuple[int, int] | None = None
    viewers: tuple[Viewer, ...] = ()

    @property
    def drives(self) -> bool:
        return self.mode == DRIVE

    @property
    def driver(self) -> Viewer | None:
        """The other one who drives; None when it is us, or nobody."""
        return next((viewer for viewer in self.viewers if viewer.mode == DRIVE and viewer.id != self.id), None)


class Display(Protocol):
    """Where an attachment shows what it gets."""

    async def show_output(self, data: bytes) -> None:
        """Take output. May wait, to slow it down."""

    async def show_repaint(self, data: bytes, size: tuple[int, int], *, fresh: bool) -> bool:
        """Take the present state of a terminal of this size; `fresh` when its scrollback comes with it.

        False when output from before was not shown yet, and never will be: what scrollback there is has a gap.
        """

    def attachment_changed(self) -> None:
        """`state` or `seat` is another."""

    def attachment_news(self, words: str) -> None:
        """Something passing, to be told in a few words."""


def viewer_name() -> str:
    """What others see of us: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "somebody"
    return safe_line(f"{user}@{socket.gethostname().partition('.')[0]}")[: tty_messages.MAX_NAME]


class _Outbox:
    """What waits to be sent on one connection. It dies with it: nothing typed into one reaches the next."""

    def __init__(self) -> None:
        self.size: tuple[int, int] | None = None
        self.seen: int | None = None
        self._taken = self._told = 0
        self._due: asyncio.Handle | None = None
        self.messages: list[dict[str, str | int]] = []
        self.keys = bytearray()
        self.wake = asyncio.Event()

    def say(self, **message: str | int) -> None:
        self.messages.append(message)
        self.wake.set()

    def took(self, size: int) -> None:
        """So much output has been taken; the harness is told so in time."""
        self._taken += size
        if self._taken - self._told >= SEEN_BYTES:
            self._tell_taken()
        elif self._due is None:
            self._due = asyncio.get_running_loop().call_later(SEEN_SECONDS, self._tell_taken)

    def _tell_taken(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        self.seen = self._told = self._taken
        self.wake.set()

    async def send_all(self, tty: Tty) -> None:
        """Send messages, sizes and keys as they come. Returns when the terminal has ended."""
        try:
            while True:
                await self.wake.wait()
                self.wake.clear()
                while self.messages:
                    await tty.say(**self.messages.pop(0))
                if self.size is not None:
                    size, self.size = self.size, None
                    await tty.resize(*size)
                if self.seen is not None:
                    seen, self.seen = self.seen, None
                    await tty.say(type="seen", bytes=seen)
                while self.keys:
                    frame = bytes(self.keys[:FRAME_BYTES])
                    del self.keys[:FRAME_BYTES]
                    await tty.send(frame)
        except TtyClosed:
            return


class Attachment:
    """One session's terminal, for as long as `run` runs.

    `find_platform` gives the platform to ask, None while there is no connection to it. With `watch` it never drives by
    itself; else it drives when nobody else does, with `take_over` at first also when somebody does. After a break it
    asks for what it had. A `glance` only ever watches, takes no scrollback, and does not stay where the protocol knows
    no watching: there, being attached alone changes the terminal.
    """

    def __init__(
        self,
        find_platform: Callable[[], Sessions | None],
        session_id: str,
        size: tuple[int, int],
        display: Display,
        *,
        watch: bool = False,
        take_over: bool = False,
        glance: bool = False,
        name: str = "",
    ) -> None:
        self.session: Session | None = None
        self.state = State(Phase.FINDING)
        self.seat: Seat | None = None
        self._find_platform = find_platform
        self._session_id = session_id
        self._size = size
        self._display = display
        self._wanted = WATCH if watch or glance else DRIVE
        self._take_over = take_over
        self._glance = glance
        self._name = name or viewer_name()
        self._outbox: _Outbox | None = None
        self._again = asyncio.Event()
        self._failures = 0
        self._ghost = ""  # our id on the connection before, which the harness may not have missed yet
        self._repaint: Repaint | None = None  # the next output is this
        self._resizing = False  # the terminal is about to take our size: what it shows until then is not worth it
        self._scrollback = 0  # so many of the newest lines are here as the harness has them; MAX_SCROLLBACK: all
        self._asked = 0  # so many are on their way
        self._ask_again_at = 0.0
        self._quick = False
        self._greeted_at: float | None = None

    def type(self, data: bytes) -> bool:
        """Send keys. False when they are not sent: there is no connection, it takes no more, or we only watch."""
        if self._outbox is None or self.seat is None or not self.seat.drives:
            return False
        if len(self._outbox.keys) + len(data) > UNSENT_BYTES:
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

    def drive(self) -> None:
        """Take the terminal over, whoever drives it now."""
        self._ask_for(DRIVE)

    def watch(self) -> None:
        """Give it up. What is typed but not sent yet is forgotten."""
        if self._outbox is not None:
            self._outbox.keys.clear()
        self._ask_for(WATCH)

    def _ask_for(self, mode: str) -> None:
        if self._outbox is None or self.seat is None or self.seat.mode == mode:
            return
        self._wanted = mode
        if self.seat.original:  # it knows no watching: keys are merely kept back here
            self._sit(replace(self.seat, mode=mode))
        else:
            self._outbox.say(type=mode)

    def want_scrollback(self, *, to_the_top: bool = False) -> bool:
        """Somebody looks back, maybe to the top of what is here: ask for what is missing. True when it is asked for."""
        all_of_it = self._quick or (to_the_top and self._scrollback)
        return self._ask_scrollback(MAX_SCROLLBACK if all_of_it else FIRST_SCROLLBACK)

    def _ask_scrollback(self, lines: int) -> bool:
        if self._glance or self._scrollback >= lines:
            return False
        if self._outbox is None or self.seat is None or self.seat.original:
            return False
        now = monotonic()
        if self._asked >= lines and now < self._ask_again_at:
            return False
        self._asked, self._ask_again_at = lines, now + ANSWER_SECONDS
        self._outbox.say(type="repaint", scrollback=lines)
        return True

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
        self._display.attachment_changed()

    def _sit(self, seat: Seat) -> None:
        self.seat = seat
        self._display.attachment_changed()

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
            tty = await Tty.connect(address.url, address.token, offer=True)
        except ClientError as error:
            return _why_not(error)
        async with tty:
            if self._glance and not tty.two_way:
                return State(Phase.STOPPED, "cannot be watched: original protocol", "Attach to see it.")
            return await self._live(tty)

    async def _live(self, tty: Tty) -> State:
        outbox = self._outbox = _Outbox()
        sending = asyncio.create_task(outbox.send_all(tty))
        began = monotonic()
        try:
            return await (self._follow(tty) if tty.two_way else self._follow_original(tty))
        finally:
            self._outbox = None
            sending.cancel()
            await asyncio.wait([sending])
            if monotonic() - began > STEADY_SECONDS:
                self._failures = 0

    async def _follow_original(self, tty: Tty) -> State:
        """Show what comes in the original protocol, until it ends."""
        self.resize(*self._size)
        self.seat = Seat(self._wanted, original=True)
        self._set(State(Phase.LIVE))
        self._display.attachment_news("original protocol")
        await self._display.show_output(_CANCEL)
        tail = b""
        async for data in tty:
            raw = data.encode() if isinstance(data, str) else data
            tail = (tail + raw)[-_TAIL_BYTES:]
            await self._display.show_output(raw)
        return _why_over(tty.closed, _exit_told(tail))

    async def _follow(self, tty: Tty) -> State:
        """Show what comes, and keep to what is told about sizes and seats, until it ends."""
        assert self._outbox is not None
        self._scrollback = self._asked = 0
        self._repaint = None
        self._greeted_at = monotonic()
        mode = WATCH if self._wanted == WATCH else DRIVE if self._take_over else OFFER_DRIVE
        self._outbox.say(type="hello", name=self._name, mode=mode, **size_fields(*self._size), scrollback=0)
        frames = aiter(tty)
        welcome = await self._welcome(frames)
        if welcome is None:
            return _lost(str(tty.closed) if tty.closed is not None else "the terminal did not answer the greeting")
        self._sit_down(welcome)
        end: Exit | None = None
        async for data in frames:
            if isinstance(data, bytes):
                await self._show(data)
                self._outbox.took(len(data))
            elif isinstance(message := tty_messages.read(data), Exit):
                end = message
            elif message is not None:
                self._told(message)
        return _why_over(tty.closed, end)

    async def _welcome(self, frames: AsyncIterator[str | bytes]) -> Welcome | None:
        try:
            async with asyncio.timeout(WELCOME_SECONDS):
                async for data in frames:
                    if isinstance(data, str) and isinstance(message := tty_messages.read(data), Welcome):
                        return message
        except TimeoutError:
            pass
        return None

    def _sit_down(self, welcome: Welcome) -> None:
        assert self._outbox is not None
        # Our own connection of before may still be taken for alive.
        others = tuple(viewer for viewer in welcome.viewers if viewer.id != self._ghost)
        size = (welcome.columns, welcome.rows)
        seat = Seat(welcome.mode, id=welcome.viewer, size=size, viewers=others)
        self._ghost = welcome.viewer
        self._resizing = False
        if seat.drives:
            self._take_over = False  # once: after a break, whoever took over meanwhile keeps it
        elif self._wanted == DRIVE and (seat.driver is None or self._take_over):
            # It is our own ghost who drives, or the harness takes no offers.
            self._take_over = False
            self._outbox.say(type=DRIVE)
            self._resizing = {"cols": size[0], "rows": size[1]} != size_fields(*self._size)
        else:
            self._wanted = WATCH  # also after the next break: whoever has watched goes on watching
        self.seat = seat
        self._set(State(Phase.LIVE))

    def _told(self, message: tty_messages.Message) -> None:
        assert self.seat is not None
        seat = self.seat
        match message:
            case Repaint():
                self._repaint = message
            case Size(columns, rows):
                self._resizing = False
                # Of several sizes in between we are told the last: lines may have gone to and from the scrollback.
                self._scrollback = 0
                self._sit(replace(seat, size=(columns, rows)))
            case ModeGiven(mode, by):
                taken = seat.drives and mode == WATCH and self._wanted == DRIVE
                if taken and self._outbox is not None:
                    self._outbox.keys.clear()
                if mode == WATCH and self._resizing and self._outbox is not None:
                    self._resizing = False
                    self._outbox.say(type="repaint", scrollback=0)
                self._wanted = mode
                self._sit(replace(seat, mode=mode))
                if taken:
                    self._display.attachment_news(f"{by or 'somebody'} took over")
            case Viewers(viewers):
                self._sit(replace(seat, viewers=viewers))

    async def _show(self, data: bytes) -> None:
        assert self.seat is not None and self.seat.size is not None
        repaint, self._repaint = self._repaint, None
        if self._resizing:
            return
        if repaint is None:
            await self._display.show_output(data)
            return
        # One that was asked for has all scrollback, even if that is none.
        answer = repaint.scrollback > 0 or (self._asked > 0 and not repaint.skipped)
        whole = await self._display.show_repaint(data, self.seat.size, fresh=answer)
        if answer:
            self._scrollback = MAX_SCROLLBACK if repaint.scrollback < self._asked else repaint.scrollback
            self._asked = 0
        elif repaint.skipped or not whole:
            self._scrollback = 0
        if repaint.skipped:
            self._display.attachment_news("skipped ahead")
        if self._greeted_at is not None:
            self._quick = monotonic() - self._greeted_at < QUICK_SECONDS
            self._greeted_at = None
            if self._quick:
                self._ask_scrollback(FIRST_SCROLLBACK)


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
    if session.ended:
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


def _exit_told(tail: bytes) -> Exit | None:
    """What the last of the output says of the agent's end (LAP harness 1.6)."""
    match = _ENDED.search(tail)
    if match is None:
        return None
    return Exit(None, int(match[2])) if int(match[2]) else Exit(int(match[1]), None)


def _why_over(closed: TtyClosed | None, end: Exit | None) -> State:
    if end is not None:
        how = f"killed by signal {end.signal}" if end.signal else f"exit code {end.code or 0}"
        return State(Phase.ENDED, f"the agent has ended ({how})")
    if closed is not None and closed.code == 1000:
        return State(Phase.ENDED, f"the session closed its terminal{f': {closed.reason}' if closed.reason else ''}")
    return _lost(str(closed) if closed is not None else "the terminal closed")

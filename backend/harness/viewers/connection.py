"""What the viewers of both protocols have in common: a WebSocket, and a queue that cannot grow.

A viewer that cannot keep up is skipped to the present: its backlog is dropped, and once its connection takes data again
it gets one repaint instead. So it is with a flood that nobody can read: instead of all of it there are some frames a
second, which leaves everything behind us free for keys.
"""

import asyncio
import secrets
import socket
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State as Phase
from websockets.server import ServerProtocol

from backend.harness.audience import Ending
from backend.harness.painting import Repaint
from backend.harness.terminal import Terminal
from backend.harness.viewers.window import Window

MAX_MESSAGE = 4 * 1024 * 1024
MAX_QUEUED = 65_536
"""Bytes a viewer may lag behind before it is skipped."""
FLOOD_BYTES = 524_288
"""A second, of output that is a flood if it goes on."""
LINE_BYTES = 64
"""What the end of a line counts for, beside itself: to scroll costs a terminal as much as so many characters."""
FLOOD_BURST = 262_144
"""Bytes that come whole before it is taken for one."""
FRAME_SECONDS = 1 / 30
"""Between two repaints of a flood."""
HIGH_WATER = 16_384
LOW_WATER = 4_096
SOCKET_BUFFER = 16_384
"""What is in it can't be skipped, and a key's echo has to wait for it."""
CLOSE_SECONDS = 5.0
"""A viewer that is being closed and takes nothing for so long is cut off."""


@dataclass(frozen=True, slots=True)
class _Control:
    """A control message that waits. Of several of one type only the latest survives a skip."""

    kind: str
    data: bytes


@dataclass(frozen=True, slots=True)
class _Picture:
    """A repaint that waits, maybe to be drawn, and how much output it stands for."""

    repaint: Repaint
    scrollback: int
    skipped: int


@dataclass(frozen=True, slots=True)
class _Close:
    code: int
    reason: str


class Viewer(asyncio.Protocol):
    """A viewer from its accepted handshake to its end."""

    opcode: Opcode
    """The kind of frame that carries output."""

    def __init__(self, terminal: Terminal, transport: asyncio.Transport) -> None:
        self.id = secrets.token_hex(4)
        self.name = ""
        self.since = time.time()
        self.size: tuple[int, int] | None = None
        self._terminal = terminal
        self._transport = transport
        self._protocol = ServerProtocol(state=Phase.OPEN, max_size=MAX_MESSAGE)
        self._message = bytearray()
        self._message_opcode = Opcode.TEXT
        self._queue: deque[bytes | _Control | _Picture | _Close] = deque()
        self._queued = 0
        self._congested = False
        self._window = Window()
        self._stale = False  # What it shows is not the present, and no repaint is on its way yet.
        self._skipped = 0
        self._scrollback = 0
        self._allowance = float(FLOOD_BURST)
        self._allowed_at = time.monotonic()
        self._tick: asyncio.TimerHandle | None = None  # Until then a flood goes by.
        self._ended = False
        self._close_timer: asyncio.TimerHandle | None = None
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
        transport.set_write_buffer_limits(high=HIGH_WATER, low=LOW_WATER)
        transport.set_protocol(self)

    def begin(self) -> None:
        """The handshake is over."""
        raise NotImplementedError

    def received(self, message: bytes, is_text: bool) -> None:
        """A whole message has come."""
        raise NotImplementedError

    def announce(self, scrollback: int, skipped: int) -> None:
        """The next message of output is a repaint."""

    def tell(self, message: Mapping[str, Any]) -> None:
        """Sends a control message, if there are any in this protocol."""

    def farewell(self, ending: Ending | None) -> None:
        """Queues the last words, and the close."""
        raise NotImplementedError

    def show(self, data: bytes) -> None:
        """Sends live output, at once or when the connection can take it."""
        if self._stale:
            self._skipped += len(data)
        elif self._allows(len(data) + LINE_BYTES * data.count(b"\n")):
            self._put(data, len(data))
        else:
            self._skipped += len(data)
            self._stale = True
            self._tick = asyncio.get_running_loop().call_later(FRAME_SECONDS, self._next_frame)

    def refresh(self, scrollback: int = 0) -> None:
        """Sends the present screen in place of all output that waits to be sent."""
        self._scrollback = max(self._scrollback, scrollback)
        self._stop_waiting()
        self._drop(pictures=True)
        self._stale = True
        self._pump()

    def _allows(self, size: int) -> bool:
        """Whether so much more is no flood yet."""
        now = time.monotonic()
        self._allowance = min(FLOOD_BURST, self._allowance + (now - self._allowed_at) * FLOOD_BYTES)
        self._allowed_at = now
        if self._allowance < size:
            return False
        self._allowance -= size
        return True

    def _next_frame(self) -> None:
        self._stop_waiting()
        self._pump()

    def _stop_waiting(self) -> None:
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None

    def end(self, ending: Ending | None) -> None:
        """Sends what is left and closes."""
        self._stop_waiting()
        if ending is None:
            self._drop(pictures=True)  # Nothing is drawn any more.
        elif self._stale:
            self._paint()
        self._stale = False
        self._ended = True
        self._terminal.detach(self)
        self.farewell(ending)
        self._pump()
        self._check_closing(-1)

    def pause(self, paused: bool) -> None:
        """Stops or starts to read from the connection."""
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def control(self, kind: str, data: bytes) -> None:
        """Sends or queues a control message."""
        self._put(_Control(kind, data), len(data))

    def output(self, data: bytes) -> None:
        """Sends or queues output that must not be lost."""
        self._put(data, len(data))

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Closes once everything before has been sent."""
        self._put(_Close(code, reason), 0)

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for frame in self._protocol.events_received():
            self._frame(cast(Frame, frame))
        self._flush()
        if self._protocol.close_rcvd is not None or (self._protocol.close_expected() and self._close_timer is None):
            self._check_closing(-1)

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._drop(pictures=True)
        self._stale = False
        self._ended = True
        self._terminal.detach(self)
        if self._close_timer is not None:
            self._close_timer.cancel()

    def pause_writing(self) -> None:
        self._congested = True

    def resume_writing(self) -> None:
        self._congested = False
        self._pump()

    def seen(self, total: int) -> None:
        """The viewer has got so many bytes of output."""
        self._window.got(total, time.monotonic())
        self._pump()

    @property
    def _blocked(self) -> bool:
        """Whether the connection takes no more now, or should not. The last words always go."""
        return self._congested or (self._window.full and not self._ended)

    def _put(self, item: bytes | _Control | _Close, size: int) -> None:
        if not self._queue and not self._blocked:
            self._send(item)
            return
        self._queue.append(item)
        self._queued += size
        if self._queued > self._window.queue_limit(MAX_QUEUED) and not self._ended:
            self._drop(pictures=False)
            self._stale = True

    def _pump(self) -> None:
        """Sends what waits, as far as the connection takes it and it is drawn."""
        while self._queue and not self._blocked:
            item = self._queue[0]
            if isinstance(item, _Picture) and not item.repaint.done:
                return
            self._queue.popleft()
            if isinstance(item, bytes):
                self._queued -= len(item)
            elif isinstance(item, _Control):
                self._queued -= len(item.data)
            self._send(item)
        if self._stale and self._tick is None and not self._blocked:
            self._paint()

    def _paint(self) -> None:
        """Orders a repaint; what is shown from now on follows it."""
        repaint = self._terminal.repaint(self._scrollback)
        self._queue.append(_Picture(repaint, self._scrollback, self._skipped))
        self._stale = False
        self._scrollback = self._skipped = 0
        repaint.order(self._pump)

    def _drop(self, pictures: bool) -> None:
        """Empties the queue but for the latest control message of each type, and pictures unless they go, too."""
        kept: dict[str, _Control | _Picture] = {}
        for item in self._queue:
            if isinstance(item, bytes):
                self._skipped += len(item)
            elif isinstance(item, _Control):
                kept[item.kind] = item
            elif isinstance(item, _Picture) and not pictures:
                kept[""] = item
            elif isinstance(item, _Picture):
                item.repaint.cancel()
                self._skipped += item.skipped
                self._scrollback = max(self._scrollback, item.scrollback)
        self._queue = deque(kept.values())
        self._queued = sum(len(item.data) for item in kept.values() if isinstance(item, _Control))

    def _send(self, item: bytes | _Control | _Picture | _Close) -> None:
        if self._protocol.state is not Phase.OPEN:
            return
        if isinstance(item, _Picture):
            self.announce(item.repaint.scrollback, item.skipped)
            item = item.repaint.data
        if isinstance(item, _Close):
            self._protocol.send_close(item.code, item.reason)
        elif isinstance(item, _Control):
            self._protocol.send_text(item.data)
        elif self.opcode is Opcode.TEXT:
            self._protocol.send_text(item)
        else:
            self._protocol.send_binary(item)
            self._window.sent(len(item), time.monotonic())
        self._flush()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()

    def _check_closing(self, left_before: int) -> None:
        """Closes when the peer has answered the close frame; cuts it off when it takes nothing any more."""
        if self._protocol.close_expected() and self._protocol.close_rcvd is not None:
            self._transport.close()
            return
        left = self._transport.get_write_buffer_size() + self._queued + len(self._queue)
        if left == left_before:
            self._transport.abort()
            return
        loop = asyncio.get_running_loop()
        self._close_timer = loop.call_later(CLOSE_SECONDS, self._check_closing, left)

    def _frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._message_opcode = frame.opcode
        elif frame.opcode is not Opcode.CONT:
            return
        self._message += frame.data
        if frame.fin:
            message = bytes(self._message)
            self._message.clear()
            if not self._ended and self._protocol.state is Phase.OPEN:
                self.received(message, self._message_opcode is Opcode.TEXT)


def whole_number(value: Any) -> int:
    """A number as JSON gives it, cut to an integer; raises TypeError, ValueError or OverflowError for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("not a number")
    return int(value)

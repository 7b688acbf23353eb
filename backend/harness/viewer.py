"""One WebSocket on `/tty`: the agent's output out, keys and sizes in (LAP harness 1.3-1.6)."""

import asyncio
import contextlib
import json
import socket
from typing import Any, cast

from websockets.datastructures import Headers
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State as Phase
from websockets.server import ServerProtocol

from backend.harness.terminal import Terminal

MAX_MESSAGE = 4 * 1024 * 1024
MAX_CONTROL = 1_024
"""Longer texts are keys, also those that look like a control message."""
MAX_QUEUED = 262_144
"""Characters a viewer may lag behind before it is skipped to a repaint of the present."""
HIGH_WATER = 16_384
LOW_WATER = 4_096
SOCKET_BUFFER = 65_536
CLOSE_SECONDS = 5.0


class Viewer(asyncio.Protocol):
    """A viewer from its accepted handshake to its end."""

    def __init__(self, terminal: Terminal, transport: asyncio.Transport) -> None:
        self.size: tuple[int, int] | None = None
        self._terminal = terminal
        self._transport = transport
        self._protocol = ServerProtocol(state=Phase.OPEN, max_size=MAX_MESSAGE)
        self._message = bytearray()
        self._opcode = Opcode.TEXT
        self._queue: list[str] = []
        self._queued = 0
        self._congested = False
        self._stale = False
        self._close_timer: asyncio.TimerHandle | None = None

    def handshake(self, path: str, headers: list[tuple[str, str]]) -> bool:
        """Answers the upgrade request; attaches and returns True when it is a valid one."""
        handshake = ServerProtocol()
        response = handshake.accept(Request(path, Headers(headers)))
        handshake.send_response(response)
        self._transport.writelines(handshake.data_to_send())
        if response.status_code != 101:
            self._transport.close()
            return False
        connection = self._transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)  # What is in it can't be skipped.
        self._transport.set_write_buffer_limits(high=HIGH_WATER, low=LOW_WATER)
        self._transport.set_protocol(self)
        self._terminal.attach(self)
        return True

    def show(self, text: str) -> None:
        """Sends live output, at once or when the connection can take it."""
        if not self._congested:
            self._send(text)
        elif not self._stale:
            self._queue.append(text)
            self._queued += len(text)
            if self._queued > MAX_QUEUED:
                self._drop_queue()
                self._stale = True

    def repaint(self) -> None:
        """Sends the present screen in place of all that waits to be sent."""
        self._drop_queue()
        self._stale = self._congested
        if not self._stale:
            self._send(self._terminal.repaint())

    def end(self, notice: str) -> None:
        """Sends what is left and `notice`, and closes."""
        waiting = self._terminal.repaint() if self._stale else "".join(self._queue)
        if waiting or notice:
            self._send(waiting + notice)
        self._drop_queue()
        self._terminal.detach(self)
        if self._protocol.state is Phase.OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._flush()
        self._close_soon()

    def pause(self, paused: bool) -> None:
        """Stops or starts to read from the connection."""
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for frame in self._protocol.events_received():
            self._frame(cast(Frame, frame))
        self._flush()
        if self._protocol.close_expected():
            self._close_soon()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._drop_queue()
        self._terminal.detach(self)
        if self._close_timer is not None:
            self._close_timer.cancel()

    def pause_writing(self) -> None:
        self._congested = True

    def resume_writing(self) -> None:
        self._congested = False
        if self._stale:
            self.repaint()
        elif self._queue:
            text = "".join(self._queue)
            self._drop_queue()
            self._send(text)

    def _drop_queue(self) -> None:
        self._queue.clear()
        self._queued = 0

    def _send(self, text: str) -> None:
        if self._protocol.state is Phase.OPEN:
            self._protocol.send_text(text.encode(errors="replace"))
            self._flush()

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()

    def _close_soon(self) -> None:
        """Closes when the peer has answered the close frame, or does not in time."""
        if self._protocol.close_expected() and self._protocol.close_rcvd is not None:
            self._transport.close()
        elif self._close_timer is None:
            self._close_timer = asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._transport.abort)

    def _frame(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._opcode = frame.opcode
        elif frame.opcode is not Opcode.CONT:
            return
        self._message += frame.data
        if frame.fin:
            message = bytes(self._message)
            self._message.clear()
            self._received(message, self._opcode is Opcode.TEXT)

    def _received(self, message: bytes, is_text: bool) -> None:
        if self._protocol.state is not Phase.OPEN:
            return  # The agent this was meant for has ended.
        control = _control(message) if is_text else None
        if control is None:
            if message:
                self._terminal.keys(self, message)
        elif control["type"] == "resize":
            with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
                self._terminal.resize(self, _cells(control["cols"]), _cells(control["rows"]))


def _control(message: bytes) -> dict[str, Any] | None:
    """The control message in a text frame, or None when it is keys."""
    if not message.startswith(b"{") or len(message) > MAX_CONTROL:
        return None
    try:
        value = json.loads(message)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and value.get("type") in ("resize", "ping") else None


def _cells(value: Any) -> int:
    """A number of cells; raises TypeError, ValueError or OverflowError for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("not a number")
    return int(value)

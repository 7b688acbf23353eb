"""How a platform tells a vault its rules: frames over a Unix socket, or over TCP under TLS, in both programs.

A frame is its length in four bytes (big-endian), then a JSON object. Descriptors travel with the first byte of the
frame they belong to, which says under `descriptors` how many they are; over TCP there are none. The platform sends
requests {"id", "do", ...} and gets {"id", "ok": {...}} or {"id", "error"}; the vault also sends {"notes": [...],
"batch": number} unasked, and no more before it hears that they were taken. The first request is `hello`: over a Unix
socket with the secret of the vault's folder, over TLS, which has proven both sides, with the platform's own name.

| do     | with                                       | ok                                                          |
|--------|--------------------------------------------|-------------------------------------------------------------|
| hello  | secret or platform                         | pid, version (of the code), sessions (names of those of     |
|        |                                            | this platform), port (of the explicit proxy), ca (PEM)      |
| open   | name, session (see `sessions.Session`)     | {}; the same name again replaces rules and credentials      |
| told   |                                            | {}; every session there is has been opened                  |
| took   | batch                                      | {}; its notes are the platform's now                        |
| listen | name, kinds; descriptors in the same order | {}; listeners of one sandbox: explicit, transparent, dns    |
| lend   | name                                       | kinds; descriptors of its listeners in the same order       |
| close  | name                                       | {}; also closes its listeners and connections               |
| stats  |                                            | sessions, connections, descriptors, rss_kb                  |
"""

import array
import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

SOCKET: Final = "control.sock"
SECRET: Final = "control.secret"
MAX_FRAME: Final = 4 * 1024 * 1024
MAX_DESCRIPTORS: Final = 8
SEND_SECONDS: Final = 10.0
KINDS: Final = ("explicit", "transparent", "dns")

_LENGTH: Final = struct.Struct("!I")
_PIECE: Final = 256 * 1024


class ControlError(Exception):
    """The other side is gone, or does not keep to the protocol."""


class Frames(Protocol):
    """One end of a control connection, whatever carries it."""

    async def send(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send one frame. Raises ControlError."""
        ...

    async def receive(self) -> tuple[dict[str, Any], list[int]]:
        """The next frame and the descriptors that came with it. Raises ControlError."""
        ...

    def drop(self) -> None:
        """Break the connection, so that whoever waits to receive is told."""
        ...

    def close(self) -> None: ...


class StreamChannel:
    """One end of a control connection over TCP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._sending = asyncio.Lock()
        _find_out_soon(writer.get_extra_info("socket"))

    async def send(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        if descriptors:
            raise ControlError("descriptors do not travel over a network")
        try:
            async with asyncio.timeout(SEND_SECONDS), self._sending:
                self._writer.write(_frame(message))
                await self._writer.drain()
        except (OSError, TimeoutError, RuntimeError) as error:
            raise _broken(error or "too slow") from error

    async def receive(self) -> tuple[dict[str, Any], list[int]]:
        try:
            (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            _check_length(length)
            return _message(await self._reader.readexactly(length)), []
        except asyncio.IncompleteReadError as error:
            raise ControlError("the control connection was closed") from error
        except OSError as error:
            raise _broken(error) from error

    def drop(self) -> None:
        self._writer.transport.abort()

    def close(self) -> None:
        self._writer.transport.abort()


class Channel:
    """One end of a control connection over a Unix socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._descriptors: list[int] = []
        self._sending = asyncio.Lock()

    @property
    def peer(self) -> int:
        """The user id of the process at the other end."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", credentials)[1])

    async def send(self, message: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        if descriptors:
            message = {**message, "descriptors": len(descriptors)}
        data = _frame(message)
        try:
            async with asyncio.timeout(SEND_SECONDS), self._sending:
                if descriptors:
                    sent = await self._send_with(data, descriptors)
                    data = data[sent:]
                await self._loop.sock_sendall(self._socket, data)
        except (OSError, TimeoutError) as error:
            raise _broken(error or "too slow") from error

    async def _send_with(self, data: bytes, descriptors: Sequence[int]) -> int:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        while True:
            try:
                return self._socket.sendmsg([data], ancillary)
            except BlockingIOError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)

    async def receive(self) -> tuple[dict[str, Any], list[int]]:
        while True:
            if len(self._buffer) >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(self._buffer)
                _check_length(length)
                end = _LENGTH.size + length
                if len(self._buffer) >= end:
                    message = _message(self._buffer[_LENGTH.size : end])
                    del self._buffer[:end]
                    # What was read with it may belong to the next one.
                    count = message.get("descriptors", 0)
                    if not isinstance(count, int) or not 0 <= count <= len(self._descriptors):
                        raise ControlError("a frame without its descriptors")
                    descriptors, self._descriptors = self._descriptors[:count], self._descriptors[count:]
                    return message, descriptors
            await self._fill()

    async def _fill(self) -> None:
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(
                    self._socket, _PIECE, MAX_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
                )
                break
            except BlockingIOError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)
            except OSError as error:
                raise _broken(error) from error
        self._descriptors += descriptors
        if not data:
            raise ControlError("the control connection was closed")
        self._buffer += data

    async def _ready(self, add: Any, remove: Any) -> None:
        ready = self._loop.create_future()
        add(self._socket.fileno(), _done, ready)
        try:
            await ready
        finally:
            with contextlib.suppress(OSError, ValueError):
                remove(self._socket.fileno())

    def drop(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
        if (number := self._socket.fileno()) >= 0:  # which may be another socket's soon
            self._loop.remove_reader(number)
            self._loop.remove_writer(number)
        self._socket.close()


def _frame(message: Mapping[str, Any]) -> bytes:
    data = json.dumps(message, separators=(",", ":")).encode()
    return _LENGTH.pack(len(data)) + data


def _check_length(length: int) -> None:
    if length > MAX_FRAME:
        raise ControlError("a frame that is too large")


def _message(data: bytes | bytearray) -> dict[str, Any]:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ControlError("a frame that is no JSON") from error
    if not isinstance(message, dict):
        raise ControlError("a frame that is no object")
    return message


def _broken(why: object) -> ControlError:
    return ControlError(f"the control connection is broken: {why}")


def _find_out_soon(sock: Any) -> None:
    """Let the system tell within half a minute that the other machine is gone."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, seconds in ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3)):
        sock.setsockopt(socket.IPPROTO_TCP, option, seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000)


def _done(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


@contextlib.contextmanager
def short_path(directory: Path) -> Any:
    """A path of the control socket that fits its address, however long that of its folder is."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)


def connected(directory: Path) -> socket.socket:
    """A connection to the vault of a folder. Raises OSError when there is none."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_path(directory) as path:
            sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return sock


def listening(directory: Path) -> socket.socket:
    """The listening socket of the vault of a folder, in place of what an earlier one left."""
    (directory / SOCKET).unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_path(directory) as path:
            sock.bind(path)
        (directory / SOCKET).chmod(0o600)
        sock.listen(8)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock

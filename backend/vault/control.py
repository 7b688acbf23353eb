"""How the platform tells the vault its rules: frames over a Unix socket, in both programs.

A frame is its length in four bytes (big-endian), then a JSON object. Descriptors travel with the first byte of the
frame they belong to, which says under `descriptors` how many they are. The platform sends requests {"id", "do", ...}
and gets {"id", "ok": {...}} or {"id", "error"}; the vault also sends {"notes": [...]} unasked. The first request is
`hello` with the secret of the vault's folder.

| do     | with                                       | ok                                                          |
|--------|--------------------------------------------|-------------------------------------------------------------|
| hello  | secret                                     | pid, port (of the explicit proxy), sessions (their names)   |
| open   | name, session (see `sessions.Session`)     | {}; the same name again replaces rules and credentials      |
| listen | name, kinds; descriptors in the same order | {}; listeners of one sandbox: explicit, transparent, dns    |
| lend   | name                                       | kinds; descriptors of its listeners in the same order       |
| close  | name                                       | {}; also closes its listeners and connections               |
| keep   | names                                      | {}; closes all others                                       |
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
from typing import Any, Final

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


class Channel:
    """One end of the control connection."""

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
        """Send one frame. Raises ControlError."""
        if descriptors:
            message = {**message, "descriptors": len(descriptors)}
        data = json.dumps(message, separators=(",", ":")).encode()
        data = _LENGTH.pack(len(data)) + data
        try:
            async with asyncio.timeout(SEND_SECONDS), self._sending:
                if descriptors:
                    sent = await self._send_with(data, descriptors)
                    data = data[sent:]
                await self._loop.sock_sendall(self._socket, data)
        except (OSError, TimeoutError) as error:
            raise ControlError(f"the control connection is broken: {error or 'too slow'}") from error

    async def _send_with(self, data: bytes, descriptors: Sequence[int]) -> int:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        while True:
            try:
                return self._socket.sendmsg([data], ancillary)
            except BlockingIOError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)

    async def receive(self) -> tuple[dict[str, Any], list[int]]:
        """The next frame and the descriptors that came with it. Raises ControlError."""
        while True:
            if len(self._buffer) >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(self._buffer)
                if length > MAX_FRAME:
                    raise ControlError("a frame that is too large")
                end = _LENGTH.size + length
                if len(self._buffer) >= end:
                    try:
                        message = json.loads(self._buffer[_LENGTH.size : end])
                    except ValueError as error:
                        raise ControlError("a frame that is no JSON") from error
                    del self._buffer[:end]
                    if not isinstance(message, dict):
                        raise ControlError("a frame that is no object")
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
                raise ControlError(f"the control connection is broken: {error}") from error
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

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
        self._socket.close()


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

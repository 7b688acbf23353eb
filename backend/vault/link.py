"""One TCP connection as a stream, in the clear or under TLS, with bounded buffers and a time limit on every wait.

TLS runs here over memory buffers, so that what a client sends first can be looked at before it is decided.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable

from backend.vault.limits import BUFFER, HANDSHAKE_SECONDS, STALL_SECONDS, TUNNEL_SECONDS

_RECORD = 65_536


class Closed(ConnectionError):
    """The other side is gone, or too slow."""


class Link(asyncio.Protocol):
    """Reads by one task and writes by one task at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._eof = False
        self._lost: BaseException | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline = 0.0
        """Until when something must be read."""
        self._reading_paused = False
        self._writing_paused = False
        self._tls: ssl.SSLObject | None = None
        self._incoming: ssl.MemoryBIO | None = None
        self._outgoing: ssl.MemoryBIO | None = None
        self._handshaking = False
        self._shut = False

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        self._transport.set_write_buffer_limits(BUFFER)  # type: ignore[union-attr]
        self.connected()

    def connected(self) -> None:
        """Called once the connection is there."""

    def data_received(self, data: bytes) -> None:
        if self._tls is None or self._handshaking:
            self._take(data)
        else:
            assert self._incoming is not None
            self._incoming.write(data)
            self._decrypt()

    def eof_received(self) -> bool:
        self._end()
        return True  # the other direction stays open until we close it

    def ended(self) -> None:
        """Called when the other side sends no more."""

    def _end(self) -> None:
        self._eof = True
        self._wake(self._reader)
        self.ended()

    def connection_lost(self, error: Exception | None) -> None:
        self._eof = True
        self._lost = error or Closed("closed")
        self._stop_timer()
        self._writing_paused = False
        self._wake(self._reader)
        self._wake(self._writer)

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._wake(self._writer)

    def _take(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > BUFFER and not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()
        if self._reader is not None:
            self._wake(self._reader)

    def _decrypt(self) -> None:
        assert self._tls is not None and self._incoming is not None
        tls, incoming = self._tls, self._incoming
        try:
            while data := tls.read(_RECORD):
                self._take(data)
                if not incoming.pending and not tls.pending():
                    break  # to be told so by an exception takes longer
            else:
                self._end()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:  # broken records: nothing more can be believed
            self._end()
            return
        self._flush()  # key updates and the like

    @staticmethod
    def _wake(waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # The user's side.

    @property
    def alive(self) -> bool:
        """Whether nothing says that the connection has ended."""
        return not self._eof and self._lost is None and not self._shut

    @property
    def quiet(self) -> bool:
        """Whether nothing was received that is not read yet."""
        return not self._pieces

    @property
    def protocol(self) -> str | None:
        """What ALPN has agreed on."""
        return self._tls.selected_alpn_protocol() if self._tls is not None else None

    @property
    def socket(self) -> socket.socket | None:
        return self._transport.get_extra_info("socket") if self._transport is not None else None

    async def read(self, seconds: float) -> bytes:
        """The next bytes, b"" at the end. Raises Closed when none come within `seconds` or the connection broke."""
        while not self._pieces:
            if self._eof:
                if self._lost is not None and not isinstance(self._lost, Closed):
                    raise Closed(str(self._lost))
                return b""
            await self._wait_to_read(seconds)
        return self._pop()

    def _pop(self) -> bytes:
        data = self._pieces.popleft() if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        if self._reading_paused and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()
        return data

    async def _wait_to_read(self, seconds: float) -> None:
        waiter = self._reader = self._loop.create_future()
        deadline = self._deadline = self._loop.time() + seconds
        # One timer goes on from one wait to the next: most end long before, and timers are dear.
        if self._timer is None or self._timer.when() > deadline:
            self._stop_timer()
            self._timer = self._loop.call_at(deadline, self._look_at_deadline)
        try:
            await waiter
        finally:
            self._reader = None

    def _look_at_deadline(self) -> None:
        self._timer = None
        if self._reader is None:
            return
        if self._loop.time() >= self._deadline:
            _expire(self._reader)
        else:
            self._timer = self._loop.call_at(self._deadline, self._look_at_deadline)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def unread(self, data: bytes) -> None:
        """Put back what was read too much."""
        if data:
            self._pieces.appendleft(data)
            self._size += len(data)

    def write(self, data: bytes) -> None:
        """Send `data`; `drain` after larger amounts."""
        if self._transport is None or self._lost is not None or self._shut or not data:
            return
        if self._tls is None:
            self._transport.write(data)
            return
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            self.abort()
            raise Closed(str(error)) from error
        self._flush()

    def _flush(self) -> None:
        assert self._outgoing is not None
        if self._outgoing.pending and self._transport is not None:
            self._transport.write(self._outgoing.read())

    async def drain(self, seconds: float = STALL_SECONDS) -> None:
        """Wait until most of what was written is sent. Raises Closed."""
        while self._writing_paused:
            if self._lost is not None:
                break
            waiter = self._writer = self._loop.create_future()
            timer = self._loop.call_later(seconds, _expire, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                self._writer = None
        if self._lost is not None or self._shut:
            raise Closed(str(self._lost or "closed"))

    async def start_tls(self, context: ssl.SSLContext, *, server: bool, name: str | None = None) -> None:
        """Go on under TLS. Raises ssl.SSLError, Closed."""
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server, server_hostname=name)
        self._handshaking = True
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                while True:
                    while self._pieces:
                        self._incoming.write(self._pop())
                    try:
                        self._tls.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        self._flush()
                    if self._eof:
                        raise Closed("closed during the TLS handshake")
                    await self._wait_to_read(HANDSHAKE_SECONDS)
        except TimeoutError as error:
            raise Closed("no TLS handshake in time") from error
        finally:
            self._flush()  # an alert, if it failed
        self._handshaking = False
        while self._pieces:
            self._incoming.write(self._pop())
        self._decrypt()

    def close(self) -> None:
        """Send what is written, then close."""
        if self._transport is None or self._shut:
            return
        if self._tls is not None and self._lost is None and not self._handshaking:
            try:
                self._tls.unwrap()
            except (ssl.SSLError, OSError):
                pass
            self._flush()
        self._shut = True
        self._transport.close()
        if self._writing_paused:  # a receiver that takes nothing must not keep it
            self._loop.call_later(STALL_SECONDS, self._transport.abort)

    def abort(self) -> None:
        """Close at once."""
        self._shut = True
        if self._transport is not None:
            self._transport.abort()

    def write_eof(self) -> None:
        """Say that nothing more comes, where the connection can."""
        if self._tls is None and self._transport is not None and self._lost is None and not self._shut:
            try:
                self._transport.write_eof()
            except (OSError, RuntimeError):
                self.close()
        else:
            self.close()


Change = Callable[[bytes], bytes]


def unchanged(data: bytes) -> bytes:
    return data


async def tunnel(one: Link, other: Link, forth: Change = unchanged, back: Change = unchanged) -> None:
    """Pass bytes both ways until both ends have ended, or nothing was said for long."""

    async def pump(source: Link, sink: Link, change: Change) -> None:
        while data := await source.read(TUNNEL_SECONDS):
            sink.write(change(data))
            await sink.drain()
        sink.write_eof()

    pumps = [asyncio.ensure_future(pump(one, other, forth)), asyncio.ensure_future(pump(other, one, back))]
    try:
        await asyncio.wait(pumps, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for each in pumps:
            each.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        other.close()


def _expire(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(Closed("nothing came in time"))

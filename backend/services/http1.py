"""HTTP/1.1 as a client of harnesses, over connections that are kept for a moment.

A general client takes as long for a call as all else that the platform does for a message. Harnesses are on loopback or
in the cluster: the operator's proxy settings are not for them.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

import h11

CONNECT_SECONDS: Final = 5.0
KEEP_ALIVE_SECONDS: Final = 15.0
"""How long a connection is kept for the next call: well below the 60 s after which a harness closes it."""
KEPT_CONNECTIONS: Final = 32
CHUNK: Final = 65_536
CUT_OFF: Final = "it ended the connection before its answer was whole"


class CallError(Exception):
    """A call got no whole answer; the text says why."""


class NotReachedError(CallError):
    """The server takes no connections: it knows nothing of the call."""


class TooLongError(CallError):
    """The answer is longer than the caller wants it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `pieces` raises CallError, too."""

    status: int
    headers: Mapping[str, str]
    """By names in lower case."""
    pieces: AsyncIterator[bytes]

    async def whole(self, limit: int) -> bytes:
        """The body. Raises TooLongError when it is longer than `limit` bytes."""
        body = bytearray()
        async for piece in self.pieces:
            body += piece
            if len(body) > limit:
                raise TooLongError(f"more than {limit} bytes")
        return bytes(body)


class Connections:
    """Connections to any number of servers, each for one call at a time."""

    def __init__(self, *, kept: int = KEPT_CONNECTIONS) -> None:
        self._most = kept
        self._idle: list[_Connection] = []

    async def call(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None, *, limit: int
    ) -> tuple[int, bytes]:
        """The status, and the body of at most `limit` bytes, of an answer that may take for ever. Raises CallError."""
        async with self.stream(method, url, headers, body) as answer:
            return answer.status, await answer.whole(limit)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        silence: float | None = None,
    ) -> AsyncIterator[Answer]:
        """An answer that is read as it comes; the server may be silent for so many seconds. Raises CallError."""
        server, host, target = _parts_of(url)
        connection = self._kept(server) or await _connect(server)
        try:
            await connection.send(method, target, {"host": host, **headers}, body)
            head = await connection.head(silence)
            found = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
            yield Answer(head.status_code, found, connection.pieces(silence))
        finally:
            if connection.ended and self._most:
                self._keep(connection)
            else:
                connection.close()

    def close(self) -> None:
        """Close what is kept, and keep no more."""
        self._most = 0
        while self._idle:
            self._drop(self._idle[0])

    def _kept(self, server: tuple[str, int]) -> "_Connection | None":
        for connection in reversed(self._idle):
            if connection.server == server:
                self._idle.remove(connection)
                if connection.taken():
                    return connection
                connection.close()
        return None

    def _keep(self, connection: "_Connection") -> None:
        self._idle.append(connection)
        connection.until(asyncio.get_running_loop().call_later(KEEP_ALIVE_SECONDS, self._drop, connection))
        if len(self._idle) > self._most:
            self._drop(self._idle[0])

    def _drop(self, connection: "_Connection") -> None:
        self._idle.remove(connection)
        connection.close()


class _Connection:
    """One connection, and where it is in its call."""

    def __init__(self, server: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self._reader = reader
        self._writer = writer
        self._h11 = h11.Connection(h11.CLIENT)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def ended(self) -> bool:
        """Whether its call is over, and it can take another one."""
        return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE

    async def send(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> None:
        """Begin a call. Raises CallError."""
        length = {} if body is None else {"content-length": str(len(body))}
        try:
            request = h11.Request(method=method, target=target, headers=list((length | dict(headers)).items()))
            data = self._h11.send(request) or b""
            if body:
                data += self._h11.send(h11.Data(data=body)) or b""
            self._h11.send(h11.EndOfMessage())
        except h11.ProtocolError as error:
            raise CallError(str(error)) from error
        self._writer.write(data)
        with suppress(OSError):  # one who refuses a long body may hang up before it was sent, and answer all the same
            await self._writer.drain()

    async def head(self, silence: float | None) -> h11.Response:
        """The beginning of the answer. Raises CallError."""
        response = await self._next(silence)
        while isinstance(response, h11.InformationalResponse):
            response = await self._next(silence)
        assert isinstance(response, h11.Response)
        return response

    async def pieces(self, silence: float | None) -> AsyncIterator[bytes]:
        """The body of the answer. Raises CallError."""
        while isinstance(event := await self._next(silence), h11.Data):
            yield bytes(event.data)

    async def _next(self, silence: float | None) -> h11.Event:
        try:
            while True:
                event = self._h11.next_event()
                if event is h11.NEED_DATA:
                    async with asyncio.timeout(silence):
                        self._h11.receive_data(await self._reader.read(CHUNK))
                elif isinstance(event, h11.Event) and not isinstance(event, h11.ConnectionClosed):
                    return event
                else:
                    raise CallError(CUT_OFF)
        except OSError as error:
            raise CallError(str(error) or f"nothing came for {silence} s") from error
        except h11.ProtocolError as error:
            raise CallError(CUT_OFF if self._reader.at_eof() else str(error)) from error

    def until(self, timer: asyncio.TimerHandle) -> None:
        """Its call is over; it is kept for another one until then."""
        self._timer = timer
        self._h11.start_next_cycle()

    def taken(self) -> bool:
        """Kept no longer; whether it still is of use."""
        if self._timer is not None:
            self._timer.cancel()
        return not self._reader.at_eof() and not self._writer.is_closing() and self._reader.exception() is None

    def close(self) -> None:
        """Close it at once."""
        if self._timer is not None:
            self._timer.cancel()
        self._writer.transport.abort()


async def _connect(server: tuple[str, int]) -> _Connection:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return _Connection(server, *await asyncio.open_connection(*server))
    except TimeoutError:
        raise NotReachedError(f"no connection within {CONNECT_SECONDS:g} s") from None
    except OSError as error:
        raise NotReachedError(error.strerror or str(error)) from error


@lru_cache
def _parts_of(url: str) -> tuple[tuple[str, int], str, str]:
    """Whom to connect to, its name, and what to ask it for. Raises NotReachedError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError as error:
        raise NotReachedError(f"{error}: {url}") from error
    if parts.scheme != "http" or not host:
        raise NotReachedError(f"not an address of a harness: {url}")
    return (host, port), parts.netloc, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

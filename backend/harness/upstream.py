"""HTTP/1.1 as a client: one request to the agent's server on a loopback port, its answer piece by piece."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import h11

CONNECT_SECONDS = 5.0
CHUNK = 65_536


class Broken(Exception):
    """The server does not answer, or ended in the middle of its answer; the text says which."""


class Unreached(Broken):
    """The server does not take connections: it knows nothing of the request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `pieces` raises Broken when the server ends before its answer does."""

    status: int
    headers: dict[str, str]
    pieces: AsyncIterator[bytes]

    async def whole(self, limit: int) -> bytes:
        """The body; raises Broken when it is longer than `limit` bytes."""
        body = bytearray()
        async for piece in self.pieces:
            body += piece
            if len(body) > limit:
                raise Broken(f"its answer is longer than {limit} bytes")
        return bytes(body)


@asynccontextmanager
async def exchange(
    port: int, method: str, target: str, headers: Mapping[str, str], body: bytes = b""
) -> AsyncIterator[Answer]:
    """One request on a connection of its own. Waits for the answer without limit. Raises Unreached and Broken."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError) as error:
        raise Unreached(f"it does not take connections ({error or 'no answer'})") from error
    own = {"host": f"127.0.0.1:{port}", "connection": "close", "accept-encoding": "identity"}
    if body or method in ("POST", "PUT", "PATCH"):
        own["content-length"] = str(len(body))
    client = h11.Connection(h11.CLIENT)
    try:
        request = h11.Request(method=method, target=target, headers=list((own | dict(headers)).items()))
        writer.write(client.send(request) or b"")
        if body:
            writer.write(client.send(h11.Data(data=body)) or b"")
        writer.write(client.send(h11.EndOfMessage()) or b"")
        await writer.drain()
        response = await _next(client, reader)
        while isinstance(response, h11.InformationalResponse):
            response = await _next(client, reader)
        assert isinstance(response, h11.Response)
        found = {name.decode("ascii"): value.decode("latin-1") for name, value in response.headers}
        yield Answer(response.status_code, found, _pieces(client, reader))
    except (OSError, h11.ProtocolError) as error:
        raise _broken(error) from error
    finally:
        writer.transport.abort()


async def _next(client: h11.Connection, reader: asyncio.StreamReader) -> h11.Event:
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            client.receive_data(await reader.read(CHUNK))
        elif isinstance(event, h11.Event):
            return event
        else:
            raise ConnectionResetError("no answer")


async def _pieces(client: h11.Connection, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    try:
        while not isinstance(event := await _next(client, reader), (h11.EndOfMessage, h11.ConnectionClosed)):
            if isinstance(event, h11.Data):
                yield bytes(event.data)
    except (OSError, h11.ProtocolError) as error:
        raise _broken(error) from error


def _broken(error: Exception) -> Broken:
    # h11 speaks of its own states where an answer is missing or not whole.
    how = str(error) if isinstance(error, OSError) else "in the middle of the answer"
    return Broken(f"it ended its connection ({how})")

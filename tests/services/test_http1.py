"""The client of harnesses, against servers that answer well and badly."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from backend.services.http1 import CallError, Connections, NotReachedError, TooLongError

HEADERS = {"authorization": "Bearer secret"}
YES = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes"


class Server:
    """Answers each request with the next of its answers; the last one stays. An empty one closes the connection."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        self.hang_up: Callable[[], None] = lambda: None
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.hang_up = writer.close
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                self.requests.append(head + await reader.readexactly(int(length or 0)))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if not answer:
                    break
                writer.write(answer)
        except asyncio.IncompleteReadError:
            pass
        writer.close()


@asynccontextmanager
async def serving(*answers: bytes) -> AsyncIterator[Server]:
    server = Server(*answers)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        server.hang_up()
        listening.close()


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    found = Connections()
    yield found
    found.close()


async def test_calls_share_a_connection(connections: Connections) -> None:
    async with serving(YES) as server:
        for body in (b'{"a":1}', b"", None):
            assert await connections.call("POST", f"{server.url}/x?y=1", HEADERS, body, limit=100) == (200, b"yes")
        assert server.connections == 1
        head, _, sent = server.requests[0].partition(b"\r\n\r\n")
        assert head.startswith(b"POST /x?y=1 HTTP/1.1\r\n")
        assert {b"authorization: Bearer secret", b"content-length: 7"} <= set(head.split(b"\r\n"))
        assert sent == b'{"a":1}'
        assert b"content-length: 0" in server.requests[1]


async def test_a_connection_that_was_closed_is_not_used_again(connections: Connections) -> None:
    async with serving(YES) as server:
        await connections.call("GET", server.url, HEADERS, limit=100)
        server.hang_up()
        (kept,) = connections._idle
        async with asyncio.timeout(10):
            await kept._reader.read()  # until the end has been heard
        assert await connections.call("GET", server.url, HEADERS, limit=100) == (200, b"yes")
        assert server.connections == 2


async def test_one_that_is_not_to_be_kept(connections: Connections) -> None:
    async with serving(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nyes") as server:
        for _ in range(2):
            assert (await connections.call("GET", server.url, HEADERS, limit=100))[1] == b"yes"
        assert server.connections == 2


async def test_pieces_come_as_they_are_sent(connections: Connections) -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nX-Kind: Ab\r\n\r\n2\r\nye\r\n1\r\ns\r\n"
    async with serving(chunked) as server, connections.stream("GET", server.url, HEADERS, silence=0.2) as answer:
        assert (answer.status, answer.headers["x-kind"]) == (200, "Ab")
        assert [await anext(answer.pieces), await anext(answer.pieces)] == [b"ye", b"s"]
        with pytest.raises(CallError, match=r"nothing came for 0\.2 s"):
            await anext(answer.pieces)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "before its answer was whole"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nyes",
            "nothing came|before its answer was whole",
        ),
        (b"no HTTP at all\r\n\r\n", "illegal|status line"),
    ],
)
async def test_answers_that_are_none(connections: Connections, answer: bytes, why: str) -> None:
    async with serving(answer) as server:
        with pytest.raises(CallError, match=why):
            async with asyncio.timeout(10), connections.stream("GET", server.url, HEADERS, silence=0.2) as found:
                await found.whole(100)
        assert not connections._idle


async def test_more_than_is_wanted(connections: Connections) -> None:
    async with serving(YES) as server:
        with pytest.raises(TooLongError):
            await connections.call("GET", server.url, HEADERS, limit=2)
        assert not connections._idle


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ftp://127.0.0.1", "http://", "http://[::1", "http://h:port"])
async def test_nobody_is_there(connections: Connections, url: str) -> None:
    with pytest.raises(NotReachedError):
        await connections.call("GET", url, HEADERS, limit=2)


async def test_headers_that_cannot_be_sent(connections: Connections) -> None:
    async with serving(YES) as server:
        with pytest.raises(CallError):
            await connections.call("GET", server.url, {"x": "a\r\nb: c"}, limit=100)
        assert server.requests == []

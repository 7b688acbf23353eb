"""Clients and servers that do not keep to the rules of HTTP."""

import asyncio
import contextlib

import pytest

from backend.vault import http1_server
from tests.vault.conftest import REAL, Box, reach
from tests.vault.servers import Server, Trust
from tests.vault.test_egress import AUTHORIZATION, ask, refused
from tests.vault.test_swapping import connected


def request(server: Server, more: bytes, rest: bytes = b"", method: bytes = b"POST") -> bytes:
    host = b"127.0.0.1:%d" % server.port
    return (
        method
        + b" http://"
        + host
        + b"/echo HTTP/1.1\r\nHost: "
        + host
        + b"\r\n"
        + AUTHORIZATION
        + more
        + b"\r\n"
        + rest
    )


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("headers", "rest"),
    [
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n" + SMUGGLED),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello" + SMUGGLED),
        (b"Content-Length: +5\r\n", b"hello"),
        (b"Content-Length: 0x5\r\n", b"hello"),
        (b"Content-Length: -1\r\n", b"hello"),
        (b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n" + SMUGGLED),
        (b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"),
        (b"X: a\0b\r\n", b""),
        (b"X y: a\r\n", b""),
        (b": a\r\n", b""),
        (b"X: a\rX: b\r\n", b""),
        (b"Host: evil.test\r\n", b""),
    ],
)
async def test_smuggling(box: Box, plain_server: Server, headers: bytes, rest: bytes) -> None:
    box.open(reachable=reach(plain_server))
    answer = await ask(box, request(plain_server, headers, rest))
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")), answer
    assert answer.count(b"HTTP/1.1 ") == 1
    assert plain_server.raw == []


@pytest.mark.parametrize(
    "rest", [b"5\r\nhello\r\n", b"zz\r\nhello\r\n0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n"]
)
async def test_broken_chunks_never_look_whole(box: Box, plain_server: Server, rest: bytes) -> None:
    box.open(reachable=reach(plain_server))
    await ask(box, request(plain_server, b"Transfer-Encoding: chunked\r\n", rest), end=True)
    assert plain_server.requests == []


async def test_what_is_passed_on_is_written_anew(box: Box, plain_server: Server) -> None:
    box.open(reachable=reach(plain_server))
    more = b"Connection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: gzip\r\nX-Stay:   spaced\r\nUpgrade: h2c\r\n"
    answer = await ask(box, request(plain_server, more, method=b"GET"))
    assert answer.startswith(b"HTTP/1.1 200")
    names = [name for name, _ in plain_server.requests[0]["headers"]]
    assert "x-stay" in names
    assert not {"x-hop", "keep-alive", "te", "connection", "proxy-authorization", "upgrade"} & set(names)


@pytest.mark.parametrize("size", [70_000, 1_000_000])
async def test_heads_are_bounded(box: Box, plain_server: Server, size: int) -> None:
    box.open(reachable=reach(plain_server))
    answer = await ask(box, request(plain_server, b"X: " + b"a" * size + b"\r\n"))
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert plain_server.raw == []


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02",
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x00\x05hello",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_no_http_at_all(box: Box, data: bytes) -> None:
    answer = await ask(box, data)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 505 ")), answer


@pytest.mark.parametrize("target", ["", "a", "a:", "a:b", "a:99999", "u@a:1", "/", "*", "http://a:1/"])
async def test_connect_to_nowhere(box: Box, target: str) -> None:
    box.open()
    answer = await ask(box, f"CONNECT {target} HTTP/1.1\r\nHost: a\r\n".encode() + AUTHORIZATION + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 400 "), answer


@pytest.mark.parametrize(
    "answer",
    [
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: wrong\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        b"",
    ],
)
async def test_servers_that_speak_no_http(box: Box, answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    made = Server()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    box.open(reachable=reach(made))
    got = await ask(box, request(made, b"", method=b"GET"))
    assert refused(got, 502)["error"]
    server.close()


async def test_an_answer_that_breaks_off_is_seen_to(box: Box) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        writer.close()

    made = Server()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    box.open(reachable=reach(made))
    reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
    writer.write(request(made, b"", method=b"GET"))
    with pytest.raises((ConnectionError, AssertionError)):
        got = await reader.read()
        assert got.endswith(b"0\r\n\r\n")
    writer.close()
    server.close()


async def test_certificates_are_checked(box: Box, server: Server) -> None:
    made = Server()
    other = Trust(box.directory)
    async with made.running(other.context("api.example.test")):
        box.names["api.example.test"] = ["127.0.0.1"]
        box.open(reachable=reach(made))
        reader, writer = await connected(box, made)
        writer.write(b"GET / HTTP/1.1\r\nHost: api.example.test:%d\r\n\r\n" % made.port)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 502")
        assert b"certificate is not valid" in await reader.read(1000)
        writer.close()
    assert not made.requests


async def test_requests_one_after_the_other_without_waiting(box: Box, plain_server: Server) -> None:
    box.open(reachable=reach(plain_server))
    answer = await ask(box, request(plain_server, b"Content-Length: 2\r\n", b"ab") * 3, answers=3)
    assert answer.count(b"HTTP/1.1 200") == 3
    assert [got["body"] for got in plain_server.requests] == [b"ab"] * 3


async def test_an_early_answer_is_passed_on(box: Box, server: Server) -> None:
    box.open(reachable=reach(server))
    reader, writer = await connected(box, server)
    writer.write(
        b"POST /early HTTP/1.1\r\nHost: api.example.test:%d\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        % server.port
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413")
    writer.close()


async def test_a_server_that_is_left_hears_of_it(box: Box, server: Server) -> None:
    box.open(credentials={"T": REAL}, reachable=reach(server))
    _, writer = await connected(box, server)
    writer.write(b"GET /wait HTTP/1.1\r\nHost: api.example.test:%d\r\n\r\n" % server.port)
    async with asyncio.timeout(10):
        while not server.requests:
            await asyncio.sleep(0.01)
        writer.transport.abort()
        await server.gone.wait()


async def test_slow_heads_end(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1_server, "HEAD_SECONDS", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
    writer.write(b"GET http://a.test/ HTTP/1.1\r\nHost: a.t")
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


async def test_100_continue(box: Box, server: Server) -> None:
    box.open(reachable=reach(server))
    reader, writer = await connected(box, server)
    writer.write(
        b"POST /echo HTTP/1.1\r\nHost: api.example.test:%d\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        % server.port
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
    writer.write(b"ok")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    assert server.requests[0]["body"] == b"ok"
    writer.close()

"""A terminal connection against a real WebSocket server."""

from __future__ import annotations

import asyncio
import http
import json
import socket
from collections.abc import AsyncIterator, Sequence

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from lapconsole.client import BadInput, Tty, TtyClosed, TtyRefused, Unreachable
from lapconsole.client import tty as tty_module
from tests.client.fakes import SECONDS


class FakeTerminal:
    """Accepts a token, records what is typed, and runs what a test wants it to do on each attach."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[str | bytes] = asyncio.Queue()
        self.requests: list[Request] = []
        self.refuse: http.HTTPStatus | None = None
        self.redirect: str | None = None
        self.takes_header = True
        self.on_attach = self.record
        self.url = ""

    async def record(self, connection: ServerConnection) -> None:
        async for message in connection:
            self.received.put_nowait(message)

    async def handle(self, connection: ServerConnection) -> None:
        await self.on_attach(connection)

    def check(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request)
        if self.redirect is not None:
            response = connection.respond(http.HTTPStatus.FOUND, "")
            response.headers["Location"] = self.redirect
            return response
        by_header = self.takes_header and request.headers.get("authorization") == "Bearer tok"
        if self.refuse is None and not by_header and "token=tok" not in request.path:
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "unauthorized")
        return None if self.refuse is None else connection.respond(self.refuse, "")


@pytest.fixture
async def terminal() -> AsyncIterator[FakeTerminal]:
    terminal = FakeTerminal()
    async with serve(terminal.handle, "127.0.0.1", 0, process_request=terminal.check, compression=None) as server:
        terminal.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/tty"
        yield terminal


async def test_keys_are_binary_and_sizes_are_text(terminal: FakeTerminal) -> None:
    async with await Tty.connect(terminal.url, "tok") as tty:
        await tty.send(b'{"type":"resize","cols":1}\x1b[A\xff')
        await tty.resize(90, 20)
        await tty.resize(0, 10_000)
        got = [await asyncio.wait_for(terminal.received.get(), SECONDS) for _ in range(3)]
    assert got[0] == b'{"type":"resize","cols":1}\x1b[A\xff'
    assert [json.loads(message) for message in got[1:]] == [
        {"type": "resize", "cols": 90, "rows": 20},
        {"type": "resize", "cols": 1, "rows": 300},
    ]
    assert "token" not in terminal.requests[0].path
    assert tty.closed is not None and tty.closed.code == 1000


async def test_text_and_binary_come_out_and_the_end_says_why(terminal: FakeTerminal) -> None:
    async def show(connection: ServerConnection) -> None:
        await connection.send("\x1b[2J")
        await connection.send(b"\xffbye")
        await connection.close(1001, "harness gone")

    terminal.on_attach = show
    async with await Tty.connect(terminal.url, "tok") as tty:
        assert [frame async for frame in tty] == ["\x1b[2J", b"\xffbye"]
        assert tty.closed is not None
        assert (tty.closed.code, tty.closed.reason) == (1001, "harness gone")
        with pytest.raises(TtyClosed) as caught:
            await tty.send(b"x")
    assert str(caught.value) == "terminal closed (1001: harness gone)"


async def close_empty(connection: ServerConnection) -> None:
    connection.protocol.send_close()
    connection.transport.write(b"".join(connection.protocol.data_to_send()))
    await connection.wait_closed()


async def break_off(connection: ServerConnection) -> None:
    connection.transport.abort()


@pytest.mark.parametrize(("leave", "code"), [(close_empty, 1005), (break_off, 1006)])
async def test_an_end_without_a_reason(terminal: FakeTerminal, leave, code: int) -> None:
    terminal.on_attach = leave
    async with await Tty.connect(terminal.url, "tok") as tty:
        assert [frame async for frame in tty] == []
        assert tty.closed is not None
        assert (tty.closed.code, tty.closed.reason) == (code, "")


async def test_a_terminal_that_looks_only_in_the_query(terminal: FakeTerminal) -> None:
    terminal.takes_header = False
    async with await Tty.connect(terminal.url, "tok") as tty:
        await tty.send(b"x")
        assert await asyncio.wait_for(terminal.received.get(), SECONDS) == b"x"
    assert [request.path for request in terminal.requests] == ["/tty", "/tty?token=tok"]


@pytest.mark.parametrize(
    ("token", "status", "words"),
    [("bad", None, "401 Unauthorized; the session's terminal token"), (None, None, "401"), ("tok", 503, "not running")],
)
async def test_a_refusal_says_what_it_means(terminal: FakeTerminal, token: str, status: int, words: str) -> None:
    terminal.refuse = http.HTTPStatus(status) if status else None
    with pytest.raises(TtyRefused, match=words) as caught:
        await Tty.connect(terminal.url, token)
    assert caught.value.status == (status or 401)


async def test_no_redirect_is_followed(terminal: FakeTerminal) -> None:
    terminal.redirect = terminal.url.replace("/tty", "/elsewhere")
    with pytest.raises(TtyRefused, match="redirects"):
        await Tty.connect(terminal.url, "tok")
    assert len(terminal.requests) == 1


async def test_nobody_listening_and_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        with pytest.raises(Unreachable, match=r"timed out after 0.1 s"):
            await Tty.connect(f"ws://127.0.0.1:{port}/tty?token=secret", "secret", connect_seconds=0.1)
    with pytest.raises(Unreachable, match="connection refused") as caught:
        await Tty.connect(f"ws://127.0.0.1:{port}/tty?token=secret", "secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/tty", "ws://", "nonsense"])
async def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(BadInput):
        await Tty.connect(url, "tok")


async def test_a_token_that_cannot_be_sent(terminal: FakeTerminal) -> None:
    with pytest.raises(BadInput, match="token"):
        await Tty.connect(terminal.url, "tök")
    assert terminal.requests == []


async def test_a_reader_that_waits_holds_the_terminal_back(terminal: FakeTerminal) -> None:
    sent = 0
    finished = asyncio.Event()

    async def flood(connection: ServerConnection) -> None:
        nonlocal sent
        for _ in range(400):
            await connection.send("x" * 65536)
            sent += 1
        finished.set()
        await connection.close()

    terminal.on_attach = flood
    async with await Tty.connect(terminal.url, "tok") as tty:
        frames = aiter(tty)
        await anext(frames)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(finished.wait(), 0.5)
        assert sent < 400
        assert sum([len(frame) async for frame in frames]) == 399 * 65536


async def test_a_terminal_that_takes_no_keys_ends(terminal: FakeTerminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tty_module, "SEND_SECONDS", 0.2)
    leave = asyncio.Event()

    async def deaf(connection: ServerConnection) -> None:
        connection.transport.pause_reading()
        await leave.wait()
        connection.transport.abort()

    terminal.on_attach = deaf
    async with await Tty.connect(terminal.url, "tok") as tty:
        with pytest.raises(TtyClosed, match="nothing was accepted"):
            for _ in range(1000):
                await tty.send(b"x" * 65536)
        assert [frame async for frame in tty] == []
        leave.set()


@pytest.mark.parametrize(
    ("knows", "two_way"), [(["lap.tty.2"], True), ([], False), (["lap.tty.1", "lap.tty.2"], False)]
)
async def test_the_newer_protocol_is_offered(terminal: FakeTerminal, knows: list[str], two_way: bool) -> None:
    """A server that takes the first offer whatever it is means the original protocol, like one that takes none."""

    def choose(connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        return next((name for name in offered if name in knows), None)

    async with (
        serve(
            terminal.handle, "127.0.0.1", 0, process_request=terminal.check, select_subprotocol=choose, compression=None
        ) as server,
        await Tty.connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/tty", "tok", offer=True) as tty,
    ):
        assert tty.two_way is two_way
        await tty.say(type="drive")
        assert await asyncio.wait_for(terminal.received.get(), SECONDS) == '{"type": "drive"}'


async def test_nothing_is_offered_unasked(terminal: FakeTerminal) -> None:
    async with await Tty.connect(terminal.url, "tok") as tty:
        assert not tty.two_way
    assert "Sec-WebSocket-Protocol" not in terminal.requests[0].headers

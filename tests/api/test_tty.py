"""The terminal proxy between a real client and a stand-in harness (LAP REST 3.11)."""

import asyncio
import base64
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from backend.api import sockets, tty
from backend.settings import Settings
from tests.api.stand_in import Platform, stand_in
from tests.waiting import until

PROTOCOL = "lap.tty.2"
CHUNK = b"x" * 8192


@pytest.fixture
async def platform(settings: Settings) -> AsyncIterator[Platform]:
    async with stand_in(settings) as platform:
        yield platform


@contextlib.asynccontextmanager
async def viewer(session: dict[str, Any], *subprotocols: str, **options: Any) -> AsyncIterator[ClientConnection]:
    """A client on the session's terminal."""
    offered = [Subprotocol(name) for name in subprotocols] or None
    url = f"{session['tty_url']}?token={session['tty_token']}"
    async with connect(url, subprotocols=offered, proxy=None, **options) as connection:
        yield connection


def deaf(session: dict[str, Any]) -> socket.socket:
    """A client that is connected, takes next to nothing and says nothing any more."""
    host, _, path = session["tty_url"].removeprefix("ws://").partition("/")
    name, _, port = host.partition(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.connect((name, int(port)))
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        f"GET /{path}?token={session['tty_token']} HTTP/1.1",
        f"Host: {host}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {key}",
    ]
    connection.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
    return connection


async def closed(connection: ClientConnection) -> tuple[int | None, str | None]:
    """How the other side ends the connection."""
    async with asyncio.timeout(15):
        with contextlib.suppress(ConnectionClosed):
            while True:
                await connection.recv()
    return connection.close_code, connection.close_reason


class Flood:
    """A harness's terminal that writes as much as is taken; `sent` bytes so far."""

    def __init__(self) -> None:
        self.sent = 0
        self.waiting = False

    async def __call__(self, terminal: WebSocket) -> None:
        while True:
            self.waiting = True
            await terminal.send_bytes(CHUNK)
            self.waiting = False
            self.sent += len(CHUNK)
            await asyncio.sleep(0)

    async def is_stuck(self) -> bool:
        """Whether nothing has been taken for a moment."""
        before = self.sent
        await asyncio.sleep(0.1)
        return self.sent > 0 and self.sent == before


async def test_subprotocols_are_passed_through(platform: Platform) -> None:
    platform.harness.choose = lambda names: PROTOCOL if PROTOCOL in names else None
    offers: list[list[str]] = [[PROTOCOL], [PROTOCOL, "other"], ["other", PROTOCOL], ["other"], []]
    session = await platform.ready()
    for offered in offers:
        async with viewer(session, *offered) as connection:
            assert connection.subprotocol == (PROTOCOL if PROTOCOL in offered else None)
    assert platform.harness.offers == offers


async def test_frames_keep_kind_and_content(platform: Platform) -> None:
    frames: list[str | bytes] = [
        b"\x00\xff\x1b[A",
        "text ü",
        '{"type":"ping"}',
        b'{"type":"ping"}',
        b"",
        "",
        b"y" * 300_000,
    ]
    async with viewer(await platform.ready(), PROTOCOL) as connection:
        for frame in frames:
            await connection.send(frame)
        async with asyncio.timeout(10):
            assert [await connection.recv() for _ in frames] == frames


async def test_how_the_harness_closes_is_passed_on(platform: Platform) -> None:
    async def ends(terminal: WebSocket) -> None:
        await terminal.send_bytes(b"last words")
        await terminal.close(*given)

    platform.harness.terminal = ends
    session = await platform.ready()
    passable = [
        (1000, ""),
        (1000, "the agent ended"),
        (1001, "moving"),
        (1008, "no hello"),
        (1011, "broken"),
        (1012, "again"),
        (3000, "ü" * 61),
        (4999, "own"),
    ]
    for given in (*passable, (1003, "no such thing")):
        async with viewer(session, PROTOCOL) as connection:
            assert await connection.recv() == b"last words"
            passed = given if given in passable else (1011, "the sandbox ended the connection")
            assert await closed(connection) == passed


async def test_last_words_reach_a_viewer_who_types_meanwhile(platform: Platform) -> None:
    async def ends(terminal: WebSocket) -> None:
        await terminal.receive()
        for _ in range(40):
            await terminal.send_bytes(CHUNK)
        await terminal.close(4000, "done")

    platform.harness.terminal = ends
    async with viewer(await platform.ready(), PROTOCOL) as connection:
        taken = 0
        with contextlib.suppress(ConnectionClosed):
            while True:
                await connection.send(b"key")
                taken += len(await connection.recv())
        assert (taken, connection.close_code) == (40 * len(CHUNK), 4000)


async def test_a_harness_that_vanishes(platform: Platform) -> None:
    async with viewer(await platform.ready(), PROTOCOL) as connection:
        await connection.send(b"a")
        await connection.recv()
        platform.harness.vanish()
        assert await closed(connection) == (1011, "the sandbox ended the connection")


async def test_how_the_viewer_closes_is_passed_on(platform: Platform) -> None:
    session = await platform.ready()
    codes = [(1000, ""), (4001, "enough"), (1001, "bye")]
    for code, reason in codes:
        async with viewer(session) as connection:
            await connection.close(code, reason)
        await until(lambda code=code: (platform.harness.closed or [()])[-1][:1] == (code,), "the harness hears why")
    assert platform.harness.closed == codes


async def test_a_viewer_who_is_cut_off(platform: Platform) -> None:
    async with viewer(await platform.ready()) as connection:
        connection.transport.abort()
    await until(lambda: platform.harness.closed, "the harness hears of it")


async def test_refusals_before_the_upgrade(platform: Platform) -> None:
    session = await platform.ready()

    async def status(changed: dict[str, Any]) -> int:
        with pytest.raises(InvalidStatus) as refused:
            async with viewer(session | changed):
                pass
        return refused.value.response.status_code

    assert await status({"tty_token": "wrong"}) == 401
    platform.harness.choose = lambda _: "never offered"
    assert await status({}) == 502
    ended = platform.harness.opened
    await platform.http.delete(f"/api/v1/managed_agents/sessions/{session['id']}")
    assert await status({}) == 503
    assert platform.harness.opened == ended


async def test_a_viewer_who_leaves_before_the_harness_answers(platform: Platform) -> None:
    session = await platform.ready()
    idle = platform.harness.connections
    platform.harness.answering = asyncio.Event()
    with pytest.raises(TimeoutError):
        async with viewer(session, open_timeout=0.2):
            pass
    await until(lambda: platform.harness.opened, "the harness was asked")
    await until(lambda: len(terminals(platform)) == 0, "the viewer's connection is gone")
    await until(lambda: platform.harness.connections <= idle, "the harness's connection is gone")
    platform.harness.answering.set()


def terminals(platform: Platform) -> list[Any]:
    """Connections of viewers."""
    return [each for each in platform.server.server_state.connections if hasattr(each, "conn")]


async def test_a_viewer_who_does_not_read_holds_up_the_harness_soon_and_nobody_else(platform: Platform) -> None:
    flood = platform.harness.terminal = Flood()
    session = await platform.ready()
    lazy = deaf(session)
    try:
        await until(flood.is_stuck, "the harness has to wait")
        assert flood.sent < 1_000_000
        async with viewer(session) as connection, asyncio.timeout(10):
            for _ in range(100):
                await connection.recv()
    finally:
        lazy.close()
    await until(lambda: not terminals(platform), "no connection is left")


async def test_a_viewer_who_goes_while_it_is_behind_leaves_nothing(platform: Platform) -> None:
    flood = platform.harness.terminal = Flood()
    session = await platform.ready()
    tasks, connections = len(asyncio.all_tasks()), platform.harness.connections
    for _ in range(3):
        lazy = deaf(session)
        await until(flood.is_stuck, "the harness has to wait")
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # goes without a word
        lazy.close()
        flood.sent = 0
    await until(lambda: not terminals(platform), "no connection of a viewer is left")
    await until(lambda: platform.harness.connections <= connections, "nor one to the harness")
    await until(lambda: len(asyncio.all_tasks()) <= tasks, "nor a task")


async def test_a_viewer_who_is_dead_without_a_word(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It neither reads nor closes: pings find out, and what was meant for it is given up."""
    monkeypatch.setattr(sockets, "CLOSE_SECONDS", 0.1)
    async with stand_in(settings) as platform:
        platform.server.config.ws_ping_interval = platform.server.config.ws_ping_timeout = 0.3
        flood = platform.harness.terminal = Flood()
        session = await platform.ready()
        tasks, connections = len(asyncio.all_tasks()), platform.harness.connections
        lazy = deaf(session)
        await until(flood.is_stuck, "the harness has to wait")
        await until(lambda: not terminals(platform), "no connection of a viewer is left")
        await until(lambda: platform.harness.connections <= connections, "nor one to the harness")
        await until(lambda: len(asyncio.all_tasks()) <= tasks, "nor a task")
        lazy.close()


async def test_a_harness_that_takes_nothing(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    enough = asyncio.Event()

    async def deaf_to_all(_terminal: WebSocket) -> None:
        await enough.wait()

    monkeypatch.setattr(tty, "TAKE_TIMEOUT", 0.3)
    platform.harness.terminal = deaf_to_all
    session = await platform.ready()
    connections = platform.harness.connections
    async with viewer(session) as connection:
        with pytest.raises(ConnectionClosed):
            while True:
                await connection.send(CHUNK)
                await asyncio.sleep(0)  # a write that is taken at once gives nobody else a turn
        assert connection.close_code == 1011
    enough.set()
    await until(lambda: not terminals(platform), "no connection of a viewer is left")
    await until(lambda: platform.harness.connections <= connections, "nor one to the harness")


async def test_the_end_of_the_platform(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """Viewers are told to come again, also while the harness floods; one that does not read is cut off; no error."""
    with caplog.at_level(logging.WARNING):
        async with stand_in(settings) as platform:
            session = await platform.ready()
            async with viewer(session) as idle:
                await idle.send(b"a")
                await idle.recv()
                flood = platform.harness.terminal = Flood()
                lazy = deaf(session)
                await until(flood.is_stuck, "the harness has to wait")
                async with viewer(session, PROTOCOL) as busy:
                    await busy.recv()
                    began = time.monotonic()
                    platform.server.should_exit = True
                    assert (await closed(idle), await closed(busy)) == ((1012, ""), (1012, ""))
                    await until(lambda: not platform.server.server_state.tasks, "no task is left")
                    await until(lambda: not platform.server.server_state.connections, "no connection is left")
                    assert time.monotonic() - began < 2
                lazy.close()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []

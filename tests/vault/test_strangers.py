"""Connections to a shared proxy before they prove whose they are."""

import asyncio
import base64

import pytest

from backend.vault import front, strangers
from tests.vault.conftest import Box


async def connected(box: Box) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", box.port)


async def ended(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(10):
        try:
            return await reader.read() == b""
        except ConnectionError:
            return True


async def status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, secret: str) -> bytes:
    shown = base64.b64encode(f"s-1:{secret}".encode()).decode()
    writer.write(f"CONNECT 10.0.0.1:1 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic {shown}\r\n\r\n".encode())
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
    return head.split(b" ")[1]


async def test_only_so_many_at_a_time(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strangers, "OPEN", 2)
    box.open(deny=["10.0.0.1"])
    one, two, three = await connected(box), await connected(box), await connected(box)
    assert await ended(three[0])
    assert await status(*one, "token-of-s-1") == b"403"  # one less: it is known now
    four, five = await connected(box), await connected(box)
    assert await ended(five[0])
    two[1].close()
    await two[1].wait_closed()
    for each in (one, three, four, five):
        each[1].close()


async def test_who_says_nothing_goes(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "STRANGER_SECONDS", 0.05)
    box.open(deny=["10.0.0.1"])
    known = await connected(box)
    assert await status(*known, "token-of-s-1") == b"403"
    silent = await connected(box)
    assert await ended(silent[0])
    assert await status(*known, "token-of-s-1") == b"403"
    for each in (known, silent):
        each[1].close()


async def test_wrong_credentials_are_told_now_and_then(box: Box) -> None:
    box.open(deny=["10.0.0.1"])
    for _ in range(5):
        one = await connected(box)
        assert await status(*one, "wrong") == b"407"
        one[1].close()
    (note,) = box.notes()
    assert (note.kind, note.host, note.port, note.count) == ("blocked", "10.0.0.1", 1, 1)
    assert note.rule == "407: a wrong credential in the name of this sandbox, from 127.0.0.1"

"""Much at once: a large upload to a server that takes its time, and a vault that dies under load."""

import asyncio
import base64
import contextlib
import hashlib
import signal
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.vault.conftest import REAL
from tests.vault.servers import PIECE, Server, Trust
from tests.vault.test_process import Process, local, vault

__all__ = ["local", "vault"]

SIZE = 200 * 1024 * 1024
CONNECTIONS = 200
AHEAD = 32 * 1024 * 1024
"""More than all buffers between a client and a server that takes nothing hold."""
GROWTH_KB = 24 * 1024


@dataclass
class Sink:
    """Takes uploads, but not before `open` is set."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    digest: str = ""
    head: bytes = b""
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.head = await reader.readuntil(b"\r\n\r\n")
        await self.open.wait()
        found = hashlib.sha256()
        if b"chunked" in self.head.lower():
            while size := int(await reader.readline(), 16):
                found.update(await reader.readexactly(size))
                await reader.readexactly(2)
        else:
            left = SIZE
            while left:
                data = await reader.read(min(left, 1 << 20))
                assert data
                found.update(data)
                left -= len(data)
        self.digest = found.hexdigest()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        writer.close()


@pytest.fixture
async def sink(trust: Trust) -> AsyncIterator[Sink]:
    made = Sink()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=trust.context("127.0.0.1"))
    made.port = server.sockets[0].getsockname()[1]
    yield made
    made.open.set()
    server.close()


async def through(vault: Process, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection of sandbox s-1 to a server, under TLS."""
    reader, writer = await asyncio.open_connection("127.0.0.1", vault.port)
    place = f"127.0.0.1:{port}"
    known = base64.b64encode(b"s-1:t").decode()
    writer.write(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\nProxy-Authorization: Basic {known}\r\n\r\n".encode())
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    context = ssl.create_default_context(cafile=str(vault.directory / "ca.crt"))
    await writer.start_tls(context, server_hostname="127.0.0.1")
    return reader, writer


def peak_kb(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


@pytest.mark.parametrize(
    ("kind", "framing"),
    [("application/octet-stream", f"Content-Length: {SIZE}"), ("text/plain", "Transfer-Encoding: chunked")],
)
async def test_an_upload_waits_for_the_server(vault: Process, sink: Sink, kind: str, framing: str) -> None:
    await vault.hello()
    await vault.open("s-1", sink, TOKEN=REAL)  # type: ignore[arg-type]
    reader, writer = await through(vault, sink.port)
    place = f"127.0.0.1:{sink.port}"
    writer.write(f"POST /up HTTP/1.1\r\nHost: {place}\r\nContent-Type: {kind}\r\n{framing}\r\n\r\n".encode())
    before, written, expected = peak_kb(vault.process.pid), 0, hashlib.sha256()

    async def upload() -> None:
        nonlocal written
        while written < SIZE:
            expected.update(PIECE)
            writer.write(b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if "chunked" in framing else PIECE)
            await writer.drain()
            written += len(PIECE)
        if "chunked" in framing:
            writer.write(b"0\r\n\r\n")

    uploading = asyncio.create_task(upload())
    async with asyncio.timeout(120):
        seen = -1
        while seen != written or not sink.head:  # until nothing more is taken
            seen = written
            await asyncio.sleep(0.5)
        assert 0 < written < AHEAD
        sink.open.set()
        await uploading
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()
    assert sink.digest == expected.hexdigest()
    assert peak_kb(vault.process.pid) - before < GROWTH_KB


async def test_a_crash_under_load(vault: Process, local: Server) -> None:
    """It is closed at once and for all, works again when it is told the rules, and keeps no descriptor."""
    await vault.hello()
    stub = (await vault.open("s-1", local, TOKEN=REAL))["TOKEN"]
    done = 0

    async def client(ends: asyncio.Event) -> bool:
        """Whether it was cut off before the end."""
        nonlocal done
        reader, writer = await through(vault, local.port)
        try:
            while not ends.is_set():
                writer.write(
                    f"GET /size/1000 HTTP/1.1\r\nHost: 127.0.0.1:{local.port}\r\nX-Key: {stub}\r\n\r\n".encode()
                )
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
                await reader.readexactly(1000)
                done += 1
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            return True
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
        return False

    async def load(*, crash: bool) -> None:
        nonlocal done
        done, ends = 0, asyncio.Event()
        clients = [asyncio.create_task(client(ends)) for _ in range(CONNECTIONS)]
        while done < 2 * CONNECTIONS:
            await asyncio.sleep(0.01)
        if crash:
            vault.process.send_signal(signal.SIGKILL)
        else:
            ends.set()
        assert await asyncio.gather(*clients) == [crash] * CONNECTIONS

    async with asyncio.timeout(120):
        port = vault.port
        await load(crash=True)
        await asyncio.to_thread(vault.process.wait, 10)
        with pytest.raises(OSError):
            await through(vault, local.port)
        vault.channel.close()
        await vault.start(port)
        with pytest.raises(AssertionError):  # no rules yet: refused
            await through(vault, local.port)
        await vault.hello()
        idle = (await vault.ask("stats"))["ok"]["descriptors"]
        local.requests.clear()
        stub = (await vault.open("s-1", local, TOKEN=REAL))["TOKEN"]
        await load(crash=False)
        assert {dict(got["headers"])["x-key"] for got in local.requests} == {REAL}
        await vault.ask("close", name="s-1")
        while (await vault.ask("stats"))["ok"]["descriptors"] > idle:
            await asyncio.sleep(0.05)

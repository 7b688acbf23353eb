"""Two programs for the vault's benchmark: a TLS server, and a client that measures it, direct or through a proxy.

python -m tests.bench.vault_load serve CERTIFICATE      prints its port
python -m tests.bench.vault_load load PORT CA PID [PROXY_PORT AUTHORIZATION STUB]      prints its figures as JSON;
    PID is the process whose processor time is counted
"""

import asyncio
import json
import os
import ssl
import statistics
import sys
import time
from pathlib import Path

import uvloop

HOST = "127.0.0.1"
KEPT, NEW, AT_ONCE, SECONDS = 1_500, 80, 16, 4.0
DOWNLOAD = 200 * 1024 * 1024
PIECE = b"0123456789abcdef" * 16_384
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n" + b'{"hello": "you"}'[:15]


async def serve(certificate: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if b"GET /big" in head:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % DOWNLOAD)
                    for _ in range(DOWNLOAD // len(PIECE)):
                        writer.write(PIECE)
                        await writer.drain()
                else:
                    writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, HOST, 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


class Client:
    def __init__(self, port: int, ca: str, proxy: list[str]) -> None:
        self._port = port
        self._context = ssl.create_default_context(cafile=ca)
        self._proxy = (int(proxy[0]), proxy[1]) if proxy else None
        key = proxy[2] if proxy else "x" * 44
        place = f"{HOST}:{port}"
        self._get = (
            f"GET /v1/x HTTP/1.1\r\nHost: {place}\r\nAuthorization: Bearer {key}\r\nAccept: */*\r\n\r\n".encode()
        )
        self._big = self._get.replace(b"/v1/x", b"/big")
        if self._proxy:
            self._connect = (
                f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\nProxy-Authorization: {proxy[1]}\r\n\r\n".encode()
            )

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._proxy is None:
            return await asyncio.open_connection(HOST, self._port, ssl=self._context, limit=1 << 20)
        reader, writer = await asyncio.open_connection(HOST, self._proxy[0], limit=1 << 20)
        writer.write(self._connect)
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        await writer.start_tls(self._context, server_hostname=HOST)
        return reader, writer

    async def get(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._get)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        await reader.readexactly(15)

    async def kept(self) -> float:
        reader, writer = await self.open()
        times = []
        for _ in range(KEPT):
            started = time.perf_counter()
            await self.get(reader, writer)
            times.append(time.perf_counter() - started)
        writer.close()
        return statistics.median(times) * 1000

    async def new(self) -> float:
        times = []
        for _ in range(NEW):
            started = time.perf_counter()
            reader, writer = await self.open()
            await self.get(reader, writer)
            times.append(time.perf_counter() - started)
            writer.close()
        return statistics.median(times) * 1000

    async def at_once(self, process: int) -> tuple[float, float]:
        """Requests a second, and milliseconds of a process's time for each."""
        pairs = [await self.open() for _ in range(AT_ONCE)]
        count, before = 0, processor_ms(process)
        end = time.perf_counter() + SECONDS

        async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal count
            while time.perf_counter() < end:
                await self.get(reader, writer)
                count += 1

        await asyncio.gather(*(one(*pair) for pair in pairs))
        spent = processor_ms(process) - before
        for _, writer in pairs:
            writer.close()
        return count / SECONDS, spent / count

    async def download(self) -> float:
        reader, writer = await self.open()
        started = time.perf_counter()
        writer.write(self._big)
        await reader.readuntil(b"\r\n\r\n")
        left = DOWNLOAD // len(PIECE) * len(PIECE)
        while left:
            left -= len(await reader.read(1 << 20))
        taken = time.perf_counter() - started
        writer.close()
        return DOWNLOAD / 1024 / 1024 / taken


def processor_ms(process: int) -> float:
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) * 1000 / os.sysconf("SC_CLK_TCK")


async def load(port: int, ca: str, process: int, proxy: list[str]) -> None:
    client = Client(port, ca, proxy)
    await client.new()
    kept, new = await client.kept(), await client.new()
    requests, processor = await client.at_once(process)
    figures = {"kept_ms": kept, "new_ms": new, "requests_s": requests, "processor_ms": processor}
    print(json.dumps({**figures, "download_mb_s": await client.download()}))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        uvloop.run(serve(sys.argv[2]))
    else:
        uvloop.run(load(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5:]))

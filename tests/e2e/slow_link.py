"""A TCP proxy on 127.0.0.1 that passes only so many bytes a second: a thin link to a platform.

By hand: `python -m tests.e2e.slow_link --to 3000 --port 3001 --rate 15000`.
"""

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator

CHUNK_SECONDS = 0.05
BUFFER_BYTES = 4096


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: int) -> None:
    chunk = max(1, int(rate * CHUNK_SECONDS))
    with contextlib.suppress(OSError):
        while data := await reader.read(chunk):
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(len(data) / rate)
    writer.close()


@contextlib.asynccontextmanager
async def slow_link(port: int, rate: int = 15_000, *, at: int = 0) -> AsyncIterator[str]:
    """The address of a proxy to `port`; each connection gets `rate` bytes a second each way, and buffers little."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection("127.0.0.1", port, limit=BUFFER_BYTES)
        for end in (writer, onward):
            end.transport.set_write_buffer_limits(BUFFER_BYTES)
        try:
            await asyncio.gather(_pass_on(reader, onward, rate), _pass_on(there, writer, rate))
        finally:
            writer.close()
            onward.close()

    server = await asyncio.start_server(serve, "127.0.0.1", at, limit=BUFFER_BYTES)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--to", type=int, required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rate", type=int, default=15_000)
    given = parser.parse_args()
    async with slow_link(given.to, given.rate, at=given.port) as address:
        print(address, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())

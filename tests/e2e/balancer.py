"""A TCP load balancer: each connection goes to the next of the platforms that takes one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import count

Ports = Callable[[], Sequence[int]]


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def _open(ports: Sequence[int], first: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
    for number in range(len(ports)):
        with contextlib.suppress(OSError):
            return await asyncio.open_connection("127.0.0.1", ports[(first + number) % len(ports)])
    return None


@contextlib.asynccontextmanager
async def balancer(ports: Ports) -> AsyncIterator[str]:
    """Its address. `ports` are those of the platforms at present; one that refuses is passed over."""
    numbers = count()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        onward: asyncio.StreamWriter | None = None
        try:
            opened = await _open(ports(), next(numbers))
            if opened is not None:
                there, onward = opened
                await asyncio.gather(_pass_on(reader, onward), _pass_on(there, writer))
        except (OSError, asyncio.CancelledError):
            pass  # where one side breaks, so does the other
        finally:
            tasks.discard(task)
            for end in (writer, onward):
                if end is not None:
                    end.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

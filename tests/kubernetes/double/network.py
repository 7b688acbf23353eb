"""Addresses of one double, all within a 127.x.0.0/16 of its own, and the forwarders that serve its Services."""

import asyncio
import contextlib
import itertools
import random
import socket
from collections.abc import Callable, Iterable

Endpoint = tuple[str, int]
_GUARD = 46_999
"""Whoever listens here on 127.x.255.254 owns the 127.x.0.0/16."""
_NODE_PORTS = range(30_000, 32_768)
_CHUNK = 65_536


class Network:
    """Node addresses 127.x.0.N, pod addresses 127.x.1.0 to 127.x.127.255, service addresses above."""

    def __init__(self) -> None:
        for second in random.sample(range(2, 250), 248):
            guard = socket.socket()
            try:
                guard.bind((f"127.{second}.255.254", _GUARD))
                guard.listen(1)
            except OSError:
                guard.close()
                continue
            self._guard, self._prefix = guard, f"127.{second}"
            break
        else:
            raise OSError("no 127.x.0.0/16 is free")
        self._nodes, self._pods, self._services = itertools.count(1), itertools.count(256), itertools.count(32_769)
        self._taken: set[int] = set()
        self._listeners: dict[tuple[str, Endpoint], asyncio.Task[None]] = {}
        self._connections: set[asyncio.Task[None]] = set()

    def _address(self, number: int) -> str:
        return f"{self._prefix}.{number // 256}.{number % 256}"

    def node_address(self) -> str:
        return self._address(next(self._nodes))

    def pod_address(self) -> str:
        return self._address(256 + next(self._pods) % 32_000)

    def service_address(self) -> str:
        return self._address(32_768 + next(self._services) % 32_000)

    def node_port(self, wanted: int = 0) -> int:
        """A port nobody listens on at any address; a wanted one if it is free here."""
        for port in [wanted] if wanted else random.sample(_NODE_PORTS, len(_NODE_PORTS)):
            if port in self._taken:
                continue
            with socket.socket() as probe:
                try:
                    probe.bind((self._address(1), port))
                except OSError:
                    continue
            self._taken.add(port)
            return port
        raise OSError(f"node port {wanted} is taken" if wanted else "no node port is free")

    def free_port(self, port: int) -> None:
        self._taken.discard(port)

    def serve(self, service: str, listen: Iterable[Endpoint], pick: Callable[[Endpoint], Endpoint | None]) -> None:
        """Have `service` listen at exactly these endpoints; `pick` names where a connection to one of them goes."""
        wanted = {(service, endpoint) for endpoint in listen}
        for key in [key for key in self._listeners if key[0] == service and key not in wanted]:
            self._listeners.pop(key).cancel()
        for key in wanted - self._listeners.keys():
            with contextlib.suppress(OSError):  # No address of this machine.
                listener = socket.create_server(key[1], backlog=128)
                listener.setblocking(False)
                self._listeners[key] = asyncio.create_task(self._accept(listener, key[1], pick))

    async def close(self) -> None:
        tasks = (*self._listeners.values(), *self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._guard.close()

    async def _accept(self, listener: socket.socket, at: Endpoint, pick: Callable[[Endpoint], Endpoint | None]) -> None:
        with listener:
            while True:
                connection, _ = await asyncio.get_running_loop().sock_accept(listener)
                task = asyncio.create_task(_forward(connection, pick(at)))
                self._connections.add(task)
                task.add_done_callback(self._connections.discard)


async def _forward(connection: socket.socket, to: Endpoint | None) -> None:
    """Both ways until both have ended; cut at once when nobody is there."""
    reader, writer = await asyncio.open_connection(sock=connection)
    try:
        if to is not None:
            there_reader, there_writer = await asyncio.open_connection(*to)
            with contextlib.closing(there_writer):
                await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
            writer.close()
    except OSError:
        pass  # Nobody listens there.
    finally:
        if not writer.is_closing():
            writer.transport.abort()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(_CHUNK):
            target.write(data)
            await target.drain()
        target.write_eof()
    except OSError:
        target.close()

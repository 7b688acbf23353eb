"""A vault in service mode as a process, and platforms that speak its control protocol."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from backend.domain import stubs
from backend.vault import identity
from backend.vault.control import StreamChannel
from tests.vault.conftest import reach
from tests.vault.servers import Server

KEY: Final = "a shared key of more than thirty-two characters"
HOST: Final = "127.0.0.1"


class Served:
    """`python -m backend.vault --serve` on free ports, or again on those it had."""

    def __init__(self, trusted: Path, key: str = KEY, host: str = HOST) -> None:
        self.host = host
        self._env = {**os.environ, "SSL_CERT_FILE": str(trusted), "LAP_VAULT_KEY": key}
        self.port = self.control_port = self.health_port = 0
        self._process: subprocess.Popen[str] | None = None

    async def start(self) -> None:
        ports = (self.port, self.control_port, self.health_port)
        options = zip(("--port", "--control-port", "--health-port"), map(str, ports), strict=True)
        command = [sys.executable, "-m", "backend.vault", "--serve", "--host", self.host]
        self._process = subprocess.Popen(
            [*command, *(part for option in options for part in option)],
            stdout=subprocess.PIPE,
            text=True,
            env=self._env,
        )
        assert self._process.stdout is not None
        told = json.loads(await asyncio.to_thread(self._process.stdout.readline))
        self.port, self.control_port, self.health_port = told["port"], told["control_port"], told["health_port"]

    async def end(self, *, kill: bool = False) -> int:
        """Its exit code."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        (process.kill if kill else process.terminate)()
        code = await asyncio.to_thread(process.wait, 10)
        assert process.stdout is not None
        process.stdout.close()
        return code

    async def probe(self, path: str) -> bytes:
        """The first line of the answer to a probe."""
        reader, writer = await asyncio.open_connection(self.host, self.health_port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        return answer.partition(b"\r\n")[0]


class Replica:
    """A platform process at a vault."""

    def __init__(self, control_port: int, platform: str = "one", key: str = KEY) -> None:
        self._port = control_port
        self._platform = platform
        self._key = key
        self._number = 0
        self.notes: list[dict[str, Any]] = []
        self.takes = True

    async def hello(self) -> dict[str, Any]:
        streams = await asyncio.open_connection(
            HOST, self._port, ssl=identity.platform_side(self._key), server_hostname=identity.VAULT_NAME
        )
        self.channel = StreamChannel(*streams)
        answer = await self.ask("hello", platform=self._platform)
        return dict(answer["ok"])

    async def ask(self, do: str, **what: Any) -> dict[str, Any]:
        self._number += 1
        await self.channel.send({"id": self._number, "do": do, **what})
        async with asyncio.timeout(10):
            while True:
                message, _ = await self.channel.receive()
                if message.get("id") == self._number:
                    return message
                if "notes" in message:
                    self.notes += message["notes"]
                    if self.takes:
                        await self.channel.send({"id": 0, "do": "took", "batch": message["batch"]})

    async def open(self, name: str, server: Server, **credentials: str) -> dict[str, str]:
        """A session that reaches a server on loopback; its stubs."""
        made = {key: stubs.make(key) for key in credentials}
        held = [{"name": key, "stub": made[key], "value": value} for key, value in credentials.items()]
        policy = {"allow": [], "deny": [], "reachable": reach(server, HOST), "public": True}
        session = {"token": f"token-of-{name}", "policy": policy, "credentials": held}
        answer = await self.ask("open", name=name, session=session)
        assert "ok" in answer, answer
        return made

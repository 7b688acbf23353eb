"""The vault as a process, by its control protocol."""

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from backend.domain import stubs
from backend.vault import control
from backend.vault.control import Channel, ControlError
from tests.vault.conftest import REAL, reach, run
from tests.vault.servers import Server, Trust


class Process:
    """A running vault, and a control connection that has said hello."""

    def __init__(self, directory: Path, env: dict[str, str]) -> None:
        self.directory = directory
        self._env = env
        self.notes: list[dict[str, Any]] = []
        self._number = 0

    async def start(self, port: int = 0) -> None:
        command = [sys.executable, "-m", "backend.vault", "--directory", str(self.directory), "--port", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self._env)
        assert self.process.stdout is not None
        self.port = json.loads(await asyncio.to_thread(self.process.stdout.readline))["port"]
        self.process.stdout.close()

    async def hello(self, secret: str = "secret") -> dict[str, Any]:
        self.channel = Channel(control.connected(self.directory))
        return await self.ask("hello", secret=secret)

    async def ask(self, do: str, descriptors: tuple[int, ...] = (), **what: Any) -> dict[str, Any]:
        self._number += 1
        await self.channel.send({"id": self._number, "do": do, **what}, descriptors)
        async with asyncio.timeout(10):
            while True:
                message, _ = await self.channel.receive()
                if message.get("id") == self._number:
                    return message
                if "notes" in message:
                    self.notes += message["notes"]
                    await self.channel.send({"id": 0, "do": "took", "batch": message["batch"]})

    async def borrowed(self, name: str) -> dict[str, socket.socket]:
        """Duplicates of the listeners of a sandbox."""
        # Notes that come right before the answer must not take its descriptors.
        await self.channel.send({"id": 0, "do": "stats"})
        await self.channel.send({"id": -1, "do": "lend", "name": name})
        async with asyncio.timeout(10):
            while True:
                message, descriptors = await self.channel.receive()
                if message.get("id") == -1:
                    kinds = message["ok"]["kinds"]
                    sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
                    return dict(zip(kinds, sockets, strict=True))
                assert not descriptors

    async def open(self, name: str, server: Server, **credentials: str) -> dict[str, str]:
        made = {key: stubs.make(key) for key in credentials}
        held = [{"name": key, "stub": made[key], "value": value} for key, value in credentials.items()]
        policy = {"allow": [], "deny": [], "reachable": reach(server, "127.0.0.1")}
        session = {"token": "t", "policy": policy, "credentials": held}
        assert "ok" in await self.ask("open", name=name, session=session)
        return made

    def environment(self, name: str, port: int | None = None) -> dict[str, str]:
        proxy = f"http://{name}:t@127.0.0.1:{port or self.port}"
        certificate = str(self.directory / "ca.crt")
        return {"PATH": os.environ["PATH"], "https_proxy": proxy, "http_proxy": proxy, "CURL_CA_BUNDLE": certificate}


@pytest.fixture
async def vault(tmp_path: Path, trust: Trust) -> AsyncIterator[Process]:
    # A folder whose path is longer than the address of a Unix socket may be.
    directory = tmp_path / ("long-" * 20) / "vault"
    directory.mkdir(parents=True, mode=0o700)
    (directory / control.SECRET).write_text("secret\n")
    made = Process(directory, {**os.environ, "SSL_CERT_FILE": str(trust.file)})
    await made.start()
    yield made
    made.process.kill()
    await asyncio.to_thread(made.process.wait)


@pytest.fixture
async def local(trust: Trust) -> AsyncIterator[Server]:
    made = Server()
    async with made.running(trust.context("127.0.0.1")):
        yield made


async def test_requests_notes_and_the_end_of_a_session(vault: Process, local: Server) -> None:
    assert (await vault.hello())["ok"]["port"] == vault.port
    stub = (await vault.open("s-1", local, TOKEN=REAL))["TOKEN"]
    command = ("curl", "-sS", "-H", f"X-K: {stub}", f"https://127.0.0.1:{local.port}/echo")
    for _ in range(3):
        code, output = await run(*command, env=vault.environment("s-1"))
        assert (code, stub in output) == (0, True)
    assert dict(local.requests[0]["headers"])["x-k"] == REAL
    while sum(note["count"] for note in vault.notes) < 3:
        await vault.ask("stats")
    assert {(note["name"], note["kind"], note["path"]) for note in vault.notes} == {("s-1", "swapped", "/echo")}
    assert vault.notes[0]["stubs"] == [{"stub": stub, "credential": "TOKEN", "real_tail": REAL[-2:]}]
    assert REAL not in json.dumps(vault.notes)
    assert (await vault.ask("close", name="s-1"))["ok"] == {}
    code, _ = await run(*command, env=vault.environment("s-1"))
    assert code != 0
    assert len(local.requests) == 3


async def test_who_knows_no_secret_learns_nothing(vault: Process) -> None:
    assert "error" in await vault.hello("wrong")
    with pytest.raises(ControlError):
        await vault.ask("stats")
    assert "ok" in await vault.hello()
    for bad in ({}, {"token": "t"}, {"token": "t", "policy": {}, "credentials": []}, {"token": 1, "policy": 2}, 3):
        assert "error" in await vault.ask("open", name="x", session=bad)
    assert "error" in await vault.ask("nonsense")
    assert (await vault.ask("stats"))["ok"]["sessions"] == 0
    assert vault.process.poll() is None


async def test_its_key_is_its_own(vault: Process) -> None:
    assert (vault.directory / "ca.key").stat().st_mode & 0o777 == 0o600
    assert (vault.directory / control.SOCKET).stat().st_mode & 0o777 == 0o600
    certificate = (vault.directory / "ca.crt").read_bytes()
    assert b"PRIVATE" not in certificate
    if os.getuid():
        with pytest.raises(PermissionError):
            Path(f"/proc/{vault.process.pid}/environ").read_bytes()


async def test_it_ends_when_nobody_needs_it_and_stays_for_who_does(vault: Process, local: Server) -> None:
    await vault.hello()
    await vault.open("s-1", local)
    vault.channel.close()
    code, output = await run("curl", "-sS", f"https://127.0.0.1:{local.port}/size/3", env=vault.environment("s-1"))
    assert (code, output) == (0, "012")
    assert (await vault.hello())["ok"]["sessions"] == ["s-1"]
    await vault.ask("close", name="s-1")
    vault.channel.close()
    assert await asyncio.to_thread(vault.process.wait, 10) == 0


async def test_the_same_port_and_authority_after_a_crash(vault: Process, local: Server) -> None:
    await vault.hello()
    certificate = (vault.directory / "ca.crt").read_bytes()
    port = vault.port
    vault.process.send_signal(signal.SIGKILL)
    await asyncio.to_thread(vault.process.wait, 10)
    await vault.start(port)
    assert vault.port == port
    assert (vault.directory / "ca.crt").read_bytes() == certificate
    command = ("curl", "-sS", "-o", os.devnull, f"https://127.0.0.1:{local.port}/size/3")
    assert (await run(*command, env=vault.environment("s-1")))[0] != 0  # closed until it is told the rules again
    await vault.hello()
    await vault.open("s-1", local)
    assert (await run(*command, env=vault.environment("s-1")))[0] == 0


async def test_listeners_of_one_sandbox(vault: Process, local: Server) -> None:
    await vault.hello()
    await vault.open("s-1", local)
    proxy = socket.create_server(("127.0.0.1", 0))
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind(("127.0.0.1", 0))
    kinds = ["explicit", "dns"]
    answer = await vault.ask("listen", (proxy.fileno(), names.fileno()), name="s-1", kinds=kinds)
    assert answer["ok"] == {}
    port, place = proxy.getsockname()[1], names.getsockname()
    proxy.close()
    names.close()
    env = vault.environment("s-1", port)
    env["https_proxy"] = f"http://127.0.0.1:{port}"  # who comes this way is known without a word
    code, output = await run("curl", "-sS", f"https://127.0.0.1:{local.port}/size/3", env=env)
    assert (code, output) == (0, "012")
    assert await asked(place, "localhost") == (5, [])
    assert await asked(place, "metadata.google.internal") == (5, [])
    assert "error" in await vault.ask("listen", (0,), name="s-1", kinds=["other"])
    lent = await vault.borrowed("s-1")  # what a platform process that is new keeps for the vault after this one
    assert {kind: sock.getsockname() for kind, sock in lent.items()} == {"explicit": ("127.0.0.1", port), "dns": place}
    assert await vault.borrowed("nobody") == {}
    again = await vault.ask("listen", tuple(sock.fileno() for sock in lent.values()), name="s-1", kinds=list(lent))
    assert again["ok"] == {}
    for sock in lent.values():
        sock.close()
    assert await run("curl", "-sS", f"https://127.0.0.1:{local.port}/size/3", env=env) == (0, "012")
    await vault.ask("close", name="s-1")
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port)).close()


async def asked(place: tuple[str, int], name: str) -> tuple[int, list[str]]:
    """The code and the addresses of a DNS answer."""
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0\0\1\0\1"
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        await loop.sock_sendto(client, struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0) + question, place)
        async with asyncio.timeout(5):
            answer = await loop.sock_recv(client, 512)
    number, flags, _, count = struct.unpack_from("!HHHH", answer)
    assert number == 7
    addresses = [socket.inet_ntoa(answer[12 + len(question) + 16 * index + 12 :][:4]) for index in range(count)]
    return flags & 15, addresses

"""The vault in service mode: who gets in by which door, and what several platforms at once make of it."""

import asyncio
import base64
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from websockets.asyncio.client import connect

from backend.vault import identity
from backend.vault.control import ControlError, StreamChannel
from tests.vault.conftest import REAL, run
from tests.vault.served import HOST, KEY, Replica, Served
from tests.vault.servers import Server, Trust
from tests.waiting import until


@pytest.fixture
async def vault(trust: Trust) -> AsyncIterator[Served]:
    made = Served(trust.file)
    await made.start()
    yield made
    assert await made.end() == 0


@pytest.fixture
async def local(trust: Trust) -> AsyncIterator[Server]:
    made = Server()
    async with made.running(trust.context(HOST)):
        yield made


async def through(vault: Served, user: str | None, target: str, *more: str, ca: Path | None = None) -> tuple[int, str]:
    """curl's exit code and output, by a proxy URL with user and password."""
    proxy = f"http://{user}@{HOST}:{vault.port}" if user else f"http://{HOST}:{vault.port}"
    env = {"PATH": os.environ["PATH"], "https_proxy": proxy, "http_proxy": proxy}
    return await run(
        "curl", "-sS", "-k" if ca is None else "--cacert", *([str(ca)] if ca else []), *more, target, env=env
    )


async def test_it_is_ready_once_it_was_told_all(vault: Served) -> None:
    assert b" 200 " in await vault.probe("/healthz")
    assert b" 503 " in await vault.probe("/readyz")
    platform = Replica(vault.control_port)
    await platform.hello()
    assert b" 503 " in await vault.probe("/readyz")
    await platform.ask("told")
    platform.channel.close()
    assert b" 200 " in await vault.probe("/readyz")
    assert b" 404 " in await vault.probe("/else")


async def test_a_sandbox_shows_its_own_credential_each_time(vault: Served, local: Server, tmp_path: Path) -> None:
    platform = Replica(vault.control_port)
    told = await platform.hello()
    authority = tmp_path / "ca.pem"
    authority.write_text(told["ca"])
    stub = (await platform.open("s-1", local, TOKEN=REAL))["TOKEN"]
    await platform.open("s-2", local)
    target = f"https://{HOST}:{local.port}/echo"
    code, output = await through(vault, "s-1:token-of-s-1", target, "-H", f"X-K: {stub}", ca=authority)
    assert (code, stub in output, REAL in output) == (0, True, False)
    assert dict(local.requests[0]["headers"])["x-k"] == REAL
    for user in (None, "s-1:token-of-s-2", "s-2:token-of-s-1", "s-1:", "s-1", "s-3:token-of-s-1", ":token-of-s-1"):
        for place in (target, f"http://{HOST}:{local.port}/echo"):
            code, output = await through(vault, user, place, "-o", os.devnull, "-w", "%{http_connect} %{http_code}")
            assert "407" in output, user
    assert len(local.requests) == 1
    while not any(note["rule"].startswith("407") and note["name"] == "s-1" for note in platform.notes):
        await platform.ask("stats")
    (wrong,) = [note for note in platform.notes if note["rule"].startswith("407") and note["name"] == "s-1"]
    assert (wrong["kind"], wrong["host"], wrong["port"]) == ("blocked", HOST, local.port)
    assert "token" not in str(wrong)

    # A stub says nothing of who shows it, and the secret is dead with the session.
    code, output = await through(
        vault, None, f"http://{HOST}:{vault.port}/v1/models", "-H", f"X-K: {stub}", "--noproxy", "*"
    )
    assert '"rule"' in output and len(local.requests) == 1
    await platform.ask("close", name="s-1")
    code, output = await through(vault, "s-1:token-of-s-1", target, "-o", os.devnull, "-w", "%{http_connect}")
    assert "407" in output
    platform.channel.close()


async def test_one_connection_is_one_sandboxes(vault: Served, local: Server) -> None:
    platform = Replica(vault.control_port)
    await platform.hello()
    await platform.open("s-1", local)
    await platform.open("s-2", local)
    reader, writer = await asyncio.open_connection(HOST, vault.port)

    async def status(name: str) -> bytes:
        shown = base64.b64encode(f"{name}:token-of-{name}".encode()).decode()
        lines = ("GET http://10.0.0.1:1/ HTTP/1.1", "Host: 10.0.0.1:1", f"Proxy-Authorization: Basic {shown}", "", "")
        writer.write("\r\n".join(lines).encode())
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        return head.split(b" ")[1]

    # A private address, which no list names: refused, to whom it may be known, on a connection that is kept.
    assert [await status("s-1"), await status("s-1"), await status("s-2")] == [b"403", b"403", b"407"]
    assert await reader.read() == b""
    writer.close()
    platform.channel.close()


async def test_no_order_without_the_key(vault: Served) -> None:
    with pytest.raises(ssl.SSLError):
        await Replica(vault.control_port, key="another key of more than thirty-two characters").hello()

    # Neither as nobody, nor as another vault, nor in the clear; and no vault of another key is told anything.
    for context in (_trusting(), _vaults_certificate()):
        with pytest.raises((ControlError, OSError)):
            channel = StreamChannel(*await asyncio.open_connection(HOST, vault.control_port, ssl=context))
            await channel.send({"id": 1, "do": "hello", "platform": "one"})
            async with asyncio.timeout(10):
                await channel.receive()
    reader, writer = await asyncio.open_connection(HOST, vault.control_port)
    writer.write(b"\0\0\0\x20" + b'{"id":1,"do":"hello","platform":""}')
    async with asyncio.timeout(10):
        assert b"sessions" not in await reader.read()
    writer.close()

    platform = Replica(vault.control_port)
    assert (await platform.hello())["sessions"] == []
    for bad in ({"do": "listen", "name": "x", "kinds": []}, {"do": "lend", "name": "x"}, {"do": "nonsense"}):
        assert "error" in await platform.ask(**bad)  # type: ignore[arg-type]
    platform.channel.close()


def _vaults_certificate() -> ssl.SSLContext:
    """For a client that shows what the key gives to vaults."""
    authority = identity.derived_key(KEY, "control connections")
    issuer = identity.self_signed(authority, "LAP vault control", identity.EPOCH, identity.AGES)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = identity.issued(
        key.public_key(),
        identity.VAULT_NAME,
        [x509.DNSName(identity.VAULT_NAME)],
        ExtendedKeyUsageOID.SERVER_AUTH,
        by=(authority, issuer),
        start=identity.EPOCH,
        end=identity.EPOCH + identity.AGES,
    )
    context = _trusting()
    identity.load(context, certificate.public_bytes(serialization.Encoding.PEM) + identity.key_pem(key))
    return context


async def test_a_recorded_exchange_is_of_no_use(vault: Served, local: Server) -> None:
    recorded: list[bytes] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(HOST, vault.control_port)

        async def answers() -> None:
            while data := await there.read(65_536):
                writer.write(data)
            writer.close()

        task = asyncio.ensure_future(answers())
        while data := await reader.read(65_536):
            recorded.append(data)
            back.write(data)
        back.close()
        await asyncio.gather(task, return_exceptions=True)

    between = await asyncio.start_server(relay, HOST, 0)
    platform = Replica(between.sockets[0].getsockname()[1])
    await platform.hello()
    await platform.open("s-1", local, TOKEN=REAL)
    await platform.ask("close", name="s-1")
    platform.channel.close()
    between.close()
    assert REAL.encode() not in b"".join(recorded) and b"hello" not in b"".join(recorded)

    reader, writer = await asyncio.open_connection(HOST, vault.control_port)
    writer.write(b"".join(recorded))
    async with asyncio.timeout(15):
        try:
            while await reader.read(65_536):
                pass
        except OSError:
            pass
    writer.close()
    again = Replica(vault.control_port)
    assert (await again.hello())["sessions"] == []
    again.channel.close()


async def test_no_vault_of_another_key_is_told_anything() -> None:
    said: list[bytes] = []

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said.append(await reader.read(65_536))
        writer.close()

    false = identity.vault_side("the key of somebody else, which is long enough")
    server = await asyncio.start_server(pretend, HOST, 0, ssl=false)
    with pytest.raises((ssl.SSLError, OSError)):
        await Replica(server.sockets[0].getsockname()[1]).hello()
    server.close()
    assert said in ([], [b""])


async def test_platforms_side_by_side(vault: Served, local: Server) -> None:
    one, two, other = (Replica(vault.control_port, name) for name in ("one", "one", "other"))
    for each in (one, two, other):
        await each.hello()
    stub = (await one.open("s-1", local, TOKEN=REAL))["TOKEN"]
    stranger = await other.ask("open", name="s-1", session={"token": "x", "policy": {}, "credentials": []})
    assert "another platform" in stranger["error"]
    assert "another platform" in (await other.ask("close", name="s-1"))["error"]
    await other.open("t-1", local)

    async def request() -> None:
        code, output = await through(
            vault, "s-1:token-of-s-1", f"https://{HOST}:{local.port}/echo", "-H", f"X-K: {stub}"
        )
        assert code == 0, output

    # Notes go to who has opened the session, once; without it, or when it has not taken them, to its like.
    await request()
    while not one.notes:
        await one.ask("stats")
    one.takes = False
    await request()
    while len(one.notes) < 2:
        await one.ask("stats")
    for each in (two, other):
        await each.ask("stats")
    assert (two.notes, other.notes) == ([], [])
    one.channel.close()
    while not two.notes:
        await two.ask("stats")
    assert two.notes == one.notes[1:]
    await request()
    while sum(note["count"] for note in two.notes) < 2:
        await two.ask("stats")
    await other.ask("stats")
    assert other.notes == []

    # A platform process that is new knows only of sessions of its own.
    again, foreign = Replica(vault.control_port, "one"), Replica(vault.control_port, "other")
    assert (await again.hello())["sessions"] == ["s-1"]
    assert (await foreign.hello())["sessions"] == ["t-1"]
    for each in (two, other, again, foreign):
        each.channel.close()


async def test_websockets_with_the_credential_in_the_proxys_address(
    vault: Served, local: Server, tmp_path: Path
) -> None:
    platform = Replica(vault.control_port)
    authority = tmp_path / "ca.pem"
    authority.write_text((await platform.hello())["ca"])
    stub = (await platform.open("s-1", local, TOKEN=REAL))["TOKEN"]
    async with connect(
        f"wss://{HOST}:{local.port}/ws",
        additional_headers={"Authorization": f"Bearer {stub}"},
        proxy=f"http://s-1:token-of-s-1@{HOST}:{vault.port}",
        ssl=ssl.create_default_context(cafile=str(authority)),
    ) as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"
    assert dict(local.requests[0]["headers"])["authorization"] == f"Bearer {REAL}"
    platform.channel.close()


async def test_many_notes_come_one_batch_after_the_other(vault: Served, local: Server) -> None:
    platform = Replica(vault.control_port)
    await platform.hello()
    await platform.open("s-1", local)
    shown = base64.b64encode(b"s-1:token-of-s-1").decode()
    reader, writer = await asyncio.open_connection(HOST, vault.port)
    lines = f"HTTP/1.1\r\nHost: 10.0.0.1\r\nProxy-Authorization: Basic {shown}\r\n\r\n"
    for number in range(600):
        writer.write(f"GET http://10.0.0.1/{number} {lines}".encode())
    async with asyncio.timeout(30):
        for _ in range(600):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
    writer.close()
    while len(platform.notes) < 600:
        await platform.ask("stats")
    assert sorted(note["path"] for note in platform.notes) == sorted(f"/{number}" for number in range(600))
    assert {note["count"] for note in platform.notes} == {1}
    platform.channel.close()


async def test_what_has_begun_is_finished_before_it_ends(vault: Served, local: Server) -> None:
    platform = Replica(vault.control_port)
    await platform.hello()
    await platform.open("s-1", local)
    await platform.ask("told")
    async with connect(
        f"wss://{HOST}:{local.port}/ws", proxy=f"http://s-1:token-of-s-1@{HOST}:{vault.port}", ssl=_trusting()
    ) as socket:
        ending = asyncio.create_task(vault.end())

        async def unready() -> bool:
            return b" 503 " in await vault.probe("/readyz")

        await until(unready, "it takes itself out")
        await socket.send("hello")
        assert await socket.recv() == "hello"
        assert b" 200 " in await vault.probe("/healthz")
        assert not ending.done()
    assert await ending == 0


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@pytest.mark.parametrize("key", ["", "too short"])
def test_no_start_without_a_key(key: str) -> None:
    done: Any = subprocess.run(
        [sys.executable, "-m", "backend.vault", "--serve"],
        env={**os.environ, "LAP_VAULT_KEY": key},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "LAP_VAULT_KEY" in done.stdout

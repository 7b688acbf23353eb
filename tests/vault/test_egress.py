"""Hosts that a sandbox may not reach, in all the ways it may try."""

import asyncio
import base64
import json
import re
import ssl

import pytest

from tests.vault.conftest import REAL, Box, reach, run
from tests.vault.servers import Server

AUTHORIZATION = b"Proxy-Authorization: Basic " + base64.b64encode(b"s-1:token-of-s-1") + b"\r\n"


async def ask(box: Box, data: bytes, answers: int = 1, *, end: bool = False) -> bytes:
    """What the proxy answers to some bytes, and what may come after so many answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
    writer.write(data)
    if end:
        writer.write_eof()
    got = b""
    try:
        async with asyncio.timeout(10):
            for _ in range(answers):
                head = await reader.readuntil(b"\r\n\r\n")
                got += head
                length = re.search(rb"content-length: (\d+)", head.lower())
                got += await reader.readexactly(int(length[1]) if length else 0)
            if not end:
                writer.write_eof()
            got += await reader.read()
    except asyncio.IncompleteReadError as short:
        got += short.partial
    writer.close()
    return got


async def connect(box: Box, target: str) -> bytes:
    return await ask(box, f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n".encode() + AUTHORIZATION + b"\r\n")


def refused(answer: bytes, status: int = 403) -> dict[str, str]:
    """The body of a refusal."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    if status == 403:
        assert b"\r\nx-vault-blocked: " in head.lower()
    found: dict[str, str] = json.loads(body)
    return found


SPECIAL = (
    *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "[::1]", "[::ffff:127.0.0.1]", "localhost"),
    *("LOCALHOST", "localhost.", "foo.localhost", "169.254.169.254", "0xa9fea9fe", "metadata.google.internal"),
    *("[fe80::1]", "[64:ff9b::7f00:1]", "0.0.0.0", "224.0.0.1"),
)


@pytest.mark.parametrize("host", SPECIAL)
async def test_special_addresses_in_any_form(box: Box, host: str) -> None:
    box.open(allow=["0.0.0.0/0", "::/0", "localhost", "*.localhost", "metadata.google.internal"])
    assert "always refused" in refused(await connect(box, f"{host}:443"))["rule"]
    plain = f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n".encode() + AUTHORIZATION + b"\r\n"
    assert "always refused" in refused(await ask(box, plain))["rule"]
    assert box.asked == []


@pytest.mark.parametrize(
    "host", ["evil.test", "EVIL.test", "evil.test.", "a.evil.test", "A.EVIL.TEST.", "xn--e1aybc.test"]
)
async def test_denied_names_in_any_form(box: Box, host: str) -> None:
    box.open(deny=["*.evil.test", "тест.test"])
    assert "deny_out" in refused(await connect(box, f"{host}:443"))["rule"]
    (note,) = box.notes()
    assert (note.kind, note.method, note.port) == ("blocked", "CONNECT", 443)
    assert box.asked == []  # nothing of it went to a resolver


async def test_only_the_list_is_allowed(box: Box, server: Server) -> None:
    box.open(allow=[f"api.example.test:{server.port}"], reachable=reach(server))
    assert "no entry matches" in refused(await connect(box, "api.example.test:444"))["rule"]
    assert "no entry matches" in refused(await connect(box, f"other.example.test:{server.port}"))["rule"]
    code, output = await run("curl", "-sS", f"https://api.example.test:{server.port}/echo", env=box.environment())
    assert code == 0, output
    box.open(allow=["..."])  # a list in which nothing can match is no empty list
    assert "no entry matches" in refused(await connect(box, "anything.test:443"))["rule"]


async def test_a_name_that_leads_inside(box: Box) -> None:
    box.open()
    box.names |= {"rebound.test": ["93.184.216.34", "127.0.0.1"], "inside.test": ["10.0.0.1"]}
    request = b"GET http://rebound.test/ HTTP/1.1\r\nHost: rebound.test\r\n" + AUTHORIZATION + b"\r\n"
    assert refused(await ask(box, request))["rule"] == "always refused: a loopback address"
    box.open(deny=["10.0.0.0/8"])
    request = b"GET http://inside.test/ HTTP/1.1\r\nHost: inside.test\r\n" + AUTHORIZATION + b"\r\n"
    assert "10.0.0.0/8 (inside.test is 10.0.0.1)" in refused(await ask(box, request))["rule"]


async def test_one_name_is_resolved_once_and_connected_to_that(box: Box, server: Server) -> None:
    box.open(reachable=reach(server))
    await run("curl", "-sS", f"https://api.example.test:{server.port}/echo", env=box.environment())
    assert box.asked == ["api.example.test"]


async def test_host_header_must_be_the_connections(box: Box, server: Server, plain_server: Server) -> None:
    box.open(reachable=reach(server) + reach(plain_server))
    target = f"https://api.example.test:{server.port}/echo"
    for http in ("--http1.1", "--http2"):
        code, output = await run("curl", "-sSi", http, "-H", "Host: evil.test", target, env=box.environment())
        assert code == 0
        assert "403" in output.splitlines()[0] or "403" in output, output
        assert "host-mismatch" in output
    assert not server.requests
    request = b"GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: evil.test\r\n" % plain_server.port
    assert "evil.test" in refused(await ask(box, request + AUTHORIZATION + b"\r\n"))["rule"]
    assert not plain_server.requests


async def test_tls_name_must_be_the_connections(box: Box, server: Server) -> None:
    box.open(reachable=reach(server), deny=["evil.test"])
    for connected, named in (("127.0.0.1", "evil.test"), ("api.example.test", "other.example.test")):
        reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
        target = f"{connected}:{server.port}".encode()
        writer.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n" % (target, target) + AUTHORIZATION + b"\r\n")
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        await writer.start_tls(ssl.create_default_context(cafile=str(box.certificate)), server_hostname=named)
        writer.write(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % target)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 403") and b"host-mismatch" in head.lower(), head
        writer.close()
    assert not server.requests


async def test_a_redirect_is_just_another_request(box: Box, server: Server) -> None:
    box.open(reachable=reach(server))
    code, output = await run(
        *("curl", "-sSiL", "--resolve", "x:1:127.0.0.1", f"https://api.example.test:{server.port}/echo"),
        *("--next", "-sS", "http://169.254.169.254/latest/meta-data"),
        env=box.environment(),
    )
    assert code == 0
    assert "always refused: a metadata address" in output


async def test_nothing_but_http_passes(box: Box, plain_server: Server) -> None:
    box.open(reachable=reach(plain_server))
    reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
    target = f"127.0.0.1:{plain_server.port}".encode()
    writer.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n" % (target, target) + AUTHORIZATION + b"\r\n")
    assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
    writer.write(b"SSH-2.0-test\r\n")
    assert await reader.read() == b""
    assert plain_server.connections == 0
    assert "only HTTP" in box.notes()[0].rule
    box.open(reachable=reach(plain_server), allow=[target.decode()])
    reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
    writer.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n" % (target, target) + AUTHORIZATION + b"\r\n")
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"\x01GET /echo HTTP/1.1\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
    writer.close()


async def test_who_is_unknown_gets_nowhere(box: Box) -> None:
    box.open()
    for line in (b"", b"Proxy-Authorization: Basic eA==\r\n", b"Proxy-Authorization: Bearer x\r\n",
                 b"Proxy-Authorization: Basic " + base64.b64encode(b"s-1:wrong") + b"\r\n"):  # fmt: skip
        answer = await ask(box, b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n" + line + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 407 ")
        assert b'proxy-authenticate: basic realm="vault"' in answer.lower()


async def test_the_end_of_a_session_ends_its_connections(box: Box, server: Server) -> None:
    stub = box.open(credentials={"T": REAL}, reachable=reach(server))["T"]
    asking = asyncio.create_task(
        run("curl", "-sS", "-H", f"X-K: {stub}", f"https://api.example.test:{server.port}/wait", env=box.environment())
    )
    async with asyncio.timeout(20):
        while not server.requests:
            await asyncio.sleep(0.01)
        box.sessions.close("s-1")
        code, _ = await asking
        assert code != 0
        await server.gone.wait()
    assert (await connect(box, "api.example.test:443")).startswith(b"HTTP/1.1 407")


async def test_new_rules_hold_at_once(box: Box, server: Server) -> None:
    box.open(reachable=reach(server))
    command = ("curl", "-sS", f"https://api.example.test:{server.port}/echo")
    assert (await run(*command, env=box.environment()))[0] == 0
    box.open(reachable=reach(server), deny=["api.example.test"])
    assert (await run(*command, env=box.environment()))[0] != 0

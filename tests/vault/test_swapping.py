"""Credentials on their way out and back, as a server and a client see them."""

import asyncio
import base64
import gzip
import json
import zlib
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest

from tests.vault.conftest import REAL, Box, reach, run
from tests.vault.servers import Server


async def curl(box: Box, *arguments: str, stdin: bytes = b"", name: str = "s-1") -> str:
    code, output = await run("curl", "-sS", "--max-time", "20", *arguments, env=box.environment(name), stdin=stdin)
    assert code == 0, output
    return output


def url(server: Server, path: str, host: str = "api.example.test") -> str:
    return f"https://{host}:{server.port}{path}"


async def test_in_headers_url_and_basic_auth_and_back_again(box: Box, server: Server) -> None:
    stub = box.open(credentials={"TOKEN": REAL}, reachable=reach(server))["TOKEN"]
    answer = await curl(
        box,
        *("-H", f"Authorization: token {stub}", "-H", f"X-Two: {stub},{stub}", "-A", stub),
        url(server, f"/echo/{stub}/x?key={stub}&plain=1"),
    )
    got = server.requests[0]
    headers = dict(got["headers"])
    assert headers["authorization"] == f"token {REAL}"
    assert headers["x-two"] == f"{REAL},{REAL}"
    assert headers["user-agent"] == REAL
    assert got["path"] == f"/echo/{quote(REAL, safe='')}/x?key={quote(REAL, safe='')}&plain=1"
    assert parse_qs(urlsplit(got["path"]).query)["key"] == [REAL]
    assert REAL not in answer and quote(REAL, safe="") not in answer
    assert json.loads(answer)["path"] == f"/echo/{stub}/x?key={stub}&plain=1"
    (note,) = box.notes()
    assert (note.kind, note.method, note.host, note.stubs) == ("swapped", "GET", "api.example.test", (stub,))
    assert (REAL not in note.path and stub in note.path) or "***" in note.path

    answer = await curl(box, "-u", f"user:{stub}", url(server, "/echo"))
    sent = dict(server.requests[1]["headers"])["authorization"].removeprefix("Basic ")
    assert base64.b64decode(sent).decode() == f"user:{REAL}"
    assert sent not in answer
    assert base64.b64encode(f"user:{stub}".encode()).decode() in answer


@pytest.mark.parametrize(
    ("kind", "body", "read"),
    [
        ("application/json", '{"key": "%s", "n": 1}', lambda text: json.loads(text)["key"]),
        ("application/vnd.api+json", '["%s"]', lambda text: json.loads(text)[0]),
        ("application/x-www-form-urlencoded", "a=1&key=%s", lambda text: parse_qs(text)["key"][0]),
        ("text/plain", "say %s", lambda text: text.removeprefix("say ")),
        ("multipart/form-data; boundary=b", '--b\r\nContent-Disposition: form-data; name="k"\r\n\r\n%s\r\n--b--\r\n',
         lambda text: text.split("\r\n")[3]),
    ],
)  # fmt: skip
async def test_in_bodies(box: Box, server: Server, kind: str, body: str, read) -> None:  # type: ignore[no-untyped-def]
    stub = box.open(credentials={"TOKEN": REAL}, reachable=reach(server))["TOKEN"]
    text = body % stub
    answer = await curl(box, "-H", f"Content-Type: {kind}", "--data-binary", text, url(server, "/repeat"))
    got = server.requests[0]
    assert read(got["body"].decode()) == REAL
    assert dict(got["headers"])["content-length"] == str(len(got["body"]))
    assert answer == text


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("size", [100, 3_000_000])
async def test_in_compressed_bodies_whole_and_streamed(box: Box, server: Server, coding: str, size: int) -> None:
    stub = box.open(credentials={"TOKEN": REAL}, reachable=reach(server))["TOKEN"]
    noise = "".join(str(number * number) for number in range(size // 8))
    text = json.dumps({"noise": noise, "key": stub}).encode()
    body = gzip.compress(text, 1) if coding == "gzip" else zlib.compress(text, 0)
    headers = ("-H", "Content-Type: application/json", "-H", f"Content-Encoding: {coding}", "-H", "Expect:")
    await curl(box, *headers, "--data-binary", "@-", url(server, "/size/1"), stdin=body)
    sent = server.requests[0]["body"]
    assert json.loads(gzip.decompress(sent) if coding == "gzip" else zlib.decompress(sent)) == {
        "noise": noise,
        "key": REAL,
    }


async def test_in_a_chunked_body_across_its_pieces(box: Box, server: Server) -> None:
    stub = box.open(credentials={"TOKEN": REAL}, reachable=reach(server))["TOKEN"]
    reader, writer = await connected(box, server)
    writer.write(
        b"POST /echo HTTP/1.1\r\nHost: api.example.test:%d\r\nContent-Type: text/plain\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n" % server.port
    )
    for letter in f"a {stub} b":
        writer.write(b"1\r\n" + letter.encode() + b"\r\n")
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert server.requests[0]["body"].decode() == f"a {REAL} b"


async def test_values_in_responses_become_stubs(box: Box, server: Server) -> None:
    stub = box.open(credentials={"TOKEN": REAL, "SHORT": "abc"}, reachable=reach(server))["TOKEN"]
    answer = await curl(box, "--compressed", "-H", f"X-Key: {stub}", url(server, "/gzip"))
    assert REAL not in answer and stub in answer
    answer = await curl(box, "-i", "-H", f"X-Key: {stub}", url(server, "/headers"))
    assert f"x-was-x-key: {stub}" in answer.lower()
    answer = await curl(box, url(server, f"/pieces?text=before{stub}after"))
    assert unquote(server.requests[-1]["path"]) == f"/pieces?text=before{REAL}after"
    assert answer == f"before{stub}after"


async def test_scope(box: Box, server: Server) -> None:
    made = box.open(credentials={"ONE": (REAL, ["api.example.test"]), "ALL": "for-all-hosts"}, reachable=reach(server))
    sent = ("-H", f"X-One: {made['ONE']}", "-H", f"X-All: {made['ALL']}", "-H", "X-Dead: stub_one_" + "0" * 32)
    await curl(box, *sent, url(server, "/echo", "other.example.test"))
    headers = dict(server.requests[0]["headers"])
    assert (headers["x-one"], headers["x-all"]) == (made["ONE"], "for-all-hosts")
    notes = {note.kind: note for note in box.notes()}
    assert notes["swapped"].stubs == (made["ALL"],)
    assert set(notes["missed"].stubs) == {made["ONE"], "stub_one_" + "0" * 32}
    await curl(box, *sent, url(server, "/echo"))
    assert dict(server.requests[1]["headers"])["x-one"] == REAL


async def test_a_stub_is_worth_nothing_in_another_session(box: Box, server: Server) -> None:
    stub = box.open("s-1", credentials={"TOKEN": REAL}, reachable=reach(server))["TOKEN"]
    box.open("s-2", reachable=reach(server))
    await curl(box, "-H", f"X-Key: {stub}", url(server, "/echo"), name="s-2")
    assert dict(server.requests[0]["headers"])["x-key"] == stub
    (note,) = box.notes("s-2")
    assert (note.kind, note.stubs) == ("missed", (stub,))


async def test_not_over_plain_http_unless_the_port_is_named(box: Box, plain_server: Server) -> None:
    made = box.open(
        credentials={"ANY": REAL, "NAMED": ("named-value", [f"127.0.0.1:{plain_server.port}"])},
        reachable=reach(plain_server),
    )
    sent = ("-H", f"X-Any: {made['ANY']}", "-H", f"X-Named: {made['NAMED']}")
    await curl(box, *sent, f"http://127.0.0.1:{plain_server.port}/echo")
    headers = dict(plain_server.requests[0]["headers"])
    assert (headers["x-any"], headers["x-named"]) == (made["ANY"], "named-value")


async def test_other_bodies_are_left_alone_and_misses_are_told(box: Box, server: Server) -> None:
    stub = box.open(credentials={"TOKEN": REAL}, reachable=reach(server))["TOKEN"]
    body = b"\0\1" + stub.encode()
    headers = ("-H", "Content-Type: application/octet-stream", "--data-binary", "@-")
    await curl(box, *headers, url(server, "/echo"), stdin=body)
    assert server.requests[0]["body"] == body
    (note,) = box.notes()
    assert (note.kind, note.stubs) == ("missed", (stub,))
    assert "application/octet-stream" in note.rule


async def test_the_gateway_behind_the_proxy_itself(box: Box, plain_server: Server) -> None:
    target = {"secure": False, "host": "127.0.0.1", "port": plain_server.port}
    entry = f"127.0.0.1:{plain_server.port}"
    stub = box.open(
        credentials={"LITELLM_API_KEY": (REAL, [entry])},
        gateway=target,
        gateways=[["127.0.0.1", plain_server.port]],
        allow=["nothing.example.test"],
    )["LITELLM_API_KEY"]
    code, answer = await run(
        *("curl", "-sS", "-H", f"Authorization: Bearer {stub}", f"http://127.0.0.1:{box.port}/v1/models"),
        env={"PATH": box.environment()["PATH"]},
    )
    assert code == 0
    assert dict(plain_server.requests[0]["headers"])["authorization"] == f"Bearer {REAL}"
    assert plain_server.requests[0]["path"] == "/v1/models"
    assert stub in answer and REAL not in answer
    code, answer = await run(
        "curl", "-sS", "-H", "Authorization: Bearer guess", f"http://127.0.0.1:{box.port}/v1/models",
        env={"PATH": box.environment()["PATH"]},
    )  # fmt: skip
    assert len(plain_server.requests) == 1 and "gateway" in answer


async def connected(box: Box, server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A TLS connection to `api.example.test` through the proxy."""
    import ssl

    reader, writer = await asyncio.open_connection("127.0.0.1", box.port)
    credentials = base64.b64encode(b"s-1:token-of-s-1").decode()
    writer.write(
        f"CONNECT api.example.test:{server.port} HTTP/1.1\r\nHost: api.example.test:{server.port}\r\n"
        f"Proxy-Authorization: Basic {credentials}\r\n\r\n".encode()
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    await writer.start_tls(ssl.create_default_context(cafile=str(box.certificate)), server_hostname="api.example.test")
    return reader, writer

"""The same requests through the vault and through mitmproxy: what arrives, and what comes back, must be the same.

LAP_TEST_MITMDUMP names mitmdump, which is in an environment of its own: its pins do not go with the platform's.

Where the two differ on purpose, both are brought to one form first (`sent` and `answered`): the vault writes Host first
and what frames a body last, passes no header on that is for the next hop only, asks servers for codings that it can see
through, hands their answers on without one, and frames bodies anew whose length changes.
"""

import asyncio
import base64
import contextlib
import gzip
import json
import os
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.domain import stubs
from tests.vault.conftest import Box, reach
from tests.vault.servers import Trust

MITMDUMP = os.environ.get("LAP_TEST_MITMDUMP", "")
EXAMPLES = 80
"""Connections, each with one to four requests."""
REAL = "sk-real/Value+with=odd&chars"
STUB = stubs.make("TOKEN")
UNKNOWN = stubs.make("OTHER")

pytestmark = pytest.mark.skipif(not MITMDUMP, reason="LAP_TEST_MITMDUMP does not name mitmdump")

Headers = list[tuple[bytes, bytes]]

FOR_ONE_HOP = {b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade"}
FRAMING = {b"content-length", b"transfer-encoding"}
MADE_ELSEWHERE = FRAMING | FOR_ONE_HOP | {b"host", b"expect", b"trailer", b"date", b"content-encoding", b"x-case"}


@dataclass
class Asked:
    """A request, and how the client writes it."""

    method: bytes
    path: bytes
    headers: Headers
    body: list[bytes] | None
    chunked: bool
    extension: bytes
    cut: int
    """After how many bytes it pauses."""

    def written(self, host: bytes, case: int) -> bytes:
        headers = [(b"Host", host), *self.headers, (b"X-Case", b"%d" % case)]
        body = b""
        if self.body is not None and self.chunked:
            headers.append((b"Transfer-Encoding", b"chunked"))
            body = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), self.extension, piece) for piece in self.body if piece)
            body += b"0\r\n\r\n"
        elif self.body is not None:
            body = b"".join(self.body)
            headers.append((b"Content-Length", b"%d" % len(body)))
        return self.method + b" " + self.path + b" HTTP/1.1\r\n" + lines(headers) + body


@dataclass
class Planned:
    """What the server answers."""

    status: int
    reason: bytes
    headers: Headers
    body: bytes
    framing: str

    def written(self, method: bytes) -> tuple[bytes, bool]:
        """The bytes, and whether the connection ends with them."""
        headers, body = list(self.headers), self.body
        if self.framing == "gzip":
            body = gzip.compress(body)
            headers.append((b"Content-Encoding", b"gzip"))
        first = b"HTTP/1.1 %d %b\r\n" % (self.status, self.reason)
        if self.status in (204, 304):
            return first + lines(headers), False
        if self.framing in ("length", "gzip") or method == b"HEAD":
            headers.append((b"Content-Length", b"%d" % len(body)))
            return first + lines(headers) + (b"" if method == b"HEAD" else body), False
        if self.framing == "chunked":
            headers.append((b"transfer-encoding", b"chunked"))
            half = len(body) // 2
            pieces = [piece for piece in (body[:half], body[half:]) if piece]
            body = b"".join(b"%X\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
            return first + lines(headers) + body, False
        return first + lines([*headers, (b"Connection", b"close")]) + body, True


@dataclass
class Message:
    """A request or an answer as it was read."""

    first: bytes
    headers: Headers
    body: bytes

    def header(self, name: bytes) -> bytes:
        return b", ".join(value for key, value in self.headers if key.lower() == name)


def lines(headers: Headers) -> bytes:
    return b"".join(name + b": " + value + b"\r\n" for name, value in headers) + b"\r\n"


async def read(reader: asyncio.StreamReader, *, answer_to: bytes | None = None) -> Message:
    """One message. `answer_to`: the method of the request it answers."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *rest = head.split(b"\r\n")[:-2]
    headers = [(name, value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in rest)]
    message = Message(first, headers, b"")
    bodiless = answer_to == b"HEAD" or (answer_to is not None and first.split(b" ")[1] in (b"204", b"304"))
    if bodiless:
        return message
    if message.header(b"transfer-encoding").lower() == b"chunked":
        while size := int((await reader.readline()).partition(b";")[0], 16):
            message.body += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
        assert await reader.readexactly(2) == b"\r\n"
    elif length := message.header(b"content-length"):
        message.body = await reader.readexactly(int(length))
    elif answer_to is not None:
        message.body = await reader.read()
    return message


class Recorder:
    """Answers as planned for the case that X-Case names, and keeps what it was sent."""

    def __init__(self) -> None:
        self.port = 0
        self.plans: dict[int, Planned] = {}
        self.got: dict[int, list[Message]] = {}

    @contextlib.asynccontextmanager
    async def running(self, context: ssl.SSLContext) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context, limit=1 << 20)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError, asyncio.CancelledError):
            while True:
                message = await read(reader)
                case = int(message.header(b"x-case"))
                self.got.setdefault(case, []).append(message)
                data, ends = self.plans[case].written(message.first.split(b" ")[0])
                writer.write(data)
                await writer.drain()
                if ends:
                    break
        with contextlib.suppress(Exception):
            writer.close()


@dataclass
class Way:
    """A proxy."""

    port: int
    trusted: ssl.SSLContext
    authorization: bytes

    async def ask(self, host: bytes, requests: list[Asked], first: int, *, at_once: bool) -> list[Message]:
        """The answers to requests on one connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        try:
            writer.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (host, host, self.authorization))
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            await writer.start_tls(self.trusted, server_hostname="127.0.0.1")
            answers = []
            if at_once:
                writer.write(b"".join(each.written(host, first + index) for index, each in enumerate(requests)))
            for index, each in enumerate(requests):
                if not at_once:
                    data = each.written(host, first + index)
                    writer.write(data[: each.cut])
                    await writer.drain()
                    await asyncio.sleep(0)
                    writer.write(data[each.cut :])
                answers.append(await read(reader, answer_to=each.method))
            return answers
        finally:
            writer.close()


def kept(message: Message, *but: bytes) -> Headers:
    """The headers that are compared."""
    named = {each.strip().lower() for each in message.header(b"connection").split(b",")}
    left_out = FOR_ONE_HOP | named | FRAMING | set(but)
    return [(name, value) for name, value in message.headers if name.lower() not in left_out]


def sent(message: Message) -> tuple[Any, ...]:
    """A request as it arrived, in one form."""
    framing = sorted((name.lower(), value) for name, value in message.headers if name.lower() in FRAMING)
    headers = kept(message, b"host", b"accept-encoding")
    return (message.first, message.header(b"host"), headers, framing, message.body)


def answered(message: Message, method: bytes) -> tuple[Any, ...]:
    """An answer as it came back, in one form."""
    coded = message.header(b"content-encoding") == b"gzip" and message.body
    body = gzip.decompress(message.body) if coded else message.body
    length = message.header(b"content-length") if method == b"HEAD" else b""
    return (message.first, kept(message, b"content-encoding"), length, body)


TOKEN = st.from_regex(rb"[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,20}", fullmatch=True)
NAME = st.one_of(
    st.sampled_from([b"Accept", b"X-A", b"x-a", b"COOKIE", b"Content-Type", b"Range", b"If-None-Match", b"Via"]),
    TOKEN.filter(lambda name: name.lower() not in MADE_ELSEWHERE and not name.lower().startswith(b"proxy-")),
)
TEXT = st.from_regex(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]{0,60}[!-~\x80-\xff])?)?", fullmatch=True)


def with_text(*texts: str) -> st.SearchStrategy[bytes]:
    text = st.sampled_from([each.encode() for each in texts])
    return st.builds(lambda before, found, after: (before + found + after).strip(b" \t"), TEXT, text, TEXT)


CREDENTIALS = st.one_of(
    st.sampled_from([STUB, UNKNOWN, f"Bearer {STUB}", f"{STUB}{STUB}", f"token={STUB};x", STUB[:-1], "Basic %%%"]).map(
        str.encode
    ),
    st.builds(
        lambda scheme, user, word: scheme + b" " + base64.b64encode(user + b":" + word.encode()),
        st.sampled_from([b"Basic", b"basic", b"BASIC"]),
        st.sampled_from([b"", b"x-access-token", STUB.encode(), b"\xc3\xa4"]),
        st.sampled_from([STUB, UNKNOWN, "word", ""]),
    ),
)
REQUEST_HEADERS = st.lists(
    st.one_of(
        st.tuples(NAME, TEXT),
        st.tuples(NAME, with_text(STUB, UNKNOWN)),
        st.tuples(st.sampled_from([b"Authorization", b"authorization", b"X-Api-Key"]), CREDENTIALS),
        st.sampled_from([(b"Connection", b"keep-alive"), (b"TE", b"trailers"), (b"Accept-Encoding", b"gzip, br")]),
        st.sampled_from([(b"Connection", b"X-Hop, keep-alive"), (b"X-Long", b"a" * 9_000)]),
    ),
    max_size=8,
)
BODY = st.one_of(
    st.binary(max_size=300), st.sampled_from([b"a" * 70_000, b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", b"0\r\n\r\n"])
)
REQUEST = st.builds(
    Asked,
    st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"M-SEARCH", b"get"]),
    st.from_regex(rb"/[!\"$-~]{0,60}", fullmatch=True),
    REQUEST_HEADERS,
    st.one_of(st.none(), st.lists(BODY, max_size=3)),
    st.booleans(),
    st.sampled_from([b"", b"", b";x=1", b';a="b c"']),
    st.integers(0, 400),
)
ANSWER = st.builds(
    Planned,
    st.sampled_from([200, 200, 200, 201, 204, 206, 299, 301, 304, 400, 401, 403, 404, 418, 500, 503, 599]),
    st.sampled_from([b"OK", b"", b"Not Quite OK", b"I'm (a) teapot!"]),
    st.lists(
        st.one_of(
            st.tuples(NAME, TEXT),
            st.tuples(NAME, with_text(REAL, STUB)),
            st.sampled_from([(b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2"), (b"Connection", b"keep-alive")]),
        ),
        max_size=6,
    ),
    st.one_of(BODY, with_text(REAL), st.just(b"")),
    st.sampled_from(["length", "length", "chunked", "close", "gzip"]),
)


@pytest.fixture
async def reference(tmp_path: Path, trust: Trust) -> AsyncIterator[Way]:
    """mitmproxy."""
    folder = tmp_path / "mitmproxy"
    process = await asyncio.create_subprocess_exec(
        *(MITMDUMP, "-q", "-s", str(Path(__file__).with_name("mitmproxy_addon.py"))),
        *("--listen-host", "127.0.0.1", "--listen-port", "0"),
        *(
            "--set",
            f"confdir={folder}",
            "--set",
            f"ssl_verify_upstream_trusted_ca={trust.file}",
            "--set",
            "http2=false",
        ),
        *("--set", "rawtcp=false"),  # else it takes for no HTTP what begins with one letter, or with M-SEARCH
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LAP_TEST_SWAPS": json.dumps({STUB: REAL})},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            port = int(await process.stdout.readline())
        yield Way(port, ssl.create_default_context(cafile=str(folder / "mitmproxy-ca-cert.pem")), b"")
    finally:
        process.terminate()
        await process.wait()


async def test_the_same_as_through_mitmproxy(box: Box, trust: Trust, reference: Way) -> None:
    box.sessions.open("s-1", _session())
    authorization = b"Proxy-Authorization: Basic " + base64.b64encode(b"s-1:t") + b"\r\n"
    vault = Way(box.port, ssl.create_default_context(cafile=str(box.certificate)), authorization)
    server = Recorder()
    async with server.running(trust.context("127.0.0.1")):
        session = box.session()
        session.replace(_session(reach(server, "127.0.0.1")))
        loop = asyncio.get_running_loop()
        done = 0

        async def one(exchanges: list[tuple[Asked, Planned]], at_once: bool) -> None:
            nonlocal done
            first, done = done, done + len(exchanges)
            for _, plan in exchanges[:-1]:
                plan.framing = plan.framing.replace("close", "chunked")  # mitmproxy then closes the client's, too
            server.plans = {first + index: plan for index, (_, plan) in enumerate(exchanges)}
            requests = [asked for asked, _ in exchanges]
            host = b"127.0.0.1:%d" % server.port
            async with asyncio.timeout(30):
                expected = await reference.ask(host, requests, first, at_once=at_once)
                got = await vault.ask(host, requests, first, at_once=at_once)
            for index, asked in enumerate(requests):
                theirs, ours = server.got.pop(first + index)
                assert sent(ours) == sent(theirs)
                assert answered(got[index], asked.method) == answered(expected[index], asked.method)

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        @given(st.lists(st.tuples(REQUEST, ANSWER), min_size=1, max_size=4), st.booleans())
        def all_of_them(exchanges: list[tuple[Asked, Planned]], at_once: bool) -> None:
            asyncio.run_coroutine_threadsafe(one(exchanges, at_once), loop).result(60)

        await asyncio.to_thread(all_of_them)
        assert done >= EXAMPLES


def _session(reachable: list[list[Any]] | None = None) -> dict[str, Any]:
    policy = {"allow": [], "deny": [], "reachable": reachable or []}
    held = {"name": "TOKEN", "stub": STUB, "value": REAL, "hosts": None}
    return {"token": "t", "policy": policy, "credentials": [held]}

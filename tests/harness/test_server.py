"""The harness's HTTP side: who may ask, what is answered, and bad requests."""

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.harness.conftest import PROJECT, TOKEN, WAIT, RunningHarness
from tests.waiting import until


async def raw(harness: RunningHarness, data: bytes) -> bytes:
    """What the harness answers to `data` until it ends the connection."""
    host, port = harness.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(), WAIT)
    writer.close()
    return answer


async def test_healthz_needs_no_token_and_keeps_upstreams_fields(harness: RunningHarness) -> None:
    response = await harness.http.get("/healthz", headers={"Authorization": "none"})
    assert response.status_code == 200
    assert response.json() == {"ok": True, "cmd": None, "repo": None, "auth_required": True}


@pytest.mark.parametrize("path", ["/state", "/watch", "/log", "/event", "/session/tty/message", "/nothing"])
async def test_everything_else_needs_the_token(harness: RunningHarness, path: str) -> None:
    for headers in ({"Authorization": "Bearer wrong"}, {"Authorization": "Basic eA=="}, {"Authorization": ""}):
        response = await harness.http.get(f"{path}?token={TOKEN}", headers=headers)
        assert (response.status_code, response.json()) == (401, {"error": "unauthorized"})


@pytest.mark.parametrize(
    ("authorization", "token", "status"),
    [
        (f"Bearer {TOKEN}", None, None),
        (f"bearer   {TOKEN}  ", None, None),
        (None, TOKEN, None),
        ("Basic eA==", TOKEN, None),
        ("Bearer wrong", TOKEN, 401),
        (None, "wrong", 401),
        (None, "", 401),
        (None, None, 401),
        (f"Bearer {TOKEN}x", None, 401),
        ("Bearer \u00e4", None, 401),
    ],
)
async def test_tty_takes_the_header_before_the_query(
    harness: RunningHarness, authorization: str | None, token: str | None, status: int | None
) -> None:
    await harness.ready()
    query = "" if token is None else f"?token={token}"
    headers = {} if authorization is None else {"Authorization": authorization}
    if status is None:
        async with connect(f"ws://{harness.address}/tty{query}", additional_headers=headers, proxy=None) as viewer:
            assert viewer.protocol.extensions == []
            assert viewer.subprotocol is None
        return
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://{harness.address}/tty{query}", additional_headers=headers, proxy=None)
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body or b"") == {"error": "unauthorized"}
    assert (await harness.state())["viewers"] == 0


@pytest.mark.parametrize("path", ["/ttyx", "/tty/", "/"])
async def test_no_other_path_is_a_websocket(harness: RunningHarness, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://{harness.address}{path}?token={TOKEN}", proxy=None)
    assert refused.value.response.status_code == 400


async def test_tty_before_the_set_up_is_unavailable(harness: RunningHarness) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://{harness.address}/tty?token={TOKEN}", proxy=None)
    assert refused.value.response.status_code == 503
    assert "set-up: waiting" in json.loads(refused.value.response.body or b"")["error"]


async def test_a_plain_get_of_tty_and_unknown_paths_are_not_found(harness: RunningHarness) -> None:
    for method, path in (("GET", "/tty"), ("GET", "/session"), ("DELETE", "/session/tty"), ("POST", "/healthz/x")):
        response = await harness.http.request(method, path)
        assert (response.status_code, response.json()) == (404, {"error": "not found"})


async def test_the_message_calls_of_an_api_harness_say_what_this_is(harness: RunningHarness) -> None:
    assert (await harness.http.get("/session/tty/message")).json() == []
    assert (await harness.http.post("/session/tty/abort")).json() == {}
    answer = await harness.http.post("/session/tty/message", json={"parts": []})
    assert answer.json() == {"text": "this is a TUI harness — connect to /tty"}


async def test_the_event_stream_flushes_its_headers_at_once(harness: RunningHarness) -> None:
    async with asyncio.timeout(WAIT), harness.http.stream("GET", "/event") as response:
        assert response.headers["content-type"] == "text/event-stream"
        async for line in response.aiter_lines():
            assert line.startswith(":")
            break


async def test_watch_sends_the_state_at_once_and_on_every_change(harness: RunningHarness) -> None:
    seen = []
    async with asyncio.timeout(WAIT):
        async for state in harness.states():
            seen.append(state)
            if len(seen) == 1:
                assert state == await harness.state()
                await harness.session()
            if state["setup"] == "done":
                break
    assert seen[0]["setup"] == "waiting"
    assert [state["version"] for state in seen] == sorted({state["version"] for state in seen})
    assert seen[-1]["phase"] == "harness_listening"
    assert seen[-1]["agent"]["running"]
    assert seen[-1]["agent"]["pid"] > 0
    assert (seen[-1]["columns"], seen[-1]["rows"]) == (100, 30)


async def test_output_alone_does_not_flood_the_watch(harness: RunningHarness) -> None:
    state = await harness.ready()
    viewer = await harness.attach()
    for number in range(30):
        await viewer.type(f"echo a''{number}b\r")
        await viewer.until(f"a{number}b")
    assert (await harness.state())["version"] - state["version"] < 10


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "harness_id"),
        (b'{"harness_id": "vi"}', "harness_id"),
        (b'{"harness_id": 7}', "harness_id"),
        (b'{"harness_id": "codex", "prompt": 7}', "prompt"),
        (b'{"harness_id": "codex", "env": {"A": 1}}', "env"),
        (b'{"harness_id": "codex", "env": {"A=B": "1"}}', "env"),
        (b'{"harness_id": "codex", "env": {"A": "\\u0000"}}', "env"),
        (b'{"harness_id": "codex", "files": [7]}', "files"),
        (b'{"harness_id": "codex", "files": [{"name": "x", "sandbox_path": 1, "content": ""}]}', "files"),
        (b'{"harness_id": "codex", "skills": {}}', "skills"),
        (b'{"harness_id": "codex", "skills": [{"slug": "x"}]}', "skills"),
        (b'{"harness_id": "codex", "model": "a\\u0000b"}', "NUL"),
        (b'{"harness_id": "codex", "prompt": "\\ud83d"}', "surrogates"),
        (b'{"harness_id": "codex", "port_timeout": "soon"}', "port_timeout"),
    ],
)
async def test_a_bad_session_body_is_refused_and_changes_nothing(
    harness: RunningHarness, body: bytes, reason: str
) -> None:
    response = await harness.http.post("/session", content=body)
    assert response.status_code == 400
    assert reason in response.json()["error"]
    assert (await harness.state())["setup"] == "waiting"


async def test_a_second_session_request_changes_nothing(harness: RunningHarness) -> None:
    assert await harness.session() == "tty"
    first = await harness.until(lambda state: state["setup"] == "done")
    assert await harness.session(command="false") == "tty"
    assert (await harness.http.post("/session", content=b"not json")).json() == {"id": "tty"}
    assert (await harness.state())["agent"] == first["agent"]


async def test_a_huge_body_is_refused_before_it_is_kept(harness: RunningHarness) -> None:
    head = f"POST /session HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {40 * 1024 * 1024}"
    answer = await raw(harness, f"{head}\r\n\r\n{{".encode())
    assert answer.startswith(b"HTTP/1.1 413")
    assert (await harness.http.get("/healthz")).status_code == 200


async def test_a_huge_chunked_body_is_cut_off(harness: RunningHarness) -> None:
    async def chunks() -> Any:
        for _ in range(40):
            yield b" " * 1024 * 1024

    try:
        response = await harness.http.post("/session", content=chunks())
        assert response.status_code == 413
    except httpx.TransportError:
        pass  # The client may still be sending when the connection ends.
    assert (await harness.state())["setup"] == "waiting"


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"GET /state HTTP/1.1\r\n\r\n", b"X" * 100_000]
)
async def test_garbage_is_answered_with_an_error_and_the_connection_ends(
    harness: RunningHarness, garbage: bytes
) -> None:
    assert (await raw(harness, garbage)).startswith(b"HTTP/1.1 4")
    assert (await harness.http.get("/healthz")).status_code == 200


async def test_requests_are_answered_one_after_another_on_one_connection(harness: RunningHarness) -> None:
    host, port = harness.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    request = f"GET /session/x/message HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    writer.write(request * 3)
    for _ in range(3):
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WAIT)
        assert head.startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(2) == b"[]"
    writer.close()


async def test_the_log_is_served_from_its_end(harness: RunningHarness) -> None:
    await harness.ready()
    whole = (await harness.http.get("/log")).text
    assert "agent started" in whole
    assert "set-up done" in whole
    last = (await harness.http.get("/log?tail=1")).text
    assert last == whole.splitlines(keepends=True)[-1]
    assert (await harness.http.get("/log?tail=0")).text == ""
    assert (await harness.http.get("/log?tail=-1")).text == whole
    assert TOKEN not in whole


@pytest.mark.parametrize("line", [b"", b"token", b"{}", b'{"token": 7}', b'{"token": " "}', b"[]"])
async def test_without_a_token_it_does_not_start(tmp_path: Path, line: bytes) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "backend.harness", "--listen-fd", "0", "--root", str(tmp_path)),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=PROJECT,
    )
    _, error = await asyncio.wait_for(process.communicate(line), WAIT)
    assert process.returncode == 2
    assert b"token" in error
    assert b"Traceback" not in error


@pytest.fixture
async def container(tmp_path: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The program as a container starts it, in a directory it makes, and its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "backend.harness", "--listen", address, "--root", str(tmp_path / "deep" / "root")),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        cwd=PROJECT,
        env=os.environ | {"LAP_TOKEN_SHA256": hashlib.sha256(TOKEN.encode()).hexdigest()},
    )
    assert process.stderr is not None
    assert b"harness listening" in await asyncio.wait_for(process.stderr.readline(), WAIT)
    yield process, address
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    await asyncio.wait_for(process.communicate(), WAIT)


async def test_a_container_knows_the_token_by_its_digest(
    container: tuple[asyncio.subprocess.Process, str], tmp_path: Path
) -> None:
    _, address = container
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    async with httpx.AsyncClient(base_url=f"http://{address}", trust_env=False, timeout=WAIT) as http:
        for wrong in (digest, f"{TOKEN}x", "x"):
            assert (await http.get("/state", headers={"Authorization": f"Bearer {wrong}"})).status_code == 401
        headers = {"Authorization": f"Bearer {TOKEN}"}
        body = {"harness_id": "codex", "command": "sh -c 'env > env; exec cat'"}
        assert (await http.post("/session", json=body, headers=headers)).status_code == 200

        async def done() -> bool:
            return (await http.get("/state", headers=headers)).json()["setup"] == "done"

        await until(done, "the set-up is done", WAIT)
    async with connect(f"ws://{address}/tty?token={TOKEN}", proxy=None):
        pass
    assert "LAP_TOKEN_SHA256" not in (tmp_path / "deep" / "root" / "home" / "env").read_text()


async def test_a_container_ends_by_sigterm(container: tuple[asyncio.subprocess.Process, str]) -> None:
    process, _ = container
    process.terminate()
    _, error = await asyncio.wait_for(process.communicate(), WAIT)
    assert process.returncode == 0
    assert b"harness stopped" in error


@pytest.mark.parametrize(
    ("address", "digest", "wrong"),
    [
        ("127.0.0.1:0", "", b"LAP_TOKEN_SHA256"),
        ("127.0.0.1:0", "ab", b"LAP_TOKEN_SHA256"),
        ("127.0.0.1:0", "x" * 64, b"LAP_TOKEN_SHA256"),
        ("127.0.0.1", "ab" * 32, b"HOST:PORT"),
        (":4096", "ab" * 32, b"HOST:PORT"),
        ("127.0.0.1:70000", "ab" * 32, b"HOST:PORT"),
    ],
)
async def test_a_container_without_address_or_digest_does_not_start(
    tmp_path: Path, address: str, digest: str, wrong: bytes
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "backend.harness", "--listen", address, "--root", str(tmp_path)),
        stderr=asyncio.subprocess.PIPE,
        cwd=PROJECT,
        env=os.environ | {"LAP_TOKEN_SHA256": digest},
    )
    _, error = await asyncio.wait_for(process.communicate(), WAIT)
    assert process.returncode == 2
    assert wrong in error
    assert b"Traceback" not in error

"""The REST client against a real HTTP server: requests, answers, and everything that can go wrong between."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket

import pytest

from lapconsole.client import BadInput, Platform, PlatformError, Tty, Unreachable, Unsupported
from lapconsole.client import platform as platform_module
from tests.client.fakes import KEY, MANAGED, FakePlatform, Reply, cut, hold, ids, raw, running

AGENT = {"id": "a1", "name": "reviewer", "harness_id": "codex"}
SESSION = {"id": "s1", "agent_id": "a1", "status": "creating", "phase": "pod_pending"}


@pytest.fixture
async def fake():
    async with running() as fake:
        yield fake


@pytest.fixture
async def platform(fake):
    async with Platform(fake.url, KEY) as platform:
        yield platform


async def test_every_call_asks_the_right_thing(fake: FakePlatform, platform: Platform) -> None:
    agent, session = f"{MANAGED}/agents/a1", f"{MANAGED}/sessions/s1"
    fake.always("GET", agent, Reply(body=AGENT))
    fake.always("POST", f"{MANAGED}/agents", Reply(201, AGENT))
    fake.always("PATCH", agent, Reply(body=AGENT))
    fake.always("DELETE", agent, Reply(204))
    fake.always("POST", f"{agent}/session", Reply(body=SESSION))
    fake.always("GET", session, Reply(body=SESSION))
    fake.always("POST", f"{session}/stop", Reply(body={"id": "s1", "status": "dead"}))
    fake.always("POST", f"{session}/restart", Reply(body=SESSION))
    fake.always("DELETE", session, Reply(200, {"id": "s1", "status": "deleted"}))
    fake.always(
        "GET", f"{session}/sandbox_logs", Reply(body=b"one\ntwo\x1b[31m\n", headers={"content-type": "text/plain"})
    )
    fake.always("GET", f"{session}/diagnose", Reply(body={"detected_issues": [{"code": "service_missing"}], "pod": {}}))
    fake.always("GET", "/api/v1/events/log", Reply(body={"data": [{"seq": 4, "type": "session.dead"}], "next": 4}))

    assert (await platform.agent("a1")).name == "reviewer"
    assert (await platform.create_agent({"model": "m"})).id == "a1"
    assert (await platform.update_agent("a1", {"branch": "dev"})).id == "a1"
    await platform.delete_agent("a1")
    assert (await platform.create_session("a1", {"title": "t"})).status == "creating"
    assert (await platform.session("s1")).step == 2
    await platform.stop_session("s1")
    assert (await platform.restart_session("s1")).id == "s1"
    await platform.delete_session("s1")
    assert await platform.sandbox_logs("s1", tail_lines=5) == "one\ntwo [31m\n"
    diagnosis = await platform.diagnose("s1")
    assert [issue.code for issue in diagnosis.issues] == ["service_missing"]
    assert diagnosis.data["pod"] == {}
    log = await platform.event_log(3, session_id="s1", types=("session.dead", "session.ready"), limit=10)
    assert (log.rows[0].seq, log.next) == (4, 4)

    assert all(request.headers["authorization"] == f"Bearer {KEY}" for request in fake.requests)
    bodies = {(request.method, request.path): request.body for request in fake.requests}
    assert bodies["POST", f"{MANAGED}/agents"] == {"model": "m"}
    assert bodies["PATCH", agent] == {"branch": "dev"}
    assert bodies["POST", f"{agent}/session"] == {"title": "t"}
    assert fake.asked(f"{session}/sandbox_logs")[0].query == {"tailLines": "5"}
    asked = fake.asked("/api/v1/events/log")[0].query
    assert asked == {"after": "3", "session_id": "s1", "types": "session.dead,session.ready", "limit": "10"}


async def test_a_recording_is_given_as_it_is(platform: Platform, fake: FakePlatform) -> None:
    path = f"{MANAGED}/sessions/s1/recording"
    fake.always("GET", path, Reply(body=b'{"version": 3}\n\x1b', headers={"content-type": "application/x-asciicast"}))
    assert await platform.recording("s1") == b'{"version": 3}\n\x1b'
    fake.always("GET", path, Reply(404, {"error": "no recording", "code": "NOT_FOUND"}))
    with pytest.raises(Unsupported, match="nothing of this session is recorded"):
        await platform.recording("s1")
    fake.always("GET", path, Reply(502, {"error": "the sandbox does not answer", "code": "UNAVAILABLE"}))
    with pytest.raises(PlatformError, match="the sandbox does not answer"):
        await platform.recording("s1")


async def test_a_recording_has_a_largest_size(
    platform: Platform, fake: FakePlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lapconsole.client.platform.RECORDING_BYTES", 1 << 20)
    fake.always("GET", f"{MANAGED}/sessions/s1/recording", Reply(body=b"x" * ((1 << 20) + 1)))
    with pytest.raises(PlatformError, match="larger than 1 MB"):
        await platform.recording("s1")


async def test_a_path_in_the_address_is_kept(fake: FakePlatform) -> None:
    fake.always("GET", f"/team{MANAGED}/agents/a1", Reply(body=AGENT))
    async with Platform(f"{fake.url}/team/", KEY) as platform:
        assert (await platform.agent("a1")).id == "a1"


async def test_an_id_cannot_leave_its_place_in_the_path(fake: FakePlatform, platform: Platform) -> None:
    fake.always("GET", f"{MANAGED}/agents/a%2F..%2F..%3Fx", Reply(body=AGENT))
    assert (await platform.agent("a/../..?x")).id == "a1"
    for bad in ("", ".", "..", "x" * 300):
        with pytest.raises(BadInput):
            await platform.session(bad)
    assert len(fake.requests) == 1


async def test_all_agents_and_sessions_are_listed_page_by_page(fake: FakePlatform, platform: Platform) -> None:
    for number in range(450):
        fake.add_agent(f"a{number}")
        fake.add_session(f"s{number}")
    assert len(await platform.all_agents()) == 450
    listing = await platform.all_sessions()
    assert listing.complete
    assert ids(listing.rows) == [f"s{number}" for number in reversed(range(450))]


@pytest.mark.parametrize(("rows", "complete"), [(199, True), (200, False), (300, False)])
async def test_a_platform_that_cannot_page_gives_its_newest(
    fake: FakePlatform, platform: Platform, rows: int, complete: bool
) -> None:
    fake.can_page = False
    for number in range(rows):
        fake.add_session(f"s{number}")
    listing = await platform.all_sessions()
    assert (len(listing.rows), listing.complete) == (min(rows, 200), complete)


async def test_a_list_longer_than_asked_for_is_all_there_is(fake: FakePlatform, platform: Platform) -> None:
    fake.always("GET", f"{MANAGED}/sessions", Reply(body=[{"id": f"s{number}"} for number in range(300)]))
    listing = await platform.all_sessions()
    assert (len(listing.rows), listing.complete) == (300, True)
    assert len(fake.requests) == 1


async def test_rows_without_an_id_are_left_out(fake: FakePlatform, platform: Platform) -> None:
    fake.always("GET", f"{MANAGED}/sessions", Reply(body=[SESSION, {}, None, 3, {"id": 7}]))
    assert ids(await platform.sessions()) == ["s1"]


@pytest.mark.parametrize(
    ("body", "message", "issues"),
    [
        ({"error": "agent 'x' not found", "code": "NOT_FOUND"}, "agent 'x' not found", []),
        ({"error": {"error": "unknown harness"}}, "unknown harness", []),
        ({"error": {"type": "x", "message": "bad model"}}, "bad model", []),
        (
            {"error": [{"path": ["env_vars", 0], "message": "too long", "code": "x"}, {"message": "no"}]},
            "env_vars.0: too long; no",
            ["env_vars.0", ""],
        ),
        ({"error": "invalid", "issues": [{"path": ["name"], "message": "taken"}]}, "invalid", ["name"]),
        ({"detail": [{"msg": "field required"}]}, "field required", [""]),
        ({"error": "two\nlines \x1b]0;x\x07"}, "two lines  ]0;x", []),
        ({"error": {"error": {"error": []}}}, "400 Bad Request", []),
        ([1, 2], "400 Bad Request", []),
        (b"", "400 Bad Request", []),
        (b"plain words\nmore", "plain words", []),
        (b"<html><body>nginx", "400 Bad Request", []),
    ],
)
async def test_an_error_is_one_line_in_whatever_shape_it_comes(
    fake: FakePlatform, platform: Platform, body: object, message: str, issues: list[str]
) -> None:
    fake.always("GET", f"{MANAGED}/agents/x", Reply(400, body))
    with pytest.raises(PlatformError) as caught:
        await platform.agent("x")
    assert (caught.value.status, caught.value.message) == (400, message)
    assert [issue.path for issue in caught.value.issues] == issues


async def test_a_refused_key_is_told_apart(fake: FakePlatform) -> None:
    async with Platform(fake.url, "sk-wrong") as platform:
        with pytest.raises(PlatformError) as caught:
            await platform.health()
    assert caught.value.key_refused
    assert caught.value.status_line == "401 Unauthorized"


async def test_the_key_follows_no_redirect(fake: FakePlatform, platform: Platform) -> None:
    async with running() as other:
        moved = Reply(302, headers={"location": f"{other.url}{MANAGED}/agents"})
        fake.always("GET", f"{MANAGED}/agents", moved)
        with pytest.raises(PlatformError, match=f"redirects to {other.url}"):
            await platform.agents()
        assert other.requests == []


@pytest.mark.parametrize("answer", [b"<html>Sign in</html>", b"{" * 100_000, b"[" * 100_000, b'{"data": 3}', b"7"])
async def test_an_answer_that_is_no_platforms_is_said_so(fake: FakePlatform, platform: Platform, answer: bytes) -> None:
    fake.always("GET", f"{MANAGED}/agents", Reply(body=answer))
    with pytest.raises(PlatformError, match="check that the address is that of a platform"):
        await platform.agents()


@pytest.mark.parametrize("answer", [None, {}, [], "x", {"id": None}])
async def test_an_entity_without_an_id_is_no_answer(fake: FakePlatform, platform: Platform, answer: object) -> None:
    fake.always("GET", f"{MANAGED}/sessions/s1", Reply(body=answer))
    with pytest.raises(PlatformError, match="not a session"):
        await platform.session("s1")


async def test_a_boundless_answer_is_cut_off(
    fake: FakePlatform, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform_module, "LIST_BYTES", 1 << 20)
    bomb = gzip.compress(b" " * (3 << 20))
    fake.once("GET", f"{MANAGED}/sessions", Reply(body=b" " * ((1 << 20) + 1)))
    fake.once("GET", f"{MANAGED}/sessions", Reply(body=bomb, headers={"content-encoding": "gzip"}))
    for _ in range(2):
        with pytest.raises(PlatformError, match="larger than 1 MB"):
            await platform.sessions()


async def test_a_large_answer_is_parsed(fake: FakePlatform, platform: Platform) -> None:
    rows = [{"id": f"s{number}", "failure_reason": "x" * 2000} for number in range(300)]
    fake.always("GET", f"{MANAGED}/sessions", Reply(body=json.dumps(rows).encode()))
    assert len(await platform.sessions()) == 300


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_nobody_listening(host: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with Platform(f"http://{host}:{port}", KEY) as platform:
        with pytest.raises(Unreachable) as caught:
            await platform.health()
    assert caught.value.cause == "connection refused"
    assert str(caught.value) == f"cannot reach http://{host}:{port}: connection refused"
    with pytest.raises(Unreachable, match="connection refused"):
        await Tty.connect(f"ws://{host}:{port}/tty", "tok")


async def test_a_name_that_does_not_exist() -> None:
    async with Platform("http://no-such-host.invalid", KEY) as platform:
        with pytest.raises(Unreachable) as caught:
            await platform.health()
    assert caught.value.cause == "name not resolved"


async def test_tls_where_there_is_none() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Platform(f"https://127.0.0.1:{port}", KEY) as platform:
            with pytest.raises(Unreachable) as caught:
                await platform.health()
    assert caught.value.cause == "TLS failed: wrong version number"


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (cut, "the connection was closed in the middle of an answer"),
        (raw(), "the connection was closed in the middle of an answer"),
        (raw(b"SSH-2.0-OpenSSH_9\r\n\r\n"), "the answer is not HTTP"),
    ],
)
async def test_an_answer_that_breaks_off(fake: FakePlatform, platform: Platform, answer, cause: str) -> None:
    fake.always("GET", f"{MANAGED}/agents", answer)
    with pytest.raises(Unreachable) as caught:
        await platform.agents()
    assert caught.value.cause == cause


async def test_no_answer_in_time(fake: FakePlatform) -> None:
    fake.always("GET", f"{MANAGED}/agents", hold)
    async with Platform(fake.url, KEY, answer_seconds=0.05) as platform:
        with pytest.raises(Unreachable) as caught:
            await platform.agents()
    assert caught.value.cause == "timed out after 0.05 s"


async def test_stop_falls_back_to_delete_where_there_is_no_stop(fake: FakePlatform, platform: Platform) -> None:
    fake.always("DELETE", f"{MANAGED}/sessions/s1", Reply(204))
    await platform.stop_session("s1")
    assert [request.method for request in fake.requests] == ["POST", "DELETE"]
    with pytest.raises(PlatformError) as caught:
        await platform.stop_session("gone")
    assert caught.value.status == 404


async def test_a_platform_without_an_event_log(platform: Platform) -> None:
    with pytest.raises(Unsupported):
        await platform.event_log()


async def test_health_needs_no_health_document(fake: FakePlatform, platform: Platform) -> None:
    assert await platform.health() == {}
    fake.always("GET", "/healthz", Reply(body={"ok": True}))
    assert await platform.health() == {"ok": True}


@pytest.mark.parametrize("key", ["a\nb", "schlüssel", "a\x00b"])
def test_a_key_that_cannot_be_sent_is_refused(key: str) -> None:
    with pytest.raises(BadInput, match="key"):
        Platform("http://localhost", key)


PROXIES = ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"]


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "nonsense://x", "http://127.0.0.1:x"])
async def test_a_proxy_that_cannot_be_used(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.setenv(name, "" if name.lower() == "no_proxy" else proxy)
    async with Platform("http://platform.invalid", KEY) as platform:
        with pytest.raises(BadInput, match="proxy set in the environment"):
            await platform.agents()
    with pytest.raises(BadInput, match="proxy set in the environment"):
        await Tty.connect("ws://platform.invalid/tty", "tok")


async def test_no_proxy_is_asked_for_this_machine(fake: FakePlatform, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.setenv(name, "" if name.lower() == "no_proxy" else "http://127.0.0.1:1")
    async with Platform(fake.url, KEY) as platform:
        assert (await platform.agents()).total == 0


async def test_it_can_be_used_again_after_closing(fake: FakePlatform, platform: Platform) -> None:
    await platform.agents()
    await platform.aclose()
    await asyncio.gather(platform.agents(), platform.agents(), platform.sessions())
    assert KEY not in repr(platform)

"""Watching turns over HTTP, and what is passed through to the harness (LAP REST 3.8, 3.9)."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from backend.services import frames as frame_service
from backend.services import messages as service
from backend.settings import Settings
from tests.api.conftest import SESSIONS
from tests.api.stand_in import Platform, stand_in
from tests.api.talking import SESSION, TalkingHarness
from tests.api.test_messages import messages, said, say, talker
from tests.waiting import until


@pytest.fixture
async def platform(settings: Settings) -> AsyncIterator[Platform]:
    harness = TalkingHarness()
    async with stand_in(settings, harness) as platform:
        yield platform
        await harness.aclose()


@pytest.fixture
def harness(platform: Platform) -> TalkingHarness:
    assert isinstance(platform.harness, TalkingHarness)
    return platform.harness


@pytest.fixture
async def session(platform: Platform) -> dict[str, Any]:
    return await platform.ready(await talker(platform))


class Stream:
    """A stream of frames, read one by one."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self) -> dict[str, Any] | None:
        """The next frame; None at the end."""
        async with asyncio.timeout(20):
            async for line in self._lines:
                if line.startswith("data: "):
                    return json.loads(line[6:])
        return None

    async def rest(self) -> list[dict[str, Any]]:
        frames = []
        while (frame := await self.next()) is not None:
            frames.append(frame)
        return frames


@contextlib.asynccontextmanager
async def streaming(
    platform: Platform, session: dict[str, Any], name: str, text: str | None = None, **query: Any
) -> AsyncIterator[Stream]:
    path = f"{SESSIONS}/{session['id']}/{name}"
    method, body = ("GET", None) if text is None else ("POST", {"text": text})
    async with platform.http.stream(method, path, json=body, params=query, timeout=20) as response:
        if response.status_code != 200:
            await response.aread()
        yield Stream(response)


def types(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["type"] for frame in frames]


class TestMessageStream:
    async def test_a_turn(self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]) -> None:
        async with streaming(platform, session, "message_stream", "hello") as stream:
            headers = stream.response.headers
            assert headers["content-type"] == "text/event-stream; charset=utf-8"
            assert headers["cache-control"] == "no-cache, no-transform"
            assert headers["connection"] == "keep-alive"
            assert headers["x-accel-buffering"] == "no"
            frames = await stream.rest()
        assert frames[0] == {"type": "ready"}
        assert set(types(frames[1:-1])) == {"harness_event"}
        assert frames[-1] == {"type": "done"}
        events = [frame["event"]["type"] for frame in frames[1:-1]]
        assert (events[0], events[1], events[-1]) == ("server.connected", "message.updated", "session.idle")
        after = await platform.session(session)  # which is so once the stream says that it is done
        assert after["response"]["parts"][0]["text"] == "echo: hello"
        assert harness.texts()[-1] == "hello"
        assert said(await messages(platform, session)) == [("user", "hello"), ("assistant", "echo: hello")]

    async def test_events_of_others_are_not_told(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        async with streaming(platform, session, "message_stream", "hold") as stream:
            await until(lambda: harness.held, "it is being answered")
            harness.tell_event("message.updated", sessionID="ses_other")
            harness.tell_event("message.updated", sessionID=None, info={"sessionID": SESSION, "id": "mine"})
            harness.released.set()
            frames = await stream.rest()
        told = [frame["event"]["properties"] for frame in frames if frame["type"] == "harness_event"]
        assert all(properties.get("sessionID") != "ses_other" for properties in told)
        assert any(properties.get("info", {}).get("id") == "mine" for properties in told)

    async def test_the_end_of_the_turn_before_is_not_this_one_s(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        async with harness._one_at_a_time, streaming(platform, session, "message_stream", "hello") as stream:
            assert await stream.next() == {"type": "ready"}
            await until(lambda: harness.listening, "the platform listens")
            harness.tell_event("session.idle")
            assert (await stream.next())["event"]["type"] == "server.connected"
            assert (await stream.next())["event"]["type"] == "session.idle"
            harness._one_at_a_time.release()
            assert types(await stream.rest())[-1] == "done"
            await harness._one_at_a_time.acquire()
        assert (await platform.session(session))["response"]

    async def test_it_goes_on_without_its_watcher(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        async with streaming(platform, session, "message_stream", "hold") as stream:
            await until(lambda: harness.held, "it is being answered")
            assert await stream.next() == {"type": "ready"}
        harness.released.set()
        after = await platform.until(session, lambda now: now["response"], "the answer is stored")
        assert after["response"]["parts"][0]["text"] == "echo: hold"

    async def test_what_has_come_so_far_is_shown(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        async with streaming(platform, session, "message_stream", "hold") as stream:
            await until(lambda: harness.held, "it is being answered")
            harness.listing = False

            async def pending() -> Any:
                found = await messages(platform, session)
                return found[-1] if len(found) == 2 else None

            message = await until(pending, "the unfinished answer is shown")
            assert message["info"]["id"] == f"pending-{session['id']}"
            assert message["parts"][0]["text"] == "so far"
            harness.listing = True
            harness.released.set()
            await stream.rest()

    async def test_the_events_cannot_be_had(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        harness.hearing = False
        async with streaming(platform, session, "message_stream", "hello") as stream:
            frames = await stream.rest()
        assert types(frames) == ["ready", "error"]
        assert frames[1]["message"] == "harness event stream failed"
        assert harness.got == []

    async def test_the_agent_refuses(self, platform: Platform, session: dict[str, Any]) -> None:
        async with streaming(platform, session, "message_stream", "refuse") as stream:
            frames = await stream.rest()
        assert (types(frames)[0], frames[-1]["message"]) == ("ready", "prompt_async failed")
        assert "the model said no" in frames[-1]["detail"]
        assert (await platform.session(session))["status"] == "ready"

    async def test_the_events_break_off(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        async with streaming(platform, session, "message_stream", "hold") as stream:
            await until(lambda: harness.held, "it is being answered")
            harness.cut_events()
            frames = await stream.rest()
        assert frames[-1]["message"] == "event stream interrupted"
        harness.released.set()
        await platform.until(session, lambda now: now["response"], "the answer is stored all the same")

    async def test_it_lasts_too_long(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "TURN_STREAM_SECONDS", 0.3)
        async with streaming(platform, session, "message_stream", "hold") as stream:
            frames = await stream.rest()
        assert frames[-1] == {"type": "error", "message": "stream timeout"}
        harness.released.set()
        await platform.until(session, lambda now: now["response"], "the answer is stored all the same")

    async def test_the_sandbox_ends(self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]) -> None:
        async with streaming(platform, session, "message_stream", "hold") as stream:
            await until(lambda: harness.held, "it is being answered")
            platform.sandboxes.end(session, "exit code 1")
            async with harness.unhealthy():
                harness.vanish()
                frames = await stream.rest()
        # Not "prompt_async failed", which says that it may be sent again.
        assert (frames[-1]["type"], frames[-1]["message"]) == ("error", "event stream interrupted")
        assert (await platform.session(session))["status"] == "dead"
        found = await messages(platform, session)
        assert said(found) == [("user", "hold"), ("assistant", "so far")]
        assert found[1]["info"]["id"] == f"pending-{session['id']}"

    async def test_if_busy(self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]) -> None:
        task = asyncio.create_task(say(platform, session, "hold"))
        await until(lambda: harness.held, "it is being answered")
        async with streaming(platform, session, "message_stream", "now", if_busy="refuse") as stream:
            assert stream.response.status_code == 409
        async with streaming(platform, session, "message_stream", "then") as stream:
            assert await stream.next() == {"type": "ready"}
            harness.released.set()
            assert types(await stream.rest())[-1] == "done"
        await task

    async def test_empty(self, platform: Platform, session: dict[str, Any]) -> None:
        async with streaming(platform, session, "message_stream", "") as stream:
            assert stream.response.status_code == 400

    async def test_of_a_terminal(self, platform: Platform) -> None:
        session = await platform.ready()
        async with streaming(platform, session, "message_stream", "x") as stream:
            frames = await stream.rest()
        assert frames == [{"type": "ready"}, {"type": "error", "message": "this is a TUI harness — connect to /tty"}]


class TestWatching:
    async def test_events(self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]) -> None:
        async with streaming(platform, session, "events") as stream:
            assert await stream.next() == {"type": "ready"}
            assert (await stream.next())["event"]["type"] == "server.connected"
            await say(platform, session, "hello")
            frames = await stream.rest()
        assert frames[-1] == {"type": "done"}
        assert frames[-2] == {
            "type": "harness_event",
            "event": {"type": "session.idle", "properties": {"sessionID": SESSION}},
        }

    async def test_stream_ends_with_the_turn(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        async with streaming(platform, session, "stream") as stream:
            assert await stream.next() == {"type": "stream.opened"}
            await say(platform, session, "hello")
            frames = await stream.rest()
        assert (frames[0]["type"], frames[-1]["type"]) == ("server.connected", "session.idle")

    async def test_stream_that_follows(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        async with streaming(platform, session, "stream", follow="1") as stream:
            assert await stream.next() == {"type": "stream.opened"}
            for _ in range(2):
                await say(platform, session, "hello")
            frames: list[Any] = []
            while types(frames).count("session.idle") < 2:
                frames.append(await stream.next())
        await until(lambda: not harness.listening, "the platform lets go when its client does")

    async def test_watching_is_no_use(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        async with streaming(platform, session, "stream") as stream, streaming(platform, session, "events") as events:
            assert await stream.next() == {"type": "stream.opened"}
            assert await events.next() == {"type": "ready"}
            assert (await platform.session(session))["last_seen_at"] is None

    async def test_no_events(self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]) -> None:
        harness.hearing = False
        async with streaming(platform, session, "events") as stream:
            assert await stream.rest() == [
                {"type": "ready"},
                {"type": "error", "message": "harness event stream failed"},
            ]
        async with streaming(platform, session, "stream") as stream:
            assert (stream.response.status_code, await stream.rest()) == (200, [])

    async def test_time_is_limited(
        self, platform: Platform, session: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "TURN_STREAM_SECONDS", 0.2)
        monkeypatch.setattr(service, "WATCH_SECONDS", 0.2)
        async with streaming(platform, session, "events") as stream:
            assert (await stream.rest())[-1] == {"type": "error", "message": "stream timeout"}
        async with streaming(platform, session, "stream", follow="1") as stream:
            assert types(await stream.rest()) == ["stream.opened", "server.connected"]

    async def test_not_too_many(
        self, platform: Platform, session: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "MAX_WATCHERS", 1)
        async with streaming(platform, session, "events") as stream:
            assert await stream.next() == {"type": "ready"}
            async with streaming(platform, session, "events") as refused:
                assert (await refused.rest())[-1]["type"] == "error"

    async def test_the_platform_ends(self, platform: Platform, session: dict[str, Any]) -> None:
        async with streaming(platform, session, "stream", follow="1") as stream:
            assert await stream.next() == {"type": "stream.opened"}
            platform.app.state.services.messages.close()
            await stream.rest()


class TestPassage:
    async def call(
        self, platform: Platform, session: dict[str, Any], method: str, path: str, **given: Any
    ) -> httpx.Response:
        return await platform.http.request(method, f"{SESSIONS}/{session['id']}/opencode/{path}", timeout=20, **given)

    @pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
    async def test_anything(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any], method: str
    ) -> None:
        content = {"content": b"\x00\xff"} if method == "POST" else {}
        response = await self.call(platform, session, method, "anything/a%20b/c?x=1&y=%2F", **content)
        assert response.status_code == 418
        assert response.headers["content-type"].startswith("text/x-odd")
        assert response.content == (b"\x00\xff" if content else b"anything")
        assert harness.calls == [f"{method} /anything/a b/c?x=1&y=%2F"]
        assert (await platform.session(session))["last_seen_at"] is None

    async def test_no_way_out(self, platform: Platform, session: dict[str, Any]) -> None:
        for path in ("anything/..%2f..%2fx", "%2e%2e/%2e%2e/x", "@example.org/", "anything/%0d%0aX:%20y"):
            response = await self.call(platform, session, "GET", path)
            assert response.status_code in (307, 404, 418, 502), path

    async def test_a_message_is_a_turn(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        body = {"parts": [{"type": "text", "text": "hello"}], "agent": "build"}
        response = await self.call(platform, session, "POST", f"session/{SESSION}/message", json=body)
        assert response.status_code == 200
        assert response.json() == harness.said[-1]
        assert harness.got[0]["agent"] == "build"
        assert harness.got[0]["model"]["modelID"] == "vendor/some/model"
        after = await platform.session(session)
        assert after["response"]["parts"][0]["text"] == "echo: hello"
        assert after["last_seen_at"] and after["title_preview"] == "hello"

    async def test_a_slash_at_the_end_makes_no_other_call_of_it(
        self, platform: Platform, session: dict[str, Any]
    ) -> None:
        body = {"parts": [{"type": "text", "text": "hello"}]}
        response = await self.call(platform, session, "POST", f"session/{SESSION}/message/", json=body)
        assert response.status_code == 200
        assert (await platform.session(session))["title_preview"] == "hello"

    async def test_an_address_too_long(self, platform: Platform, session: dict[str, Any]) -> None:
        response = await self.call(platform, session, "GET", "anything/" + "|" * 30_000)
        assert response.status_code in (400, 414, 502)

    async def test_its_own_model_wins(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        model = {"providerID": "p", "modelID": "m"}
        body = {"parts": [{"type": "text", "text": "hello"}], "model": model}
        await self.call(platform, session, "POST", f"session/{SESSION}/message", json=body)
        assert harness.got[0]["model"] == model

    async def test_prompt_async(self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]) -> None:
        body = {"parts": [{"type": "text", "text": "hello"}]}
        response = await self.call(platform, session, "POST", f"session/{SESSION}/prompt_async", json=body)
        assert (response.status_code, response.content) == (204, b"")
        await platform.until(session, lambda now: now["response"], "the answer is stored")

    async def test_refusals_are_passed_on(self, platform: Platform, session: dict[str, Any]) -> None:
        path = f"session/{SESSION}/message"
        refused = await self.call(platform, session, "POST", path, json={"parts": [{"type": "text", "text": "refuse"}]})
        assert (refused.status_code, refused.json()) == (500, {"error": "the model said no"})
        for content in (b"{", b"[]", b"{}", b'{"parts": [1]}'):
            assert (await self.call(platform, session, "POST", path, content=content)).status_code == 400

    async def test_the_list_of_messages_falls_back_on_what_is_kept(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        await say(platform, session, "one")
        response = await self.call(platform, session, "GET", f"session/{SESSION}/message")
        assert response.json() == harness.said
        response = await self.call(platform, session, "GET", "session/ses_gone/message")
        assert said(response.json()) == [("user", "one"), ("assistant", "echo: one")]

    async def test_an_unreachable_harness(
        self, platform: Platform, session: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with platform.app.state.services.database.begin() as tx:
            from backend.store import sessions

            await sessions.note(tx, session["id"], {"sandbox_url": "http://127.0.0.1:1"})
        response = await self.call(platform, session, "GET", "anything/x")
        assert response.status_code == 502
        assert response.json()["error"].startswith("harness request failed: ")


class TestReadiness:
    """LAP REST 3.4, row by row."""

    TUI = "this is a TUI harness — connect to /tty"
    MESSAGE = ("POST", "message", {"text": "x"})
    STREAM = ("POST", "message_stream", {"text": "x"})
    EVENTS = ("GET", "events", None)
    WATCH = ("GET", "stream", None)
    PASSED = ("GET", "opencode/anything/x", None)
    HISTORY = ("GET", "messages", None)
    LOG = ("GET", "log", None)
    ABORT = ("POST", "abort", None)
    RESTART = ("POST", "restart", None)
    ABSENT = "session {id} not found or not ready"

    @pytest.fixture(autouse=True)
    def short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(service, "READY_SECONDS", 0.2)

    async def ask(self, platform: Platform, session_id: str, what: tuple[str, str, Any]) -> tuple[int, Any]:
        method, name, body = what
        response = await platform.http.request(method, f"{SESSIONS}/{session_id}/{name}", json=body, timeout=20)
        answer = response.json()
        return response.status_code, answer.get("error", answer) if isinstance(answer, dict) else answer

    @pytest.mark.parametrize(
        ("what", "status", "answer"),
        [
            (MESSAGE, 404, ABSENT),
            (STREAM, 404, ABSENT),
            (EVENTS, 404, "session {id} not found"),
            (WATCH, 404, "session {id} not found"),
            (PASSED, 404, "session {id} not found"),
            (HISTORY, 404, "session {id} not found"),
            (LOG, 200, []),
            (ABORT, 404, ABSENT),
            (RESTART, 404, "session {id} not found"),
        ],
    )
    async def test_missing(self, platform: Platform, what: Any, status: int, answer: Any) -> None:
        expected = answer.format(id="none") if isinstance(answer, str) else answer
        assert await self.ask(platform, "none", what) == (status, expected)

    @pytest.mark.parametrize(
        ("what", "status", "answer"),
        [
            (MESSAGE, 404, ABSENT),
            (STREAM, 404, ABSENT),
            (EVENTS, 409, "session not ready, status=creating"),
            (WATCH, 504, "session {id} not ready within 0s"),
            (PASSED, 504, "session {id} not ready within 0s"),
            (HISTORY, 200, []),
            (ABORT, 404, ABSENT),
            (RESTART, 409, "session {id} is creating; wait for it to settle before restarting"),
        ],
    )
    async def test_creating(
        self, platform: Platform, harness: TalkingHarness, what: Any, status: int, answer: Any
    ) -> None:
        harness.tell(setup="running")
        session = await platform.create(await talker(platform))
        expected = answer.format(id=session["id"]) if isinstance(answer, str) else answer
        assert await self.ask(platform, session["id"], what) == (status, expected)

    @pytest.mark.parametrize("ended", ["failed", "dead"])
    @pytest.mark.parametrize(
        ("what", "status", "answer"),
        [
            (MESSAGE, 404, ABSENT),
            (STREAM, 404, ABSENT),
            (EVENTS, 409, "session not ready, status={status}"),
            (WATCH, 410, "session {id} is {status}"),
            (PASSED, 410, "session {id} is {status}"),
            (HISTORY, 200, []),
            (ABORT, 404, ABSENT),
        ],
    )
    async def test_ended(
        self, platform: Platform, harness: TalkingHarness, ended: str, what: Any, status: int, answer: Any
    ) -> None:
        if ended == "failed":
            harness.tell(setup="failed", failure="it broke")
        session = await platform.create(await talker(platform))
        if ended == "dead":
            await platform.http.delete(f"{SESSIONS}/{session['id']}")
        await platform.until(session, lambda now: now["status"] == ended, f"it is {ended}")
        expected = answer.format(id=session["id"], status=ended) if isinstance(answer, str) else answer
        assert await self.ask(platform, session["id"], what) == (status, expected)

    @pytest.mark.parametrize("ended", ["failed", "dead"])
    async def test_restart_of_an_ended_one(self, platform: Platform, harness: TalkingHarness, ended: str) -> None:
        if ended == "failed":
            harness.tell(setup="failed", failure="it broke")
        session = await platform.create(await talker(platform))
        if ended == "dead":
            await platform.http.delete(f"{SESSIONS}/{session['id']}")
        await platform.until(session, lambda now: now["status"] == ended, f"it is {ended}")
        harness.tell(setup="done", failure=None)
        status, answer = await self.ask(platform, session["id"], self.RESTART)
        assert (status, answer["status"]) == (200, "ready")
        assert (await self.ask(platform, session["id"], self.LOG))[0] == 200

    @pytest.mark.parametrize(
        ("what", "status", "answer"),
        [
            (MESSAGE, 404, ABSENT),
            (STREAM, 409, "session {id} is not fully provisioned"),
            (EVENTS, 503, "session missing sandbox_url or harness_session_id"),
            (WATCH, 504, "session {id} not ready within 0s"),
            (PASSED, 504, "session {id} not ready within 0s"),
            (HISTORY, 200, []),
            (ABORT, 404, ABSENT),
        ],
    )
    @pytest.mark.parametrize("column", ["sandbox_url", "harness_session_id"])
    async def test_not_provisioned(
        self, platform: Platform, session: dict[str, Any], column: str, what: Any, status: int, answer: Any
    ) -> None:
        from backend.store import sessions

        async with platform.app.state.services.database.begin() as tx:
            await sessions.note(tx, session["id"], {column: None})
        expected = answer.format(id=session["id"]) if isinstance(answer, str) else answer
        assert await self.ask(platform, session["id"], what) == (status, expected)

    @pytest.mark.parametrize("what", [WATCH, PASSED])
    async def test_they_wait_for_a_session_that_comes_up(
        self, platform: Platform, harness: TalkingHarness, what: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(service, "READY_SECONDS", 20)
        monkeypatch.setattr(service, "WATCH_SECONDS", 0.3)
        harness.tell(setup="running")
        session = await platform.create(await talker(platform))
        task = asyncio.create_task(platform.http.get(f"{SESSIONS}/{session['id']}/{what[1]}", timeout=20))
        await platform.until(session, lambda now: now["phase"] == "harness_ready", "it is coming up")
        assert not task.done()
        harness.tell(setup="done")
        assert (await task).status_code in (200, 418)

    async def test_a_terminal(self, platform: Platform) -> None:
        session = await platform.ready()
        assert await self.ask(platform, session["id"], self.MESSAGE) == (200, {"text": self.TUI})
        assert await self.ask(platform, session["id"], self.HISTORY) == (200, [])
        assert await self.ask(platform, session["id"], self.ABORT) == (200, {"ok": True})
        after = await platform.session(session)
        assert (after["response"], after["last_seen_at"]) == (None, None)

    @pytest.mark.parametrize("what", [MESSAGE, STREAM, EVENTS, WATCH, PASSED, HISTORY, LOG, ABORT, RESTART])
    async def test_strangers(self, platform: Platform, what: Any) -> None:
        headers = {"Authorization": "Bearer wrong"}
        response = await platform.http.request(what[0], f"{SESSIONS}/none/{what[1]}", headers=headers)
        assert (response.status_code, response.json()["error"]) == (401, "unauthorized")


async def test_slow_clients_are_let_go(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_service, "MAX_FRAMES", 50)
    frames = frame_service.Frames()
    for number in range(10):
        frames.put({"type": "harness_event", "event": {"number": number}})
    assert await frames.next() == b'data: {"type": "error", "message": "event stream interrupted"}\n\n'
    assert await frames.next() is None

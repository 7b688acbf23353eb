"""Saying something in a session and reading it, over HTTP, with a stand-in for the agent (LAP REST 3.4, 3.7, 3.9)."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from backend.domain import messages as rules
from backend.services import exchange, turns
from backend.settings import Settings
from tests.api.conftest import AGENTS, SESSIONS
from tests.api.stand_in import Platform, Sandboxes, stand_in
from tests.api.talking import SESSION, TalkingHarness
from tests.postgres import on_both
from tests.waiting import until

PNG = base64.b64encode(b"\x89PNG not really").decode()


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
    """A ready session of an agent that answers messages."""
    return await platform.ready(await talker(platform))


async def talker(platform: Platform, **fields: Any) -> dict[str, Any]:
    return await platform.agent(model="vendor/some/model", harness_id="claude-agent-sdk", **fields)


async def say(platform: Platform, session: dict[str, Any], text: str, **query: Any) -> httpx.Response:
    path = f"{SESSIONS}/{session['id']}/message"
    return await platform.http.post(path, json={"text": text}, params=query, timeout=20)


async def messages(platform: Platform, session: dict[str, Any]) -> list[dict[str, Any]]:
    response = await platform.http.get(f"{SESSIONS}/{session['id']}/messages")
    assert response.status_code == 200, response.text
    return response.json()


def said(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Role and text of each message."""
    return [(message["info"]["role"], rules.text_of(message["parts"])) for message in found]


class TestTurn:
    @on_both
    async def test_the_answer_is_the_harness_s_own(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        assert session["harness_session_id"] == SESSION
        assert (session["response"], session["last_seen_at"], session["title_preview"]) == (None, None, None)
        response = await say(platform, session, "hello\n  there")
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        assert response.json() == harness.said[-1]
        assert harness.got[0]["model"] == {"providerID": "litellm", "modelID": "vendor/some/model"}
        after = await platform.session(session)
        assert after["response"]["parts"] == [{"type": "text", "text": "echo: hello\n  there"}]
        assert after["response"]["info"]["tokens"]["output"] == 186
        assert after["title_preview"] == "hello there"
        assert after["last_seen_at"] >= session["ready_at"]
        assert (after["failure_reason"], after["warnings"]) == (None, [])
        told = (await platform.events(session))[-1]["session"]
        assert told["response"] == after["response"]

    async def test_only_the_first_message_says_which_session_it_is(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        await say(platform, session, "one")
        await say(platform, session, "two")
        assert harness.texts(0) == [f"<lap_session_id>{session['id']}</lap_session_id>", "one"]
        assert harness.texts(1) == ["two"]
        assert said(await messages(platform, session)) == [
            ("user", "one"),
            ("assistant", "echo: one"),
            ("user", "two"),
            ("assistant", "echo: two"),
        ]

    async def test_a_command_of_the_agent_s_stays_first(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        await say(platform, session, "/compact")
        assert harness.texts() == ["/compact"]

    async def test_parts_and_attachments(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        async def sent(**body: Any) -> list[dict[str, Any]]:
            response = await platform.http.post(f"{SESSIONS}/{session['id']}/message", json=body)
            assert response.status_code == 200, response.text
            return [part for part in harness.got[-1]["parts"] if "lap_session_id" not in part.get("text", "")]

        parts = [{"type": "text", "text": "a"}, {"type": "odd", "x": 1}]
        image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
        attachments = [{"name": "x.png", "mime_type": "image/png", "base64": PNG}]
        assert await sent(text="b", parts=parts) == parts
        assert await sent(text="b", parts=parts, attachments=attachments) == [{"type": "text", "text": "b"}, image]
        assert await sent(attachments=attachments) == [image]
        # The history is no place for images.
        async with platform.app.state.services.database.read() as tx:
            from backend.store import messages as store

            rows = await store.of(tx, session["id"])
        assert PNG not in str([row["parts"] for row in rows])

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            ({}, "the message is empty"),
            ({"text": " \n"}, "the message is empty"),
            ({"parts": [], "attachments": []}, "the message is empty"),
            ({"text": 1}, "text"),
            ({"text": None}, "text"),
            ({"text": "a\0b"}, "NUL"),
            ({"parts": [{}]}, "type"),
            ({"parts": [{"type": "text"}]}, "text"),
            ({"parts": [{"type": "text", "text": "x"}] * 101}, "parts"),
            ({"attachments": [{"mime_type": "image/bmp", "base64": PNG}]}, "mime_type"),
            ({"attachments": [{"mime_type": "image/png", "base64": "not base64!"}]}, "base64"),
            ({"attachments": [{"mime_type": "image/png", "base64": PNG}] * 11}, "attachments"),
            (
                {"attachments": [{"mime_type": "image/png", "base64": "A" * 6_990_512}]},
                "attachment exceeds 5242880 bytes",
            ),
            ({"text": "x", "if_busy": "jump"}, "if_busy"),
        ],
    )
    async def test_refused(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any], body: Any, text: str
    ) -> None:
        response = await platform.http.post(f"{SESSIONS}/{session['id']}/message", json=body)
        assert response.status_code == 400
        assert text in response.json()["error"]
        assert harness.got == []

    async def test_not_json(self, platform: Platform, session: dict[str, Any]) -> None:
        response = await platform.http.post(f"{SESSIONS}/{session['id']}/message", content=b"{")
        assert (response.status_code, response.json()["error"]) == (400, "invalid json")

    async def test_an_agent_that_fails_answers_all_the_same(self, platform: Platform, session: dict[str, Any]) -> None:
        response = await say(platform, session, "fail")
        assert response.status_code == 200
        assert response.json()["info"]["error"]["data"]["message"] == "no credit left"
        after = await platform.session(session)
        assert after["response"]["info"]["error"]["data"]["message"] == "no credit left"
        assert (after["status"], after["failure_reason"]) == ("ready", None)

    async def test_a_long_answer_is_cut_where_there_are_many(self, platform: Platform, session: dict[str, Any]) -> None:
        text = "x" * 5_000
        await say(platform, session, text)
        after = await platform.session(session)
        assert after["response"]["parts"][0]["text"] == f"echo: {text}"
        assert "truncated" not in after["response"]
        listed = (await platform.http.get(SESSIONS)).json()[0]["response"]
        told = (await platform.events(session))[-1]["session"]["response"]
        assert listed == told
        assert (listed["truncated"], len(listed["parts"][0]["text"])) == (True, rules.SHORT_RESPONSE)


class TestOneAtATime:
    @on_both
    async def test_a_second_message_waits_its_turn(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        first = asyncio.create_task(say(platform, session, "hold"))
        await until(lambda: harness.held, "the first is being answered")
        others = [asyncio.create_task(say(platform, session, f"number {number}")) for number in range(3)]
        refused = await say(platform, session, "now", if_busy="refuse")
        assert (refused.status_code, refused.json()["code"]) == (409, "CONFLICT")
        assert "answering another message" in refused.json()["error"]
        assert len(harness.got) == 1
        harness.released.set()
        answers = [await task for task in (first, *others)]
        assert [answer.status_code for answer in answers] == [200] * 4
        assert sorted(harness.texts(index)[-1] for index in range(4)) == ["hold", "number 0", "number 1", "number 2"]
        assert len(said(await messages(platform, session))) == 8

    async def test_refused_only_while_busy(self, platform: Platform, session: dict[str, Any]) -> None:
        for _ in range(2):
            assert (await say(platform, session, "now", if_busy="refuse")).status_code == 200

    async def test_not_too_many_wait(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(turns, "MAX_WAITING", 1)
        waiting = [asyncio.create_task(say(platform, session, "hold"))]
        await until(lambda: harness.held, "the first is being answered")
        answers = [asyncio.create_task(say(platform, session, "x")) for _ in range(2)]
        done, _ = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result().status_code for task in done] == [409]
        harness.released.set()
        assert {(await task).status_code for task in (*waiting, *answers)} == {200, 409}


class TestTrouble:
    async def test_the_client_goes_away(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        task = asyncio.create_task(say(platform, session, "hold"))
        await until(lambda: harness.held, "it is being answered")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        harness.released.set()
        after = await platform.until(session, lambda now: now["response"], "the answer is stored")
        assert after["response"]["parts"][0]["text"] == "echo: hold"

    async def test_the_sandbox_ends(self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]) -> None:
        task = asyncio.create_task(say(platform, session, "hold"))
        await until(lambda: harness.held, "it is being answered")
        platform.sandboxes.end(session, "signal 9 (SIGKILL)")
        async with harness.unhealthy():
            harness.vanish()
            response = await task
        assert response.status_code == 502
        assert response.json()["code"] == "UNAVAILABLE"
        error = response.json()["error"]
        assert error.startswith("harness request failed: ")
        assert "SIGKILL" in error and "Restart it" in error
        after = await platform.session(session)
        assert (after["status"], "SIGKILL" in after["failure_reason"]) == ("dead", True)
        assert said(await messages(platform, session)) == [("user", "hold")]

    async def test_a_harness_that_does_not_answer_is_dead(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exchange, "VERDICT_SECONDS", 0.2)
        async with harness.unhealthy():
            response = await say(platform, session, "vanish")
        assert response.status_code == 502
        after = await platform.session(session)
        assert after["status"] == "dead"
        assert after["failure_reason"].startswith("sandbox unreachable: ")

    async def test_a_link_that_breaks_loses_nothing(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        task = asyncio.create_task(say(platform, session, "hold"))
        await until(lambda: harness.held, "it is being answered")
        harness.vanish()
        response = await task
        assert response.status_code == 502
        assert "will be in the session's messages" in response.json()["error"]
        refused = await say(platform, session, "next", if_busy="refuse")
        assert refused.status_code == 409
        harness.released.set()
        after = await platform.until(session, lambda now: now["response"], "the answer is stored")
        assert after["response"]["parts"][0]["text"] == "echo: hold"
        assert (await say(platform, session, "next")).status_code == 200

    async def test_a_refusal_ends_nothing(self, platform: Platform, session: dict[str, Any]) -> None:
        response = await say(platform, session, "refuse")
        assert response.status_code == 502
        assert response.json()["error"] == "harness request failed: the harness answered 500: the model said no"
        assert (await platform.session(session))["status"] == "ready"
        assert (await say(platform, session, "again")).status_code == 200

    async def test_what_the_harness_cannot_read_is_the_caller_s_fault(
        self, platform: Platform, session: dict[str, Any]
    ) -> None:
        response = await say(platform, session, "odd")
        assert (response.status_code, response.json()["code"]) == (400, "INVALID")
        assert "it is odd" in response.json()["error"]

    async def test_one_that_never_arrived_is_not_taken_for_answered(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exchange, "ARRIVAL_SECONDS", 0.2)
        assert (await say(platform, session, "first")).status_code == 200
        response = await say(platform, session, "swallow")
        assert response.status_code == 502
        assert (await say(platform, session, "next")).json() == harness.said[-1]
        async with platform.app.state.services.database.read() as tx:
            from backend.store import messages as store

            states = {rules.text_of(row["parts"]): row["state"] for row in await store.of(tx, session["id"])}
        assert states["swallow"] == store.FAILED
        assert (states["first"], states["next"]) == (store.DONE, store.DONE)

    @pytest.mark.parametrize("text", ["lost", "garbage", "empty"])
    async def test_signs_of_a_dead_harness(self, platform: Platform, session: dict[str, Any], text: str) -> None:
        response = await say(platform, session, text)
        assert response.status_code == 502
        after = await platform.session(session)
        assert after["status"] == "dead"
        assert after["failure_reason"].startswith("sandbox unreachable: ")

    async def test_one_that_takes_too_long(self, settings: Settings) -> None:
        harness = TalkingHarness()
        async with stand_in(settings.model_copy(update={"message_timeout_seconds": 0.3}), harness) as platform:
            session = await platform.ready(await talker(platform))
            response = await say(platform, session, "hold")
            assert response.status_code == 504
            assert "LAP_MESSAGE_TIMEOUT_SECONDS" in response.json()["error"]
            assert harness.aborted == 1
            await harness.aclose()

    async def test_a_deleted_session(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        task = asyncio.create_task(say(platform, session, "hold"))
        await until(lambda: harness.held, "it is being answered")
        await platform.http.delete(f"{SESSIONS}/{session['id']}")
        async with harness.unhealthy():
            harness.vanish()
            response = await task
        assert response.status_code == 502
        assert "dead (deleted)" in response.json()["error"]

    async def test_a_deleted_agent(self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]) -> None:
        task = asyncio.create_task(say(platform, session, "hold"))
        await until(lambda: harness.held, "it is being answered")
        assert (await platform.http.delete(f"{AGENTS}/{session['agent_id']}")).status_code == 204
        harness.released.set()
        assert (await task).status_code == 200  # it was said and answered, only nothing is kept of it


class TestLongTurn:
    async def test_it_counts_as_use_and_what_came_so_far_is_kept(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(turns, "BEAT_SECONDS", 0.05)
        task = asyncio.create_task(say(platform, session, "hold"))
        await until(lambda: harness.held, "it is being answered")
        begun = (await platform.session(session))["last_seen_at"]
        await platform.until(session, lambda now: now["last_seen_at"] > begun, "the turn counts as use")
        harness.listing = False  # only what is kept is shown now

        async def kept() -> bool:
            return len(await messages(platform, session)) == 2

        await until(kept, "the unfinished answer is kept")
        harness.listing = True
        harness.released.set()
        await task
        assert said(await messages(platform, session)) == [("user", "hold"), ("assistant", "echo: hold")]


class TestHistory:
    async def test_it_outlives_the_sandbox(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        await say(platform, session, "one")
        await platform.http.post(f"{SESSIONS}/{session['id']}/stop")
        found = await messages(platform, session)
        assert said(found) == [("user", "one"), ("assistant", "echo: one")]
        assert found[1]["parts"][0]["state"]["output"] == "a b"

    async def test_what_was_said_behind_the_platform_s_back_is_kept_too(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(turns, "SYNC_SECONDS", 0.01)
        await harness.turn({"parts": [{"type": "text", "text": "directly"}]})
        await say(platform, session, "one")
        harness.listing = False

        async def kept() -> bool:
            return len(await messages(platform, session)) == 4

        await until(kept, "all is kept")
        found = await messages(platform, session)
        assert [text for _, text in said(found)] == ["directly", "echo: directly", "one", "echo: one"]
        assert [message["info"]["id"] for message in found] == ["user_1", "msg_1", "user_2", "msg_2"]

    async def test_what_an_agent_s_server_took_with_it_is_still_told(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        assert (await say(platform, session, "refuse")).status_code == 502  # the harness keeps nothing of it
        assert (await say(platform, session, "next")).status_code == 200
        assert said(await messages(platform, session)) == [
            ("user", "refuse"),
            ("user", "next"),
            ("assistant", "echo: next"),
        ]

    async def test_nothing_kept_and_nobody_to_ask(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        harness.listing = False
        response = await platform.http.get(f"{SESSIONS}/{session['id']}/messages")
        assert response.status_code == 502
        assert response.json()["error"].startswith("harness request failed: ")

    async def test_log(self, platform: Platform, session: dict[str, Any]) -> None:
        await say(platform, session, "one")
        log = (await platform.http.get(f"{SESSIONS}/{session['id']}/log")).json()
        assert [entry["kind"] for entry in log] == ["created", "user", "tool", "response"]
        assert (log[2]["title"], log[2]["status"], log[2]["detail"]) == ("Bash", "completed", "a b")
        assert log[3]["meta"].endswith("s · 186 tok")
        await platform.http.post(f"{SESSIONS}/{session['id']}/stop")
        ended = (await platform.http.get(f"{SESSIONS}/{session['id']}/log")).json()
        assert (ended[-1]["kind"], ended[-1]["status"], ended[-1]["detail"]) == ("ended", "dead", "stopped")
        assert len({entry["id"] for entry in ended}) == 5


class TestAbort:
    async def test_it_interrupts(self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]) -> None:
        task = asyncio.create_task(say(platform, session, "hold"))
        await until(lambda: harness.held, "it is being answered")
        response = await platform.http.post(f"{SESSIONS}/{session['id']}/abort")
        assert (response.status_code, response.json()) == (200, {"ok": True})
        assert (await task).status_code == 200
        assert harness.aborted == 1

    async def test_a_turn_that_has_yet_to_reach_the_agent(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        harness.deaf = 2
        task = asyncio.create_task(say(platform, session, "hold"))
        await until(lambda: harness.held, "it is being answered")
        assert (await platform.http.post(f"{SESSIONS}/{session['id']}/abort")).status_code == 200
        assert (await task).status_code == 200
        assert harness.aborted == 3


class TestFirstMessage:
    async def test_initial_prompt(self, platform: Platform, harness: TalkingHarness) -> None:
        attachments = [{"mime_type": "image/png", "base64": PNG}]
        created = await platform.create(await talker(platform), initial_prompt="hold", initial_attachments=attachments)
        assert created["warnings"] == []
        ready = await platform.until(created, lambda now: now["status"] == "ready", "it delays nothing")
        assert ready["response"] is None
        await until(lambda: harness.held, "it is being answered")
        second = asyncio.create_task(say(platform, created, "second"))
        harness.released.set()
        assert (await second).status_code == 200
        assert harness.texts(0) == [f"<lap_session_id>{created['id']}</lap_session_id>", "hold"]
        assert [part["type"] for part in harness.got[0]["parts"]] == ["text", "text", "image"]
        assert harness.texts(1) == ["second"]
        after = await platform.session(created)
        assert (after["title_preview"], after["response"]["parts"][0]["text"]) == ("hold", "echo: second")
        assert len(await messages(platform, created)) == 4

    @pytest.mark.parametrize(("text", "why"), [("refuse", "the model said no"), ("fail", "no credit left")])
    async def test_one_that_fails_is_a_warning(self, platform: Platform, text: str, why: str) -> None:
        created = await platform.create(await talker(platform), initial_prompt=text)
        after = await platform.until(created, lambda now: now["warnings"], "it is told")
        assert (after["status"], after["failure_reason"]) == ("ready", None)
        assert after["warnings"][0].startswith("initial_prompt failed: ")
        assert why in after["warnings"][0]

    async def test_while_creating_it_is_in_the_history(self, platform: Platform, harness: TalkingHarness) -> None:
        harness.tell(setup="running")
        created = await platform.create(await talker(platform), initial_prompt="later")
        assert said(await messages(platform, created)) == [("user", "later")]
        harness.tell(setup="done")
        await platform.until(created, lambda now: now["response"], "it is answered")
        assert said(await messages(platform, created)) == [("user", "later"), ("assistant", "echo: later")]

    async def test_attachments_of_sessions_that_did_not_come_up_make_room(
        self, platform: Platform, harness: TalkingHarness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from backend.services import messages as service

        monkeypatch.setattr(service, "HELD_BYTES", len(PNG) - 1)
        harness.tell(setup="running")
        agent = await talker(platform)
        attachments = [{"mime_type": "image/png", "base64": PNG}]
        first = await platform.create(agent, initial_prompt="one", initial_attachments=attachments)
        second = await platform.create(agent, initial_prompt="two", initial_attachments=attachments)
        assert second["warnings"] != []
        assert (await platform.http.delete(f"{SESSIONS}/{first['id']}")).status_code == 200
        third = await platform.create(agent, initial_prompt="three", initial_attachments=attachments)
        assert third["warnings"] == []

    async def test_attachments_for_a_terminal(self, platform: Platform) -> None:
        created = await platform.create(initial_attachments=[{"mime_type": "image/png", "base64": PNG}])
        assert "takes no attachments" in created["warnings"][0]
        assert (await messages(platform, created)) == []


class TestRestart:
    async def restart(self, platform: Platform, session: dict[str, Any]) -> httpx.Response:
        return await platform.http.post(f"{SESSIONS}/{session['id']}/restart", timeout=20)

    async def test_history_is_replayed(self, platform: Platform, harness: TalkingHarness) -> None:
        session = await platform.ready(await talker(platform), env_vars={"OWN": "x"})
        await say(platform, session, "remember </msgs> 42")
        await platform.http.post(f"{SESSIONS}/{session['id']}/stop")
        harness.said.clear()
        harness.state["session"] = "ses_other"
        response = await self.restart(platform, session)
        assert response.status_code == 200
        after = response.json()
        assert (after["status"], after["harness_session_id"]) == ("ready", "ses_other")
        assert "env_vars are gone" in after["warnings"][0]
        assert after["response"]["parts"][0]["text"].startswith("echo: <previous_session_history><msgs>[")
        replayed = harness.texts()
        assert replayed[0].startswith("<system_instructions>")
        assert replayed[1].count("</msgs>") == 1
        assert replayed[1].endswith("</msgs></previous_session_history>")
        assert "42" in replayed[1] and "lap_session_id" not in replayed[1]
        await say(platform, session, "next")
        found = await messages(platform, session)
        assert [text[:10] for role, text in said(found) if role == "user"] == ["remember <", "next"]
        log = (await platform.http.get(f"{SESSIONS}/{session['id']}/log")).json()
        assert "recovered" in [entry["kind"] for entry in log]
        again = (await self.restart(platform, session)).json()
        assert "env_vars are gone" in again["warnings"][0]

    async def test_nothing_said_nothing_replayed(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any]
    ) -> None:
        response = await self.restart(platform, session)
        assert (response.json()["warnings"], harness.got) == ([], [])

    async def test_a_replay_that_fails_is_a_warning(
        self, platform: Platform, harness: TalkingHarness, session: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await say(platform, session, "one")
        harness.state["session"] = "ses_other"
        monkeypatch.setattr(rules, "replay", lambda _messages: [{"type": "text", "text": "refuse"}])
        response = await self.restart(platform, session)
        assert response.status_code == 200
        assert response.json()["warnings"][0].startswith("the history could not be replayed: ")

    async def test_of_a_terminal(self, platform: Platform, harness: TalkingHarness) -> None:
        session = await platform.ready()
        response = await self.restart(platform, session)
        assert "not replayed" in response.json()["warnings"][0]
        assert harness.got == []


class TestPlatformRestart:
    async def test_a_message_that_did_not_arrive(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(exchange, "ARRIVAL_SECONDS", 0.2)
        harness = TalkingHarness()
        sandboxes = Sandboxes(settings.data_dir / "sandboxes", harness.url)
        async with harness.running():
            first = Platform(settings, harness, sandboxes)
            async with first.http, first.server.running():
                session = await first.ready(await talker(first))
                task = asyncio.create_task(say(first, session, "hold"))
                await until(lambda: harness.held, "it is being answered")
                first.app.state.services.messages.close()
                await task
            harness.said.clear()  # as if it had been killed before
            second = Platform(settings, harness, sandboxes)
            async with second.http, second.server.running():
                after = await second.until(session, lambda now: now["warnings"], "it is told")
                assert "an answer was lost" in after["warnings"][0]
                assert "send it again" in after["warnings"][0]
                harness.released.set()
                assert (await say(second, session, "next")).status_code == 200
            await harness.aclose()

    async def test_an_answer_is_found_afterwards(self, settings: Settings) -> None:
        harness = TalkingHarness()
        sandboxes = Sandboxes(settings.data_dir / "sandboxes", harness.url)
        async with harness.running():
            first = Platform(settings, harness, sandboxes)
            async with first.http, first.server.running():
                session = await first.ready(await talker(first))
                task = asyncio.create_task(say(first, session, "hold"))
                await until(lambda: harness.held, "it is being answered")
                first.app.state.services.messages.close()
                response = await task
                assert response.status_code == 503
                assert "the platform is ending" in response.json()["error"]
            second = Platform(settings, harness, sandboxes)
            async with second.http, second.server.running():
                assert (await second.session(session))["response"] is None
                assert (await say(second, session, "x", if_busy="refuse")).status_code == 409
                harness.released.set()
                after = await second.until(session, lambda now: now["response"], "the answer is found")
                assert after["response"]["parts"][0]["text"] == "echo: hold"
                assert (await say(second, session, "next")).status_code == 200
                assert len(await messages(second, session)) == 4
            await harness.aclose()

    async def test_a_first_message_not_yet_said(self, settings: Settings) -> None:
        harness = TalkingHarness()
        sandboxes = Sandboxes(settings.data_dir / "sandboxes", harness.url)
        harness.tell(setup="running")
        async with harness.running():
            first = Platform(settings, harness, sandboxes)
            async with first.http, first.server.running():
                attachments = [{"mime_type": "image/png", "base64": PNG}]
                session = await first.create(
                    await talker(first), initial_prompt="later", initial_attachments=attachments
                )
                await first.until(session, lambda now: now["sandbox_url"] or now["phase"], "it is coming up")
            harness.tell(setup="done")
            second = Platform(settings, harness, sandboxes)
            async with second.http, second.server.running():
                after = await second.until(session, lambda now: now["response"], "it is answered")
                assert after["response"]["parts"][0]["text"] == "echo: later"
                assert "initial_attachments were lost" in after["warnings"][0]
            await harness.aclose()

"""API harnesses with their real programs, against the loopback model, or the one that LAP_TEST_MODEL_BASE names."""

import asyncio
import base64
import contextlib
import importlib.util
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.harness.conftest import TOKEN, WAIT, RunningHarness, descendants
from tests.loopback_model import ERROR, MODEL, LoopbackModel
from tests.waiting import until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("api-harnesses")]

REAL = os.environ.get("LAP_TEST_MODEL_BASE")
only_loopback = pytest.mark.skipif(REAL is not None, reason="a real model does not do as it is told here")
PROMPT = "PROMPT-MARK"
SKILL = {"slug": "my-skill", "content": '---\nname: my-skill\ndescription: "SKILL-MARK"\n---\nBe skilled.\n'}
ABORTED = ("AbortError", "MessageAbortedError")
TURN = 4 * WAIT
"""Longest wait for an answer."""


class Agent:
    """A harness that is ready, its session, and the model it asks."""

    def __init__(self, harness: RunningHarness, harness_id: str, model: LoopbackModel, session: str) -> None:
        self.harness, self.id, self.model, self.session = harness, harness_id, model, session

    def body(self, *texts: str, image: bytes | None = None) -> dict[str, Any]:
        parts: list[dict[str, Any]] = [{"type": "text", "text": text} for text in texts]
        if image is not None:
            data = base64.b64encode(image).decode()
            parts.append({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}})
        return {"model": {"providerID": "litellm", "modelID": model_name()}, "parts": parts}

    async def call(self, method: str, call: str = "", **options: Any) -> httpx.Response:
        """A call of the session's."""
        path = f"/session/{self.session}/{call}".rstrip("/")
        return await self.harness.http.request(method, path, timeout=TURN, **options)

    async def say(self, *texts: str, image: bytes | None = None) -> dict[str, Any]:
        """A whole turn; the assistant's message."""
        response = await self.call("POST", "message", json=self.body(*texts, image=image))
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def history(self) -> list[dict[str, Any]]:
        return list((await self.call("GET", "message")).json())

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["Events"]:
        """The bus, from its first frame on."""
        async with self.harness.http.stream("GET", "/event", timeout=TURN) as response:
            assert response.headers["content-type"] == "text/event-stream"
            events = Events(response)
            await events.until("server.connected")
            yield events


class Events:
    """What the bus has told."""

    def __init__(self, response: httpx.Response) -> None:
        self.seen: list[dict[str, Any]] = []
        self._lines = response.aiter_lines()

    async def until(self, kind: str, **properties: Any) -> dict[str, Any]:
        """Listens until an event of this type, with these properties, comes."""
        async with asyncio.timeout(TURN):
            async for line in self._lines:
                if line.startswith("data: "):
                    event: dict[str, Any] = json.loads(line.removeprefix("data: "))
                    self.seen.append(event)
                    if event["type"] == kind and event["properties"].items() >= properties.items():
                        return event
        raise AssertionError(f"the bus ended before {kind}")

    def first(self, kind: str, role: str | None = None) -> int:
        """The place of the first event of a type, about a message of this role."""
        return next(
            place
            for place, event in enumerate(self.seen)
            if event["type"] == kind and role in (None, event["properties"].get("info", {}).get("role"))
        )


def model_name() -> str:
    return os.environ.get("LAP_TEST_MODEL", f"org/{MODEL}")


def text_of(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


@contextlib.asynccontextmanager
async def started(root: Path, harness_id: str) -> AsyncIterator[Agent]:
    if harness_id == "claude-agent-sdk":
        if importlib.util.find_spec("claude_agent_sdk") is None:
            pytest.skip("claude-agent-sdk is not installed")
    elif shutil.which(harness_id) is None:
        pytest.skip(f"{harness_id} is not on PATH")
    harness = RunningHarness(root)
    async with LoopbackModel() as model:
        await harness.start()
        try:
            llm = {"base": REAL or model.url, "key": os.environ.get("LAP_TEST_MODEL_KEY", "sk-of-the-gateway")}
            state = await harness.ready(
                harness_id=harness_id,
                command=None,
                llm=llm,
                model=model_name(),
                title="A title",
                prompt=PROMPT,
                skills=[SKILL],
            )
            assert state["setup"] == "done", state
            yield Agent(harness, harness_id, model, state["session"])
        finally:
            await harness.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["claude-agent-sdk", "opencode"])
async def agent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Agent]:
    async with started(tmp_path_factory.mktemp(request.param) / "sandbox", request.param) as agent:
        yield agent


async def test_a_turn_is_answered_and_kept(agent: Agent) -> None:
    answer = await agent.say("Say banana")
    assert "banana" in text_of(answer)
    info = answer["info"]
    assert (info["role"], info["sessionID"], info.get("error")) == ("assistant", agent.session, None)
    assert info["tokens"]["output"] > 0
    assert info["time"]["completed"] >= info["time"]["created"]
    user, assistant = (await agent.history())[-2:]
    assert (user["info"]["role"], text_of(user)) == ("user", "Say banana")
    assert assistant["info"]["id"] == info["id"]
    state = (await agent.harness.state())["activity"]
    assert (state["state"], state["reason"]) == ("idle", "turn_finished")


async def test_the_agent_is_told_the_prompt_the_skills_and_what_was_said_before(agent: Agent) -> None:
    await agent.say("remember the pelican")
    await agent.say("and what was it?")
    if REAL is None:
        asked = agent.model.requests[-1]
        sent = json.dumps(asked["body"])
        assert PROMPT in sent
        assert sent.count("SKILL-MARK") == 1
        assert "remember the pelican" in sent
        assert asked["headers"]["authorization"] == "Bearer sk-of-the-gateway"
        assert asked["body"]["model"] == model_name()


@only_loopback
async def test_a_skill_is_called_by_its_name_also_after_what_the_platform_tells(agent: Agent) -> None:
    await agent.say("<lap_session_id>x</lap_session_id>", "/my-skill" if agent.id == "claude-agent-sdk" else "skill?")
    sent = json.dumps(agent.model.requests[-1]["body"]["messages"])
    assert "lap_session_id" in sent
    if agent.id == "claude-agent-sdk":  # opencode has another call for commands.
        assert "Be skilled." in sent


async def test_a_tool_is_called_in_the_agents_home(agent: Agent) -> None:
    async with agent.listening() as events:
        answer = await agent.say("Use the shell, and tell the first line of what it says.\ntool: echo kiwi > made; pwd")
        await events.until("session.idle")
    assert agent.harness.home.name in text_of(answer)
    assert (agent.harness.home / "made").read_text() == "kiwi\n"
    tools = [part for message in await agent.history() for part in message["parts"] if part["type"] == "tool"]
    assert tools[-1]["tool"].lower() == "bash"
    assert tools[-1]["state"]["status"] == "completed"
    assert str(agent.harness.home) in tools[-1]["state"]["output"]
    told = [event["properties"]["part"] for event in events.seen if event["type"] == "message.part.updated"]
    states = [part["state"]["status"] for part in told if part["type"] == "tool"]
    assert states[-1] == "completed"
    assert "running" in states


async def test_a_turn_that_nobody_waits_for_is_told_piece_by_piece(agent: Agent) -> None:
    async with agent.listening() as events:
        response = await agent.call("POST", "prompt_async", json=agent.body("Count from 1 to 200, a line each.\nlong"))
        assert (response.status_code, response.content) == (204, b"")
        await events.until("session.idle")
    assert [event["type"] for event in events.seen].count("session.idle") == 1
    about = [event for event in events.seen if not event["type"].startswith(("server.", "plugin.", "catalog."))]
    about = [event for event in about if not event["type"].startswith(("reference.", "integration."))]
    assert {event["properties"].get("sessionID") for event in about} == {agent.session}
    order = [
        events.first("message.updated", "user"),
        events.first("message.part.updated"),
        events.first("session.status"),
        events.first("message.updated", "assistant"),
        events.first("message.part.delta"),
        events.first("session.idle"),
    ]
    assert order == sorted(order)
    assert events.seen[0]["type"] == "server.connected"
    deltas = [event["properties"] for event in events.seen if event["type"] == "message.part.delta"]
    deltas = [delta for delta in deltas if delta["field"] == "text"]
    last = deltas[-1]["partID"]
    told = "".join(delta["delta"] for delta in deltas if delta["partID"] == last)
    assert told.strip() == text_of((await agent.history())[-1]).strip()


async def test_a_turn_is_aborted_and_the_next_one_works(agent: Agent) -> None:
    async with agent.listening() as events:
        turn = asyncio.create_task(agent.say("Count to 2000, a number a line.\nslow"))
        await events.until("message.part.delta")
        assert (await agent.harness.state())["activity"]["state"] == "working"
        assert (await agent.call("POST", "abort", json={})).status_code == 200
        answer = await turn
        await events.until("session.idle")
    assert answer["info"]["error"]["name"] in ABORTED
    state = (await agent.harness.state())["activity"]
    assert (state["state"], state["reason"]) == ("idle", "interrupted")
    assert text_of(answer)
    assert "guava" in text_of(await agent.say("Say guava"))


async def test_an_abort_with_nothing_to_abort_is_fine(agent: Agent) -> None:
    assert (await agent.call("POST", "abort", json={})).status_code == 200


@only_loopback
async def test_an_error_of_the_model_is_part_of_the_answer(agent: Agent) -> None:
    async with agent.listening() as events:
        answer = await agent.say("error")
        told = await events.until("session.error")
        await events.until("session.idle")
    assert ERROR in answer["info"]["error"]["data"]["message"]
    assert ERROR in told["properties"]["message"]
    state = (await agent.harness.state())["activity"]
    assert (state["state"], state["reason"]) == ("idle", "error")


async def test_two_turns_at_once_come_one_after_the_other(agent: Agent) -> None:
    before = len(await agent.history())
    answers = await asyncio.gather(agent.say("Say mango"), agent.say("Say papaya"))
    assert all(answer["info"].get("error") is None for answer in answers)
    history = (await agent.history())[before:]
    assert [message["info"]["role"] for message in history].count("user") == 2
    if agent.id == "claude-agent-sdk":  # opencode may answer both at once.
        assert [message["info"]["role"] for message in history] == ["user", "assistant"] * 2
        assert ["mango" in text_of(answers[0]), "papaya" in text_of(answers[1])] == [True, True]
        times = [message["info"]["time"] for message in history if message["info"]["role"] == "assistant"]
        assert times[0]["completed"] <= times[1]["created"]


@only_loopback
async def test_an_image_reaches_the_model(agent: Agent) -> None:
    image = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
    assert "look" in text_of(await agent.say("look at this", image=image))
    assert base64.b64encode(image).decode()[:40] in json.dumps(agent.model.requests[-1]["body"])


@pytest.mark.parametrize("body", [b"", b"no json", b"[]", b'{"parts": "x"}'])
async def test_a_body_that_is_no_message_is_refused(agent: Agent, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = await agent.call("POST", "message", content=body, headers=headers)
    assert response.status_code == 400, response.text


async def test_a_body_that_is_too_large_is_refused_before_it_is_sent(agent: Agent) -> None:
    host, port = agent.harness.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST /session/{agent.session}/message HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Length: {80 * 1024 * 1024 + 1}\r\n\r\n".encode()
    )
    answer = await asyncio.wait_for(reader.read(), WAIT)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_what_there_is_not_is_not_found(agent: Agent) -> None:
    for session in ("nope", "ses_0123456789abcdef"):
        for method, path in (("GET", f"/session/{session}/message"), ("POST", f"/session/{session}/abort")):
            response = await agent.harness.http.request(method, path, json={} if method == "POST" else None)
            if agent.id == "opencode" and path.endswith("abort") and session != "nope":
                continue  # It has nothing to abort there, and says so with a 200.
            assert (response.status_code, response.json()) == (404, {"error": "not found"})


async def test_other_paths_are_the_servers_own(agent: Agent) -> None:
    response = await agent.harness.http.get("/config")
    if agent.id == "opencode":
        assert response.json()["share"] == "disabled"
    else:
        assert (response.status_code, response.json()) == (404, {"error": "not found"})


async def test_a_stream_of_the_servers_own_comes_through_as_it_grows(agent: Agent) -> None:
    if agent.id != "opencode":
        pytest.skip("it has no other stream")
    async with asyncio.timeout(WAIT), agent.harness.http.stream("GET", "/global/event") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        async for line in response.aiter_lines():
            if "server.connected" in line:
                break
    assert (await agent.harness.http.get("/global/health")).json()["healthy"] is True


async def test_nothing_is_answered_without_the_token(agent: Agent) -> None:
    path = f"/session/{agent.session}/message"
    for method, target in (("GET", path), ("POST", path), ("GET", "/event"), ("DELETE", path.removesuffix("/message"))):
        response = await agent.harness.http.request(method, target, headers={"Authorization": "Bearer wrong"})
        assert (response.status_code, response.json()) == (401, {"error": "unauthorized"})


async def test_the_server_itself_answers_nobody_but_the_harness(agent: Agent) -> None:
    port = agent.harness.log().rsplit(", port ", 1)[1].split(")")[0]
    async with httpx.AsyncClient(trust_env=False) as client:
        response = await client.get(f"http://127.0.0.1:{port}/session/{agent.session}/message")
    assert response.status_code == 401


async def test_a_server_that_is_killed_in_a_turn_is_seen_at_once_and_started_anew(agent: Agent) -> None:
    async with agent.listening() as events:
        turn = asyncio.create_task(
            agent.call("POST", "message", json=agent.body("Count to 2000, a number a line.\nslow"))
        )
        await events.until("message.part.delta")
        os.kill((await agent.harness.state())["agent"]["pid"], signal.SIGKILL)
        response = await turn
        assert response.status_code == 502
        assert "signal 9 (SIGKILL)" in response.json()["error"]
        error = await events.until("session.error", sessionID=agent.session)
        assert "signal 9" in error["properties"]["message"]
        await events.until("session.idle", sessionID=agent.session)
        state = await agent.harness.until(lambda state: not state["agent"]["running"])
        assert state["agent"]["signal"] == signal.SIGKILL
        assert (state["activity"]["state"], state["activity"]["reason"]) == ("idle", "crashed")
        assert (await agent.call("POST", "abort", json={})).json() == {"ok": True}
        assert "lychee" in text_of(await agent.say("Say lychee"))
        await events.until("session.idle", sessionID=agent.session)
    state = await agent.harness.state()
    assert state["agent"]["running"]
    assert state["session"] == agent.session
    assert "starting it anew" in agent.harness.log()


async def test_who_leaves_while_the_server_is_started_anew_does_not_stop_that(agent: Agent) -> None:
    os.kill((await agent.harness.state())["agent"]["pid"], signal.SIGKILL)
    await agent.harness.until(lambda state: not state["agent"]["running"])
    with pytest.raises(httpx.ReadTimeout):
        await agent.harness.http.get(f"/session/{agent.session}/message", timeout=0.05)
    async with agent.listening() as events:
        assert "lychee" in text_of(await agent.say("Say lychee"))
        await events.until("session.idle", sessionID=agent.session)
    state = await agent.harness.state()
    assert (state["activity"]["state"], state["session"]) == ("idle", agent.session)


async def test_a_deleted_session_is_gone_and_sigterm_leaves_no_process(tmp_path: Path, agent: Agent) -> None:
    async with started(tmp_path / "sandbox", agent.id) as other:
        assert (await other.call("DELETE")).status_code == 200
        assert (await other.call("GET", "message")).status_code == 404
        left = descendants(other.harness.process.pid)
        assert left
    assert not [pid for pid in left if Path(f"/proc/{pid}/stat").exists()]


async def test_there_is_nothing_to_ask_before_the_set_up_is_done(tmp_path: Path) -> None:
    harness = RunningHarness(tmp_path / "sandbox")
    await harness.start()
    session = await harness.session(harness_id="claude-agent-sdk", command="sleep 99")
    for method, path in (("POST", f"/session/{session}/message"), ("GET", "/event"), ("GET", "/config")):
        response = await harness.http.request(method, path)
        assert (response.status_code, response.json()) == (503, {"error": "not ready"})
    assert await harness.stop() == 0


async def test_claude_code_that_is_killed_goes_on_with_its_conversation(agent: Agent) -> None:
    if agent.id != "claude-agent-sdk":
        pytest.skip("opencode has no such process")
    await agent.say("remember the ostrich")
    server = (await agent.harness.state())["agent"]["pid"]
    for pid in descendants(server):
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not descendants(server), "the end of Claude Code")
    await agent.say("what was it?")
    if REAL is None:
        assert "remember the ostrich" in json.dumps(agent.model.requests[-1]["body"])

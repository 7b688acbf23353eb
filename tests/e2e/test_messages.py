"""Messages to a real agent in a real sandbox, which asks a model of ours: the whole way, and what breaks on it."""

import asyncio
import importlib.util
import os
import signal
from pathlib import Path

import pytest

from tests.e2e.programs import API, Platform, processes_of
from tests.loopback_model import LoopbackModel
from tests.waiting import until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(importlib.util.find_spec("claude_agent_sdk") is None, reason="claude-agent-sdk is missing"),
]


async def test_a_conversation(tmp_path: Path) -> None:
    """First message, tool call, the platform killed during a turn, the sandbox killed during one, and a restart."""
    async with LoopbackModel() as model:
        platform = Platform(tmp_path / "data", {"LITELLM_API_BASE": model.url, "LITELLM_API_KEY": "sk-test"})
        await platform.start()
        try:
            agent = await platform.create_agent(harness_id="claude-agent-sdk", model="claude-test")
            session = await platform.ready(agent, initial_prompt="hello")
            path = f"{API}/sessions/{session['id']}"

            async def answered(text: str) -> bool:
                response = (await platform.session(session["id"]))["response"]
                return bool(response) and text in response["parts"][-1]["text"]

            async def begun(text: str) -> bool:
                said = (await platform.http.get(f"{path}/messages")).json()
                return len(said) > 1 and said[-2]["parts"][-1].get("text") == text

            await until(lambda: answered("echo: hello"), "the first message is answered", 60)

            reply = await platform.http.post(f"{path}/message", json={"text": "tool: echo from the sandbox"})
            assert reply.status_code == 200, reply.text
            assert reply.json()["parts"][-1]["text"] == "tool said: from the sandbox"

            # The platform is killed during a turn: the answer is found when it is back.
            asking = asyncio.create_task(platform.http.post(f"{path}/message", json={"text": "wait"}))
            await until(lambda: begun("wait"), "the agent is at work")
            await platform.end(signal.SIGKILL)
            await asyncio.gather(asking, return_exceptions=True)
            await platform.start()
            model.release()
            before = (await platform.session(session["id"]))["response"]
            last = await platform.http.post(f"{path}/message", json={"text": "again"})  # it waits its turn
            assert last.json()["parts"][-1]["text"] == "echo: again"
            said = (await platform.http.get(f"{path}/messages")).json()
            assert [message["info"]["role"] for message in said] == ["user", "assistant"] * 4, before

            # The sandbox is killed during a turn.
            asking = asyncio.create_task(platform.http.post(f"{path}/message", json={"text": "slow"}))
            await until(lambda: begun("slow"), "the agent is at work")
            for pid in processes_of(platform.sandbox(session)):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            refused = await asking
            assert refused.status_code == 502
            assert "Restart it" in refused.json()["error"]
            assert (await platform.session(session["id"]))["status"] == "dead"

            restarted = await platform.http.post(f"{path}/restart", timeout=90)
            assert restarted.status_code == 200, restarted.text
            assert "<previous_session_history>" in str(model.requests[-1]["body"])
            said = (await platform.http.get(f"{path}/messages")).json()
            assert said[0]["parts"][0]["text"] == "hello"
        finally:
            await platform.close()

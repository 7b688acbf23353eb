"""What a session is told at its start: memories, the agent's prompt, skills; and what counts as use of a memory."""

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from backend.sandboxes.contract import Sandbox, SandboxError, SandboxSpec
from backend.settings import Settings
from tests.api.conftest import AGENTS, SESSIONS
from tests.api.stand_in import Platform, stand_in


@pytest.fixture
async def platform(settings: Settings) -> AsyncIterator[Platform]:
    async with stand_in(settings) as platform:
        yield platform


async def remember(platform: Platform, agent: dict[str, Any], text: str, **fields: Any) -> dict[str, Any]:
    response = await platform.http.post(f"{AGENTS}/{agent['id']}/memory", json={"text": text, **fields})
    assert response.status_code == 200, response.text
    memory: dict[str, Any] = response.json()
    return memory


async def memories(platform: Platform, agent: dict[str, Any]) -> list[dict[str, Any]]:
    params = {"include_disabled": "true", "limit": "200"}
    rows: list[dict[str, Any]] = (await platform.http.get(f"{AGENTS}/{agent['id']}/memory", params=params)).json()
    return rows


@pytest.mark.parametrize("harness_id", ["opencode", "claude-agent-sdk", "claude-code", "codex"])
async def test_every_harness_is_told(platform: Platform, harness_id: str) -> None:
    agent = await platform.agent(harness_id=harness_id, prompt="Be kind.", preload_memory_limit=2)
    for number in range(22):
        await remember(platform, agent, f"pinned {number}", pinned=True)
    for number in range(4):
        await remember(platform, agent, f"ranked {number}", priority=number, tags=["t"])
    off = await remember(platform, agent, "disabled", priority=9)
    await platform.http.patch(f"{AGENTS}/{agent['id']}/memory/{off['id']}", json={"disabled": True})

    await platform.ready(agent)
    [body] = platform.harness.bodies
    prompt = body["prompt"]
    assert prompt == body["env"]["AGENT_PROMPT"]
    assert prompt.startswith("=== AGENT MEMORY ===\n")
    assert prompt.endswith("\n=== END AGENT MEMORY ===\n\nBe kind.")
    assert prompt.count("- [convention] pinned") == 20
    assert re.findall(r"- \[convention, t\] (.*)", prompt) == ["ranked 3", "ranked 2"]
    assert "disabled" not in prompt

    rows = await memories(platform, agent)
    used = [row for row in rows if row["times_applied"]]
    assert {row["text"] for row in used} == {row["text"] for row in rows if f"] {row['text']}\n" in prompt}
    assert len(used) == 22
    assert all(row["times_applied"] == 1 and row["last_applied_at"] for row in used)


async def test_each_start_is_one_use(platform: Platform) -> None:
    agent = await platform.agent()
    await remember(platform, agent, "Use tabs.")
    session = await platform.ready(agent)
    assert (await platform.http.post(f"{SESSIONS}/{session['id']}/restart")).status_code == 200
    assert [body["prompt"].count("Use tabs.") for body in platform.harness.bodies] == [1, 1]
    assert [row["times_applied"] for row in await memories(platform, agent)] == [2]


async def test_a_session_that_does_not_come_up_uses_nothing(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def create(spec: SandboxSpec) -> Sandbox:
        raise SandboxError("no room")

    monkeypatch.setattr(platform.sandboxes, "create", create)
    agent = await platform.agent()
    await remember(platform, agent, "Use tabs.")
    session = await platform.create(agent)
    await platform.until(session, lambda now: now["status"] == "failed", "the session fails")
    assert [row["times_applied"] for row in await memories(platform, agent)] == [0]


async def test_without_memories_the_prompt_is_the_agents(platform: Platform) -> None:
    await remember(platform, await platform.agent(), "of another")
    agent = await platform.agent()
    await platform.ready(agent)
    assert platform.harness.bodies[-1]["prompt"] is None
    changes = {"preload_memory_limit": 0, "prompt": "Be kind."}
    assert (await platform.http.patch(f"{AGENTS}/{agent['id']}", json=changes)).status_code == 200
    await remember(platform, agent, "ranked")
    await platform.ready(agent)
    assert platform.harness.bodies[-1]["prompt"] == "Be kind."


async def test_skills_of_the_agent_and_of_the_session(platform: Platform) -> None:
    agent = await platform.agent()
    review, deploy = [
        (await platform.http.post("/api/v1/skills", json={"name": name, "content": f"Do {name}."})).json()["id"]
        for name in ("Review", "Deploy")
    ]
    await platform.http.post(f"{AGENTS}/{agent['id']}/skill", json={"skill_id": review})
    await platform.http.patch(f"/api/v1/skills/{review}", json={"content": "Do Review well."})
    session = await platform.ready(agent, skill_ids=[deploy, review, deploy])
    assert session["skill_ids"] == [deploy, review]
    assert (await platform.http.post(f"{SESSIONS}/{session['id']}/restart")).status_code == 200
    assert len(platform.harness.bodies) == 2
    for body in platform.harness.bodies:
        assert re.findall(r"<!-- skill:(\S+) -->\n(.*)", body["prompt"]) == [
            (review, "Do Review."),
            (deploy, "Do Deploy."),
        ]
        assert [(skill["slug"], skill["content"].splitlines()[-1]) for skill in body["skills"]] == [
            ("review", "Do Review well."),
            ("deploy", "Do Deploy."),
        ]
    assert (await platform.http.get(f"{AGENTS}/{agent['id']}")).json()["attached_skill_ids"] == [review]

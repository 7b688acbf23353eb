"""What an agent remembers and its skills, where the real harness puts them."""

import pytest

from tests.e2e.programs import API, SHELL, Platform, attached

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("platform", [{"LAP_HARNESS_COMMAND_CODEX": SHELL}], indirect=True)
async def test_memory_and_skills_reach_the_sandbox(platform: Platform) -> None:
    agent = await platform.create_agent(harness_id="codex", prompt="Be kind.")
    memory = f"{API}/agents/{agent['id']}/memory"
    await platform.http.post(memory, json={"text": "Tabs, not spaces.", "tags": ["style"], "pinned": True})
    attach = {"content": "Look closely.", "name": "Review Code", "save_to_library": True}
    await platform.http.post(f"{API}/agents/{agent['id']}/skill", json=attach)
    assert (await platform.http.get(memory)).json()[0]["times_applied"] == 0

    session = await platform.ready(agent)
    assert (await platform.http.get(memory)).json()[0]["times_applied"] == 1
    async with attached(session) as viewer:
        await viewer.type("cat ~/.codex/AGENTS.md ~/.claude/skills/review-code/SKILL.md\r")
        await viewer.shows("- [convention, style] Tabs, not spaces.")
        await viewer.shows("Be kind.")
        await viewer.shows('description: "Review Code skill"')
        await viewer.type('clear; echo "$AGENT_PROMPT" | head -1\r')
        await viewer.shows("=== AGENT MEMORY ===")

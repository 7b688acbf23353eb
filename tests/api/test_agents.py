"""Agents over HTTP (seed 003, LAP REST 2)."""

import asyncio
import base64
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from sqlalchemy import insert

from backend.services.container import Services
from backend.settings import Settings
from backend.store import agents, events, sessions
from backend.store.secrets import Cipher
from backend.store.tables import skill
from tests.api.conftest import AGENTS, SESSIONS, NoSandboxes
from tests.postgres import on_both
from tests.rows import agent_row, session_row

FILE = {"name": "a", "sandbox_path": "~/a", "content": base64.b64encode(b"hello").decode()}

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


async def create(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    """A new agent."""
    response = await client.post(AGENTS, json={"model": "anthropic/claude", **fields})
    assert response.status_code == 200, response.text
    agent: dict[str, Any] = response.json()
    return agent


async def stored_env(services: Services, agent_id: str) -> dict[str, str]:
    """The env vars a sandbox of the agent gets."""
    return services.agents.environment(await services.agents.get(agent_id))


async def test_the_least_agent(client: httpx.AsyncClient) -> None:
    agent = await create(client)
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", agent.pop("id"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", agent.pop("created_at"))
    assert agent == {
        "name": None,
        "model": "anthropic/claude",
        "prompt": None,
        "harness_id": "opencode",
        "harness_image": None,
        "supports_tui": False,
        "repo_url": None,
        "branch": "main",
        "pfp_url": None,
        "requirements": None,
        "mcp_servers": [],
        "env_vars": {},
        "attached_skill_ids": [],
        "allow_out": [],
        "deny_out": [],
        "env_var_hosts": {},
        "env_var_plain": [],
        "sandbox_files": [],
        "recording": False,
        "preload_memory_limit": 10,
    }


async def test_the_fullest_agent_reads_back_the_same(client: httpx.AsyncClient) -> None:
    fields = {
        "name": "code-reviewer ü",
        "prompt": "You review.\n",
        "harness_id": "claude-code",
        "repo_url": "https://github.com/your-org/your-repo",
        "branch": "feature/x",
        "pfp_url": "data:image/png;base64,AAAA",
        "requirements": "httpx==0.28\n",
        "mcp_servers": ["https://mcp.example.com/x"],
        "allow_out": [" *.example.com ", "10.0.0.0/8"],
        "deny_out": ["example.org"],
        "recording": True,
        "sandbox_files": [{**FILE, "content_type": "text/plain", "size": 5}],
    }
    agent = await create(client, **fields, env_vars={"TOKEN": "s3cret"}, tools=["ignored"], future="ignored")
    assert {key: agent[key] for key in fields} == {**fields, "allow_out": ["*.example.com", "10.0.0.0/8"]}
    assert agent["supports_tui"] is True
    assert agent["env_vars"] == {"TOKEN": "********"}
    assert (await client.get(f"{AGENTS}/{agent['id']}")).json() == agent


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"model": ""}, "model: "),
        ({"name": None}, "name: "),
        ({"name": "a\0b"}, "NUL"),
        ({"harness_id": "vim"}, 'unknown harness_id "vim". Valid: opencode, claude-agent-sdk, claude-code, codex'),
        ({"repo_url": ""}, "repo_url must not be empty"),
        ({"repo_url": "ext::sh -c whoami"}, "repo_url must"),
        ({"branch": "--force"}, "branch must not start with '-'"),
        ({"allow_out": ["ok.com", "https://no.com"]}, "must be a domain, *.wildcard, IP, or CIDR"),
        ({"mcp_servers": "x"}, "mcp_servers: "),
        ({"skill_ids": [1]}, "skill_ids.0: "),
        ({"env_vars": {"PORT": "1"}}, "env_vars cannot override reserved keys: REPO_URL, BRANCH"),
        ({"env_vars": {"A B": "1"}}, "invalid env var name"),
        ({"env_vars": {f"K{n}": "" for n in range(51)}}, "env_vars: max 50 keys"),
        ({"env_vars": {"A": "x" * 16_384}}, "env_vars: total size must be ≤ 16384 bytes"),
        ({"env_vars": {"A": "********"}}, "stands for a stored value"),
        ({"sandbox_files": [FILE] * 21}, "sandbox_files: max 20 files"),
        (
            {"sandbox_files": [{**FILE, "content": "A" * 10_485_764}]},
            "sandbox_files: total base64 size must be ≤ 10 MB",
        ),
        ({"sandbox_files": [{**FILE, "sandbox_path": "a"}]}, 'must start with "/" or "~/"'),
        ({"sandbox_files": [{**FILE, "sandbox_path": "~/../a"}]}, 'must not contain ".."'),
        ({"sandbox_files": [{**FILE, "content": ""}]}, "sandbox_files.0.content: "),
        ({"sandbox_files": [{**FILE, "content": "?"}]}, "content is not base64"),
        ({"sandbox_files": [{**FILE, "size": -1}]}, "sandbox_files.0.size: "),
        ({"sandbox_files": [{"name": "a"}]}, "sandbox_files.0.sandbox_path: "),
    ],
)
async def test_refused_agents(client: httpx.AsyncClient, fields: dict[str, Any], text: str) -> None:
    response = await client.post(AGENTS, json={"model": "m", **fields})
    assert response.status_code == 400
    body = response.json()
    assert text in body["error"]
    assert body["issues"][0]["path"][0] == next(iter(fields))
    assert (await client.get(AGENTS)).json()["total"] == 0


async def test_several_rules_broken_at_once(client: httpx.AsyncClient) -> None:
    response = await client.post(
        AGENTS, json={"model": "m", "harness_id": "vim", "branch": "", "env_vars": {"PORT": ""}}
    )
    assert [issue["path"] for issue in response.json()["issues"]] == [["harness_id"], ["branch"], ["env_vars"]]


async def test_secrets_are_kept_encrypted(client: httpx.AsyncClient, services: Services, tmp_path: Path) -> None:
    agent = await create(client, env_vars={"TOKEN": "s3cret-value"})
    assert await stored_env(services, agent["id"]) == {"TOKEN": "s3cret-value"}
    await client.patch(f"{AGENTS}/{agent['id']}", json={"env_vars": {"TOKEN": "s3cret-other"}})
    for path in tmp_path.iterdir():
        assert b"s3cret" not in path.read_bytes()


async def test_skills_are_appended_to_the_prompt(client: httpx.AsyncClient, services: Services) -> None:
    async with services.database.begin() as tx:
        for name in ("a", "b"):
            values = {"id": f"skill_{name}", "name": name, "content": f"Do {name}.", "created_at": "2026"}
            await tx.execute(insert(skill).values(values))
    agent = await create(client, prompt="Be kind.\n", skill_ids=["skill_b", "skill_a", "skill_b"])
    assert agent["prompt"] == (
        "Be kind.\n\n<!-- skill:skill_b -->\nDo b.\n<!-- /skill:skill_b -->"
        "\n\n<!-- skill:skill_a -->\nDo a.\n<!-- /skill:skill_a -->"
    )
    assert agent["attached_skill_ids"] == ["skill_b", "skill_a"]
    response = await client.post(AGENTS, json={"model": "m", "skill_ids": ["skill_a", "skill_x"]})
    assert (response.status_code, response.json()["error"]) == (404, "one or more skill_ids not found")
    listed = (await client.get("/api/v1/skills")).json()["data"]
    assert [each["id"] for each in listed] == ["skill_b", "skill_a"]
    assert listed[0].keys() == {"id", "name", "description", "content", "created_at"}


async def test_patch_changes_what_is_present(client: httpx.AsyncClient) -> None:
    agent = await create(client, name="old", prompt="p", allow_out=["a.com"], sandbox_files=[FILE])
    path = f"{AGENTS}/{agent['id']}"
    assert (await client.patch(path, json={})).json() == agent
    changes = {"name": "new", "model": "m2", "branch": "dev", "allow_out": [], "harness_image": "image:2"}
    changed = (await client.patch(path, json=changes)).json()
    assert changed == {**agent, **changes}
    assert (await client.get(path)).json() == changed
    assert (await client.get(AGENTS, params={"search": "NEW"})).json()["total"] == 1
    files = [{**FILE, "name": "b", "content_type": "text/plain", "size": 5}]
    assert (await client.patch(path, json={"sandbox_files": files})).json()["sandbox_files"] == files


async def test_patch_ignores_what_is_permanent(client: httpx.AsyncClient) -> None:
    agent = await create(client, harness_id="codex", repo_url="https://example.com/r", requirements="a")
    changes = {"harness_id": "opencode", "repo_url": "https://example.com/x", "requirements": "b", "skill_ids": ["x"]}
    response = await client.patch(f"{AGENTS}/{agent['id']}", json={**changes, "id": "x", "created_at": "x"})
    assert (response.status_code, response.json()) == (200, agent)


@pytest.mark.parametrize(
    "changes", [{"name": None}, {"model": ""}, {"branch": ""}, {"env_vars": {"PORT": ""}}, {"deny_out": ["no way"]}]
)
async def test_refused_patches_change_nothing(client: httpx.AsyncClient, changes: dict[str, Any]) -> None:
    agent = await create(client)
    path = f"{AGENTS}/{agent['id']}"
    assert (await client.patch(path, json={"prompt": "changed", **changes})).status_code == 400
    assert (await client.get(path)).json() == agent
    assert (await client.patch(f"{AGENTS}/nobody", json=changes)).status_code == 400
    assert (await client.patch(f"{AGENTS}/nobody", json={})).status_code == 404
    assert (await client.patch(path, content=b"")).status_code == 400


async def test_masked_values_keep_what_is_stored(client: httpx.AsyncClient, services: Services) -> None:
    agent = await create(client, env_vars={"KEEP": "1", "CHANGE": "2", "DROP": "3"})
    path = f"{AGENTS}/{agent['id']}"
    changed = await client.patch(path, json={"env_vars": {"KEEP": "********", "CHANGE": "4", "NEW": "5"}})
    assert changed.json()["env_vars"] == dict.fromkeys(("KEEP", "CHANGE", "NEW"), "********")
    assert await stored_env(services, agent["id"]) == {"KEEP": "1", "CHANGE": "4", "NEW": "5"}
    refused = await client.patch(path, json={"env_vars": {"OTHER": "********"}})
    assert refused.status_code == 400
    assert refused.json()["issues"][0]["path"] == ["env_vars", "OTHER"]


async def test_kept_values_count_for_the_size(client: httpx.AsyncClient) -> None:
    agent = await create(client, env_vars={"BIG": "x" * 16_000})
    response = await client.patch(f"{AGENTS}/{agent['id']}", json={"env_vars": {"BIG": "********", "MORE": "x" * 400}})
    assert response.status_code == 400
    assert "total size" in response.json()["error"]


async def test_a_kept_value_that_cannot_be_read_is_named(client: httpx.AsyncClient, services: Services) -> None:
    agent = await create(client)
    async with services.database.begin() as tx:
        await agents.change(tx, agent["id"], {"env_vars": {"OLD": "enc:v1:" + "A" * 64}})
    path = f"{AGENTS}/{agent['id']}"
    response = await client.patch(path, json={"env_vars": {"OLD": "********"}})
    assert response.status_code == 409
    assert "enter the secret again" in response.json()["error"]
    assert (await client.patch(path, json={"env_vars": {"OLD": "fresh"}})).status_code == 200


async def test_changes_are_events_without_secrets_and_contents(client: httpx.AsyncClient, services: Services) -> None:
    agent = await create(client, env_vars={"A": "s3cret"}, sandbox_files=[FILE])
    path = f"{AGENTS}/{agent['id']}"
    await client.patch(path, json={"name": "x"})
    await client.patch(path, json={"name": "x"})  # changes nothing, so says nothing
    await client.delete(path)
    async with services.database.read() as tx:
        log = await events.read(tx, after=0, limit=10, agent_id=agent["id"])
    assert [event.type for event in log] == ["agent.created", "agent.updated", "agent.deleted"]
    assert not any("s3cret" in event.data or FILE["content"] in event.data for event in log)


@on_both
async def test_delete_ends_the_sessions_first(
    client: httpx.AsyncClient, services: Services, settings: Settings, driver: NoSandboxes
) -> None:
    agent = await create(client)
    token = Cipher(settings.encryption_key_value).encrypt("t")
    async with services.database.begin() as tx:
        for name, status in (("s1", "creating"), ("s2", "ready"), ("s3", "dead")):
            await sessions.add(tx, session_row(name, agent["id"], status=status, tty_token=token))
    assert (await client.get(AGENTS)).json()["data"][0]["has_active_session"] is True
    response = await client.delete(f"{AGENTS}/{agent['id']}")
    assert (response.status_code, response.content) == (204, b"")
    assert sorted(driver.deleted) == ["s-s1", "s-s2"]
    async with services.database.read() as tx:
        log = await events.read(tx, after=1, limit=20)
    assert [event.type for event in log][-3:] == ["session.dead", "session.dead", "agent.deleted"]
    assert (await client.get(f"{SESSIONS}/s1")).status_code == 404
    assert (await client.delete(f"{AGENTS}/{agent['id']}")).status_code == 404


@pytest.fixture
async def crowd(client: httpx.AsyncClient, services: Services) -> list[str]:
    """Five agents, oldest first: `crowd` is their ids."""
    rows = [
        agent_row("a0", name="beta", harness_id="codex"),
        agent_row(
            "a1", name="Alpha", harness_id="opencode", sandbox_files=[{**FILE, "content_type": "x/y", "size": 5}]
        ),
        agent_row("a2", name=None, harness_id="claude-code"),
        agent_row("a3", name="ÉTÉ 100%", harness_id="codex"),
        agent_row("a4", name="beta", harness_id="claude-agent-sdk"),
    ]
    async with services.database.begin() as tx:
        for number, row in enumerate(rows):
            await agents.add(tx, {**row, "created_at": f"2026-05-0{min(number, 3) + 1}T00:00:00.000Z"})
        for number, (agent_id, status) in enumerate((("a1", "dead"), ("a1", "failed"), ("a0", "ready"))):
            await sessions.add(tx, session_row(f"s{number}", agent_id, status=status))
    return [row["id"] for row in rows]


@pytest.mark.parametrize(
    ("params", "ids"),
    [
        ({}, "a4 a3 a2 a1 a0"),  # a3 and a4 are of one moment: ordered by id
        ({"order": "asc"}, "a0 a1 a2 a3 a4"),
        ({"sort": "nonsense", "order": "sideways"}, "a4 a3 a2 a1 a0"),
        ({"sort": "name", "order": "asc"}, "a1 a0 a4 a3 a2"),
        ({"sort": "name"}, "a3 a4 a0 a1 a2"),
        ({"sort": "harness_id", "order": "asc"}, "a4 a2 a0 a3 a1"),
        ({"sort": "sessions"}, "a1 a0 a4 a3 a2"),
        ({"sort": "sessions", "order": "asc"}, "a2 a3 a4 a0 a1"),
        ({"search": "BETA"}, "a4 a0"),
        ({"search": " codex "}, "a3 a0"),
        ({"search": "été"}, "a3"),
        ({"search": "a2"}, "a2"),
        ({"search": "100%"}, "a3"),
        ({"search": "_"}, ""),
        ({"search": "%"}, "a3"),
        ({"search": "\\"}, ""),
        ({"limit": "2"}, "a4 a3"),
        ({"limit": "2", "offset": "1"}, "a3 a2"),
        ({"limit": "0"}, "a4"),
        ({"limit": "-5"}, "a4"),
        ({"limit": "2abc"}, "a4 a3"),
        ({"limit": "abc", "offset": "xyz"}, "a4 a3 a2 a1 a0"),
        ({"offset": "-1", "limit": "1"}, "a4"),
        ({"offset": "99999999999999999999999"}, ""),
    ],
)
async def test_lists(client: httpx.AsyncClient, crowd: list[str], params: dict[str, str], ids: str) -> None:
    page = (await client.get(AGENTS, params=params)).json()
    assert [agent["id"] for agent in page["data"]] == ids.split()


@settings_of_hypothesis(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(params=st.dictionaries(st.sampled_from(["limit", "offset", "sort", "order", "search"]), TEXTS))
async def test_any_parameters_give_a_page(client: httpx.AsyncClient, params: dict[str, str]) -> None:
    for path in (AGENTS, SESSIONS):
        response = await client.get(path, params=params)
        assert response.status_code == 200
    page = (await client.get(AGENTS, params=params)).json()
    assert 1 <= page["limit"] <= 200
    assert page["offset"] >= 0


async def test_a_page_says_what_it_is(client: httpx.AsyncClient, crowd: list[str]) -> None:
    page = (await client.get(AGENTS, params={"limit": 999, "offset": -3, "search": "beta"})).json()
    assert (page["total"], page["limit"], page["offset"]) == (2, 200, 0)
    page = (await client.get(AGENTS, params={"limit": 1, "offset": 4})).json()
    assert (page["total"], page["limit"], page["offset"], len(page["data"])) == (5, 1, 4, 1)


@on_both
async def test_list_rows_count_sessions_and_leave_out_contents(client: httpx.AsyncClient, crowd: list[str]) -> None:
    rows = {row["id"]: row for row in (await client.get(AGENTS)).json()["data"]}
    counts = {key: (row["session_count"], row["has_active_session"]) for key, row in rows.items()}
    assert counts == {"a0": (1, True), "a1": (2, False), "a2": (0, False), "a3": (0, False), "a4": (0, False)}
    assert rows["a1"]["sandbox_files"] == [{"name": "a", "sandbox_path": "~/a", "content_type": "x/y", "size": 5}]
    one = (await client.get(f"{AGENTS}/a1")).json()
    assert one["sandbox_files"][0]["content"] == FILE["content"]
    assert rows["a1"].keys() - one.keys() == {"session_count", "has_active_session"}


async def test_many_at_once(client: httpx.AsyncClient) -> None:
    made = await asyncio.gather(*(create(client, name=f"agent {number}") for number in range(20)))
    await asyncio.gather(
        *(client.patch(f"{AGENTS}/{agent['id']}", json={"prompt": f"p{n}"}) for n in range(3) for agent in made)
    )
    page = (await client.get(AGENTS)).json()
    assert {agent["id"] for agent in page["data"]} == {agent["id"] for agent in made}

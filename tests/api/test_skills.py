"""The library of skills, and skills of agents, over HTTP (LAP REST 2.6, 7.2)."""

import asyncio
import re
from typing import Any

import httpx
import pytest

from backend.domain import prompts
from backend.domain import skills as rules
from backend.services.container import Services
from backend.store import agents, events, sessions
from tests.api.conftest import AGENTS
from tests.rows import agent_row, session_row

SKILLS = "/api/v1/skills"
ATTACH = f"{AGENTS}/a1/skill"


@pytest.fixture(autouse=True)
async def stored(services: Services) -> None:
    """Agent `a1` with session `s1`."""
    async with services.database.begin() as tx:
        await agents.add(tx, agent_row("a1", prompt="Be kind."))
        await sessions.add(tx, session_row("s1", "a1", status="dead"))


async def create(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    response = await client.post(SKILLS, json={"name": "Review", "content": "Look closely.", **fields})
    assert response.status_code == 201, response.text
    skill: dict[str, Any] = response.json()
    return skill


async def attach(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    response = await client.post(ATTACH, json=fields)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


async def test_create_and_read(client: httpx.AsyncClient) -> None:
    skill = await create(client)
    assert skill == {
        "id": skill["id"],
        "name": "Review",
        "description": None,
        "content": "Look closely.",
        "created_at": skill["created_at"],
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", skill["created_at"])
    other = await create(client, name="Ünï", description="When reviewing")
    assert (await client.get(f"{SKILLS}/{other['id']}")).json() == other
    listed = (await client.get(SKILLS)).json()
    assert listed.keys() == {"data"}
    assert sorted(each["id"] for each in listed["data"]) == sorted((skill["id"], other["id"]))
    assert len((await client.get(SKILLS, params={"limit": "1"})).json()["data"]) == 1
    assert (await client.get(SKILLS, params={"offset": "2"})).json() == {"data": []}


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": None},
        {"name": "x" * 2049},
        {"content": ""},
        {"content": " \n"},
        {"content": 1},
        {"content": "a\0"},
        {"content": "x" * (rules.CONTENT_LIMIT + 1)},
        {"content": "x <!-- skill:a --> y"},
        {"content": "<!-- /skill:a -->"},
        {"description": 1},
        {"description": "a\0"},
    ],
)
async def test_refused(client: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    skill = await create(client)
    for method, path in (("POST", SKILLS), ("PATCH", f"{SKILLS}/{skill['id']}")):
        response = await client.request(method, path, json={"name": "n", "content": "c", **fields})
        assert response.status_code == 400
        assert response.json()["code"] == "INVALID"
        assert response.json()["issues"][0]["path"] == [next(iter(fields))]
    assert (await client.get(SKILLS)).json()["data"] == [skill]


async def test_name_and_content_are_needed(client: httpx.AsyncClient) -> None:
    response = await client.post(SKILLS, json={})
    assert [issue["path"] for issue in response.json()["issues"]] == [["name"], ["content"]]


@pytest.mark.parametrize(
    ("method", "path", "text"),
    [
        ("GET", f"{SKILLS}/no", "skill 'no' not found"),
        ("PATCH", f"{SKILLS}/no", "skill 'no' not found"),
        ("DELETE", f"{SKILLS}/no", "skill 'no' not found"),
        ("GET", f"{SKILLS}/no/versions", "skill 'no' not found"),
        ("POST", ATTACH, "skill 'no' not found"),
        ("POST", f"{AGENTS}/no/skill", "agent 'no' not found"),
        ("DELETE", f"{AGENTS}/no/skill", "agent 'no' not found"),
    ],
)
async def test_unknown(client: httpx.AsyncClient, method: str, path: str, text: str) -> None:
    response = await client.request(method, path, json={"skill_id": "no"})
    assert (response.status_code, response.json()) == (404, {"error": text, "code": "NOT_FOUND"})


async def test_a_library_has_its_limit(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_SKILLS", 1)
    await create(client)
    for path, body in ((SKILLS, {"name": "n"}), (ATTACH, {"save_to_library": True})):
        response = await client.post(path, json={**body, "content": "c"})
        assert (response.status_code, response.json()["code"]) == (409, "CONFLICT")
    assert (await client.get(f"{AGENTS}/a1")).json()["prompt"] == "Be kind."


async def test_replaced_contents_become_versions(client: httpx.AsyncClient) -> None:
    skill = await create(client, description="d")
    path = f"{SKILLS}/{skill['id']}"
    assert (await client.get(f"{path}/versions")).json() == {"data": []}
    renamed = (await client.patch(path, json={"name": "New", "description": None})).json()
    assert renamed == {**skill, "name": "New", "description": None}
    await client.patch(path, json={"content": "Look closely."})  # the same: no version
    await client.patch(path, json={"content": "two"}, headers={"X-Session-Id": "s1"})
    await client.patch(path, json={"content": "three"}, headers={"X-Session-Id": "nobody"})
    assert (await client.get(path)).json() == {**renamed, "content": "three"}
    versions = (await client.get(f"{path}/versions")).json()["data"]
    assert [
        (each["skill_id"], each["version_number"], each["content"], each["changed_by_session_id"]) for each in versions
    ] == [(skill["id"], 2, "two", None), (skill["id"], 1, "Look closely.", "s1")]
    assert all(each["created_at"] >= skill["created_at"] for each in versions)
    assert (await client.get(f"{path}/versions", params={"limit": 1, "offset": 1})).json()["data"] == versions[1:]


async def test_delete_leaves_prompts_alone(client: httpx.AsyncClient) -> None:
    skill = await create(client)
    prompt = (await attach(client, skill_id=skill["id"]))["agent"]["prompt"]
    response = await client.delete(f"{SKILLS}/{skill['id']}")
    assert (response.status_code, response.content) == (204, b"")
    assert (await client.delete(f"{SKILLS}/{skill['id']}")).status_code == 404
    assert (await client.get(f"{AGENTS}/a1")).json()["prompt"] == prompt


async def test_attach_and_detach(client: httpx.AsyncClient) -> None:
    one, two = await create(client), await create(client, name="Two", content="\n2\n")
    before = (await client.get(f"{AGENTS}/a1")).json()
    first = await attach(client, skill_id=one["id"])
    assert first["skill"] == one
    assert first["agent"] == {
        **before,
        "prompt": f"Be kind.\n\n<!-- skill:{one['id']} -->\nLook closely.\n<!-- /skill:{one['id']} -->",
        "attached_skill_ids": [one["id"]],
    }
    assert await attach(client, skill_id=one["id"]) == first
    both = (await attach(client, skill_id=two["id"]))["agent"]
    assert both["attached_skill_ids"] == [one["id"], two["id"]]

    # What a user types between and after the blocks stays.
    typed = both["prompt"].replace("\n\n<!-- skill:" + two["id"], "\n\nBe brief.\n\n<!-- skill:" + two["id"])
    await client.patch(f"{AGENTS}/a1", json={"prompt": f"{typed}\n\nBe thorough."})
    left = (await client.delete(ATTACH, params={"skill_id": two["id"]})).json()
    assert left.keys() == {"agent"}
    assert left["agent"]["attached_skill_ids"] == [one["id"]]
    assert left["agent"]["prompt"].endswith(f"<!-- /skill:{one['id']} -->\n\nBe brief.\n\nBe thorough.")
    for unknown in ("no", ""):
        assert (await client.delete(ATTACH, params={"skill_id": unknown})).json() == left
    none = (await client.delete(ATTACH)).json()["agent"]
    assert (none["prompt"], none["attached_skill_ids"]) == ("Be kind.\n\nBe brief.\n\nBe thorough.", [])
    assert (await client.get(f"{AGENTS}/a1")).json() == none


async def test_an_agent_without_a_prompt_has_none_again(client: httpx.AsyncClient, services: Services) -> None:
    async with services.database.begin() as tx:
        await agents.change(tx, "a1", {"prompt": None})
    skill = await create(client)
    await attach(client, skill_id=skill["id"])
    assert (await client.delete(ATTACH)).json()["agent"]["prompt"] is None


async def test_attach_a_text(client: httpx.AsyncClient) -> None:
    first = await attach(client, content="# Use tabs\n")
    assert first.keys() == {"agent"}
    assert first["agent"]["prompt"].startswith("Be kind.\n\n<!-- skill:inline-")
    assert await attach(client, content="# Use tabs") == first
    assert (await client.get(SKILLS)).json() == {"data": []}
    saved = await attach(client, content="# Use spaces", save_to_library=True, description="d")
    assert (saved["skill"]["name"], saved["skill"]["description"]) == ("Use spaces", "d")
    assert saved["agent"]["attached_skill_ids"][1] == saved["skill"]["id"]
    assert (await client.get(SKILLS)).json()["data"] == [saved["skill"]]
    named = await attach(client, content="x", name="My skill", save_to_library=True)
    assert named["skill"]["name"] == "My skill"


@pytest.mark.parametrize(
    "body",
    [{}, {"skill_id": "a", "content": "b"}, {"skill_id": ""}, {"content": " "}, {"content": "<!-- skill:x -->"}],
)
async def test_refused_attachments(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    response = await client.post(ATTACH, json=body)
    assert response.status_code == 400
    assert response.json()["issues"]
    assert (await client.get(f"{AGENTS}/a1")).json()["prompt"] == "Be kind."


async def test_prompts_do_not_grow_for_ever(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "LIMIT", 200)
    skill = await create(client, content="x" * 200)
    for body in ({"skill_id": skill["id"]}, {"content": "y" * 200}):
        response = await client.post(ATTACH, json=body)
        assert (response.status_code, response.json()["code"]) == (409, "CONFLICT")
    response = await client.post(AGENTS, json={"model": "m", "skill_ids": [skill["id"]]})
    assert response.status_code == 400
    assert response.json()["issues"][0]["path"] == ["skill_ids"]


async def test_changes_are_events(client: httpx.AsyncClient, services: Services) -> None:
    skill = await create(client)
    path = f"{SKILLS}/{skill['id']}"
    await client.patch(path, json={"name": "x"})
    await client.patch(path, json={"name": "x"})
    for _ in range(2):
        await attach(client, skill_id=skill["id"])
    for _ in range(2):
        await client.delete(ATTACH)
    await client.delete(path)
    async with services.database.read() as tx:
        log = await events.read(tx, after=2, limit=10)
    assert [(event.type, event.agent_id) for event in log] == [
        ("skill.created", None),
        ("skill.updated", None),
        ("agent.updated", "a1"),
        ("agent.updated", "a1"),
        ("skill.deleted", None),
    ]


async def test_many_at_once_lose_nothing(client: httpx.AsyncClient) -> None:
    made = [await create(client, name=f"k{number}", content=f"c{number}") for number in range(8)]
    await asyncio.gather(*(attach(client, skill_id=skill["id"]) for skill in made for _ in range(2)))
    agent = (await client.get(f"{AGENTS}/a1")).json()
    assert sorted(agent["attached_skill_ids"]) == sorted(skill["id"] for skill in made)
    await asyncio.gather(*(client.delete(ATTACH, params={"skill_id": skill["id"]}) for skill in made[1:]))
    assert (await client.get(f"{AGENTS}/a1")).json()["attached_skill_ids"] == [made[0]["id"]]


async def test_skills_of_one_session(client: httpx.AsyncClient) -> None:
    skill = await create(client)
    wanted = [skill["id"], "no such", skill["id"]]
    session = (await client.post(f"{AGENTS}/a1/session", json={"skill_ids": wanted})).json()
    assert session["skill_ids"] == [skill["id"]]
    assert session["warnings"] == ["skill_ids that do not exist were left out: no such"]
    for skill_ids in (["x"] * 11, [""], [1], None):
        response = await client.post(f"{AGENTS}/a1/session", json={"skill_ids": skill_ids})
        assert response.status_code == 400


async def test_openapi_knows_the_routes(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    agent = "/api/v1/managed_agents/agents/{agent_id}"
    for path, methods in {
        SKILLS: {"get", "post"},
        f"{SKILLS}/{{skill_id}}": {"get", "patch", "delete"},
        f"{SKILLS}/{{skill_id}}/versions": {"get"},
        f"{agent}/skill": {"post", "delete"},
        f"{agent}/memory": {"get", "post"},
        f"{agent}/memory/{{memory_id}}": {"patch", "delete"},
        "/api/v1/managed_agents/sessions/{session_id}/memory": {"get", "post"},
    }.items():
        assert document["paths"][path].keys() == methods
        for method, operation in document["paths"][path].items():
            assert ("requestBody" in operation) is (method in ("post", "patch"))
            for reference in re.findall(r"#/components/schemas/(\w+)", str(operation)):
                assert reference in document["components"]["schemas"]

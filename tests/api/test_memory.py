"""What agents remember, over HTTP (LAP REST 7.1)."""

import json
import re
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from backend.domain import memory as rules
from backend.services.container import Services
from backend.store import agents, events, memories, sessions
from tests.api.conftest import AGENTS, SESSIONS
from tests.rows import agent_row, memory_row, session_row

MEMORY = f"{AGENTS}/a1/memory"
OF_SESSION = f"{SESSIONS}/s1/memory"


@pytest.fixture(autouse=True)
async def stored(services: Services) -> None:
    """Agent `a1` with session `s1`, agent `a2`."""
    async with services.database.begin() as tx:
        await agents.add(tx, agent_row("a1"))
        await agents.add(tx, agent_row("a2"))
        await sessions.add(tx, session_row("s1", "a1", status="dead"))


async def remember(client: httpx.AsyncClient, path: str = MEMORY, **fields: Any) -> dict[str, Any]:
    response = await client.post(path, json={"text": "Use tabs.", **fields})
    assert response.status_code == 200, response.text
    memory: dict[str, Any] = response.json()
    return memory


async def texts(client: httpx.AsyncClient, path: str = MEMORY, **params: Any) -> list[str]:
    response = await client.get(path, params=params)
    assert response.status_code == 200, response.text
    return [each["text"] for each in response.json()]


async def test_the_least_memory(client: httpx.AsyncClient) -> None:
    memory = await remember(client)
    assert (await client.get(MEMORY)).json() == [memory]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", memory.pop("id"))
    assert memory.pop("created_at") == memory.pop("updated_at")
    assert memory == {
        "agent_id": "a1",
        "text": "Use tabs.",
        "tags": [],
        "type": "convention",
        "priority": 0,
        "pinned": False,
        "disabled": False,
        "times_applied": 0,
        "last_applied_at": None,
        "source": "ui",
        "source_user_id": None,
        "source_session_id": None,
        "source_thread_ts": None,
    }


async def test_the_fullest_memory(client: httpx.AsyncClient) -> None:
    fields = {
        "text": "x" * rules.TEXT_LIMIT,
        "tags": [" go ", "style", "go"],
        "type": "my own",
        "priority": -7,
        "pinned": True,
        "source": "slack",
        "source_user_id": "U1",
        "source_session_id": "s9",
        "source_thread_ts": "1.2",
    }
    memory = await remember(client, **fields, disabled=True, times_applied=9, id="x")
    assert {name: memory[name] for name in fields} == {**fields, "tags": ["go", "style"]}
    assert (memory["disabled"], memory["times_applied"]) == (False, 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"text": ""},
        {"text": " \n"},
        {"text": None},
        {"text": "a\0b"},
        {"text": "x" * (rules.TEXT_LIMIT + 1)},
        {"tags": ["x"] * 9},
        {"tags": ["  "]},
        {"tags": ["a\nb"]},
        {"tags": ["x" * 65]},
        {"tags": "go"},
        {"type": ""},
        {"type": "\x1b[31m"},
        {"priority": 1.5},
        {"priority": 2**31},
        {"priority": True},
        {"pinned": "yes"},
    ],
)
async def test_refused(client: httpx.AsyncClient, fields: dict[str, Any]) -> None:
    memory = await remember(client)
    for path in (MEMORY, OF_SESSION):
        response = await client.post(path, json={"text": "t", **fields})
        assert response.status_code == 400
        assert response.json()["code"] == "INVALID"
        assert response.json()["issues"][0]["path"][0] == next(iter(fields))
    response = await client.patch(f"{MEMORY}/{memory['id']}", json=fields)
    assert response.status_code == 400
    assert (await client.get(MEMORY)).json() == [memory]


@pytest.mark.parametrize(
    ("method", "path", "text"),
    [
        ("GET", f"{AGENTS}/no/memory", "agent 'no' not found"),
        ("POST", f"{AGENTS}/no/memory", "agent 'no' not found"),
        ("PATCH", f"{MEMORY}/no", "memory 'no' not found"),
        ("DELETE", f"{MEMORY}/no", "memory 'no' not found"),
        ("GET", f"{SESSIONS}/no/memory", "session 'no' not found"),
        ("POST", f"{SESSIONS}/no/memory", "session 'no' not found"),
    ],
)
async def test_unknown(client: httpx.AsyncClient, method: str, path: str, text: str) -> None:
    response = await client.request(method, path, json={"text": "t"})
    assert (response.status_code, response.json()) == (404, {"error": text, "code": "NOT_FOUND"})


async def test_memories_of_another_agent_are_out_of_reach(client: httpx.AsyncClient) -> None:
    memory = await remember(client)
    path = f"{AGENTS}/a2/memory/{memory['id']}"
    assert (await client.patch(path, json={"text": "x"})).status_code == 404
    assert (await client.delete(path)).status_code == 404
    assert await texts(client, f"{AGENTS}/a2/memory") == []
    assert (await client.get(MEMORY)).json() == [memory]


async def test_search(client: httpx.AsyncClient) -> None:
    await remember(client, text="Straße", tags=["style"], priority=1)
    gone = await remember(client, text="STRASSE 2")
    await client.patch(f"{MEMORY}/{gone['id']}", json={"disabled": True})
    await remember(client, text="other", tags=["style", "go"])
    assert await texts(client) == ["Straße", "other"]
    assert await texts(client, q=" strasse ") == ["Straße"]
    assert await texts(client, tag="style") == ["Straße", "other"]
    assert await texts(client, tag="Style") == []
    assert await texts(client, tag="style", q="ot") == ["other"]
    assert set(await texts(client, include_disabled="true")) == {"Straße", "STRASSE 2", "other"}
    assert await texts(client, include_disabled="no", limit="1") == ["Straße"]
    assert await texts(client, limit="x", offset="1") == ["other"]
    assert await texts(client, OF_SESSION, tag="go") == ["other"]


async def test_a_page_is_bounded(client: httpx.AsyncClient, services: Services) -> None:
    async with services.database.begin() as tx:
        for number in range(210):
            await memories.add(tx, memory_row(f"m{number}", "a1"))
    assert len(await texts(client)) == 50
    assert len(await texts(client, limit=1000)) == 200


async def test_an_agent_remembers_so_much(
    client: httpx.AsyncClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "MAX_PER_AGENT", 1)
    await remember(client)
    response = await client.post(MEMORY, json={"text": "t"})
    assert (response.status_code, response.json()["code"]) == (409, "CONFLICT")
    await remember(client, f"{AGENTS}/a2/memory")


async def test_patch(client: httpx.AsyncClient) -> None:
    memory = await remember(client, tags=["a"])
    path = f"{MEMORY}/{memory['id']}"
    assert (await client.patch(path, json={})).json() == memory
    changes = {"text": "new", "tags": ["b"], "type": "reference", "priority": 3, "pinned": True, "disabled": True}
    changed = (await client.patch(path, json={**changes, "source": "agent", "agent_id": "a2"})).json()
    assert changed.pop("updated_at") >= memory.pop("updated_at")
    assert changed == {**memory, **changes}


@pytest.mark.parametrize("limit", [-1, 51, 1.5, "10", None, True])
async def test_how_much_sessions_are_told_is_bounded(client: httpx.AsyncClient, limit: Any) -> None:
    response = await client.patch(f"{AGENTS}/a1", json={"preload_memory_limit": limit})
    assert (response.status_code, response.json()["issues"][0]["path"]) == (400, ["preload_memory_limit"])
    changed = await client.patch(f"{AGENTS}/a1", json={"preload_memory_limit": rules.MAX_PRELOAD})
    assert changed.json()["preload_memory_limit"] == 50


async def test_delete(client: httpx.AsyncClient) -> None:
    memory = await remember(client)
    response = await client.delete(f"{MEMORY}/{memory['id']}")
    assert (response.status_code, response.content) == (204, b"")
    assert (await client.delete(f"{MEMORY}/{memory['id']}")).status_code == 404


async def test_of_a_session(client: httpx.AsyncClient) -> None:
    memory = await remember(client, OF_SESSION)
    assert (memory["agent_id"], memory["source"], memory["source_session_id"]) == ("a1", "agent", "s1")
    other = await remember(client, OF_SESSION, source="slack", source_session_id="s0")
    assert (other["source"], other["source_session_id"]) == ("slack", "s0")
    assert (await client.get(OF_SESSION)).json() == (await client.get(MEMORY)).json()


async def test_changes_are_events_and_looking_is_none(client: httpx.AsyncClient, services: Services) -> None:
    memory = await remember(client)
    path = f"{MEMORY}/{memory['id']}"
    changed = (await client.patch(path, json={"pinned": True})).json()
    await client.patch(path, json={"pinned": True})  # changes nothing, so says nothing
    for params in ({}, {"q": "tabs"}):
        assert (await client.get(MEMORY, params=params)).json()[0]["times_applied"] == 0
    await client.delete(path)
    async with services.database.read() as tx:
        log = await events.read(tx, after=3, limit=10)
    assert [(event.type, event.agent_id) for event in log] == [
        (f"memory.{what}", "a1") for what in ("created", "updated", "deleted")
    ]
    assert [json.loads(event.data)["memory"] for event in log] == [memory, changed, changed]


@settings_of_hypothesis(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    params=st.dictionaries(
        st.sampled_from(["q", "tag", "include_disabled", "limit", "offset"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    )
)
async def test_any_parameters_give_a_list(client: httpx.AsyncClient, params: dict[str, str]) -> None:
    response = await client.get(MEMORY, params=params)
    assert (response.status_code, response.json()) == (200, [])

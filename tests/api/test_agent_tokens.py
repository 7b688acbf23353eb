"""Agents' tokens over HTTP: who gets them, and what they open (LAP REST 1.1)."""

import time
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from backend.domain import agent_tokens
from backend.services.container import Services
from backend.settings import Settings
from backend.store import agents, memories, sessions, skills
from tests.api.conftest import AGENTS, KEY, SESSIONS, client_of
from tests.rows import agent_row, memory_row, session_row, skill_row

TOKEN = f"{AGENTS}/a1/token"
REFRESH = "/api/v1/agent-auth/refresh"
MEMORY = f"{AGENTS}/a1/memory"
OF_SESSION = f"{SESSIONS}/s1/memory"


@pytest.fixture(autouse=True)
async def stored(services: Services) -> None:
    """Agents `a1` and `a2`, each with a session; a memory of each; a skill."""
    async with services.database.begin() as tx:
        for number in ("1", "2"):
            await agents.add(tx, agent_row(f"a{number}"))
            await sessions.add(tx, session_row(f"s{number}", f"a{number}", status="dead"))
            await memories.add(tx, memory_row(f"m{number}", f"a{number}"))
        await skills.add(tx, skill_row("k1"))


async def mint(client: httpx.AsyncClient, *scope: str) -> dict[str, Any]:
    answer = await client.post(TOKEN, json={"scope": list(scope or ["memory"])})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer.json()


async def test_minting(client: httpx.AsyncClient) -> None:
    minted = await mint(client, "skills", "memory")
    assert minted.pop("access_token") != minted.pop("refresh_token")
    assert minted == {
        "expires_in": 900,
        "refresh_expires_in": 86_400,
        "token_type": "Bearer",
        "agent_id": "a1",
        "scope": ["memory", "skills"],
    }


@pytest.mark.parametrize("body", [{}, {"scope": []}, {"scope": "memory"}, {"scope": ["everything"]}, {"scope": [1]}])
async def test_what_cannot_be_minted(client: httpx.AsyncClient, body: dict[str, Any]) -> None:
    assert (await client.post(TOKEN, json=body)).status_code == 400


async def test_no_agent_no_token(client: httpx.AsyncClient) -> None:
    answer = await client.post(TOKEN.replace("a1", "nobody"), json={"scope": ["memory"]})
    assert (answer.status_code, answer.json()["error"]) == (404, "agent 'nobody' not found")


async def test_only_the_master_key_mints(app: FastAPI, client: httpx.AsyncClient) -> None:
    minted = await mint(client, *agent_tokens.SCOPES)
    for key in (None, "x", minted["access_token"], minted["refresh_token"]):
        async with client_of(app, key) as other:
            assert (await other.post(TOKEN, json={"scope": ["memory"]})).status_code == 401


async def test_the_agent_s_memory(app: FastAPI, client: httpx.AsyncClient) -> None:
    async with client_of(app, (await mint(client))["access_token"]) as agent:
        written = (await agent.post(MEMORY, json={"text": "Use tabs.", "source": "slack"})).json()
        assert written["source"] == "agent"
        by_session = (await agent.post(OF_SESSION, json={"text": "Use spaces.", "source": "ui"})).json()
        assert (by_session["source"], by_session["source_session_id"]) == ("agent", "s1")
        changed = await agent.patch(f"{MEMORY}/{written['id']}", json={"pinned": True})
        assert (changed.status_code, changed.json()["source"]) == (200, "agent")
        assert len((await agent.get(MEMORY)).json()) == len((await agent.get(OF_SESSION)).json()) == 3
        assert (await agent.delete(f"{MEMORY}/{written['id']}")).status_code == 204
        assert (await agent.get(f"{MEMORY}/m2")).status_code in (404, 405)
        assert (await agent.patch(f"{MEMORY}/m2", json={"pinned": True})).status_code == 404
    assert (await client.post(MEMORY, json={"text": "By hand."})).json()["source"] == "ui"


async def test_what_an_agent_searches_counts_as_use(app: FastAPI, client: httpx.AsyncClient) -> None:
    async def used() -> list[int]:
        return [memory["times_applied"] for memory in (await client.get(MEMORY)).json()]

    async with client_of(app, (await mint(client))["access_token"]) as agent:
        await agent.get(MEMORY)
        await agent.get(MEMORY, params={"q": "nothing has this"})
        await agent.get(MEMORY, params={"q": " "})
        await client.get(MEMORY, params={"q": "text"})
        assert await used() == [0]
        await agent.get(MEMORY, params={"q": "TEXT"})
        await agent.get(OF_SESSION, params={"q": "text"})
        assert await used() == [2]


async def test_skills_of_any_agent_can_be_changed(app: FastAPI, client: httpx.AsyncClient) -> None:
    path = "/api/v1/skills/k1"
    async with client_of(app, (await mint(client, "skills"))["access_token"]) as agent:
        answer = await agent.patch(path, json={"content": "new"}, headers={"x-session-id": "s1"})
        assert answer.status_code == 200
        for method, other in (("GET", path), ("DELETE", path), ("GET", "/api/v1/skills"), ("GET", f"{path}/versions")):
            assert (await agent.request(method, other)).status_code == 401
        assert (await agent.get(MEMORY)).status_code == 401  # not of this scope
    [version] = (await client.get(f"{path}/versions")).json()["data"]
    assert version["changed_by_session_id"] == "s1"


async def test_everything_else_is_closed(app: FastAPI, client: httpx.AsyncClient) -> None:
    async with client_of(app, (await mint(client, *agent_tokens.SCOPES))["access_token"]) as agent:
        for method, path in (
            ("GET", AGENTS),
            ("GET", f"{AGENTS}/a1"),
            ("DELETE", f"{AGENTS}/a1"),
            ("GET", SESSIONS),
            ("GET", f"{SESSIONS}/s1"),
            ("GET", f"{AGENTS}/a2/memory"),
            ("POST", f"{AGENTS}/a2/memory"),
            ("PATCH", f"{AGENTS}/a2/memory/m2"),
            ("GET", f"{SESSIONS}/s2/memory"),
            ("POST", f"{SESSIONS}/s2/memory"),
            ("GET", f"{SESSIONS}/nobody/memory"),
            ("GET", "/api/v1/events"),
            ("POST", f"{AGENTS}/a1/session"),
            ("GET", f"{MEMORY}/m1/more"),
            ("GET", f"{AGENTS}/a1/../a2/memory"),
        ):
            answer = await agent.request(method, path, json={"text": "x"} if method == "POST" else None)
            assert answer.status_code == 401, (method, path)
            assert answer.json() == {"error": "unauthorized", "code": "UNAUTHORIZED"}


async def test_what_is_no_token(app: FastAPI, client: httpx.AsyncClient, settings: Settings) -> None:
    minted = await mint(client)
    token, now = minted["access_token"], time.time()
    key = settings.agent_token_key
    for other in (
        f" {token}",
        f"{token}.",
        token[:-2],
        minted["refresh_token"],
        agent_tokens.mint(key, agent_tokens.ACCESS, "a2", ["memory"], now),
        agent_tokens.mint(key, agent_tokens.ACCESS, "a1", ["memory"], now - 901),
        agent_tokens.mint(KEY.encode(), agent_tokens.ACCESS, "a1", ["memory"], now),  # the master key itself
    ):
        async with client_of(app, other) as agent:
            assert (await agent.get(MEMORY)).status_code == 401
    async with client_of(app, key=None) as agent:
        assert (await agent.get(MEMORY, headers={"authorization": f"bearer {token}"})).status_code == 401
        pair = [("Authorization", f"Bearer {token}")] * 2
        assert (await agent.get(MEMORY, headers=pair)).status_code == 401


async def test_refreshing(app: FastAPI, client: httpx.AsyncClient) -> None:
    minted = await mint(client)
    async with client_of(app, key=None) as anyone:
        answer = await anyone.post(REFRESH, json={"refresh_token": minted["refresh_token"]})
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        body = answer.json()
        assert body.keys() == {"access_token", "expires_in", "token_type"}
        assert (body["expires_in"], body["token_type"]) == (900, "Bearer")
    async with client_of(app, body["access_token"]) as agent:
        assert (await agent.get(MEMORY)).status_code == 200


async def test_what_cannot_be_refreshed(app: FastAPI, client: httpx.AsyncClient, settings: Settings) -> None:
    minted = await mint(client)
    old = agent_tokens.mint(settings.agent_token_key, agent_tokens.REFRESH, "a1", ["memory"], time.time() - 86_401)
    gone = agent_tokens.mint(settings.agent_token_key, agent_tokens.REFRESH, "gone", ["memory"], time.time())
    async with client_of(app, key=None) as anyone:
        for token in ("x", "é", minted["access_token"], minted["refresh_token"] + "A", old, gone):
            answer = await anyone.post(REFRESH, json={"refresh_token": token})
            assert answer.status_code == 401
            assert answer.json() == {"error": "invalid refresh token", "code": "UNAUTHORIZED"}
        for body in ({}, {"refresh_token": ""}, {"refresh_token": None}, [], {"refresh_token": "x" * 5_000}):
            assert (await anyone.post(REFRESH, json=body)).status_code == 400


def test_the_signing_key(settings: Settings) -> None:
    assert settings.agent_token_key == agent_tokens.derived_key(KEY.encode())
    own = settings.model_copy(update={"harness_token_signing_key": SecretStr("a key of its own")})
    assert own.agent_token_key == b"a key of its own"

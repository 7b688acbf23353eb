"""The one shape of refusals, the key, the limits on bodies."""

import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from backend.services.container import Services
from backend.store.errors import StoreAway
from tests.api.conftest import AGENTS, KEY, SESSIONS, client_of


@pytest.mark.parametrize(
    "authorization",
    [None, "", KEY, f"Bearer  {KEY}", f"bearer {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Basic {KEY}"],
)
async def test_only_the_exact_key_opens(app: FastAPI, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    async with client_of(app, key=None) as client:
        for method, path in (("GET", AGENTS), ("POST", AGENTS), ("GET", "/api/nowhere"), ("DELETE", f"{AGENTS}/x")):
            response = await client.request(method, path, headers=headers)
            assert response.status_code == 401
            assert response.json() == {"error": "unauthorized", "code": "UNAUTHORIZED"}
            assert "www-authenticate" not in response.headers


async def test_a_database_that_is_away(
    client: httpx.AsyncClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_work: object) -> None:
        raise StoreAway("the database db at host:5432: it is being restarted")

    monkeypatch.setattr(services.database, "_read", away)
    response = await client.get(AGENTS)
    assert response.status_code == 503
    assert response.json()["code"] == "UNAVAILABLE"
    assert "host:5432" not in response.text


async def test_two_keys_are_no_key(app: FastAPI) -> None:
    async with client_of(app, key=None) as client:
        pair = [("Authorization", f"Bearer {KEY}"), ("Authorization", "Bearer other")]
        assert (await client.get(AGENTS, headers=pair)).status_code == 401


async def test_no_other_way_to_give_the_key(app: FastAPI) -> None:
    async with client_of(app, key=None) as client:
        assert (await client.get(AGENTS, params={"token": KEY}, headers={"X-API-Key": KEY})).status_code == 401


async def test_health_needs_no_key(app: FastAPI) -> None:
    async with client_of(app, key=None) as client:
        health = (await client.get("/healthz")).json()
    assert health["ok"] is True
    assert health["version"]
    assert health["started_at"].endswith("Z")


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "text"),
    [
        ("GET", "/nowhere", 404, "NOT_FOUND", "not found"),
        ("GET", "/api/v1/models", 404, "NOT_FOUND", "not found"),
        ("GET", f"{AGENTS}/", 404, "NOT_FOUND", "not found"),
        ("PUT", AGENTS, 405, "INVALID", "method not allowed"),
        ("GET", f"{AGENTS}/a-1", 404, "NOT_FOUND", "agent 'a-1' not found"),
        ("DELETE", f"{AGENTS}/a-1", 404, "NOT_FOUND", "agent 'a-1' not found"),
        ("GET", f"{SESSIONS}/s-1", 404, "NOT_FOUND", "session s-1 not found"),
        ("GET", f"{AGENTS}/%00%ff", 404, "NOT_FOUND", "agent '\0\ufffd' not found"),
    ],
)
async def test_refusals(client: httpx.AsyncClient, method: str, path: str, status: int, code: str, text: str) -> None:
    response = await client.request(method, path)
    assert response.status_code == status
    assert response.json() == {"error": text, "code": code}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b'{"model":"\\ud800"}', b"[" * 100_000, b'{"model":"m"}x', b'{"model":NaN}']
)
async def test_what_is_not_json(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post(AGENTS, content=body)
    assert response.status_code == 400
    assert response.json()["code"] == "INVALID"
    if body != b'{"model":NaN}':
        assert response.json()["error"] == "invalid json"


@pytest.mark.parametrize("body", [b"[]", b"3", b"null", b'"text"'])
async def test_json_that_is_no_object(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post(AGENTS, content=body)
    assert response.status_code == 400
    assert response.json()["issues"]


async def test_every_problem_at_once_and_no_value(client: httpx.AsyncClient) -> None:
    response = await client.post(AGENTS, json={"model": 17_171_717, "prompt": None, "env_vars": {"A": ["s3cret"]}})
    assert response.status_code == 400
    body = response.json()
    assert [issue["path"] for issue in body["issues"]] == [["prompt"], ["env_vars", "A"], ["model"]]
    assert all(issue["message"] and issue["code"] for issue in body["issues"])
    assert "\n" not in body["error"]
    assert body["error"].startswith("prompt: ")
    assert "s3cret" not in response.text
    assert "17171717" not in response.text


async def test_a_body_over_the_limit_is_refused_while_it_is_read(client: httpx.AsyncClient) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(1000):
            taken += 1
            yield b" " * 1024 * 1024

    for content in (endless(), b" " * (12 * 1024 * 1024 + 1)):
        response = await client.post(AGENTS, content=content)
        assert response.status_code == 413
        assert response.json() == {"error": "body larger than 12582912 bytes", "code": "INVALID"}
        assert response.headers["connection"] == "close"
    assert taken <= 14


async def test_unexpected_errors_tell_nothing_outside_and_all_in_the_log(
    app: FastAPI, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/api/broken")
    async def broken() -> None:
        raise RuntimeError("the reason")

    with caplog.at_level(logging.ERROR):
        response = await client.get("/api/broken")
    assert response.status_code == 500
    assert response.json() == {"error": "internal error", "code": "INTERNAL"}
    [record] = caplog.records
    assert record.getMessage() == "GET /api/broken failed"
    assert record.exc_info


async def test_the_document_describes_bodies_and_answers(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    create = document["paths"][AGENTS]["post"]
    reference = create["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schemas = document["components"]["schemas"]
    assert schemas[reference.rpartition("/")[2]]["required"] == ["model"]
    assert {"ApiAgent", "ApiSession", "AgentPatch", "SandboxFileSpec", "ApiError"} <= schemas.keys()
    assert create["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/ApiAgent")

"""Creating, ending and restarting sessions over HTTP: answers and refusals (LAP REST 3.1, 3.4-3.6, 3.10).

Sandboxes that work are in tests/e2e; here the driver has none, so every bring-up fails, and says so.
"""

from typing import Any

import httpx
import pytest

from backend.services.container import Services
from backend.store import agents, sessions
from backend.store.secrets import Cipher
from tests.api.conftest import AGENTS, SESSIONS, NoSandboxes, client_of
from tests.rows import agent_row, session_row
from tests.waiting import until


@pytest.fixture(autouse=True)
async def stored(services: Services) -> None:
    """Agent `one` with a session in each state that lasts without a sandbox."""
    token = Cipher(services.settings.encryption_key_value).encrypt("the-token")
    async with services.database.begin() as tx:
        await agents.add(tx, agent_row("one", harness_id="claude-code"))
        for name, values in (
            ("creating", {"phase": "cloning_repo"}),
            ("failed", {"status": "failed", "failure_reason": "broke", "log_tail": "last words"}),
            ("dead", {"status": "dead", "failure_reason": "stopped"}),
        ):
            await sessions.add(tx, session_row(name, "one", tty_token=token, task_arn=f"s-{name}", **values))


async def settled(client: httpx.AsyncClient, session_id: str) -> dict[str, Any]:
    async def done() -> dict[str, Any] | None:
        session = (await client.get(f"{SESSIONS}/{session_id}")).json()
        return None if session["status"] == "creating" else session

    return await until(done, "the session settles")


@pytest.mark.parametrize("body", [b"", b"{}", b'{"title": "lap-cli", "unknown": 1}'])
async def test_create(client: httpx.AsyncClient, driver: NoSandboxes, body: bytes) -> None:
    response = await client.post(f"{AGENTS}/one/session", content=body)
    assert response.status_code == 200
    created = response.json()
    assert (created["status"], created["phase"], created["warnings"]) == ("creating", "creating_sandbox", [])
    assert created["title"] == ("lap-cli" if b"lap-cli" in body else None)
    session = await settled(client, created["id"])
    assert (session["status"], session["failure_reason"]) == ("failed", "there is no room for sandboxes here")
    assert session["stopped_at"] is not None
    await until(lambda: created["task_arn"] in driver.deleted, "what was begun of the sandbox is removed")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"{", "invalid json"),
        (b"[]", "object"),
        (b'{"title": 1}', "title"),
        (b'{"title": "' + b"x" * 256 + b'"}', "title"),
        (b'{"env_vars": {"GIT_TOKEN": "x"}}', "reserved"),
        (b'{"env_vars": {"not ok": "x"}}', "invalid env var name"),
        (b'{"env_vars": {"A": 1}}', "A"),
        (b'{"env_vars": null}', "env_vars"),
    ],
)
async def test_create_refused(client: httpx.AsyncClient, body: bytes, text: str) -> None:
    response = await client.post(f"{AGENTS}/one/session", content=body)
    assert response.status_code == 400
    assert text in response.json()["error"]
    assert response.json()["code"] == "INVALID"
    assert len((await client.get(SESSIONS)).json()) == 3


@pytest.mark.parametrize(
    ("method", "path", "text"),
    [
        ("POST", f"{AGENTS}/none/session", "agent 'none' not found"),
        ("DELETE", f"{SESSIONS}/none", "session none not found"),
        ("POST", f"{SESSIONS}/none/stop", "session none not found"),
        ("POST", f"{SESSIONS}/none/restart", "session none not found"),
        ("GET", f"{SESSIONS}/none/sandbox_logs", "session none not found"),
    ],
)
async def test_unknown(client: httpx.AsyncClient, method: str, path: str, text: str) -> None:
    response = await client.request(method, path)
    assert (response.status_code, response.json()["error"]) == (404, text)


async def test_initial_prompt(client: httpx.AsyncClient, services: Services) -> None:
    async with services.database.begin() as tx:
        await agents.add(tx, agent_row("messages", harness_id="opencode"))
    sent = await client.post(f"{AGENTS}/one/session", json={"initial_prompt": "go"})
    assert sent.json()["warnings"] == []
    queued = await client.post(f"{AGENTS}/messages/session", json={"initial_prompt": "go"})
    assert queued.json()["warnings"] == []
    too_long = await client.post(f"{AGENTS}/one/session", json={"initial_prompt": "x" * 30_001})
    assert too_long.status_code == 400


@pytest.mark.parametrize(
    ("session_id", "answer", "reason"),
    [("creating", "deleted", "deleted"), ("failed", "deleted", "broke"), ("dead", "dead", "stopped")],
)
async def test_delete(client: httpx.AsyncClient, session_id: str, answer: str, reason: str) -> None:
    response = await client.delete(f"{SESSIONS}/{session_id}")
    assert (response.status_code, response.json()) == (200, {"id": session_id, "status": answer})
    session = (await client.get(f"{SESSIONS}/{session_id}")).json()
    assert (session["status"], session["failure_reason"]) == ("dead", reason)
    again = await client.delete(f"{SESSIONS}/{session_id}")
    assert again.json() == {"id": session_id, "status": "dead"}


async def test_stop(client: httpx.AsyncClient, driver: NoSandboxes) -> None:
    for _ in range(2):
        response = await client.post(f"{SESSIONS}/creating/stop")
        assert (response.status_code, response.json()) == (200, {"id": "creating", "status": "dead"})
    assert (await client.get(f"{SESSIONS}/creating")).json()["failure_reason"] == "stopped"
    assert driver.deleted == ["s-creating"]


async def test_restart_waits_for_no_session_that_is_coming_up(client: httpx.AsyncClient) -> None:
    response = await client.post(f"{SESSIONS}/creating/restart")
    assert response.status_code == 409
    assert response.json()["error"].startswith("session creating is creating; wait")


async def test_restart_that_fails(client: httpx.AsyncClient) -> None:
    response = await client.post(f"{SESSIONS}/dead/restart")
    assert response.status_code == 502
    assert response.json()["error"] == "session restart failed: there is no room for sandboxes here"
    assert (await client.get(f"{SESSIONS}/dead")).json()["status"] == "failed"


async def test_log_of_an_ended_session(client: httpx.AsyncClient) -> None:
    response = await client.get(f"{SESSIONS}/failed/sandbox_logs", params={"tailLines": "x", "sinceSeconds": "-1"})
    assert (response.status_code, response.text) == (200, "last words")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


class TestPhase:
    PATH = f"{SESSIONS}/creating/phase"

    async def report(self, app: Any, body: dict[str, Any], key: str = "creating", path: str = PATH) -> httpx.Response:
        async with client_of(app, key) as harness:
            return await harness.post(path, json=body)

    async def test_noted(self, app: Any, client: httpx.AsyncClient) -> None:
        response = await self.report(app, {"phase": "installing_deps", "detail": "numpy"})
        assert (response.status_code, response.json()) == (200, {"ok": True})
        session = (await client.get(f"{SESSIONS}/creating")).json()
        assert (session["phase"], session["phase_detail"]) == ("installing_deps", "numpy")

    async def test_only_while_creating(self, app: Any) -> None:
        for session_id in ("dead", "none"):
            response = await self.report(
                app, {"phase": "installing_deps"}, session_id, f"{SESSIONS}/{session_id}/phase"
            )
            assert (response.status_code, response.json()) == (200, {"ok": False})

    @pytest.mark.parametrize("key", ["wrong", "test-master-key"])
    async def test_token(self, app: Any, key: str) -> None:
        response = await self.report(app, {"phase": "installing_deps"}, key)
        assert (response.status_code, response.json()["error"]) == (401, "invalid harness progress token")

    @pytest.mark.parametrize(
        "body", [{}, {"phase": "ready"}, {"phase": "pod_running"}, {"phase": "cloning_repo", "detail": "x" * 501}]
    )
    async def test_refused(self, app: Any, body: dict[str, Any]) -> None:
        assert (await self.report(app, body)).status_code == 400

"""Reading sessions over HTTP (seed 001, LAP REST 3.2 and 3.3)."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.app import create_app
from backend.services.container import Services
from backend.settings import Settings
from backend.store import agents, sessions
from backend.store.secrets import Cipher
from tests.api.conftest import KEY, SESSIONS, NoSandboxes, client_of
from tests.rows import agent_row, session_row

READY: dict[str, Any] = {
    "status": "ready",
    "phase": "ready",
    "sandbox_url": "http://127.0.0.1:4096",
    "title": "Fix it",
    "isolation": {"pid_namespace": True},
    "ready_at": "2026-05-01T00:00:02.000Z",
}


@pytest.fixture(autouse=True)
async def stored(services: Services) -> None:
    """Agent `tui` with a session in each state, agent `api` with a ready one."""
    await store(services)


async def store(services: Services) -> None:
    token = Cipher(services.settings.encryption_key_value).encrypt("the-token")
    async with services.database.begin() as tx:
        await agents.add(tx, agent_row("tui", name="Reviewer", harness_id="claude-code"))
        await agents.add(tx, agent_row("api", harness_id="opencode"))
        for number, (name, agent_id, values) in enumerate(
            (
                ("creating", "tui", {"sandbox_url": "http://127.0.0.1:1"}),
                ("ready", "tui", READY),
                ("dead", "tui", {"status": "dead", "failure_reason": "stopped", "sandbox_url": "http://127.0.0.1:2"}),
                ("api-ready", "api", READY),
            )
        ):
            moment = f"2026-05-01T00:00:0{number}.000Z"
            await sessions.add(tx, session_row(name, agent_id, tty_token=token, created_at=moment, **values))


async def test_a_ready_terminal_session(client: httpx.AsyncClient) -> None:
    session = (await client.get(f"{SESSIONS}/ready")).json()
    assert session == {
        "id": "ready",
        "agent_id": "tui",
        "agent_name": "Reviewer",
        "harness_id": "claude-code",
        "status": "ready",
        "phase": "ready",
        "phase_detail": None,
        "sandbox_url": "http://127.0.0.1:4096",
        "tty_url": f"ws://platform:3000{SESSIONS}/ready/tty",
        "tty_token": "the-token",
        "response": None,
        "created_at": "2026-05-01T00:00:01.000Z",
        "creating_since": "2026-05-01T00:00:00.000Z",
        "ready_at": "2026-05-01T00:00:02.000Z",
        "stopped_at": None,
        "last_seen_at": None,
        "idle_timeout_ms": 86_400_000,
        "failure_reason": None,
        "harness_session_id": None,
        "supports_tui": True,
        "task_arn": "s-ready",
        "title": "Fix it",
        "title_preview": None,
        "origin": None,
        "sandboxes": None,
        "isolation": {"pid_namespace": True},
        "viewers": 0,
        "attached": [],
        "terminal": None,
        "recording": False,
        "skill_ids": [],
        "issues": [],
        "activity": None,
        "warnings": [],
    }


@pytest.mark.parametrize(
    ("session_id", "expected"),
    [
        ("creating", {"sandbox_url": None, "tty_url": None, "supports_tui": True}),
        ("dead", {"sandbox_url": None, "tty_url": None, "failure_reason": "stopped"}),
        ("api-ready", {"sandbox_url": "http://127.0.0.1:4096", "tty_url": None, "agent_name": None}),
    ],
)
async def test_others(client: httpx.AsyncClient, session_id: str, expected: dict[str, Any]) -> None:
    session = (await client.get(f"{SESSIONS}/{session_id}")).json()
    assert {key: session[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("params", "ids"),
    [
        ({}, "api-ready dead ready creating"),
        ({"agent_id": "tui"}, "dead ready creating"),
        ({"agent_id": "nobody"}, ""),
        ({"limit": "1"}, "api-ready"),
        ({"limit": "0"}, "api-ready dead ready creating"),
        ({"limit": "x"}, "api-ready dead ready creating"),
        ({"limit": "2", "offset": "1"}, "dead ready"),
        ({"status": "creating,ready"}, "api-ready ready creating"),
        ({"status": "nonsense"}, ""),
        ({"status": ","}, "api-ready dead ready creating"),
    ],
)
async def test_lists(client: httpx.AsyncClient, params: dict[str, str], ids: str) -> None:
    listed = (await client.get(SESSIONS, params=params)).json()
    assert [session["id"] for session in listed] == ids.split()


async def test_a_row_of_the_list_is_the_session(client: httpx.AsyncClient) -> None:
    listed = (await client.get(SESSIONS)).json()
    for session in listed:
        assert (await client.get(f"{SESSIONS}/{session['id']}")).json() == session


async def test_a_public_address_is_what_clients_are_told(tmp_path: Path, driver: NoSandboxes) -> None:
    directory = tmp_path / "public"
    directory.mkdir()
    settings = Settings.load(data_dir=directory, master_key=KEY, lap_base_url="https://lap.example.com/x/").with_keys()
    app = create_app(settings, driver)
    async with app.router.lifespan_context(app), client_of(app) as client:
        await store(app.state.services)
        session = (await client.get(f"{SESSIONS}/ready")).json()
    assert session["tty_url"] == f"wss://lap.example.com/x{SESSIONS}/ready/tty"


async def test_a_token_of_another_key_is_no_token(client: httpx.AsyncClient, services: Services) -> None:
    async with services.database.begin() as tx:
        values = {"tty_token": Cipher(bytes(32)).encrypt("x")}
        await sessions.transition(tx, "ready", expected={}, values=values, event_type=None)
    assert (await client.get(f"{SESSIONS}/ready")).json()["tty_token"] is None

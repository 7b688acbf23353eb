"""The platform's API over ASGI, with a driver that has no sandboxes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from backend.app import create_app
from backend.sandboxes.contract import Rescue, Sandbox, SandboxError, SandboxSpec, SandboxState
from backend.services.container import Services
from backend.settings import Settings
from tests.plain_driver import PlainDriver
from tests.postgres import placed

KEY = "test-master-key"
AGENTS = "/api/v1/managed_agents/agents"
SESSIONS = "/api/v1/managed_agents/sessions"


class NoSandboxes(PlainDriver):
    """A driver that can make none; remembers what it was asked to remove."""

    def __init__(self) -> None:
        self.deleted: list[str] = []

    async def create(self, spec: SandboxSpec) -> Sandbox:
        raise SandboxError("there is no room for sandboxes here")

    async def state(self, name: str) -> SandboxState:
        return SandboxState.GONE

    async def wait_gone(self, name: str) -> str:
        return "gone"

    async def delete(self, name: str, rescue: Rescue | None = None) -> None:
        self.deleted.append(name)

    async def list(self) -> list[str]:
        return []


@pytest.fixture
def driver() -> NoSandboxes:
    return NoSandboxes()


@pytest.fixture
def settings(tmp_path: Path, location: Path | str) -> Settings:
    """With keys, on a database without agents."""
    return placed(Settings.load(data_dir=tmp_path, master_key=KEY).with_keys(), location)


@pytest.fixture
async def app(settings: Settings, driver: NoSandboxes) -> AsyncIterator[FastAPI]:
    """The application, started."""
    app = create_app(settings, driver)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
def services(app: FastAPI) -> Services:
    services: Services = app.state.services
    return services


@asynccontextmanager
async def client_of(app: FastAPI, key: str | None = KEY) -> AsyncIterator[httpx.AsyncClient]:
    """A client that speaks to `app` directly, with the master key or another."""
    headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://platform:3000", headers=headers) as client:
        yield client


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Has the master key."""
    async with client_of(app) as client:
        yield client

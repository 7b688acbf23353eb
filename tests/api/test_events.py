"""The event feed and the log over HTTP, on a real server: streams cannot be read through the ASGI transport."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from backend.api import events as routes
from backend.app import create_app
from backend.services.container import Services
from backend.settings import Settings
from backend.store import agents, events, sessions
from backend.store.errors import StoreAway
from tests.api.conftest import KEY, NoSandboxes
from tests.postgres import on_both
from tests.rows import agent_row, session_row
from tests.waiting import until

FEED = "/api/v1/events"


@pytest.fixture
async def app(settings: Settings, driver: NoSandboxes) -> AsyncIterator[FastAPI]:
    """The application, served on a port: `app.state.url`."""
    app = create_app(settings, driver)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2))
    server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]
    serving = asyncio.create_task(server.serve([listener]))
    await until(lambda: server.started, "the server runs")
    app.state.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    yield app
    app.state.services.feed.close()
    server.should_exit = True
    await serving


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=app.state.url, headers=headers, trust_env=False, timeout=10) as client:
        yield client


class Frames:
    """Frames of a stream, one at a time."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()

    async def next(self) -> dict[str, str]:
        """The fields of the next frame; a comment is the field ""."""
        frame: dict[str, str] = {}
        async with asyncio.timeout(10):
            async for line in self._lines:
                if not line:
                    return frame
                name, _, value = line.partition(":")
                frame[name] = value.removeprefix(" ")
        return {"end": ""}

    async def ids(self, count: int) -> list[int]:
        """The ids of the next frames, heartbeats aside."""
        ids: list[int] = []
        async with asyncio.timeout(20):
            while len(ids) < count:
                frame = await self.next()
                if frame != {"": "heartbeat"}:
                    ids.append(int(frame["id"]))
        return ids


@asynccontextmanager
async def stream(
    client: httpx.AsyncClient, headers: dict[str, str] | None = None, **params: Any
) -> AsyncIterator[Frames]:
    """An open feed."""
    async with client.stream("GET", FEED, params=params, headers=headers or {}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        yield Frames(response)


async def add_agents(services: Services, *names: str) -> None:
    """One event each."""
    for name in names:
        async with services.database.begin() as tx:
            await agents.add(tx, agent_row(name))


@on_both
async def test_from_now_on(client: httpx.AsyncClient, services: Services) -> None:
    await add_agents(services, "a1", "a2")
    async with stream(client) as frames:
        assert await frames.next() == {"event": "feed.opened", "data": '{"seq":2}'}
        await add_agents(services, "a3")
        frame = await frames.next()
    assert (frame["id"], frame["event"]) == ("3", "agent.created")
    event = json.loads(frame["data"])
    assert (event["seq"], event["type"], event["agent_id"], event["session_id"]) == (3, "agent.created", "a3", None)
    assert event["agent"]["id"] == "a3"


async def test_resumes_without_loss(client: httpx.AsyncClient, services: Services) -> None:
    await add_agents(services, *(f"a{number}" for number in range(1, 400)))
    async with stream(client, after=3) as frames:
        assert (await frames.next())["data"] == '{"seq":3}'
        assert await frames.ids(396) == list(range(4, 400))
    async with stream(client, headers={"Last-Event-ID": "397"}, after=3) as frames:
        assert (await frames.next())["data"] == '{"seq":397}'
        assert await frames.ids(2) == [398, 399]
        await add_agents(services, "b1", "b2")
        assert await frames.ids(2) == [400, 401]


@on_both
async def test_nothing_is_lost_while_everybody_writes(client: httpx.AsyncClient, services: Services) -> None:
    async with stream(client) as first, stream(client) as second:
        await first.next()
        await second.next()
        await asyncio.gather(*(add_agents(services, f"a{number}") for number in range(100)))
        assert await first.ids(100) == await second.ids(100) == list(range(1, 101))


@on_both
async def test_filters(client: httpx.AsyncClient, services: Services) -> None:
    await add_agents(services, "a1", "a2")
    async with services.database.begin() as tx:
        await sessions.add(tx, session_row("s1", "a2"))
        await agents.change(tx, "a2", {"name": "x"})
        await agents.remove(tx, "a1")

    async def ids(count: int, **params: Any) -> list[int]:
        async with stream(client, after=0, **params) as frames:
            await frames.next()
            return await frames.ids(count)

    assert await ids(3, agent_id="a2") == [2, 3, 4]
    assert await ids(1, session_id="s1") == [3]
    assert await ids(3, types="agent.created, agent.deleted") == [1, 2, 5]
    assert await ids(1, types="agent.created", agent_id="a2") == [2]


@pytest.mark.parametrize("after", [1, 5, 10**17])
@on_both
async def test_a_position_that_is_gone_resets(client: httpx.AsyncClient, services: Services, after: int) -> None:
    await add_agents(services, "a1", "a2", "a3", "a4")
    async with services.database.begin() as tx:
        await events.prune(tx, keep=2)
    async with stream(client, after=after) as frames:
        assert await frames.next() == {"event": "feed.opened", "data": '{"seq":4}'}
        assert await frames.next() == {"event": "feed.reset", "data": '{"seq":4}'}
        await add_agents(services, "a5")
        assert await frames.ids(1) == [5]


async def test_the_oldest_position_that_is_not_gone(client: httpx.AsyncClient, services: Services) -> None:
    await add_agents(services, "a1", "a2", "a3", "a4")
    async with services.database.begin() as tx:
        await events.prune(tx, keep=2)
    async with stream(client, after=2) as frames:
        await frames.next()
        assert await frames.ids(2) == [3, 4]


async def test_a_commit_nobody_heard_of_still_arrives(
    client: httpx.AsyncClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a write is cancelled in the moment of its commit."""
    monkeypatch.setattr(routes, "HEARTBEAT_SECONDS", 0.05)
    await add_agents(services, "a1")
    async with stream(client, after=0) as frames:
        await frames.next()
        assert await frames.ids(1) == [1]
        with monkeypatch.context() as deaf:
            deaf.setattr(services.database, "_told", lambda stored: None)
            await add_agents(services, "a2")
        assert await frames.ids(1) == [2]
        await add_agents(services, "a3")
        assert await frames.ids(1) == [3]


async def test_a_database_that_is_away_ends_no_stream(
    client: httpx.AsyncClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "HEARTBEAT_SECONDS", 0.02)

    async def read_log(after: int) -> list[events.Event]:
        raise StoreAway("it is being restarted")

    async with stream(client) as frames:
        await frames.next()
        with monkeypatch.context() as away:
            away.setattr(services.feed, "read_log", read_log)
            assert await frames.next() == {"": "heartbeat"}
        await add_agents(services, "a1")
        assert await frames.ids(1) == [1]


async def test_heartbeats(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "HEARTBEAT_SECONDS", 0.01)
    async with stream(client) as frames:
        await frames.next()
        assert await frames.next() == {"": "heartbeat"}


async def test_streams_end_when_the_platform_ends(client: httpx.AsyncClient, services: Services) -> None:
    async with stream(client) as frames:
        await frames.next()
        services.feed.close()
        assert await frames.next() == {"end": ""}


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "9" * 40])
async def test_refused_positions(client: httpx.AsyncClient, value: str) -> None:
    for response in (
        await client.get(FEED, params={"after": value}),
        await client.get(FEED, headers={"Last-Event-ID": value}),
        await client.get(f"{FEED}/log", params={"after": value}),
    ):
        assert response.status_code == 400
        assert "must be a sequence number" in response.json()["error"]


async def test_the_log_in_pages(client: httpx.AsyncClient, services: Services) -> None:
    await add_agents(services, "a1", "a2", "a3")

    async def page(**params: Any) -> tuple[list[int], int | None]:
        body = (await client.get(f"{FEED}/log", params=params)).json()
        return [event["seq"] for event in body["data"]], body["next"]

    assert await page() == ([1, 2, 3], None)
    assert await page(limit=2) == ([1, 2], 2)
    assert await page(limit=2, after=2) == ([3], None)
    assert await page(limit=3) == ([1, 2, 3], None)
    assert await page(limit=0) == ([1], 1)
    assert await page(after=3) == ([], None)
    assert await page(agent_id="a2") == ([2], None)
    assert await page(types="agent.deleted") == ([], None)
    assert await page(session_id="s1") == ([], None)
    [event] = (await client.get(f"{FEED}/log", params={"after": 2})).json()["data"]
    assert event.keys() == {"seq", "at", "type", "agent_id", "session_id", "agent"}

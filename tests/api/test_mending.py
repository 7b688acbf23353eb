"""Mending a session over HTTP, and who did what: both are in the event log."""

from typing import Any

import httpx

from backend.sandboxes.contract import SandboxError
from backend.services.container import Services
from backend.store import agents, sessions
from tests.api.conftest import SESSIONS, NoSandboxes
from tests.rows import agent_row, session_row


async def store(services: Services) -> None:
    async with services.database.begin() as tx:
        await agents.add(tx, agent_row("a1"))
        for session_id, status in (("well", "ready"), ("over", "dead")):
            await sessions.add(tx, session_row(session_id, "a1", status=status, task_arn=f"s-{session_id}"))


async def log(client: httpx.AsyncClient, *types: str) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = (await client.get(f"/api/v1/events/log?types={','.join(types)}")).json()["data"]
    return told


async def test_what_was_put_back_is_told_and_kept(
    client: httpx.AsyncClient, services: Services, driver: NoSandboxes
) -> None:
    await store(services)
    mended: list[str] = []

    async def mend(name: str) -> str:
        mended.append(name)
        return f"made the Service {name}-np again"

    driver.mend = mend  # type: ignore[method-assign]
    answer = await client.post(f"{SESSIONS}/well/mend")
    assert (answer.status_code, answer.json()) == (200, {"id": "well", "did": "made the Service s-well-np again"})
    assert mended == ["s-well"]
    (event,) = await log(client, "session.mended")
    assert (event["by"], event["did"]) == ("master key", "made the Service s-well-np again")
    assert (event["session_id"], event["agent_id"], event["session"]["status"]) == ("well", "a1", "ready")


async def test_what_cannot_be_mended_is_refused_with_the_reason(
    client: httpx.AsyncClient, services: Services, driver: NoSandboxes
) -> None:
    await store(services)

    async def mend(name: str) -> str:
        raise SandboxError(f"the Service {name}-np is there: nothing is missing")

    driver.mend = mend  # type: ignore[method-assign]
    refused = await client.post(f"{SESSIONS}/well/mend")
    assert refused.status_code == 409
    assert refused.json() == {"error": "the Service s-well-np is there: nothing is missing", "code": "CONFLICT"}
    ended = await client.post(f"{SESSIONS}/over/mend")
    assert ended.status_code == 409 and "restart it" in ended.json()["error"]
    assert (await client.post(f"{SESSIONS}/nobody/mend")).status_code == 404
    assert await log(client, "session.mended") == []


async def test_ends_and_restarts_say_who_asked_for_them(client: httpx.AsyncClient, services: Services) -> None:
    await store(services)
    assert (await client.post(f"{SESSIONS}/over/restart")).status_code == 502  # there is no room for sandboxes here
    assert (await client.delete(f"{SESSIONS}/well")).status_code == 200
    told = await log(client, "session.restarted", "session.dead", "session.failed")
    assert [(one["type"], one["session_id"], one.get("by")) for one in told] == [
        ("session.restarted", "over", "master key"),
        ("session.failed", "over", None),
        ("session.dead", "well", "master key"),
    ]

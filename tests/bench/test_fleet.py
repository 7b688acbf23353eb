"""How fast the whole fleet is diagnosed: two thousand sessions in a cluster, one in ten with something wrong."""

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.app import create_app
from backend.domain import clock
from backend.settings import Settings
from backend.store import agents
from backend.store import leases as lease_store
from backend.store import sessions as session_store
from backend.store.database import Database
from tests.bench.fleet import identity, populate
from tests.kubernetes.double import Double
from tests.rows import agent_row, session_row

pytestmark = pytest.mark.bench

SESSIONS, NODES, ROUNDS = 2_000, 20, 5
LIMIT_SECONDS, ONE_SECONDS = 1.0, 0.1
OTHER = "another process"
"""It runs the sessions, so that this one only looks at them."""


async def fill(settings: Settings) -> None:
    database = await Database.open(settings.database_path)
    async with database.begin() as tx:
        await lease_store.take(tx, f"process {OTHER}", OTHER, now=clock.now(), until="2100-01-01T00:00:00.000Z")
        await agents.add(tx, agent_row("a1", harness_id="claude-code", name="one"))
        for number in range(SESSIONS):
            session_id, name = identity(number)
            own: dict[str, Any] = {"task_arn": name, "owner": OTHER, "creating_since": clock.now()}
            own |= {"status": "ready", "phase": "ready"} if number % 10 else {"phase": "pod_pending"}
            await session_store.add(tx, session_row(session_id, "a1", **own))
    await database.close()


async def longest_hold(done: asyncio.Event) -> float:
    """The longest that anybody had to wait for the loop."""
    longest = 0.0
    while not done.is_set():
        before = time.perf_counter()
        await asyncio.sleep(0)
        longest = max(longest, time.perf_counter() - before)
    return longest


async def test_the_whole_fleet(tmp_path: Path) -> None:
    with Double(nodes=NODES) as double:
        await populate(double, SESSIONS, broken_every=10)
        settings = Settings.load(
            data_dir=tmp_path,
            master_key="test-master-key",
            sandboxes="kubernetes",
            vault="off",
            kubeconfig=str(double.kubeconfig),
            k8s_namespace=double.namespace,
        ).with_keys()
        await fill(settings)
        app = create_app(settings)
        key = {"Authorization": "Bearer test-master-key"}
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://platform", headers=key, timeout=60) as http,
        ):
            fleet, one, holds = [], [], []
            for number in range(ROUNDS):
                started = time.perf_counter()
                answer = await http.get("/api/v1/managed_agents/diagnose")
                fleet.append(time.perf_counter() - started)
                done = asyncio.Event()
                holding = asyncio.create_task(longest_hold(done))
                await app.state.services.diagnosis.fleet()
                done.set()
                holds.append(await holding)
                session_id, _ = identity(number)
                started = time.perf_counter()
                await http.get(f"/api/v1/managed_agents/sessions/{session_id}/diagnose")
                one.append(time.perf_counter() - started)
            told = answer.json()
    assert len(told["data"]) == SESSIONS
    assert told["counts"]["pod_image_pull_backoff"] == SESSIONS / 10
    for name, times in (("fleet", fleet), ("one session", one), ("longest hold of the loop", holds)):
        median = 1000 * statistics.median(times)
        print(f"{name}: best {1000 * min(times):.0f} ms, median {median:.0f} ms, worst {1000 * max(times):.0f} ms")
    # The best, for others may use the machine: what is in the way of all five is ours.
    assert min(fleet) <= LIMIT_SECONDS
    assert min(one) <= ONE_SECONDS

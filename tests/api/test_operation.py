"""Readiness, metrics and the operator's numbers over HTTP (LAP REST 7.7, 7.8)."""

import re
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text as sql

from backend.services.container import Services
from backend.store import agents, sessions, warm_tasks
from tests.api.conftest import AGENTS, NoSandboxes, client_of
from tests.rows import agent_row, session_row
from tests.waiting import until

STATS = "/api/v1/admin/stats"
METRICS = "/api/v1/metrics"


async def store(services: Services) -> None:
    """Two agents; sessions in several states, one in a sandbox of the pool; rows of the pool."""
    async with services.database.begin() as tx:
        for agent_id, name in (("a1", "One"), ("a2", None), ("idle", "Idle")):
            await agents.add(tx, agent_row(agent_id, name=name))
        for number, (agent_id, status) in enumerate(
            (("a1", "ready"), ("a1", "creating"), ("a2", "ready"), ("a2", "dead"), ("idle", "failed"))
        ):
            task_arn = "w-claimed" if (agent_id, status) == ("a2", "ready") else f"s-{number}"
            row = session_row(f"s{number}", agent_id, status=status, task_arn=task_arn)
            await sessions.add(tx, row | {"failure_reason": "deleted"} if status == "dead" else row)
        for number, (agent_id, status) in enumerate((("a1", "warm"), ("a2", "warm"), ("a2", "warm"), ("a1", "dead"))):
            row = {"id": f"t{number}", "agent_id": agent_id, "status": status, "task_arn": f"w-{number}"}
            moment = f"2026-05-01T00:00:0{number}.000Z"
            await warm_tasks.add(tx, row | {"fingerprint": "f", "token": "t", "created_at": moment, "ready_at": moment})


async def test_stats(client: httpx.AsyncClient, services: Services) -> None:
    await store(services)
    told = (await client.get(STATS)).json()
    pool = told["warm_pool"]
    assert (pool["configured_size"], pool["max_provisioning"]) == (0, 2)
    assert (pool["ttl_minutes"], pool["recent_agent_hours"]) == (30, 24)
    assert pool["counts"] == {"provisioning": 0, "warm": 3, "claimed": 1, "dead": 1}
    assert pool["by_agent"] == [
        {
            "agent_id": "a2",
            "agent_name": None,
            "provisioning": 0,
            "warm": 2,
            "claimed": 1,
            "dead": 0,
            "oldest_warm_at": "2026-05-01T00:00:01.000Z",
        },
        {
            "agent_id": "a1",
            "agent_name": "One",
            "provisioning": 0,
            "warm": 1,
            "claimed": 0,
            "dead": 1,
            "oldest_warm_at": "2026-05-01T00:00:00.000Z",
        },
    ]
    assert pool["failing"] == []
    assert told["sessions"]["counts"] == {"creating": 1, "ready": 2, "failed": 1, "dead": 1}
    assert sorted(told["sessions"]["by_agent"], key=lambda entry: entry["agent_id"]) == [
        {"agent_id": "a1", "agent_name": "One", "creating": 1, "ready": 1},
        {"agent_id": "a2", "agent_name": None, "creating": 0, "ready": 1},
    ]
    assert told["agents"] == {"total": 3}
    assert told["runtime"]["reconcile_interval_seconds"] == 60
    assert told["workers"] == []


async def test_stats_tell_what_the_reconciler_did(client: httpx.AsyncClient, services: Services) -> None:
    await services.reconciler.tick()
    (worker,) = (await client.get(STATS)).json()["workers"]
    assert worker["name"] == "reconcile"
    assert worker["last_result"]["inspected"] == 0


@pytest.mark.parametrize("path", [STATS, METRICS, "/api/v1/admin/problems"])
async def test_only_with_the_key(app: FastAPI, path: str) -> None:
    for key in (None, "wrong"):
        async with client_of(app, key) as stranger:
            assert (await stranger.get(path)).status_code == 401


def values(text: str, name: str) -> dict[str, float]:
    """The samples of a metric by their labels."""
    return {labels: float(value) for labels, value in re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", text, re.MULTILINE)}


async def test_metrics(client: httpx.AsyncClient, services: Services, driver: NoSandboxes) -> None:
    await store(services)
    created = (await client.post(f"{AGENTS}/a1/session")).json()
    await until(lambda: created["task_arn"] in driver.deleted, "the session has failed")
    response = await client.get(METRICS)
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    text = response.text
    assert values(text, "sessions") == {
        'status="creating"': 1,
        'status="ready"': 2,
        'status="failed"': 2,
        'status="dead"': 1,
    }
    assert values(text, "agents") == {"": 3}
    assert values(text, "warm_pool_sandboxes")['status="warm"'] == 3
    assert values(text, "session_spawn_total") == {'path="cold",result="failed"': 1}
    assert values(text, "session_spawn_failure_total") == {'path="cold",reason="unknown"': 1}
    assert values(text, "warm_pool_hit_total") == {"": 1}  # the row in a sandbox of the pool
    assert values(text, "warm_pool_miss_total") == {"": 0}  # there is no pool
    assert values(text, "session_phase_duration_seconds_count")['phase="creating_sandbox"'] >= 1


@pytest.mark.parametrize(
    ("reason", "phase", "label"),
    [
        ("waiting_harness took longer than 120 s (...)", "waiting_harness", "harness_timeout"),
        ("pod_pending took longer than 300 s (...)", "pod_pending", "pod_timeout"),
        ("creating timeout: not ready after 600 s, last phase pod_running", "pod_running", "pod_timeout"),
        ("watchdog: nothing was bringing the session up", "cloning_repo", "harness_timeout"),
        ("the sandbox ended during cloning_repo: exit code 1. ...", "cloning_repo", "pod_failed"),
        ("fatal: repository not found", "cloning_repo", "unknown"),
    ],
)
async def test_reasons_are_a_closed_set(
    client: httpx.AsyncClient, services: Services, reason: str, phase: str, label: str
) -> None:
    await store(services)
    async with services.database.begin() as tx:
        changed = {"status": "failed", "phase": phase, "failure_reason": reason}
        await sessions.transition(tx, "s1", expected={}, values=changed, event_type="session.failed")
    text = (await client.get(METRICS)).text
    assert values(text, "session_spawn_failure_total") == {f'path="cold",reason="{label}"': 1}


@pytest.mark.parametrize(
    ("reason", "labels"),
    [
        ("idle timeout", {"idle_timeout"}),
        ("task disappeared: the sandbox ended by itself (exit code 1)", {"task_disappeared"}),
        ("oom killed: the sandbox ended by itself (out of memory: ...)", {"oom_killed"}),
        ("deleted", set()),
    ],
)
async def test_deaths(client: httpx.AsyncClient, services: Services, reason: str, labels: set[str]) -> None:
    await store(services)
    async with services.database.begin() as tx:
        changed = {"status": "dead", "failure_reason": reason}
        await sessions.transition(tx, "s0", expected={}, values=changed, event_type="session.dead")
    text = (await client.get(METRICS)).text
    assert set(values(text, "session_death_total")) == {f'reason="{label}"' for label in labels}
    assert len(values(text, "sandbox_oom_killed_total")) == ("oom_killed" in labels)


class TestReadiness:
    async def ask(self, app: FastAPI) -> tuple[int, Any]:
        async with client_of(app, None) as stranger:
            response = await stranger.get("/readyz")
        return response.status_code, response.json()

    async def test_ready(self, app: FastAPI) -> None:
        assert await self.ask(app) == (200, {"ok": True, "problems": []})

    async def test_sandboxes(self, app: FastAPI, driver: NoSandboxes, caplog: pytest.LogCaptureFixture) -> None:
        async def broken() -> list[str]:
            raise OSError("the disk is on fire")

        driver.list = broken  # type: ignore[method-assign]
        assert await self.ask(app) == (503, {"ok": False, "problems": []})
        assert "the disk is on fire" in caplog.text

    async def test_database(self, app: FastAPI, services: Services) -> None:
        async with services.database.begin() as tx:
            await tx.execute(sql("ALTER TABLE agent RENAME TO agent_elsewhere"))
        assert await self.ask(app) == (503, {"ok": False, "problems": []})

    async def test_a_part_that_does_not_work_is_named_and_the_rest_goes_on(
        self, app: FastAPI, services: Services, driver: NoSandboxes
    ) -> None:
        driver.problems = lambda: ["Kubernetes at https://10.2.0.1 does not answer for 12 s"]  # type: ignore[method-assign]
        services.problems.look()
        services.problems.look()
        assert await self.ask(app) == (200, {"ok": True, "problems": ["sandboxes: the platform's log says why"]})

    async def test_reconciler(self, app: FastAPI, services: Services) -> None:
        await services.reconciler.aclose()
        assert await self.ask(app) == (503, {"ok": False, "problems": []})
        async with client_of(app, None) as stranger:
            assert (await stranger.get("/healthz")).status_code == 200


async def test_the_address_alone_says_what_this_is(app: FastAPI) -> None:
    async with client_of(app, None) as stranger:
        told = (await stranger.get("/")).json()
        assert told["name"] == "lapconsole platform"
        for place in ("documentation", "health"):
            assert (await stranger.get(told[place])).status_code == 200


async def test_the_warm_pool_one_by_one(client: httpx.AsyncClient, services: Services) -> None:
    await store(services)
    rows = (await client.get("/api/v1/admin/warm_pool")).json()["data"]
    assert [(row["sandbox"], row["agent_name"], row["status"]) for row in rows] == [
        ("w-0", "One", "warm"),
        ("w-1", None, "warm"),
        ("w-2", None, "warm"),
        ("w-3", "One", "dead"),
    ]
    assert rows[0]["expires_at"] == "2026-05-01T00:30:00.000Z"
    assert not {"token", "fingerprint"} & rows[0].keys()


async def test_an_operator_fills_and_flushes_the_pool(client: httpx.AsyncClient, services: Services) -> None:
    await store(services)
    refused = await client.post("/api/v1/admin/warm_pool/top_up")
    assert refused.status_code == 409
    assert "WARM_POOL_SIZE" in refused.json()["error"]
    assert (await client.post("/api/v1/admin/warm_pool/flush?agent_id=a2")).json() == {"flushed": 2}
    assert (await client.post("/api/v1/admin/warm_pool/flush")).json() == {"flushed": 1}
    told = (await client.get("/api/v1/events/log?types=pool.flushed,pool.topped_up")).json()["data"]
    assert [(one["by"], one["agent_id"], one["pool"]) for one in told] == [
        ("master key", "a2", {"flushed": 2}),
        ("master key", None, {"flushed": 1}),
    ]


class TestProblems:
    async def ask(self, client: httpx.AsyncClient) -> list[dict[str, str]]:
        rows: list[dict[str, str]] = (await client.get("/api/v1/admin/problems")).json()["data"]
        return rows

    async def test_what_lasts_is_told_with_since_when_until_it_is_over(
        self, client: httpx.AsyncClient, services: Services, driver: NoSandboxes
    ) -> None:
        await services.problems.aclose()  # no looks but ours
        said = ["Kubernetes does not answer for 3 s"]
        driver.problems = lambda: said  # type: ignore[method-assign]
        services.problems.look()
        assert await self.ask(client) == []  # it may have been nothing
        services.problems.look()
        (first,) = await self.ask(client)
        said = ["Kubernetes does not answer for 8 s", "may not list nodes"]
        services.problems.look()
        (now,) = await self.ask(client)
        assert now == first | {"message": "Kubernetes does not answer for 8 s"} and now["part"] == "sandboxes"
        services.problems.look()
        assert len(await self.ask(client)) == 2
        said = []
        services.problems.look()
        assert await self.ask(client) == []

    async def test_the_reconciler(self, client: httpx.AsyncClient, services: Services) -> None:
        await services.reconciler.aclose()
        services.problems.look()
        services.problems.look()
        (told,) = await self.ask(client)
        assert told["part"] == "worker" and "restart the platform" in told["message"]

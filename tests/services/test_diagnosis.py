"""What is noted with sessions, by whom and when, what stays of a sandbox that is gone, and what a part that fails does.

The sandboxes are names with objects of a cluster as they were recorded.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from backend.sandboxes.contract import Inspection
from backend.sandboxes.kubernetes.inspecting import inspect, node_of
from backend.services import diagnosis as service
from backend.services.container import Services, open_services
from backend.services.last_look import UNREAD
from backend.settings import Settings
from backend.store import agents, events
from tests.kubernetes.seen import NODE, Seen, failure
from tests.rows import agent_row
from tests.services.conftest import Names
from tests.services.test_reconciler import add, ago


class Clustered(Names):
    """A driver whose sandboxes are seen as recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Seen] = {}
        self.log = "Traceback\nboom\n"
        self.troubles: list[str] = []
        self.inspected = 0
        self.hangs = False

    async def inspect(self, name: str) -> Inspection:
        self.inspected += 1
        if name in self.broken:
            raise OSError("the disk is on fire")
        return inspect(self.seen.get(name, Seen()), name)

    async def logs(self, name: str, tail_lines: int, since_seconds: int | None = None) -> str:
        if self.hangs:
            await asyncio.Event().wait()
        return self.log

    async def delete(self, name: str, rescue: Any = None) -> None:
        await super().delete(name, rescue)
        self.seen.pop(name, None)

    def problems(self) -> Sequence[str]:
        return self.troubles

    async def nodes(self) -> Sequence[dict[str, Any]]:
        view = Seen(nodes={"node1": NODE})
        return [{**node_of(view, "node1"), "sandboxes": sorted(self.running)}]


@pytest.fixture
def driver() -> Clustered:
    return Clustered()


@pytest.fixture
async def services(settings_of: Callable[..., Settings], driver: Clustered) -> AsyncIterator[Services]:
    async with open_services(settings_of(), driver) as services:
        async with services.database.begin() as tx:
            await agents.add(tx, agent_row("a1", harness_id="claude-code", name="one"))
        yield services


def holder(services: Services) -> str:
    return services.reconciler._leases.holder


async def creating(services: Services, driver: Clustered, session_id: str, way: str, **values: Any) -> None:
    """A session whose sandbox fails in that way, brought up by this process."""
    driver.running.add(f"s-{session_id}")
    driver.seen[f"s-{session_id}"], _ = failure(way)
    own = {"owner": holder(services), "phase": "pod_pending", "sandbox_url": None, "creating_since": ago(seconds=30)}
    await add(services, session_id, **{**own, **values})


def codes(findings: list[Any]) -> list[str]:
    return [finding["code"] for finding in findings]


async def issues(services: Services, session_id: str) -> list[str]:
    return codes((await services.sessions.get(session_id))["issues"])


async def told(services: Services, session_id: str) -> list[tuple[str, list[str]]]:
    """The events about a session, each with the issues it had then."""
    async with services.database.read() as tx:
        found = await events.read(tx, after=0, limit=1000, session_id=session_id)
    return [(event.type, codes(json.loads(event.data)["session"]["issues"])) for event in found]


async def test_an_issue_that_appears_and_clears_is_told_once(services: Services, driver: Clustered) -> None:
    await creating(services, driver, "one", "unschedulable")
    for _ in range(2):
        await services.diagnosis.tick()
    driver.seen["s-one"], _ = failure("pull-error")
    await services.diagnosis.tick()
    driver.seen["s-one"] = Seen(pod_={"metadata": {}, "status": {"phase": "Pending"}}, service_={"spec": {}})
    for _ in range(2):
        await services.diagnosis.tick()
    assert await told(services, "one") == [
        ("session.created", []),
        ("session.updated", ["unschedulable"]),
        ("session.updated", ["pod_image_pull_backoff", "image_pull_failed"]),
        ("session.updated", []),
    ]
    row = await services.sessions.get("one")
    assert row["issues"] == []


async def test_only_the_process_that_runs_a_session_notes(
    settings_of: Callable[..., Settings], driver: Clustered, tmp_path: Path
) -> None:
    one = settings_of()
    two = one.model_copy(update={"data_dir": tmp_path / "two"})
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(open_services(each, driver)) for each in (one, two)]
        async with first.database.begin() as tx:
            await agents.add(tx, agent_row("a1", harness_id="claude-code"))
        await creating(first, driver, "one", "unschedulable")
        await second.diagnosis.tick()
        assert await issues(first, "one") == []
        await asyncio.gather(*(each.diagnosis.tick() for each in (first, second)))
        assert await issues(first, "one") == ["unschedulable"]
        assert len(await told(first, "one")) == 2
        # Both tell of the whole fleet.
        for each in (first, second):
            assert (await each.diagnosis.fleet())["counts"] == {"unschedulable": 1}


async def test_a_cluster_that_cannot_be_seen_clears_nothing(services: Services, driver: Clustered) -> None:
    await creating(services, driver, "one", "unschedulable")
    await services.diagnosis.tick()
    driver.troubles = ["Kubernetes does not answer"]
    driver.seen["s-one"] = Seen(unseen={"pods": driver.troubles[0]})
    await services.diagnosis.tick()
    driver.broken.add("s-one")
    await services.diagnosis.tick()
    assert await issues(services, "one") == ["unschedulable"]
    assert len(await told(services, "one")) == 2
    answer = await services.diagnosis.of_session("one")
    assert answer["pod"] == {"exists": False, "error": "OSError: the disk is on fire"}
    assert answer["problems"] == ["Kubernetes does not answer"]
    assert codes(answer["hints"]) == ["cluster_unseen"]
    driver.troubles, driver.broken = [], set()
    driver.seen["s-one"] = Seen()
    await services.diagnosis.tick()
    assert await issues(services, "one") == []


@pytest.mark.parametrize(
    ("way", "code", "word"),
    [
        ("unschedulable", "unschedulable", "Insufficient cpu"),
        ("pull-error", "pod_image_pull_backoff", "connection refused"),
        ("crash", "container_terminated", "exit code 3"),
        ("config-error", "config_error", 'configmap "absent" not found'),
    ],
)
async def test_the_cause_outlives_the_pod(
    services: Services, driver: Clustered, way: str, code: str, word: str
) -> None:
    await creating(services, driver, "one", way)
    await services.diagnosis.tick()
    row = await services.sessions.get("one")
    assert await services.sessions.reap(row, "pod_pending took longer than 300 s", "failed")
    assert "s-one" in driver.deleted
    assert code in (await told(services, "one"))[-1][1]  # with the event that tells of the failure
    await services.diagnosis.tick()
    answer = await services.diagnosis.of_session("one")
    assert (answer["pod"], answer["harness_probe"]) == ({"exists": False}, None)
    assert answer["last_inspection"]["pod"]["exists"] is True
    found = {each["code"]: each for each in (*answer["detected_issues"], *answer["hints"])}
    assert word in found[code]["message"]
    assert "phase_timeout" in found
    assert answer["pod_logs_tail"] == {"available": True, "text": "Traceback\nboom"}
    fleet = await services.diagnosis.fleet()
    assert {code, "phase_timeout"} <= set(fleet["counts"])


async def test_what_ended_as_it_should_has_nothing(services: Services, driver: Clustered) -> None:
    await creating(services, driver, "one", "crash")
    await services.diagnosis.tick()
    assert await issues(services, "one")
    await services.sessions.delete("one")
    assert await issues(services, "one") == []
    answer = await services.diagnosis.of_session("one")
    assert (answer["detected_issues"], answer["hints"], answer["last_inspection"]) == ([], [], None)
    assert (await services.diagnosis.fleet())["counts"] == {}


async def test_a_failure_is_stored_even_when_its_sandbox_cannot_be_seen(services: Services, driver: Clustered) -> None:
    await creating(services, driver, "one", "crash")
    driver.broken.add("s-one")
    assert await services.sessions.reap(await services.sessions.get("one"), "it broke", "failed")
    assert await issues(services, "one") == ["session_ended"]


async def test_a_new_start_has_none_of_the_old_issues(services: Services, driver: Clustered) -> None:
    await creating(services, driver, "one", "pull-error")
    await services.sessions.reap(await services.sessions.get("one"), "it broke", "failed")
    with pytest.raises(Exception, match="no room for sandboxes"):
        await services.sessions.restart("one")
    found = await told(services, "one")
    assert ("session.restarted", []) in found
    assert found[-1] == ("session.failed", ["session_ended"])


async def test_a_log_that_cannot_be_had(services: Services, driver: Clustered, monkeypatch: pytest.MonkeyPatch) -> None:
    await creating(services, driver, "one", "config-error")

    async def log() -> Mapping[str, Any]:
        part: Mapping[str, Any] = (await services.diagnosis.of_session("one"))["pod_logs_tail"]
        return part

    driver.log = ""
    assert await log() == {"available": False, "error": service.NO_LOG}
    driver.log = f"{UNREAD}not permitted: get pods/log)"
    assert await log() == {"available": False, "error": "not permitted: get pods/log"}
    monkeypatch.setattr(service, "LOG_SECONDS", 0.05)
    driver.hangs = True
    assert await log() == {"available": False, "error": "no answer within 0.05 s"}
    driver.hangs = False


async def test_the_fleet_asks_no_sandbox(services: Services, driver: Clustered) -> None:
    """What asking tells is what was noted; all else is as of now."""
    noted = [{"code": "harness_unreachable", "severity": "high", "message": "m", "recommended_action": "r"}]
    lost = {"issues": noted, "creating_since": ago(minutes=9), "sandbox_url": "http://127.0.0.1:9"}
    await creating(services, driver, "one", "oom", owner="another process", **lost)
    await creating(services, driver, "two", "pull-error", owner="another process")
    before = driver.inspected
    fleet = await services.diagnosis.fleet()
    assert driver.inspected == before + 2
    found = {entry["session_id"]: codes(entry["detected_issues"]) for entry in fleet["data"]}
    assert found == {"one": ["harness_unreachable"], "two": ["pod_image_pull_backoff"]}


async def test_nodes_name_the_sessions_on_them(services: Services, driver: Clustered) -> None:
    await creating(services, driver, "one", "crash")
    driver.running.add("w-warm")
    driver.troubles = ["not permitted: list pods"]
    answer = await services.diagnosis.nodes()
    assert answer["problems"] == driver.troubles
    (node,) = answer["data"]
    assert (node["name"], node["ready_status"], node["sandbox_count"]) == ("node1", "True", 2)
    session = {"session_id": "one", "agent_id": "a1", "agent_name": "one", "status": "creating"}
    assert node["sandboxes"] == [{"name": "s-one", **session}, {"name": "w-warm", "session_id": None}]

"""The diagnosis of real sessions: well, failed, not answering, their agent gone, deleted."""

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.programs import API, Platform, processes_of
from tests.waiting import until

pytestmark = pytest.mark.e2e

SECRET = "s3cret-never-shown"
PARTS = [
    "session",
    "agent",
    "pod",
    "sandbox_cr",
    "service",
    "pod_logs_tail",
    "node",
    "image_cache",
    "warm_pool",
    "harness_probe",
    "events",
    "harness",
    "vault",
    "problems",
    "last_inspection",
    "detected_issues",
    "hints",
    "notes",
]


async def diagnose(platform: Platform, session: Mapping[str, Any]) -> dict[str, Any]:
    response = await platform.http.get(f"{API}/sessions/{session['id']}/diagnose")
    assert response.status_code == 200, response.text
    return response.json()


def codes(findings: list[dict[str, Any]]) -> list[str]:
    return [finding["code"] for finding in findings]


async def test_a_session_that_is_well(platform: Platform) -> None:
    agent = await platform.create_agent(env_vars={"TOKEN": SECRET})
    session = await platform.ready(agent)
    answer = await diagnose(platform, session)
    assert list(answer) == PARTS
    assert SECRET not in str(answer)
    assert session["tty_token"] not in str(answer)
    assert answer["session"]["session_id"] == session["id"]
    assert answer["agent"]["agent_id"] == agent["id"]
    assert (answer["pod"]["exists"], answer["pod"]["phase"]) == (True, "Running")
    assert answer["service"]["exists"] is True
    assert answer["node"]["ready_status"] == "True"
    assert answer["node"]["load"]["disk_free_bytes"] > 0
    assert answer["warm_pool"] == {"provisioning": 0, "warm": 0, "claimed": 0, "dead": 0}
    assert answer["harness_probe"] == {"reachable": True, "status": 200}
    assert answer["harness"]["agent"]["running"] is True
    assert "set-up done" in answer["pod_logs_tail"]["text"]
    assert (answer["detected_issues"], answer["problems"], answer["last_inspection"]) == ([], [], None)
    nodes = (await platform.http.get(f"{API}/nodes")).json()
    (machine,) = nodes["data"]
    assert (machine["ready_status"], machine["sandbox_count"]) == ("True", 1)
    assert machine["sandboxes"] == [
        {
            "name": session["task_arn"],
            "session_id": session["id"],
            "agent_id": agent["id"],
            "agent_name": agent["name"],
            "status": "ready",
        }
    ]


async def test_a_clone_that_failed(platform: Platform, tmp_path: Path) -> None:
    session = await platform.failed(await platform.create_agent(repo_url=str(tmp_path / "none")))
    answer = await diagnose(platform, session)
    assert answer["pod"] == {"exists": False}
    assert answer["harness_probe"] is None
    assert codes(answer["hints"])[0] == "clone_failed"
    assert answer["hints"][0]["evidence"]
    assert answer["pod_logs_tail"]["available"] is True
    kept = answer["last_inspection"]
    assert (kept["pod"]["exists"], kept["node"]["exists"]) == (True, True)
    # What is wrong comes with the very event that tells of the failure.
    events = (await platform.http.get("/api/v1/events/log", params={"session_id": session["id"]})).json()["data"]
    (failed,) = [event for event in events if event["type"] == "session.failed"]
    assert codes(failed["session"]["issues"])[0] == "clone_failed"
    assert "evidence" not in failed["session"]["issues"][0]
    fleet = (await platform.http.get(f"{API}/diagnose")).json()
    assert (fleet["data"][0]["session_id"], codes(fleet["data"][0]["hints"])[0]) == (session["id"], "clone_failed")
    assert fleet["counts"]["clone_failed"] == 1


async def test_a_harness_that_does_not_answer(platform: Platform) -> None:
    session = await platform.ready(await platform.create_agent())
    processes = processes_of(platform.sandbox(session))
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    started = time.monotonic()
    answer = await diagnose(platform, session)
    assert time.monotonic() - started < 10
    assert codes(answer["detected_issues"]) == ["harness_unreachable"]
    for process in processes:
        os.kill(process, signal.SIGCONT)
    assert codes((await diagnose(platform, session))["detected_issues"]) == []


async def test_an_agent_that_has_ended(platform: Platform) -> None:
    session = await platform.ready(await platform.create_agent())
    for process in processes_of(platform.sandbox(session)):
        if Path(f"/proc/{process}/comm").read_text().strip() == "bash":
            os.kill(process, signal.SIGKILL)

    async def told() -> bool:
        return "agent_exited" in codes((await diagnose(platform, session))["hints"])

    await until(told, "the diagnosis says that the agent has ended")


async def test_a_sandbox_that_was_killed(platform: Platform) -> None:
    session = await platform.ready(await platform.create_agent())
    for process in processes_of(platform.sandbox(session)):
        with contextlib.suppress(ProcessLookupError):  # one's end may be another's
            os.kill(process, signal.SIGKILL)

    async def dead() -> bool:
        return (await platform.session(session["id"]))["status"] == "dead"

    await until(dead, "the session is dead")
    answer = await diagnose(platform, session)
    assert codes(answer["detected_issues"]) == []
    told = {hint["code"]: hint for hint in answer["hints"]}
    assert "SIGKILL" in told["container_terminated"]["message"]
    assert "container_terminated" in codes((await platform.session(session["id"]))["issues"])


async def test_one_that_was_deleted_is_no_problem(platform: Platform) -> None:
    session = await platform.ready(await platform.create_agent())
    await platform.http.delete(f"{API}/sessions/{session['id']}")
    answer = await diagnose(platform, session)
    assert (answer["detected_issues"], answer["hints"]) == ([], [])
    missing = await platform.http.get(f"{API}/sessions/nobody/diagnose")
    assert (missing.status_code, missing.json()["error"]) == (404, "session nobody not found")

"""The platform killed at every step of a bring-up, of a session or a warm sandbox: rows and processes match again."""

import signal
from pathlib import Path
from typing import Any

import pytest

from backend.domain.phases import PHASES
from tests.e2e.programs import API, Platform, processes_of
from tests.waiting import until

pytestmark = pytest.mark.e2e

FILE = {"name": "note", "sandbox_path": "~/note", "content": "aGVsbG8=", "content_type": "text/plain"}


async def stats(platform: Platform) -> dict[str, Any]:
    response = await platform.http.get("/api/v1/admin/stats")
    assert response.status_code == 200, response.text
    return response.json()


async def in_balance(platform: Platform) -> None:
    """Waits until every session is ready or ended with a reason, and each sandbox has a row and processes."""

    async def balanced() -> bool:
        sessions = (await platform.http.get(f"{API}/sessions", params={"limit": 200})).json()
        if any(session["status"] == "creating" for session in sessions):
            return False
        assert all(session["failure_reason"] for session in sessions if session["status"] != "ready")
        ready = {session["task_arn"] for session in sessions if session["status"] == "ready"}
        pool = (await stats(platform))["warm_pool"]["counts"]
        folder = platform.data_dir / "sandboxes"
        found = {path.name for path in folder.iterdir()} if folder.exists() else set()
        spare = {name for name in found - ready if name.startswith("w-")}
        return (
            found - spare == ready
            and len(spare) == pool["warm"]
            and pool["provisioning"] == pool["dead"] == 0
            and all(processes_of(folder / name) for name in found)
        )

    await until(balanced, "rows and processes match", 60)


STEPS = {
    "after": PHASES,
    "before": (
        "creating_sandbox",  # a row that nothing was done for
        "sandbox_url",  # a sandbox that its row does not tell of
        "harness_ready",
        "ready",  # set up, and nobody knows
    ),
}


@pytest.mark.parametrize("when", STEPS)
async def test_killed_at_every_step_of_a_bring_up(tmp_path: Path, repository: Path, when: str) -> None:
    """Each successor brings the session up, while it is killed with the next one; all are whole and can be ended."""
    platform = Platform(tmp_path / "data")
    sessions = {}
    try:
        agent = None
        for step in STEPS[when]:
            await platform.start("tests.e2e.killed_at", when, step)
            agent = agent or await platform.create_agent(
                repo_url=str(repository), requirements="# none", sandbox_files=[FILE]
            )
            sessions[step] = await platform.create_session(agent)
            await platform.killed()
        await platform.start()
        await in_balance(platform)
        for step, session in sessions.items():
            now = await platform.session(session["id"])
            assert now["status"] == "ready", f"{when} {step}: {now['failure_reason']}"
        response = await platform.http.post(f"{API}/sessions/{now['id']}/restart")
        assert response.status_code == 200, response.text
        await in_balance(platform)
        for session in sessions.values():
            await platform.http.delete(f"{API}/sessions/{session['id']}")
            await platform.nothing_left(session)
        await in_balance(platform)
    finally:
        await platform.close()


@pytest.mark.parametrize("moment", ["provisioning", "warm", "claimed"])
async def test_killed_with_a_warm_pool(tmp_path: Path, moment: str) -> None:
    platform = Platform(tmp_path / "data", {"WARM_POOL_SIZE": "1"})
    await platform.start()

    async def counts() -> dict[str, int]:
        return (await stats(platform))["warm_pool"]["counts"]

    async def is_warm() -> bool:
        return (await counts())["warm"] == 1

    try:
        agent = await platform.create_agent()
        await platform.ready(agent)
        if moment != "provisioning":
            await until(is_warm, "the pool is full")
        if moment == "claimed":
            claimed = await platform.create_session(agent)
            assert claimed["task_arn"].startswith("w-")
        await platform.end(signal.SIGKILL)
        await platform.start()
        await until(is_warm, "the pool is full again")
        await in_balance(platform)
        session = await platform.ready(agent)
        assert session["task_arn"].startswith("w-")
        response = await platform.http.delete(f"{API}/agents/{agent['id']}")
        assert response.status_code == 204
        await until(lambda: not processes_of(platform.data_dir / "sandboxes"), "no sandbox is left")
        await in_balance(platform)
    finally:
        await platform.close()

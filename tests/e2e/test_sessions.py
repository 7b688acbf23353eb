"""A session's whole life with real processes: come up, attach, work, survive the platform, go; and how it fails."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.e2e.programs import API, Platform, attached, processes_of
from tests.waiting import until

pytestmark = pytest.mark.e2e


async def test_tour(platform: Platform, repository: Path) -> None:
    agent = await platform.create_agent(
        repo_url=str(repository),
        env_vars={"GREETING": "from the agent", "BOTH": "agent"},
        env_var_plain=["GREETING"],
        sandbox_files=[
            {
                "name": "note",
                "sandbox_path": "~/notes/a.txt",
                "content": "aGVsbG8=",
                "content_type": "text/plain",
                "size": 5,
            }
        ],
    )
    created = await platform.create_session(agent, env_vars={"BOTH": "session"})
    assert created["status"] == "creating"
    assert created["tty_url"] is None
    assert created["sandbox_url"] is None
    session = await platform.settled(created["id"])
    assert session["status"] == "ready", session["failure_reason"]
    assert session["failure_reason"] is None
    assert session["last_seen_at"] is None
    assert session["tty_url"].startswith("ws://127.0.0.1:")

    # Each phase once, in the order of the seeds; nothing to install here, so that one is not entered.
    phases = [
        event["session"]["phase"]
        for event in await platform.events(session_id=session["id"])
        if event["type"] in ("session.phase", "session.ready")
    ]
    assert phases == [
        "creating_sandbox",
        "pod_pending",
        "pod_running",
        "injecting_files",
        "waiting_harness",
        "harness_ready",
        "cloning_repo",
        "harness_listening",
        "ready",
    ]

    async with attached(session) as viewer:
        await viewer.type('cat hello.txt ~/notes/a.txt; echo "[$GREETING|$BOTH]"; mark=still-here\r')
        await viewer.shows("hello from the repository")
        await viewer.shows("[from the agent|session]")
        await viewer.type("env | grep -c -e TOKEN -e MASTER_KEY\r")
        await viewer.shows("\n0")

    async def seen() -> bool:
        return (await platform.session(session["id"]))["last_seen_at"] is not None

    await until(seen, "what was typed counts as use")

    await platform.end(signal.SIGKILL)
    await platform.start()
    again = await platform.session(session["id"])
    assert again["status"] == "ready"
    assert again["task_arn"] == session["task_arn"]
    async with attached(again, 100, 30) as viewer:
        await viewer.shows("hello from the repository")
        await viewer.type('echo "<$mark>"; stty size\r')
        await viewer.shows("<still-here>")
        await viewer.shows("30 100")

    response = await platform.http.delete(f"{API}/sessions/{session['id']}")
    assert response.status_code == 200
    assert response.json() == {"id": session["id"], "status": "deleted"}
    await platform.nothing_left(again)
    dead = await platform.session(session["id"])
    assert (dead["status"], dead["failure_reason"]) == ("dead", "deleted")
    assert (await platform.http.delete(f"{API}/sessions/{session['id']}")).json()["status"] == "dead"
    assert (await platform.events(session_id=session["id"]))[-1]["type"] == "session.dead"


async def test_branch_and_daemons(platform: Platform, repository: Path) -> None:
    agent = await platform.create_agent(repo_url=str(repository), branch="other")
    session = await platform.ready(agent)
    async with attached(session) as viewer:
        # A child that leaves its session and its parents must end with the sandbox all the same.
        await viewer.type("cat other.txt; (setsid sleep 1000 >/dev/null 2>&1 &) ; echo started\r")
        await viewer.shows("another branch")
        await viewer.shows("\nstarted")
    assert processes_of(platform.sandbox(session))
    await platform.http.post(f"{API}/sessions/{session['id']}/stop")
    await platform.nothing_left(session)


async def test_bad_repository(platform: Platform, tmp_path: Path) -> None:
    session = await platform.failed(await platform.create_agent(repo_url=str(tmp_path / "nowhere")))
    assert session["phase"] == "cloning_repo"
    assert "nowhere" in session["failure_reason"]
    log = await platform.http.get(f"{API}/sessions/{session['id']}/sandbox_logs")
    assert "clone" in log.text


async def test_missing_branch(platform: Platform, repository: Path) -> None:
    session = await platform.failed(await platform.create_agent(repo_url=str(repository), branch="absent"))
    assert session["phase"] == "cloning_repo"
    assert "absent" in session["failure_reason"]


@pytest.mark.parametrize("platform", [{"LAP_HARNESS_COMMAND_CODEX": "no-such-program-here --flag"}], indirect=True)
async def test_missing_program(platform: Platform) -> None:
    session = await platform.failed(await platform.create_agent(harness_id="codex"))
    assert "no-such-program-here" in session["failure_reason"]
    assert "npm install" in session["failure_reason"]


@pytest.mark.parametrize(
    "platform", [{"LAP_HARNESS_COMMAND_CODEX": "sh -c 'echo my last words; exit 7'"}], indirect=True
)
async def test_program_that_exits(platform: Platform) -> None:
    session = await platform.failed(await platform.create_agent(harness_id="codex"))
    assert "7" in session["failure_reason"]
    assert "my last words" in session["failure_reason"]


@pytest.mark.parametrize(
    "platform",
    [
        {
            "LAP_HARNESS_COMMAND_OPENCODE": "sh -c 'echo warming up; exec sleep 1000'",
            "LAP_PHASE_TIMEOUT_SECONDS_HARNESS_LISTENING": "1.5",
            "LAP_PHASE_TIMEOUT_SECONDS_HARNESS_READY": "1.5",
        }
    ],
    indirect=True,
)
async def test_program_that_never_listens(platform: Platform) -> None:
    session = await platform.failed(await platform.create_agent(harness_id="opencode"))
    assert "warming up" in session["failure_reason"]


@pytest.mark.parametrize("platform", [{"LAP_HARNESS_COMMAND_OPENCODE": "sh -c 'exec sleep 1000'"}], indirect=True)
async def test_delete_while_creating(platform: Platform) -> None:
    agent = await platform.create_agent(harness_id="opencode")
    created = [await platform.create_session(agent) for _ in range(4)]
    # One at once, one when its harness has started, one deleted twice, one through its agent.
    await platform.http.delete(f"{API}/sessions/{created[0]['id']}")
    await until(lambda: len(processes_of(platform.sandbox(created[1]))) > 1, "the second sandbox has processes")
    await asyncio.gather(
        platform.http.delete(f"{API}/sessions/{created[1]['id']}"),
        platform.http.delete(f"{API}/sessions/{created[2]['id']}"),
        platform.http.delete(f"{API}/sessions/{created[2]['id']}"),
    )
    for session in created[:3]:
        assert (await platform.session(session["id"]))["status"] == "dead"
        await platform.nothing_left(session)
    assert (await platform.http.delete(f"{API}/agents/{agent['id']}")).status_code == 204
    await platform.nothing_left(created[3])
    assert (await platform.http.get(f"{API}/sessions/{created[3]['id']}")).status_code == 404
    for session in created[:3]:
        types = [event["type"] for event in await platform.events(session_id=session["id"])]
        assert types[-1] == "session.dead"
        assert "session.ready" not in types


async def test_two_viewers(platform: Platform) -> None:
    session = await platform.ready(await platform.create_agent())
    async with attached(session) as one, attached(session) as two:
        await one.type("echo from-$((40 + 2))-one\r")
        await two.shows("from-42-one")
        await two.type("echo from-$((40 + 3))-two\r")
        await one.shows("from-43-two")

        async def viewers() -> bool:
            return (await platform.session(session["id"]))["viewers"] == 2

        await until(viewers, "both viewers are counted")
    async with attached(session) as three:
        await three.shows("from-43-two")


async def test_agent_that_ends_is_started_anew(platform: Platform) -> None:
    session = await platform.ready(await platform.create_agent())
    async with attached(session) as viewer:
        await viewer.type("exit 7\r")
        await viewer.shows("process exited (code=7")
        with pytest.raises(ConnectionClosed):
            while True:
                await viewer.connection.recv()
    async with attached(session) as viewer:
        await viewer.type("echo back-$((1 + 1))\r")
        await viewer.shows("back-2")


async def test_terminal_tokens(platform: Platform) -> None:
    agent = await platform.create_agent()
    session, other = await platform.ready(agent), await platform.ready(agent)
    assert session["tty_token"] != other["tty_token"]
    for token in ("", "wrong", other["tty_token"], platform.key):
        with pytest.raises(InvalidStatus) as refused:
            async with attached(session | {"tty_token": token}):
                pass
        assert refused.value.response.status_code == 401


async def test_harness_that_dies(platform: Platform) -> None:
    session = await platform.ready(await platform.create_agent())
    for pid in processes_of(platform.sandbox(session)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # one's end may be another's
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"backend.harness" in command and b"unshare" not in command:
                os.kill(pid, signal.SIGKILL)

    async def dead() -> dict | None:
        seen = await platform.session(session["id"])
        return seen if seen["status"] == "dead" else None

    assert "task disappeared" in (await until(dead, "the session is dead"))["failure_reason"]
    await platform.nothing_left(session)


async def test_restart(platform: Platform) -> None:
    session = await platform.ready(await platform.create_agent())
    response = await platform.http.post(f"{API}/sessions/{session['id']}/restart")
    assert response.status_code == 200, response.text
    restarted = response.json()
    assert restarted["status"] == "ready"
    assert restarted["created_at"] == session["created_at"]
    assert restarted["creating_since"] > session["creating_since"]
    async with attached(restarted) as viewer:
        await viewer.type("echo again-$((1 + 1))\r")
        await viewer.shows("again-2")
    await platform.http.delete(f"{API}/sessions/{session['id']}")
    await platform.nothing_left(restarted)
    response = await platform.http.post(f"{API}/sessions/{session['id']}/restart")
    assert response.json()["status"] == "ready"


async def test_git_token_is_gone_before_the_agent_starts(tmp_path: Path, repository: Path) -> None:
    platform = Platform(tmp_path / "data", {"GIT_TOKEN": "secret-git-token"})
    await platform.start()
    try:
        session = await platform.ready(await platform.create_agent(repo_url=str(repository)))
        for pid in processes_of(platform.sandbox(session)):
            assert b"secret-git-token" not in Path(f"/proc/{pid}/environ").read_bytes()
        await platform.http.delete(f"{API}/sessions/{session['id']}")
        await platform.nothing_left(session)
    finally:
        await platform.end()
    for file in platform.data_dir.rglob("*"):
        if file.is_file():
            assert b"secret-git-token" not in file.read_bytes(), file


async def test_platform_killed_while_creating(tmp_path: Path) -> None:
    platform = Platform(tmp_path / "data", {"LAP_HARNESS_COMMAND_OPENCODE": "sh -c 'exec sleep 1000'"})
    await platform.start()
    agent = await platform.create_agent(harness_id="opencode")
    sessions = [await platform.create_session(agent, env_vars={"OWN": "x"} if own else {}) for own in (True, False)]
    await platform.end(signal.SIGKILL)
    await platform.start()
    try:
        for session in sessions:
            seen = await platform.session(session["id"])
            assert seen["status"] in ("creating", "failed")
            if seen["status"] == "failed":
                assert "never stored" in seen["failure_reason"]
            await platform.http.delete(f"{API}/sessions/{session['id']}")
            await platform.nothing_left(session)
    finally:
        await platform.end()


async def test_restarts_do_not_disturb_the_feed(platform: Platform) -> None:
    agent = await platform.create_agent()
    before = (await platform.events())[-1]["seq"]
    await platform.end(signal.SIGKILL)
    await platform.start()
    await platform.http.patch(f"{API}/agents/{agent['id']}", json={"name": "renamed"})
    headers = {"Last-Event-ID": str(before)}
    timeout = httpx.Timeout(10)
    async with platform.http.stream("GET", "/api/v1/events", headers=headers, timeout=timeout) as feed:
        async for line in feed.aiter_lines():
            if line.startswith("data:") and '"renamed"' in line:
                break

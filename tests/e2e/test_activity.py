"""Activity from the real agents to the platform's API: nobody attached, somebody attached, and over a restart."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.programs import API, Platform, attached
from tests.loopback_model import MODEL, LoopbackModel
from tests.waiting import until

pytestmark = pytest.mark.e2e

SOON = 1.0
"""Seconds until an event tells what an agent does."""
DIALOG_SECONDS = 1.2
"""A dialog heeds no key that may have been meant for what was there before."""
PROGRAMS = {"claude-code": "claude", "codex": "codex"}
PERMISSIONS = {"claude-code": "tool: touch zzz", "codex": "escalate: touch zzz"}


@pytest.fixture
async def model() -> AsyncIterator[LoopbackModel]:
    async with LoopbackModel() as model:
        yield model


@pytest.fixture
async def started(tmp_path: Path, model: LoopbackModel) -> AsyncIterator[Platform]:
    env = {"LITELLM_API_BASE": model.url, "LITELLM_API_KEY": "sk-loopback", "LAP_HARNESS_COMMAND_CLAUDE_CODE": ""}
    platform = Platform(tmp_path / "data", env)
    await platform.start()
    yield platform
    await platform.close()


async def doing(platform: Platform, session_id: str, state: str, reason: str | None) -> dict[str, Any]:
    """The session's activity, once it is this."""
    last: dict[str, Any] | None = None

    async def told() -> dict[str, Any] | None:
        nonlocal last
        last = (await platform.session(session_id))["activity"]
        return last if last and (last["state"], last["reason"]) == (state, reason) else None

    try:
        return await until(told, f"the agent is {state}, {reason}", 20)
    except AssertionError as error:
        raise AssertionError(f"{error}; it is {last}") from None


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def told_soon(platform: Platform, session_id: str) -> None:
    """Asserts that every activity was in the event log soon after it began."""
    seen = set()
    for event in await platform.events(session_id=session_id):
        activity = event.get("session", {}).get("activity")
        if activity and activity["since"] not in seen:
            seen.add(activity["since"])
            ready = event["session"]["ready_at"] or activity["since"]
            late = moment(event["at"]) - max(moment(activity["since"]), moment(ready))
            assert late.total_seconds() < SOON, (activity, event["at"])
    assert seen


@pytest.mark.parametrize("harness_id", PROGRAMS)
async def test_a_turn_with_a_permission(started: Platform, harness_id: str) -> None:
    if shutil.which(PROGRAMS[harness_id]) is None:
        pytest.skip(f"needs {PROGRAMS[harness_id]}")
    platform = started
    agent = await platform.create_agent(harness_id=harness_id, model=MODEL)
    session = await platform.ready(agent, initial_prompt=PERMISSIONS[harness_id])
    session_id = session["id"]

    asking = await doing(platform, session_id, "waiting_for_input", "permission")
    assert asking["message"] == "Bash: touch zzz"
    listed = (await platform.http.get(f"{API}/sessions")).json()
    assert [row["activity"] for row in listed] == [asking]

    await platform.end(signal.SIGKILL)
    await platform.start()
    assert (await platform.session(session_id))["activity"] == asking
    await asyncio.sleep(DIALOG_SECONDS)

    session = await platform.session(session_id)
    async with attached(session) as viewer:
        await viewer.shows("touch zzz")
        await viewer.type("\r")
        await doing(platform, session_id, "idle", "turn_finished")
        await viewer.type("\x1b[200~slow\x1b[201~")
        await asyncio.sleep(0.3)
        await viewer.type("\r")
        working = await doing(platform, session_id, "working", None)
        assert working["since"] > asking["since"]
        await asyncio.sleep(DIALOG_SECONDS)
        await viewer.type("\x1b")
        await doing(platform, session_id, "idle", "interrupted")
    await told_soon(platform, session_id)

    await end_agent(platform, session)
    crashed = await doing(platform, session_id, "idle", "crashed")
    assert crashed["message"] == "signal 9 (SIGKILL)"
    await told_soon(platform, session_id)

    response = await platform.http.delete(f"{API}/sessions/{session_id}")
    assert response.status_code in (200, 204), response.text
    last = (await platform.events(session_id=session_id))[-1]
    assert (last["type"], last["session"]["activity"]) == ("session.dead", None)


async def end_agent(platform: Platform, session: dict[str, Any]) -> None:
    """Kills the agent's program, whose working directory is the session's home."""
    home = platform.sandbox(session) / "home"
    program = PROGRAMS[session["harness_id"]].encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            runs, place = (entry / "cmdline").read_bytes().split(b"\0")[0], (entry / "cwd").readlink()
        except OSError:
            continue
        if place == home and program in Path(os.fsdecode(runs)).name.encode():
            os.kill(int(entry.name), signal.SIGKILL)
            return
    raise AssertionError("the agent's program was not found")

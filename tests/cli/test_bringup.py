"""Waiting for a session: what is borne, what ends it, and what is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from lapconsole.cli import bringup
from lapconsole.cli.report import Failure
from lapconsole.client.models import Session
from lapconsole.client.platform import Platform
from tests.cli.commands import until
from tests.cli.scripted import KEY, SESSION_ID, Script, session


@pytest.fixture
def script(serve: Callable[[Script], Script], monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.setattr(bringup, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(bringup, "_EAGER_POLL_SECONDS", 0.01)
    return serve(Script())


async def wait(script: Script, seconds: float = 10) -> Session:
    async with Platform(script.base, KEY) as platform:
        return await bringup.wait_ready(platform, SESSION_ID, seconds)


async def test_two_failures_in_a_row_are_borne(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    script.readings = [503, 503, session("creating", "pod_pending"), 503, 503, session()]
    assert (await wait(script)).status == "ready"
    assert capsys.readouterr().out == "  waiting for sandbox ??pod_pending?? ready\n"


async def test_three_failures_in_a_row_are_not(script: Script) -> None:
    script.readings = [503]
    with pytest.raises(Failure, match=r"^session poll: 503 Service Unavailable scripted$"):
        await wait(script)
    assert len(script.requests) == 3


async def test_an_unreachable_platform_is_told_as_such(script: Script) -> None:
    script.base = "http://127.0.0.1:1"
    with pytest.raises(Failure, match=r"^session poll failed: cannot reach http://127\.0\.0\.1:1"):
        await wait(script)


async def test_time_runs_out(script: Script) -> None:
    script.readings = [session("creating", "installing_deps", phase_detail="numpy")]
    with pytest.raises(Failure) as failure:
        await wait(script, 0.2)
    text = str(failure.value)
    assert text.startswith("session did not reach ready in 0s\n") and "phase_detail   numpy\n" in text
    assert f"lap --resume {SESSION_ID}" in text and len(script.asked("GET /api/v1/managed_agents/sessions")) > 2


async def test_an_interrupt_says_how_to_come_back(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    script.readings = [session("creating", "pod_pending")]
    waiting = asyncio.create_task(wait(script))
    await asyncio.to_thread(until, lambda: script.requests, "a poll")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert f"lap --resume {SESSION_ID}" in capsys.readouterr().err

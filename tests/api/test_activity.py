"""What a session's agent is doing, as its harness tells it, in the session, the list, and the events."""

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from backend.settings import Settings
from tests.api.conftest import SESSIONS
from tests.api.stand_in import Platform, stand_in

SINCE = "2026-05-15T22:33:26.283Z"
IDLE: dict[str, Any] = {"state": "idle", "since": SINCE, "reason": "turn_finished", "message": None}
ASKING: dict[str, Any] = {
    "state": "waiting_for_input",
    "since": SINCE,
    "reason": "permission",
    "message": "Bash: touch zzz",
}


@pytest.fixture
async def platform(settings: Settings) -> AsyncIterator[Platform]:
    async with stand_in(settings) as platform:
        yield platform


async def test_it_is_told_at_once_everywhere(platform: Platform) -> None:
    session = await platform.ready()
    assert session["activity"] is None
    began = time.monotonic()
    platform.harness.tell(activity=ASKING)
    session = await platform.until(session, lambda now: now["activity"], "it is stored")
    assert time.monotonic() - began < 0.4
    assert session["activity"] == ASKING
    assert (await platform.events(session))[-1]["session"]["activity"] == ASKING
    listed = (await platform.http.get(SESSIONS)).json()
    assert [row["activity"] for row in listed] == [ASKING]


async def test_an_ended_session_does_nothing(platform: Platform) -> None:
    session = await platform.ready()
    platform.harness.tell(activity=IDLE)
    await platform.until(session, lambda now: now["activity"] == IDLE, "it is stored")
    await platform.http.delete(f"{SESSIONS}/{session['id']}")
    [last] = await platform.events(session, "session.dead")
    assert last["session"]["activity"] is None


async def test_what_is_told_again_is_no_news(platform: Platform) -> None:
    session = await platform.ready()
    platform.harness.tell(activity=IDLE)
    await platform.until(session, lambda now: now["activity"] == IDLE, "it is stored")
    before = len(await platform.events(session))
    platform.harness.tell(activity=IDLE | {"more": 1})
    platform.harness.tell(activity=IDLE, viewers=2)
    await platform.until(session, lambda now: now["viewers"] == 2, "what came with it is stored")
    assert len(await platform.events(session)) == before + 1


@pytest.mark.parametrize("told", ["idle", [], {"state": "idle"}, {"state": "asleep", "since": SINCE}, {"state": {}}])
async def test_nonsense_is_no_activity(platform: Platform, told: Any) -> None:
    session = await platform.ready()
    platform.harness.tell(activity=told, viewers=1)
    session = await platform.until(session, lambda now: now["viewers"] == 1, "what came with it is stored")
    assert session["activity"] is None

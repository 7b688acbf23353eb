"""What a harness tells of its terminal, in the session's record and in the event log."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from backend.settings import Settings
from tests.api.conftest import AGENTS, SESSIONS
from tests.api.stand_in import Platform, stand_in
from tests.waiting import until

AT = "2026-05-01T00:00:00.000Z"
QUIET: dict[str, Any] = {"title": "", "bell_at": None, "notification": None, "progress": None, "agent_state": None}
BLOCKED = {
    "state": "blocked",
    "app": "claude-code",
    "kind": "permission",
    "title": "",
    "message": "approve Bash: touch zzz",
    "at": AT,
}
ALICE = {"name": "alice@host", "mode": "drive", "since": AT}


@pytest.fixture
async def platform(settings: Settings) -> AsyncIterator[Platform]:
    async with stand_in(settings) as platform:
        yield platform


async def test_what_is_told_is_recorded_and_ends_with_the_session(platform: Platform) -> None:
    session = await platform.ready()
    assert (session["terminal"], session["attached"], session["viewers"]) == (None, [], 0)
    told = {
        "title": "✳ Fix it",
        "bell_at": AT,
        "notification": {"title": "Claude", "body": "needs you", "at": AT},
        "progress": {"state": "normal", "value": 40},
        "agent_state": BLOCKED,
    }
    watcher = {"name": "bob@host", "mode": "watch", "since": AT}
    platform.harness.tell(terminal=told, attached=[ALICE, watcher])
    session = await platform.until(session, lambda now: now["terminal"] and now["viewers"], "it is recorded")
    assert session["terminal"] == told
    assert session["attached"] == [ALICE, watcher]
    assert session["viewers"] == 2
    event = (await platform.events(session))[-1]
    assert event["session"]["terminal"] == told
    assert event["session"]["attached"] == [ALICE, watcher]
    await platform.http.delete(f"{SESSIONS}/{session['id']}")
    ended = await platform.session(session)
    assert (ended["attached"], ended["viewers"], ended["terminal"]) == ([], 0, told)


async def test_a_harness_that_tells_neither(platform: Platform) -> None:
    session = await platform.ready()
    platform.harness.tell(viewers=3, title="of the earlier protocol")
    session = await platform.until(session, lambda now: now["viewers"] == 3, "viewers are counted")
    assert (session["terminal"], session["attached"]) == (None, [])


async def test_an_animated_title_fills_no_log_and_its_end_is_kept(platform: Platform) -> None:
    session = await platform.ready()
    began = time.monotonic()
    for number in itertools.count():
        platform.harness.tell(terminal=QUIET | {"title": f"{number} % done"})
        await asyncio.sleep(0.01)
        if time.monotonic() - began > 2:
            break
    seconds = time.monotonic() - began
    last = f"{number} % done"
    await platform.until(session, lambda now: (now["terminal"] or {}).get("title") == last, "the last one is kept")
    events = await platform.events(session)
    assert 2 <= len(events) <= 2 * seconds + 2


async def test_a_spinner_that_turns_is_no_news(platform: Platform) -> None:
    session = await platform.ready()
    for spinner in "⠋⠙⠹⠸⠼":
        platform.harness.tell(terminal=QUIET | {"title": f"{spinner} project"})
        await platform.until(session, lambda now: now["terminal"], "a title is kept")
    platform.harness.tell(terminal=QUIET | {"title": "✳ project"})
    await platform.until(session, lambda now: now["terminal"]["title"] == "✳ project", "its end is news")
    told = [event["session"]["terminal"] for event in await platform.events(session)]
    assert [terminal["title"] for terminal in told if terminal] == ["⠋ project", "✳ project"]


async def test_what_somebody_waits_for_does_not_wait(platform: Platform) -> None:
    session = await platform.ready()
    for number in range(8):  # the pace is used up
        platform.harness.tell(terminal=QUIET | {"title": str(number)})
        await asyncio.sleep(0.02)
    began = time.monotonic()
    platform.harness.tell(terminal=QUIET | {"agent_state": BLOCKED})
    await platform.until(session, lambda now: (now["terminal"] or QUIET)["agent_state"], "the state is recorded")
    assert time.monotonic() - began < 0.4


async def test_not_even_urgent_news_floods_the_log(platform: Platform) -> None:
    session = await platform.ready()
    began = time.monotonic()
    for number in itertools.count():
        platform.harness.tell(terminal=QUIET | {"notification": {"title": "", "body": str(number), "at": AT}})
        await asyncio.sleep(0.01)
        if time.monotonic() - began > 2:
            break
    seconds = time.monotonic() - began
    await platform.until(
        session, lambda now: now["terminal"]["notification"]["body"] == str(number), "the last one is kept"
    )
    assert len(await platform.events(session)) <= 2 * seconds + 6


async def test_a_state_that_comes_back_while_another_is_written(platform: Platform) -> None:
    session = await platform.ready()
    for title in ("a", "b", "a", "b", "a"):
        platform.harness.tell(terminal=QUIET | {"title": title})
        await asyncio.sleep(0.005)
    await platform.until(
        session, lambda now: now["terminal"] and now["terminal"]["title"] == "a", "the last one counts"
    )


@pytest.mark.parametrize(
    "told",
    [
        {"terminal": "text", "attached": {"a": 1}},
        {"terminal": {"title": 5, "notification": [], "progress": "x", "agent_state": {"state": "\ud800"}}},
        {"terminal": {"title": "\ud800\x1b[31m\u202e" * 1000}, "attached": [None, 5, {"name": "\x00" * 100}]},
        {"attached": [{"name": "n" * 1000, "mode": [], "since": {}}] * 10_000},
        {"viewers": -(10**30)},
    ],
)
async def test_nonsense_disturbs_nothing(platform: Platform, told: dict[str, Any]) -> None:
    session = await platform.ready()
    platform.harness.tell(**told)
    platform.harness.tell(terminal=QUIET | {"title": "sane"}, attached=[ALICE])
    session = await platform.until(
        session, lambda now: now["terminal"] and now["terminal"]["title"] == "sane", "what makes sense is recorded"
    )
    assert session["viewers"] == 1


async def test_a_broken_link_is_taken_up_again(platform: Platform) -> None:
    session = await platform.ready()
    platform.harness.tell(terminal=QUIET | {"title": "before"})
    await platform.until(session, lambda now: now["terminal"], "it is recorded")
    platform.harness.vanish()
    platform.harness.tell(terminal=QUIET | {"title": "after"})
    await platform.until(session, lambda now: now["terminal"]["title"] == "after", "the new state is recorded")


async def test_a_restart_begins_anew(platform: Platform) -> None:
    session = await platform.ready()
    platform.harness.tell(terminal=QUIET | {"title": "before"}, attached=[ALICE])
    await platform.until(session, lambda now: now["terminal"] and now["viewers"], "it is recorded")
    platform.harness.tell(terminal=None, attached=None)
    restarted = (await platform.http.post(f"{SESSIONS}/{session['id']}/restart")).json()
    assert (restarted["terminal"], restarted["attached"], restarted["viewers"]) == (None, [], 0)


async def test_recording_is_asked_of_the_harness(platform: Platform) -> None:
    plain, recorded = await platform.agent(), await platform.agent(recording=True)
    assert (plain["recording"], recorded["recording"]) == (False, True)
    for agent, fields, wanted in (
        (plain, {}, False),
        (plain, {"recording": True}, True),
        (recorded, {}, True),
        (recorded, {"recording": False}, False),
    ):
        session = await platform.ready(agent, **fields)
        assert session["recording"] is wanted
        body = platform.harness.bodies[-1]
        assert (body["recording"], body["recording_max_mb"]) == (wanted, 64)
    await platform.http.post(f"{SESSIONS}/{session['id']}/restart")
    assert platform.harness.bodies[-1]["recording"] is False
    changed = await platform.http.patch(f"{AGENTS}/{plain['id']}", json={"recording": True})
    assert changed.json()["recording"] is True
    assert (await platform.ready(plain))["recording"] is True
    for wrong in ("yes", 1, None):
        assert (await platform.http.patch(f"{AGENTS}/{plain['id']}", json={"recording": wrong})).status_code == 400
        response = await platform.http.post(f"{AGENTS}/{plain['id']}/session", json={"recording": wrong})
        assert response.status_code == 400


async def test_what_cannot_be_recorded_is_said(platform: Platform) -> None:
    agent = await platform.agent(harness_id="opencode", recording=True)
    assert "recorded" in (await platform.create(agent))["warnings"][0]
    await until(lambda: platform.harness.bodies, "the session comes up")

"""The live model: what it takes over, what it counts, and what it tells observers."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from datetime import UTC, datetime

import pytest

from lapconsole.client import Agent, Event, Session
from lapconsole.live import Changes, Link, LinkState, LiveModel


def session(session_id: str, status: str = "ready", agent_id: str = "a", **fields: object) -> Session:
    return Session.from_json({"id": session_id, "agent_id": agent_id, "status": status, **fields})


def event(type: str, at: str | None = None, **fields: object) -> Event:
    return Event.from_json({"type": type, "at": at, **fields})


def told(model: LiveModel) -> list[Changes]:
    seen: list[Changes] = []
    model.observe(seen.append)
    return seen


def test_events_change_it() -> None:
    model = LiveModel()
    model.apply(event("agent.created", agent={"id": "a", "name": "one"}))
    model.apply(event("session.created", session={"id": "s", "agent_id": "a", "status": "creating"}))
    model.apply(event("agent.updated", agent={"id": "a", "name": "two"}))
    assert (model.agents["a"].name, model.sessions["s"].status, model.counts) == ("two", "creating", {"creating": 1})
    model.apply(event("session.ready", session={"id": "s", "agent_id": "a", "status": "ready"}))
    assert (model.counts, model.agent_counts("a"), model.sessions_of("a")) == ({"ready": 1}, {"ready": 1}, ("s",))
    model.apply(event("something.new", session={"id": "s", "agent_id": "a", "status": "dead"}))
    assert model.counts == {"dead": 1}


def test_a_deleted_agent_takes_its_sessions_along() -> None:
    model = LiveModel()
    model.update_agents([Agent("a"), Agent("b")])
    model.update_sessions([session("s1"), session("s2"), session("s3", agent_id="b")])
    model.apply(event("agent.deleted", agent_id="a"))
    assert (list(model.agents), list(model.sessions), model.counts) == (["b"], ["s3"], {"ready": 1})
    assert (model.sessions_of("a"), model.agent_counts("a")) == ((), {})


@pytest.mark.parametrize(
    "odd",
    [{"type": "session.ready"}, {"type": "agent.deleted"}, {"type": "session.deleted", "session_id": "?"}, {}, None],
)
def test_events_that_say_nothing_change_nothing(odd: object) -> None:
    model = LiveModel()
    model.update_sessions([session("s")])
    model.apply(Event.from_json(odd))
    assert list(model.sessions) == ["s"]


def test_what_is_gone_is_removed() -> None:
    model = LiveModel()
    model.update_agents([Agent("a"), Agent("b")])
    model.update_sessions([session("s1"), session("s2", agent_id="b")])
    model.update_sessions([session("s3", "dead")])
    assert list(model.sessions) == ["s1", "s2", "s3"]
    model.remove_sessions(["s1", "unknown"])
    assert (list(model.sessions), model.counts) == (["s2", "s3"], {"ready": 1, "dead": 1})
    model.remove_agents(["b", "unknown"])
    assert (list(model.agents), list(model.sessions)) == (["a"], ["s3"])


def test_counts_are_right_after_anything() -> None:
    model, choose = LiveModel(), random.Random(1)
    for _ in range(3000):
        session_id, agent_id = f"s{choose.randrange(20)}", f"a{choose.randrange(3)}"
        if choose.random() < 0.2:
            model.apply(event("session.deleted", session_id=session_id))
        else:
            model.update_sessions([session(session_id, choose.choice(["creating", "ready", "odd", ""]), agent_id)])
    assert model.counts == Counter(known.status for known in model.sessions.values())
    for agent_id in ("a0", "a1", "a2"):
        own = [known for known in model.sessions.values() if known.agent_id == agent_id]
        assert sorted(model.sessions_of(agent_id)) == sorted(known.id for known in own)
        assert model.agent_counts(agent_id) == Counter(known.status for known in own)


async def test_observers_are_told_once_a_turn() -> None:
    model = LiveModel()
    seen = told(model)
    model.update_agents([Agent("a")])
    model.update_sessions([session("s1", agent_id="a"), session("s2", agent_id="b")])
    model.set_link(Link(LinkState.LIVE, datetime.now(UTC)))
    assert seen == []
    await asyncio.sleep(0)
    assert seen == [Changes(frozenset({"a", "b"}), frozenset({"s1", "s2"}), link=True)]
    model.update_sessions([session("s1", agent_id="a", title="t")])
    await asyncio.sleep(0)
    assert seen[1:] == [Changes(frozenset(), frozenset({"s1"}), link=False)]


async def test_what_stays_the_same_is_not_told() -> None:
    model = LiveModel()
    model.update_sessions([session("s", tty_token="x", tty_url="/tty")])
    model.flush()
    seen, version = told(model), model.version("s")
    model.update_sessions([session("s")])
    model.update_sessions([session("s", tty_token="y")])
    model.remove_sessions([])
    model.set_link(model.link)
    await asyncio.sleep(0)
    assert (seen, model.version("s")) == ([], version)
    assert model.sessions["s"].tty_token is None


async def test_removal_is_told_and_a_version_never_comes_back() -> None:
    model = LiveModel()
    model.update_sessions([session("s")])
    first = model.version("s")
    model.flush()
    seen = told(model)
    model.apply(event("session.deleted", session_id="s"))
    assert model.version("s") == 0
    await asyncio.sleep(0)
    assert seen[0].sessions == {"s"}
    model.update_sessions([session("s")])
    assert model.version("s") > first


async def test_an_observer_that_fails_or_leaves_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    model = LiveModel()

    def fail(_: Changes) -> None:
        raise RuntimeError("oops")

    model.observe(fail)
    stop = model.observe(lambda _: pytest.fail("told after leaving"))
    seen = told(model)
    stop()
    stop()
    with caplog.at_level(logging.CRITICAL, logger="lapconsole.live.model"):
        model.update_sessions([session("s")])
        await asyncio.sleep(0)
    assert len(seen) == 1


def test_phases_are_noted_when_first_seen() -> None:
    model = LiveModel()
    for second, phase in enumerate(["pod_pending", "waiting_harness", "cloning_repo", "waiting_harness"]):
        data = {"id": "s", "agent_id": "a", "status": "creating", "phase": phase}
        model.apply(event("session.phase", f"2026-01-01T00:00:0{second}Z", session=data))
    seen = {phase: at.second for phase, at in model.phases_seen("s").items()}
    assert seen == {"pod_pending": 0, "waiting_harness": 1, "cloning_repo": 2}
    assert (model.sessions["s"].step, model.sessions["s"].furthest) == (5, 7)
    ready = {"id": "s", "agent_id": "a", "status": "ready", "phase": "ready"}
    model.apply(event("session.ready", "2026-01-01T00:00:09Z", session=ready))
    assert list(model.phases_seen("s")) == ["pod_pending", "waiting_harness", "cloning_repo", "ready"]
    model.apply(
        event(
            "session.restarted", "2026-01-01T00:01:00Z", session={**ready, "status": "creating", "phase": "pod_pending"}
        )
    )
    assert list(model.phases_seen("s")) == ["pod_pending"]
    assert model.sessions["s"].furthest == 2


def test_phases_of_a_session_that_was_up_already_are_unknown() -> None:
    model = LiveModel()
    model.update_sessions([session("up", phase="ready"), session("coming", "creating", phase="pod_pending")])
    assert model.phases_seen("up") == {}
    assert list(model.phases_seen("coming")) == ["pod_pending"]
    assert model.phases_seen("unknown") == {}

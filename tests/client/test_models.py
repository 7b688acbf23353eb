"""Reading entities: real ones exactly, and anything at all without harm."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapconsole.client.models import (
    PHASES,
    Activity,
    Agent,
    AgentState,
    Attached,
    Diagnosis,
    Event,
    Notification,
    Progress,
    Session,
    Terminal,
    safe_line,
    safe_text,
    step_of,
)

AT = "2026-05-15T22:33:50+00:00"
NOW = datetime(2026, 5, 15, 22, 34, tzinfo=UTC)

SESSION = {
    "id": "5f0c",
    "agent_id": "a1",
    "agent_name": "reviewer",
    "status": "creating",
    "phase": "installing_deps",
    "phase_detail": "uv pip install",
    "tty_token": "tok",
    "response": {"parts": [{"type": "text", "text": "do"}, {"type": "tool"}, {"type": "text", "text": "ne"}]},
    "created_at": "2026-05-15T22:33:26.283Z",
    "creating_since": "2026-05-15T22:33:30.000Z",
    "idle_timeout_ms": 86400000,
    "isolation": {"pid_namespace": True},
    "from_the_future": {"x": 1},
}


def test_a_session_is_read() -> None:
    session = Session.from_json(SESSION)
    assert (session.id, session.agent_id, session.status, session.phase) == (
        "5f0c",
        "a1",
        "creating",
        "installing_deps",
    )
    assert (session.step, session.furthest, session.active, session.ended) == (8, 8, True, False)
    assert session.response == "done"
    assert session.created_at == datetime(2026, 5, 15, 22, 33, 26, 283000, tzinfo=UTC)
    assert session.age(NOW) == pytest.approx(33.717)
    assert session.status_age(NOW) == 30.0
    assert session.isolation == {"pid_namespace": True}
    assert session.label == "reviewer"
    assert "tok" not in repr(session)


def test_what_the_terminal_told_is_read() -> None:
    state = {
        "state": "blocked",
        "app": "codex",
        "kind": "permission",
        "title": "May I?",
        "message": "rm\x1b x",
        "at": AT,
    }
    told = {
        "title": "\u2733 work",
        "bell_at": AT,
        "notification": {"title": "", "body": "done", "at": 5},
        "progress": {"state": "normal", "value": 400},
        "agent_state": state,
    }
    seats = [{"name": "alice@host", "mode": "drive", "since": AT}, 7]
    session = Session.from_json({**SESSION, "status": "ready", "terminal": told, "attached": seats})
    moment = datetime.fromisoformat(AT)
    assert session.terminal == Terminal(
        "\u2733 work",
        moment,
        Notification("", "done", None),
        Progress("normal", 100),
        AgentState("blocked", "codex", "permission", "May I?", "rm  x", moment),
    )
    assert session.attached == (Attached("alice@host", "drive", moment), Attached())


@pytest.mark.parametrize("told", [None, 3, [], {}, {"agent_state": "blocked"}, {"agent_state": {"state": ["blocked"]}}])
def test_a_terminal_that_tells_nothing_or_nonsense(told: object) -> None:
    session = Session.from_json({**SESSION, "status": "ready", "terminal": told, "attached": told})
    assert session.attached == ()
    assert session.terminal is None or session.terminal.agent_state in (None, AgentState())


def test_what_the_agent_is_doing_is_read() -> None:
    told = {"state": "waiting_for_input", "since": AT, "reason": "permission", "message": "Bash:\x1b rm x"}
    session = Session.from_json({**SESSION, "status": "ready", "activity": told})
    moment = datetime.fromisoformat(AT)
    assert session.activity == Activity("waiting_for_input", moment, "permission", "Bash:  rm x")
    assert session.needs_you
    assert not Session.from_json({**SESSION, "status": "dead", "activity": told}).needs_you


@pytest.mark.parametrize(
    ("state", "reason", "needs"),
    [
        ("waiting_for_input", None, True),
        ("idle", "exited", True),
        ("idle", "crashed", True),
        ("idle", "error", True),
        ("idle", "turn_finished", False),
        ("working", None, False),
        ("unknown", "started", False),
        ("dreaming", "newer", False),
    ],
)
def test_who_needs_a_person(state: str, reason: str | None, needs: bool) -> None:
    session = Session.from_json({**SESSION, "status": "ready", "activity": {"state": state, "reason": reason}})
    assert session.needs_you is needs


@pytest.mark.parametrize("told", [None, 3, [], "idle", {}, {"state": ["idle"], "since": 5, "message": {}}])
def test_an_activity_that_is_none(told: object) -> None:
    session = Session.from_json({**SESSION, "status": "ready", "activity": told})
    assert session.activity in (None, Activity())
    assert not session.needs_you


def test_an_agent_is_read() -> None:
    agent = Agent.from_json(
        {
            "id": "a1",
            "name": None,
            "harness_id": "codex",
            "env_vars": {"A": "********", "B": 3},
            "allow_out": ["github.com", 7],
            "sandbox_files": [{"name": "x", "sandbox_path": "~/x", "content": "QQ==", "size": 1}, "junk"],
            "prompt": "one\r\ntwo\x1b",
            "session_count": 4,
            "has_active_session": True,
        }
    )
    assert (agent.id, agent.label, agent.supports_tui) == ("a1", "a1", True)
    assert (agent.env_vars, agent.allow_out) == ({"A": "********"}, ("github.com",))
    assert [file.sandbox_path for file in agent.sandbox_files] == ["~/x", ""]
    assert agent.prompt == "one\ntwo "
    assert (agent.session_count, agent.has_active_session) == (4, True)
    assert Agent.from_json({"id": "x", "harness_id": "codex", "supports_tui": False}).supports_tui is False
    assert Agent.from_json({"id": "x", "harness_id": "opencode"}).supports_tui is False


def test_the_phases_are_steps_one_to_ten() -> None:
    assert [step_of(phase) for phase in PHASES] == list(range(1, 11))
    assert (step_of(None), step_of("thinking")) == (0, 0)


def test_statuses_of_other_platforms() -> None:
    assert Session.from_json({"id": "x", "status": "stopped"}).status == "dead"
    assert Session.from_json({"id": "x", "status": "hibernating"}).active is False
    assert Session.from_json({"id": "x", "status": "ready", "phase": None}).step == 10


def test_the_furthest_step_survives_phases_that_go_back() -> None:
    first = Session.from_json({**SESSION, "phase": "harness_ready"})
    back = Session.from_json({**SESSION, "phase": "waiting_harness"}).following(first)
    assert (back.step, back.furthest) == (5, 6)
    failed = Session.from_json({**SESSION, "status": "failed", "phase": "waiting_harness"}).following(back)
    assert (failed.step, failed.furthest) == (5, 6)


@pytest.mark.parametrize("since", ["2026-05-15T23:00:00Z", None])
def test_a_restart_starts_over(since: str | None) -> None:
    ready = Session.from_json({**SESSION, "status": "ready", "creating_since": since and SESSION["creating_since"]})
    again = Session.from_json({**SESSION, "phase": "pod_pending", "creating_since": since})
    assert again.following(ready).furthest == 2


def test_ages_are_never_negative() -> None:
    session = Session.from_json(SESSION)
    assert session.age(NOW - timedelta(days=1)) == 0.0
    assert Session("x").age(NOW) is None


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-05-15T22:33:26", datetime(2026, 5, 15, 22, 33, 26, tzinfo=UTC)),
        ("2026-05-15T22:33:26+02:00", datetime(2026, 5, 15, 20, 33, 26, tzinfo=UTC)),
        ("0001-01-01T00:00:00+23:59", None),
        ("yesterday", None),
        (1778884406, None),
        (None, None),
    ],
)
def test_times(text: object, moment: datetime | None) -> None:
    assert Session.from_json({"id": "x", "created_at": text}).created_at == moment


def test_nothing_that_drives_a_terminal_comes_through() -> None:
    dirty = "a\x1b[2J\x9b\u202eb\ud800\n\tc\x00"
    assert safe_line(dirty) == "a [2J  b   c "
    assert safe_text(dirty) == "a [2J  b \n\tc "
    assert safe_line("grüße \u200d👩‍🚀") == "grüße \u200d👩‍🚀"
    session = Session.from_json({"id": dirty, "status": dirty, "phase": dirty, "title": dirty, "failure_reason": dirty})
    for text in (session.id, session.status, session.phase, session.title, session.failure_reason):
        assert text is not None
        text.encode()
        assert "\x1b" not in text and "\n" not in text


def test_an_event_is_read() -> None:
    event = Event.from_json({"seq": 7, "at": "2026-05-15T22:33:26.283Z", "session": SESSION}, type="session.phase")
    assert (event.type, event.seq, event.at) == (
        "session.phase",
        7,
        datetime(2026, 5, 15, 22, 33, 26, 283000, tzinfo=UTC),
    )
    assert event.session is not None and event.session.id == "5f0c"
    assert Event.from_json({"session": {}}).session is None


SURROGATES = st.characters(codec=None)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(SURROGATES, max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
KEYS = st.sampled_from(
    sorted(
        {*SESSION, *Agent.__dataclass_fields__, *Session.__dataclass_fields__, "seq", "at", "type", "agent", "session"}
    )
)
TOLD = st.sampled_from(sorted({*Terminal.__dataclass_fields__, *AgentState.__dataclass_fields__, "value", "mode"}))
TERMINALS = st.dictionaries(TOLD, JSON | st.dictionaries(TOLD, JSON, max_size=4), max_size=4)
ENTITIES = JSON | st.dictionaries(KEYS, JSON | st.just(SESSION) | TERMINALS | st.lists(TERMINALS), max_size=12)


@given(ENTITIES)
def test_reading_never_raises(value: object) -> None:
    agent, session, event = Agent.from_json(value), Session.from_json(value), Event.from_json(value)
    Diagnosis.from_json({"detected_issues": value})
    assert isinstance(agent.id, str) and isinstance(session.id, str) and isinstance(event.type, str)
    assert 0 <= session.step <= 10 and 0 <= session.furthest <= 10
    for text in (agent.label, session.label, session.status, event.type):
        text.encode()
    assert isinstance(session.needs_you, bool)
    session.following(Session.from_json(SESSION)).age(NOW)
    assert session == Session.from_json(json.loads(json.dumps(value)))

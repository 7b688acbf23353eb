"""The words for Linear, and its webhooks, without a platform."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain.sessions import INITIAL_PROMPT_LIMIT
from backend.integrations.linear import webhooks, words
from backend.integrations.linear.webhooks import BadPayload, Event, Issue
from tests.linear import APP_USER, WEBHOOK_SECRET, issue_event, session_event, signed

PLACE = words.Place("s1", "https://lap.example.com")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)


def session(status: str = "ready", **fields: Any) -> dict[str, Any]:
    return {
        "status": status,
        "response": None,
        "warnings": [],
        "activity": None,
        "supports_tui": True,
        "failure_reason": None,
        **fields,
    }


def activity(state: str, reason: str | None, since: str = "1", message: str | None = None) -> dict[str, Any]:
    return {"state": state, "reason": reason, "since": since, "message": message}


def answer(answer_id: str, text: str, **info: Any) -> dict[str, Any]:
    return {"info": {"id": answer_id, **info}, "parts": [{"type": "text", "text": text}]}


def kinds(*seen: dict[str, Any]) -> list[str]:
    """The types of what is told of a session that was seen like this, one after the other."""
    told: dict[str, Any] = {}
    found = []
    for view in seen:
        contents, told = words.news(told, view, PLACE)
        found += [content["type"] for content in contents]
    return found


def test_nothing_is_told_twice() -> None:
    views = [
        session("creating"),
        session(activity=activity("idle", "started")),
        session(activity=activity("working", None, "2")),
        session(activity=activity("waiting_for_input", "permission", "3", "Bash")),
        session(activity=activity("working", None, "4")),
        session(activity=activity("idle", "turn_finished", "5")),
        session("dead", failure_reason="idle timeout"),
    ]
    twice = [view for view in views for _ in range(2)]
    assert kinds(*twice) == ["thought", "elicitation", "response", "response"]


def test_each_answer_is_told() -> None:
    views = [session(response=answer("m1", "one")), session(response=answer("m1", "one")), session()]
    views += [session(response=answer("m2", "")), session(response=answer("m3", "x", error={"name": "Gone"}))]
    assert kinds(*views) == ["thought", "response", "response", "error"]


def test_an_agent_that_answers_messages_tells_by_its_answers_when_it_stops() -> None:
    stopped = session(supports_tui=False, activity=activity("idle", "turn_finished"))
    asks = session(supports_tui=False, activity=activity("waiting_for_input", "question", "2", "which one?"))
    assert kinds(stopped, asks) == ["thought", "elicitation"]


def test_a_first_message_that_failed() -> None:
    warned = session(warnings=["something else", "initial_prompt failed: no credit"])
    assert kinds(session(), warned, warned) == ["thought", "error"]


def test_a_restarted_session_is_told_again() -> None:
    views = [session(), session("dead", failure_reason="task disappeared"), session("creating"), session()]
    assert kinds(*views) == ["thought", "error", "thought"]


def test_where_a_session_is() -> None:
    assert str(PLACE) == "[session s1](https://lap.example.com/sessions/s1)"
    assert str(words.Place("s1", None)) == "session `s1`"


def test_prompts_and_bodies_are_bounded() -> None:
    issue = Issue("i", "ENG-1", "t", "u", "d" * 100_000)
    assert len(words.prompt(Event("opened", "a", issue, "Ann", "c"))) == INITIAL_PROMPT_LIMIT
    assert len(words.content("response", "x" * 100_000)["body"]) == words.MAX_BODY
    assert words.prompt(Event("opened", "a"))
    assert words.prompt(Event("opened", "a", Issue("i", "ENG-1", "", "", ""))) == "Linear issue ENG-1"


def test_events_are_stored_whole() -> None:
    event = webhooks.event_of(session_event("created", comment="look"), APP_USER)
    assert event is not None
    assert Event.stored(json.loads(json.dumps(event.json()))) == event


def test_genuine_and_fresh() -> None:
    assert webhooks.is_genuine(WEBHOOK_SECRET, b"body", signed(b"body")["linear-signature"])
    assert not webhooks.is_genuine(WEBHOOK_SECRET, b"body ", signed(b"body")["linear-signature"])
    now = time.time()
    assert webhooks.is_fresh({"webhookTimestamp": (now - 59) * 1000}, now)
    assert webhooks.is_fresh({"webhookTimestamp": (now + 59) * 1000}, now)
    for sent in ((now - 61) * 1000, (now + 61) * 1000, None, "1", True, float("nan"), 10**400):
        assert not webhooks.is_fresh({"webhookTimestamp": sent}, now)


@pytest.mark.parametrize("kind", ["AgentSessionEvent", "Issue", "AppUserNotification"])
@given(data=st.data())
def test_any_signed_payload_is_an_event_nothing_or_bad(kind: str, data: st.DataObject) -> None:
    if kind == "Issue":
        payload = issue_event(data.draw(st.sampled_from(["create", "update", "remove"])), {}, assigneeId=APP_USER)
    else:
        payload = session_event(data.draw(st.sampled_from(["created", "prompted"])), text="hi") | {"type": kind}
    places = [payload, *(value for value in payload.values() if value and isinstance(value, dict))]
    place = data.draw(st.sampled_from(places))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(JSON)
    try:
        event = webhooks.event_of(payload, APP_USER)
    except BadPayload:
        return
    assert event is None or event.kind in ("opened", "prompted", "stopped", "assigned", "unassigned")

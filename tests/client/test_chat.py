"""Conversations: a transcript and the bus together, whatever comes, in whatever order."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapconsole.client.chat import (
    MOST_CHARACTERS,
    MOST_MESSAGES,
    MOST_PARTS,
    ChatMessage,
    Conversation,
    TurnFailed,
    error_text,
    follow,
    overlap,
    send,
    transcript,
)
from lapconsole.client.errors import PlatformError, Unreachable
from lapconsole.client.platform import Platform
from tests.conversation import Session, message, served, text, tool

ID = "22222222-2222-4222-8222-222222222222"


def event(type: str, **properties: Any) -> dict[str, Any]:
    return {"type": type, "properties": {"sessionID": "s", **properties}}


def delta(words: str, part: str = "p1", field: str = "text") -> dict[str, Any]:
    return event("message.part.delta", messageID="m1", partID=part, delta=words, field=field)


def updated(role: str = "assistant", **info: Any) -> dict[str, Any]:
    return event("message.updated", info={"id": "m1", "role": role, **info})


def text_of(talk: Conversation) -> str:
    return talk.messages["m1"].text


def test_what_streams_in_becomes_a_message() -> None:
    talk = Conversation()
    assert talk.apply(updated()) == "m1" and talk.working
    talk.apply(delta("Hel"))
    talk.apply(delta("lo"))
    talk.apply(delta("hm", "p2", "reasoning"))
    assert text_of(talk) == "Hello" and talk.messages["m1"].parts["p2"].kind == "reasoning"
    talk.apply(event("message.part.updated", part={"id": "p1", "messageID": "m1", "type": "text", "text": "Hello!"}))
    talk.apply(event("message.part.updated", messageID="m1", part={"id": "p3", **tool("Bash", status="running")}))
    assert text_of(talk) == "Hello!" and talk.messages["m1"].parts["p3"].status == "running"
    talk.apply(updated(time={"created": 1000, "completed": 3000}, tokens={"output": 7}, cost=0.5))
    done = talk.messages["m1"]
    assert (done.completed - done.created).total_seconds() == 2 and (done.tokens, done.cost) == (7, 0.5)
    talk.apply(event("session.idle"))
    assert talk.working is False


def test_what_was_asked_may_change_when_the_turn_is_over() -> None:
    talk = Conversation()
    talk.apply(updated("user"))
    assert talk.working
    talk.apply(event("session.idle"))
    talk.apply(updated("user", summary={}))
    assert talk.working is False


@pytest.mark.parametrize("status", [{"type": "busy"}, {"type": "idle"}])
def test_the_status_says_whether_it_works(status: dict[str, str]) -> None:
    talk = Conversation()
    talk.apply(event("session.status", status=status))
    assert talk.working is (status["type"] == "busy")


@pytest.mark.parametrize("first", ["message", "session"])
def test_an_error_is_told_once_in_either_order(first: str) -> None:
    error = {"name": "SDKError", "data": {"message": "no credit"}}
    events = [updated(error=error), event("session.error", error=error)]
    talk = Conversation()
    talk.apply(updated())
    for one in events if first == "message" else reversed(events):
        talk.apply(one)
    assert [one.error for one in talk.messages.values()] == ["no credit"] and talk.working is False


def test_a_stopped_turn_is_told_once() -> None:
    talk = Conversation()
    talk.apply(event("session.aborted"))
    assert [one.text for one in talk.messages.values()] == ["The turn was stopped."]
    talk.apply(updated())
    assert talk.apply(event("session.aborted")) is None
    talk.apply(updated(error={"name": "AbortError", "data": {"message": "run aborted by client"}}))
    assert talk.messages["m1"].error == "stopped"


def test_what_the_platform_says_before_a_message_is_left_out() -> None:
    before = "<lap_session_id>x</lap_session_id>\n<lap_session_url>http://x</lap_session_url>\n"
    assert ChatMessage.from_json(message("u", "user", text(f"{before}Do it"))).text == "Do it"
    history = "<previous_session_history><msgs>[]</msgs></previous_session_history>"
    told = ChatMessage.from_json(message("u", "user", text(history))).text
    assert told == "[the conversation so far, told to a new sandbox]\n"
    assert ChatMessage.from_json(message("u", "user", text("<b>x</b>"))).text == "<b>x</b>"


@pytest.mark.parametrize("known", ["", "one ", "one two ", "one two three"])
def test_a_transcript_and_what_streamed_meanwhile_add_up(known: str) -> None:
    events = [updated(), delta("one "), delta("two "), delta("three")]
    talk = Conversation()
    parts = [{"id": "p1", **text(known)}] if known else []
    talk.seed([ChatMessage.from_json({"info": {"id": "m1", "role": "assistant"}, "parts": parts})], events)
    assert text_of(talk) == "one two three"


def test_a_whole_part_that_came_meanwhile_counts_alone() -> None:
    talk = Conversation()
    whole = event("message.part.updated", messageID="m1", part={"id": "p1", **text("new")})
    seeded = ChatMessage.from_json({"info": {"id": "m1", "role": "assistant"}, "parts": [{"id": "p1", **text("o")}]})
    talk.seed([seeded], [delta("ld"), whole, delta("er")])
    assert text_of(talk) == "newer"


def test_overlaps() -> None:
    assert overlap("abc", "bcd") == 2 and overlap("abc", "xyz") == 0 and overlap("", "x") == 0


def test_everything_is_bounded() -> None:
    talk = Conversation()
    for number in range(MOST_MESSAGES + 5):
        talk.apply(event("message.updated", info={"id": f"x{number}", "role": "user"}))
    assert len(talk.messages) == MOST_MESSAGES and "x4" not in talk.messages
    for number in range(MOST_PARTS + 5):
        talk.apply(delta("x", f"p{number}"))
    assert len(talk.messages["m1"].parts) == MOST_PARTS
    part = {"id": "p1", **text("x" * (MOST_CHARACTERS + 5))}
    talk.apply(event("message.part.updated", messageID="m1", part=part))
    talk.apply(delta("more"))
    assert len(talk.messages["m1"].parts["p1"].text) < MOST_CHARACTERS + 100


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (None, ""),
        ("why\n", "why"),
        ({"name": "X"}, "X"),
        ({"data": {"message": "m\x1b[2J"}}, "m [2J"),
        ([], ""),
        (3, ""),
    ],
)
def test_errors_are_one_line(error: object, words: str) -> None:
    assert error_text(error) == words


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_OF_MESSAGES = ("message.updated", "message.part.updated", "message.part.delta", "message.removed")
_OF_SESSIONS = ("session.status", "session.idle", "session.error", "session.aborted")
TYPES = st.sampled_from((*_OF_MESSAGES, *_OF_SESSIONS, "permission.asked", "question.asked", "x"))
NAMES = ["info", "part", "messageID", "partID", "delta", "field", "status", "error", "title", "id", "time", "state"]


@given(TYPES, st.dictionaries(st.sampled_from(NAMES), JSON | st.dictionaries(st.sampled_from(NAMES), JSON, max_size=3)))
def test_no_event_breaks_it(type: str, properties: dict[str, Any]) -> None:
    talk = Conversation()
    talk.apply({"type": type, "properties": properties})
    talk.seed([], [{"type": type, "properties": properties}])
    ChatMessage.from_json({"info": properties, "parts": [properties, *properties.values()]})


# The calls


async def test_a_turn_is_sent_and_followed_by_all() -> None:
    talk = Session()
    async with served(talk) as base, Platform(base, "k") as platform, aclosing(follow(platform, ID)) as others:
        assert (await anext(others))["type"] == "stream.opened"
        own = [event["type"] async for event in send(platform, ID, "with a tool")]
        assert own[0] == "ready" and own[-1] == "session.idle" and "message.part.delta" in own
        seen = []
        async for one in others:
            seen.append(one["type"])
            if one["type"] == "session.idle":
                break
        assert seen == own[1:] and talk.received == ["with a tool"]
        messages = await transcript(platform, ID)
        assert [(one.role, one.text) for one in messages] == [
            ("user", "with a tool"),
            ("assistant", "echo: with a tool"),
        ]
        assert json.dumps(await platform.messages(ID)) == json.dumps(talk.messages)
        answer = await platform.message(ID, "and again")
        assert ChatMessage.from_json(answer).text == "echo: and again"


async def test_what_goes_wrong_says_whether_it_arrived() -> None:
    talk = Session()
    talk.faults["send"] = ["refuse", 409, "break", "lose"]
    async with served(talk) as base, Platform(base, "k") as platform:

        async def sent() -> None:
            async for _ in send(platform, ID, "once"):
                pass

        with pytest.raises(TurnFailed, match="prompt_async failed") as refused:
            await sent()
        assert refused.value.taken is False and talk.received == []
        with pytest.raises(PlatformError, match="scripted refusal"):
            await sent()
        for _ in range(2):
            with pytest.raises(Unreachable):
                await sent()
        assert talk.received == ["once"]
        talk.faults["abort"] = [404]
        with pytest.raises(PlatformError):
            await platform.abort(ID)


async def test_a_silent_stream_is_a_broken_one() -> None:
    async with served(Session()) as base, Platform(base, "k") as platform:
        events = follow(platform, ID, idle_seconds=0.1)
        async with aclosing(events):
            await anext(events)
            with pytest.raises(Unreachable, match="silent"):
                await anext(events)

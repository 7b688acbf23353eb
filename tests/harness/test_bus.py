"""The event bus of API harnesses: what its listeners get."""

import json
from typing import Any

import pytest

from backend.harness.bus import MAX_DATA_URL, Bus, normal


def read(frame: bytes) -> dict[str, Any]:
    assert frame.startswith(b"data: ")
    assert frame.endswith(b"\n\n")
    assert frame.count(b"\n") == 2
    event: dict[str, Any] = json.loads(frame[6:])
    return event


def test_a_listener_hears_that_it_is_connected_and_then_everything_until_it_leaves() -> None:
    bus, seen = Bus(), list[bytes]()
    leave = bus.listen(seen.append)
    bus.publish({"type": "a", "properties": {"text": "ä\n\ud800"}})
    leave()
    bus.publish({"type": "b", "properties": {}})
    assert [read(frame)["type"] for frame in seen] == ["server.connected", "a"]
    assert read(seen[1])["properties"]["text"].startswith("ä\n")


@pytest.mark.parametrize(
    ("properties", "kind", "session"),
    [
        ({"sessionID": "ses_1"}, "x", "ses_1"),
        ({"part": {"sessionID": "ses_2"}}, "message.part.updated", "ses_2"),
        ({"info": {"sessionID": "ses_3", "id": "msg_1"}}, "message.updated", "ses_3"),
        ({"info": {"id": "ses_4"}}, "session.updated", "ses_4"),
        ({"info": {"id": "msg_1"}}, "message.updated", None),
        ({"info": "x", "part": []}, "y", None),
    ],
)
def test_every_event_of_a_session_has_its_id(properties: Any, kind: str, session: str | None) -> None:
    event = normal({"type": kind, "properties": properties})
    assert event is not None
    assert event["properties"].get("sessionID") == session


@pytest.mark.parametrize("wrong", [None, [], "x", {}, {"type": 1}])
def test_what_is_no_event_is_left_out(wrong: Any) -> None:
    assert normal(wrong) is None


def test_an_event_without_properties_gets_some() -> None:
    assert normal({"type": "x", "id": "evt_1"}) == {"type": "x", "id": "evt_1", "properties": {}}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ({"name": "APIError", "data": {"message": "no credit"}}, "no credit"),
        ({"name": "APIError"}, "APIError"),
        (None, "unknown error"),
        ("plain", "plain"),
    ],
)
def test_an_error_says_what_it_is(error: Any, message: str) -> None:
    event = normal({"type": "session.error", "properties": {"error": error}})
    assert event is not None
    assert event["properties"]["message"] == message


def test_a_large_attachment_is_not_sent_to_everyone() -> None:
    part = {"type": "file", "mime": "image/png", "url": "data:image/png;base64," + "A" * MAX_DATA_URL}
    event = normal({"type": "message.part.updated", "properties": {"part": part}})
    assert event is not None
    assert event["properties"]["part"] == part | {"url": "data:image/png;base64,"}

"""The claude-agent-sdk server's own rules: which messages it takes, and how a turn is told."""

from collections.abc import Mapping
from typing import Any

import pytest

from backend.harness.sdk.session import Prompt
from backend.harness.sdk.turn import Turn

PNG = {"type": "base64", "media_type": "image/png", "data": "AAAA"}


def told() -> tuple[Turn, list[tuple[str, Mapping[str, Any]]]]:
    """A turn and what it tells."""
    events: list[tuple[str, Mapping[str, Any]]] = []
    return Turn("ses_1", lambda kind, properties: events.append((kind, properties))), events


def test_texts_stay_apart_and_images_come_first() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image", "source": PNG}, {"type": "text", "text": "b"}]
    prompt = Prompt.from_json({"parts": parts})
    assert prompt.blocks == [{"type": "image", "source": PNG}, parts[0], parts[2]]
    assert prompt.model is None


def test_a_file_part_of_opencodes_is_an_image_too() -> None:
    part = {"type": "file", "mime": "image/png", "url": "data:image/png;base64,AAAA"}
    assert Prompt.from_json({"parts": [part]}).blocks == [{"type": "image", "source": PNG}]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ({"providerID": "litellm", "modelID": "a/b/c"}, "a/b/c"),
        ({"providerID": "a", "modelID": "b/c"}, "a/b/c"),
        ({"modelID": "x"}, "x"),
    ],
)
def test_the_models_name_is_whole(model: Any, name: str) -> None:
    assert Prompt.from_json({"parts": [{"type": "text", "text": "x"}], "model": model}).model == name


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"parts": "x"},
        {"parts": []},
        {"parts": ["x"]},
        {"parts": [{"type": "text", "text": "  "}]},
        {"parts": [{"type": "text", "text": 1}]},
        {"parts": [{"type": "image"}]},
        {"parts": [{"type": "image", "source": PNG | {"media_type": "image/svg+xml"}}]},
        {"parts": [{"type": "image", "source": PNG | {"data": None}}]},
        {"parts": [{"type": "file", "url": "file:///etc/passwd"}]},
        {"parts": [{"type": "text", "text": "x"}], "model": "m"},
        {"parts": [{"type": "text", "text": "x"}], "model": {"modelID": 1}},
    ],
)
def test_what_is_no_message_is_refused(body: Any) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Prompt.from_json(body)


def test_a_block_is_one_part_from_its_first_piece_to_its_end() -> None:
    turn, events = told()
    turn.open("msg_1", 0, {"type": "text", "text": ""})
    turn.grow("msg_1", 0, "text", "ab")
    turn.grow("msg_1", 0, "text", "c")
    turn.complete("msg_1", {"type": "text", "text": "abc"})
    turn.complete("msg_1", {"type": "text", "text": "whole at once"})
    turn.end({"cost": 1.0})
    assert [(part["id"], part["text"]) for part in turn.message["parts"]] == [
        ("msg_1_b0", "abc"),
        ("msg_1_b1", "whole at once"),
    ]
    assert [kind.removeprefix("message.") for kind, _ in events] == [
        *("part.updated", "part.delta", "part.delta", "part.updated", "part.updated", "updated"),
        *("session.status", "session.idle"),
    ]
    assert turn.message["info"]["cost"] == 1.0


def test_a_tool_that_has_not_come_back_is_an_error_at_the_end() -> None:
    turn, events = told()
    tool = {"type": "tool", "tool": "Bash", "callID": "c1", "state": {"status": "running", "input": {}}}
    turn.complete("msg_1", tool)
    turn.complete("msg_1", tool | {"callID": "c2", "state": {"status": "running", "input": {}}})
    turn.result("c1", "done", failed=False)
    turn.fail("SDKError", "x" * 1000)
    states = [part["state"] for part in turn.message["parts"]]
    assert (states[0]["status"], states[0]["output"]) == ("completed", "done")
    assert states[1]["status"] == "error"
    error = turn.message["info"]["error"]
    assert (error["name"], len(error["data"]["message"])) == ("SDKError", 500)
    assert [kind for kind, _ in events[-4:]] == ["message.updated", "session.error", "session.status", "session.idle"]


def test_an_aborted_turn_says_so_whatever_it_ended_with_and_ends_once() -> None:
    turn, events = told()
    turn.aborted = True
    turn.fail("ResultError", "error_during_execution")
    turn.fail("SDKError", "later")
    turn.end()
    assert turn.message["info"]["error"] == {"name": "AbortError", "data": {"message": "run aborted by client"}}
    assert [kind for kind, _ in events] == ["message.updated", "session.aborted", "session.status", "session.idle"]

"""Which sandboxes are interchangeable, who gets the next ones, and when a failing agent is tried again."""

from typing import Any

import pytest

from backend.domain.warm_pool import fingerprint, next_agents, retry_seconds

HAND_OVER: dict[str, Any] = {
    "title": None,
    "prompt": "Be careful",
    "env": {"TOKEN": "secret", "AGENT_ID": "a1"},
    "files": [{"name": "x", "content": "aGk="}],
}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"title": "mine"}, True),
        ({"env": {"AGENT_ID": "a1", "TOKEN": "secret", "SESSION_ID": "s1"}}, True),
        ({"env": {"AGENT_ID": "a1", "TOKEN": "other"}}, False),
        ({"env": {"AGENT_ID": "a1", "TOKEN": "secret", "OWN": "x"}}, False),
        ({"prompt": "Be quick"}, False),
        ({"files": [{"name": "x", "content": "aGkh"}]}, False),
        ({"something_new": True}, False),
    ],
)
def test_fingerprint(change: dict[str, Any], same: bool) -> None:
    assert (fingerprint(b"key", {**HAND_OVER, **change}) == fingerprint(b"key", HAND_OVER)) is same


def test_a_fingerprint_tells_nothing_without_the_key() -> None:
    assert fingerprint(b"key", HAND_OVER) != fingerprint(b"other", HAND_OVER)
    assert "secret" not in fingerprint(b"key", HAND_OVER)


@pytest.mark.parametrize(
    ("candidates", "have", "free", "chosen"),
    [
        ([], {}, 2, []),
        (["a"], {}, 2, ["a", "a"]),
        (["a", "b"], {}, 2, ["a", "b"]),
        (["a", "b"], {}, 3, ["a", "b", "a"]),
        (["a", "b", "c"], {"a": 1}, 2, ["b", "c"]),
        (["a", "b"], {"a": 2, "gone": 5}, 1, ["b"]),
        (["a"], {}, 0, []),
        (["a"], {}, -1, []),
    ],
)
def test_next_agents(candidates: list[str], have: dict[str, int], free: int, chosen: list[str]) -> None:
    assert next_agents(candidates, have, free) == chosen


def test_retry() -> None:
    assert [retry_seconds(failures) for failures in (1, 2, 3, 7, 1000)] == [60, 120, 240, 3600, 3600]

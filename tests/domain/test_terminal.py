"""What is kept of what a harness tells of its terminal."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain import terminal

AT = "2026-05-01T00:00:00.000Z"
FULL: dict[str, Any] = {
    "title": "✳ Fix it 👩‍💻",
    "bell_at": AT,
    "notification": {"title": "t", "body": "b", "at": AT},
    "progress": {"state": "paused", "value": 40},
    "agent_state": {"state": "idle", "app": "a", "kind": "k", "title": "t", "message": "m", "at": AT},
}
EMPTY: dict[str, Any] = {"title": "", "bell_at": None, "notification": None, "progress": None, "agent_state": None}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([*FULL, "state", "value", "body", "message", "at", "name", "mode", "since"]), inner
        )
    ),
    max_leaves=15,
)


def test_what_makes_sense_stays() -> None:
    assert terminal.terminal(FULL) == FULL
    assert terminal.terminal({}) == EMPTY
    assert terminal.terminal(None) is terminal.terminal([FULL]) is terminal.attached({}) is None
    viewer = {"name": "alice@host", "mode": "drive", "since": AT}
    assert terminal.attached([viewer]) == [viewer]


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ({"title": "x" * 1000}, {"title": "x" * 256}),
        ({"title": " a\x1b]0;b\x07\r\n\x9bc\u202ed\ud800 "}, {"title": "a]0;b cd"}),
        ({"title": None}, {}),
        ({"bell_at": "yesterday"}, {}),
        ({"bell_at": "2026-05-01T02:00:00+02:00"}, {"bell_at": AT}),
        ({"bell_at": "0001-01-01T00:00:00+23:59"}, {}),
        ({"notification": {"body": "b\n" * 2000}}, {"notification": {"title": "", "body": ("b " * 512), "at": None}}),
        ({"progress": {"state": "normal", "value": 400}}, {"progress": {"state": "normal", "value": 100}}),
        ({"progress": {"state": "error", "value": -1}}, {"progress": {"state": "error", "value": 0}}),
        ({"progress": {"state": "none", "value": True}}, {"progress": {"state": "none", "value": 0}}),
        ({"progress": {"state": "fast", "value": 1}}, {}),
        ({"agent_state": {"state": "asleep"}}, {}),
        ({"agent_state": {"state": ["idle"]}}, {}),
    ],
)
def test_the_rest_is_cut_or_dropped(told: dict[str, Any], kept: dict[str, Any]) -> None:
    assert terminal.terminal(told) == EMPTY | kept


def test_who_is_attached() -> None:
    assert terminal.attached([None, {}, {"name": "n" * 100, "mode": "own", "since": 5}]) == [
        {"name": "", "mode": "watch", "since": None},
        {"name": "n" * 64, "mode": "watch", "since": None},
    ]
    assert len(terminal.attached([{}] * 1000) or ()) == 100


@given(JSON)
def test_nothing_gets_through_that_cannot_be_stored(told: Any) -> None:
    for kept in (terminal.terminal(told), terminal.attached(told)):
        text = repr(kept)
        text.encode()
        assert len(text) < 20_000
    if (state := terminal.terminal(told)) is not None:
        assert terminal.terminal(state) == state


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("⠋ work", "⠙ work", True),
        ("◐ work", "◑ work", True),
        ("✶ work", "✻ work", True),
        ("⠋ work", "⠙ rest", False),
        ("✳ work", "◑ work", False),
        ("⠋ work", "work", False),
        ("work ⠋", "work ⠙", False),
        ("", "", True),
    ],
)
def test_a_spinner_that_turns_changes_nothing(one: str, other: str, same: bool) -> None:
    assert terminal.same(EMPTY | {"title": one}, EMPTY | {"title": other}) is same


def test_what_is_urgent() -> None:
    assert terminal.same(None, None)
    assert not terminal.same(None, EMPTY)
    assert not terminal.urgent(None, EMPTY)
    assert not terminal.urgent(EMPTY, EMPTY | {"title": "x", "bell_at": AT, "progress": FULL["progress"]})
    for name in ("notification", "agent_state"):
        assert terminal.urgent(EMPTY, EMPTY | {name: FULL[name]})
        assert terminal.urgent(None, EMPTY | {name: FULL[name]})

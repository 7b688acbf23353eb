"""Control messages of the terminal protocol, also those that no harness should send."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapconsole.client.tty_messages import (
    MAX_VIEWERS,
    Exit,
    ModeGiven,
    Repaint,
    Size,
    Viewer,
    Viewers,
    Welcome,
    read,
)

ALICE = {"id": "1", "name": "alice@host", "mode": "drive", "cols": 100, "rows": 30, "since": "2026-03-14T03:07:21Z"}


@pytest.mark.parametrize(
    ("message", "read_as"),
    [
        (
            {"type": "welcome", "viewer": "2", "mode": "watch", "cols": 100, "rows": 30, "viewers": [ALICE]},
            Welcome("2", "watch", 100, 30, (Viewer("1", "alice@host", "drive"),)),
        ),
        ({"type": "repaint", "scrollback": 12, "skipped": 3}, Repaint(12, 3)),
        ({"type": "repaint", "scrollback": -1, "skipped": True}, Repaint(0, 0)),
        ({"type": "size", "cols": 0, "rows": 10_000}, Size(80, 300)),
        ({"type": "mode", "mode": "drive", "by": "a\x1b[2Jb"}, ModeGiven("drive", "a [2Jb")),
        ({"type": "mode", "mode": "own"}, ModeGiven("watch", "")),
        (
            {"type": "viewers", "viewers": [{"name": "x" * 100}, 7]},
            Viewers((Viewer("", "x" * 64, "watch"), Viewer("", "", "watch"))),
        ),
        ({"type": "exit", "code": None, "signal": 9}, Exit(None, 9)),
        ({"type": "tomorrow"}, None),
        ([], None),
    ],
)
def test_messages(message: object, read_as: object) -> None:
    assert read(json.dumps(message)) == read_as


def test_a_crowd_is_cut() -> None:
    crowd = read(json.dumps({"type": "viewers", "viewers": [ALICE] * 1000}))
    assert isinstance(crowd, Viewers)
    assert len(crowd.viewers) == MAX_VIEWERS


@given(st.text() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_nothing_raises(text: str) -> None:
    read(text)


def test_deep_nesting_is_no_message() -> None:
    assert read("[" * 100_000) is None

"""The registry of actions and a person's own keys."""

from __future__ import annotations

import pytest

from lapconsole.keys import ACTIONS, REACH, TITLES, Keymap, bindings, show


def test_no_two_actions_in_reach_share_a_key() -> None:
    for name, scopes in REACH.items():
        taken: dict[str, str] = {}
        for action in ACTIONS:
            if action.scope in scopes:
                for key in action.keys.split(","):
                    assert key not in taken, f"{name}: {key} means {taken[key]} and {action.id}"
                    taken[key] = action.id


def test_every_action_can_be_found_and_reached() -> None:
    assert len({action.id for action in ACTIONS}) == len(ACTIONS)
    assert {action.scope for action in ACTIONS} == set(TITLES)
    assert all(action.words for action in ACTIONS)
    assert all(binding.id or binding.key for binding in bindings("app"))


def test_what_ends_something_asks() -> None:
    for action in ACTIONS:
        if action.action in ("stop", "delete", "restart"):
            assert "(asks)" in action.words


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ({"sessions.fly": "f"}, "there is no action"),
        ({"app.quit_always": "f"}, "always keeps ctrl+q"),
        ({"app.quit": ""}, "is not a key"),
        ({"app.quit": "ctrl+shift+nonsense"}, "is not a key"),
        ({"app.quit": "f99"}, "is not a key"),
        ({"app.quit": 3}, "is not a key"),
        ({"app.quit": "1"}, "1 already means app.sessions; kept q"),
        ({"sessions.stop": "slash"}, "/ already means list.filter; kept x"),
        ({"sessions.stop": "f5", "sessions.restart": "f5"}, "f5 already means"),
        ({"table.up": "ctrl+q"}, "ctrl+q already means app.quit_always"),
    ],
)
def test_what_cannot_be_is_said_and_left_out(overrides: dict[str, object], problem: str) -> None:
    keymap = Keymap(overrides)
    assert len(keymap.problems) == 1
    assert problem in keymap.problems[0]
    assert len(keymap.overrides) == len(overrides) - 1


def test_keys_may_be_swapped() -> None:
    keymap = Keymap({"sessions.attach": "r", "sessions.restart": "a"})
    assert keymap.problems == []
    assert keymap.first("sessions.attach") == "r"
    assert keymap.overrides == {"sessions.attach": "r", "sessions.restart": "a"}


@pytest.mark.parametrize(
    ("keys", "shown"), [("question_mark", "?"), ("up,k", "↑ k"), ("ctrl+s", "ctrl+s"), ("comma", ",")]
)
def test_keys_as_a_person_reads_them(keys: str, shown: str) -> None:
    assert show(keys) == shown


def test_keys_as_a_person_writes_them() -> None:
    keymap = Keymap({"app.help": "F1, ?".lower(), "list.filter": "ctrl+/"})
    assert keymap.problems == []
    assert keymap.keys("app.help") == "f1,question_mark"
    assert keymap.keys("list.filter") == "ctrl+slash"

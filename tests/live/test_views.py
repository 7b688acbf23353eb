"""Sorted and filtered lists: the same as sorting and filtering everything, at every step."""

from __future__ import annotations

import random

import pytest

from lapconsole.client import Agent, Session
from lapconsole.live import SESSION_SORTS, LiveModel, agents_view, sessions_view


def session(number: int, status: str = "ready", **fields: object) -> Session:
    created = f"2026-01-01T00:{number // 60:02}:{number % 60:02}Z"
    return Session.from_json(
        {"id": f"s{number:03}", "agent_id": "a", "status": status, "created_at": created, **fields}
    )


@pytest.fixture
def model() -> LiveModel:
    model = LiveModel()
    model.update_sessions(session(number) for number in range(5))
    return model


def test_newest_come_first(model: LiveModel) -> None:
    view = sessions_view(model)
    assert list(view) == ["s004", "s003", "s002", "s001", "s000"]
    assert (view[0], view[-1], view[1:3], len(view)) == ("s004", "s000", ["s003", "s002"], 5)
    assert [view.index_of(id) for id in view] == [0, 1, 2, 3, 4]
    assert (view.index_of("?"), "?" in view, "s001" in view) == (None, False, True)
    for beyond in (5, -6):
        with pytest.raises(IndexError):
            view[beyond]


def test_rows_come_and_go(model: LiveModel) -> None:
    view = sessions_view(model)
    model.update_sessions([session(9)])
    model.remove_sessions(["s002", "s003", "s004"])
    assert view.update(["s009", "s002", "s003", "s004", "unknown"])
    assert list(view) == ["s009", "s001", "s000"]
    assert not view.update(["s001"])


def test_rows_do_not_move_until_told_to(model: LiveModel) -> None:
    view = sessions_view(model)
    view.sort_by("status")
    assert list(view) == ["s000", "s001", "s002", "s003", "s004"]
    model.update_sessions([session(3, "failed")])
    assert not view.update(["s003"])
    assert (view[0], view.out_of_order, view.index_of("s003")) == ("s000", True, 3)
    view.resort()
    assert (view[0], view.out_of_order) == ("s003", False)
    view.sort_by("status", descending=True)
    assert (list(view)[-1], view.sort, view.descending) == ("s003", "status", True)
    with pytest.raises(KeyError):
        view.sort_by("colour")
    assert view.sort == "status"


def test_a_filter_takes_words_and_leaves_out_others(model: LiveModel) -> None:
    model.update_sessions([session(7, "failed", title="Fix Straße", failure_reason="oom killed", harness_id="codex")])
    view = sessions_view(model)
    for text, found in [
        ("FAILED", 1),
        ("codex oom", 1),
        ("codex ready", 0),
        ("STRASSE", 1),
        ("!failed", 5),
        ("s00 !s001 !s002", 4),
        ("!", 6),
        ("  ", 6),
    ]:
        view.set_filter(text)
        assert (len(view), view.filter) == (found, text)


def test_a_filter_follows_changes(model: LiveModel) -> None:
    view = sessions_view(model, only=lambda session: session.id != "s000")
    view.set_filter("failed")
    assert list(view) == []
    model.update_sessions([session(3, "failed"), session(0, "failed")])
    assert view.update(["s000", "s003"])
    assert list(view) == ["s003"]
    model.update_sessions([session(3)])
    assert view.update(["s003"])
    assert list(view) == []


def test_agents_are_sorted_by_name() -> None:
    model = LiveModel()
    model.update_agents([Agent("1", "beta"), Agent("2", "Alpha"), Agent("3"), Agent("0", "beta")])
    assert list(agents_view(model)) == ["3", "2", "0", "1"]


@pytest.mark.parametrize("sort", SESSION_SORTS)
def test_every_sort_takes_every_session(sort: str, model: LiveModel) -> None:
    model.update_sessions(
        [Session("bare"), session(3, "odd", phase="?", title="t", last_seen_at="2026-01-01T00:00:00Z")]
    )
    view = sessions_view(model)
    view.sort_by(sort)
    assert sorted(view) == sorted(model.sessions)


def test_updating_is_the_same_as_starting_over() -> None:
    model, choose = LiveModel(), random.Random(2)
    view = sessions_view(model)
    view.set_filter("ready")
    for _ in range(60):
        ids = [choose.randrange(300) for _ in range(choose.choice([1, 3, 200]))]
        model.remove_sessions(f"s{number:03}" for number in ids[::3])
        model.update_sessions(session(number, choose.choice(["ready", "dead"])) for number in ids[1::3])
        view.update({f"s{number:03}" for number in ids})
        anew = sessions_view(model)
        anew.set_filter("ready")
        assert list(view) == list(anew)
        assert [view.index_of(id) for id in view] == list(range(len(view)))

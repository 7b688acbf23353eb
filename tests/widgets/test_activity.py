"""What an agent is doing, in words."""

from __future__ import annotations

from datetime import datetime

import pytest

from lapconsole.client.models import Activity
from lapconsole.live.views import SESSION_SORTS
from lapconsole.widgets.activity import NOT_KNOWN, NOT_TOLD, activity_parts, call_parts, short_words, words, words_since
from lapconsole.widgets.parts import Look, plain
from lapconsole.widgets.words import UNICODE
from tests.screens.scene import NOW, PAYMENTS, ago, session

LOOK = Look(NOW, UNICODE)


@pytest.mark.parametrize(
    ("activity", "said", "call"),
    [
        (Activity("waiting_for_input", ago(5), "permission", "Bash: touch zzz"), "asks: Bash: touch zzz", "▲ waiting"),
        (Activity("waiting_for_input", ago(5), "permission"), "asks for a permission", "▲ waiting"),
        (Activity("waiting_for_input", ago(5), "question"), "asks a question", "▲ waiting"),
        (Activity("waiting_for_input", ago(5)), "calls you", "▲ waiting"),
        (Activity("waiting_for_input", ago(5), "", "Build: done"), "calls you: Build: done", "▲ waiting"),
        (Activity("working", ago(130)), "working 2m", ""),
        (Activity("working", None, "", "Runs the tests"), "working: Runs the tests", ""),
        (Activity("idle", ago(5), "turn_finished"), "your turn", ""),
        (Activity("idle", ago(5), "started"), "idle", ""),
        (Activity("idle", ago(5), "interrupted"), "interrupted", ""),
        (Activity("idle", ago(5), "exited", "exit code 1"), "exited 1", "✗ exited"),
        (Activity("idle", ago(5), "crashed", "signal 9 (SIGKILL)"), "crashed: signal 9 (SIGKILL)", "✗ crashed"),
        (Activity("idle", ago(5), "error", "API Error: 400"), "error: API Error: 400", "✗ error"),
        (Activity("unknown", ago(5), "started"), "", ""),
        (Activity("dreaming", ago(5), "newer"), "", ""),
    ],
)
def test_words(activity: Activity, said: str, call: str) -> None:
    one = session(1, PAYMENTS, activity=activity)
    assert short_words(activity, NOW) == said
    assert words(one, NOW) == (said or NOT_TOLD)
    assert plain(call_parts(one, LOOK)) == call
    assert len(call) <= 10
    assert plain(activity_parts(one, LOOK))[2:] == said


def test_since_when() -> None:
    asks = Activity("waiting_for_input", ago(130), "permission", "Bash: ls")
    assert words_since(session(1, PAYMENTS, activity=asks), NOW) == "asks: Bash: ls (for 2m)"
    assert words_since(session(1, PAYMENTS), NOW) == NOT_KNOWN
    assert words_since(session(1, PAYMENTS, "dead", activity=asks), NOW) == ""


def test_text_of_an_agent_cannot_drive_the_terminal() -> None:
    one = session(1, PAYMENTS, activity=Activity("working", ago(1), "", "\x1b[2J\u202ex"))
    assert "\x1b" not in plain(activity_parts(one, LOOK))


def test_the_order_of_what_is_done() -> None:
    def doing(state: str, reason: str = "", since: datetime | None = None) -> float:
        return float(SESSION_SORTS["doing"](session(1, PAYMENTS, activity=Activity(state, since, reason))))

    states = ("waiting_for_input", "permission"), ("idle", "exited"), ("idle", "turn_finished"), ("working", "")
    places = [doing(*state) for state in (*states, ("unknown", ""))]
    assert places == sorted(places)
    assert places[-1] < SESSION_SORTS["doing"](session(1, PAYMENTS, "creating"))

"""The rules of activity: each source by itself, together, late, and in any order."""

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.domain import activity, bus_activity
from backend.domain.activity import REASONS, STATES, Hook, Known, Source
from backend.domain.terminal import AGENT_STATES, BODY_LIMIT

START = 1000.0
SINCE = "2026-05-15T22:33:26.283Z"
Told = Callable[[Known], Known]


def osc(state: str, at: float, kind: str = "", message: str = "") -> Told:
    return lambda known: activity.terminal_said(known, state, kind, message, at)


def hook(event: str, at: float, **more: str) -> Told:
    return lambda known: activity.hook_said(known, Hook(event, at, **{"conversation": "main"} | more))


def asks(at: float, tool: str = "Bash", text: str = "touch zzz", **more: str) -> Told:
    return hook("PermissionRequest", at, tool=tool, text=text, **more)


def keys(at: float) -> Told:
    return lambda known: activity.typed(known, at)


def bell(at: float, message: str | None = None) -> Told:
    return lambda known: activity.hinted(known, message, at)


def bus(kind: str, at: float, **properties: Any) -> Told:
    return lambda known: bus_activity.said(known, kind, {"sessionID": "ses_1"} | properties, at)


def after(*told: Told) -> Known:
    return reduce(lambda known, one: one(known), told, activity.started(START))


def now(*told: Told) -> tuple[str, float, str | None, str | None]:
    answer = after(*told).now
    return answer.state, answer.since, answer.reason, answer.message


def test_an_agent_that_has_told_nothing_is_unknown() -> None:
    assert now() == ("unknown", START, "started", None)


# What Claude Code and Codex write to the terminal. The orders are those that were seen.


def test_a_turn() -> None:
    idle, work, done = osc("idle", 1001), osc("working", 1010), osc("done", 1020)
    assert now(idle) == ("idle", 1001, "started", None)
    assert now(idle, work) == ("working", 1010, None, None)
    assert now(idle, work, done) == ("idle", 1020, "turn_finished", None)
    assert now(idle, work, done, osc("idle", 1030)) == ("idle", 1020, "turn_finished", None), "Codex, at the next key"


def test_what_is_worked_on_is_no_new_beginning() -> None:
    assert now(osc("working", 1010), osc("working", 1011, message="Runs")) == ("working", 1010, None, "Runs")


@pytest.mark.parametrize(
    ("kind", "message", "reason", "shown"),
    [
        ("permission", "approve Bash: touch zzz", "permission", "Bash: touch zzz"),
        ("question", "answer: tea or coffee (Yes · No)", "question", "tea or coffee (Yes · No)"),
        ("", "approve Bash: ls", "permission", "Bash: ls"),
        ("permission", "", "permission", None),
        ("something", "", None, None),
    ],
)
def test_what_is_asked(kind: str, message: str, reason: str | None, shown: str | None) -> None:
    asked = (osc("working", 1010), osc("blocked", 1011, kind, message))
    assert now(*asked) == ("waiting_for_input", 1011, reason, shown)
    assert now(*asked, osc("blocked", 1012, kind, message)) == ("waiting_for_input", 1011, reason, shown)
    assert now(*asked, osc("working", 1013)) == ("working", 1013, None, None)


def test_to_be_asked_another_thing_is_something_new() -> None:
    first, second = (osc("blocked", at, "permission", f"approve Bash: {at}") for at in (1011, 1012))
    assert now(osc("working", 1010), first, second) == ("waiting_for_input", 1012, "permission", "Bash: 1012")


def test_an_interruption() -> None:
    turn = (osc("idle", 1001), keys(1009), osc("working", 1010))
    assert now(*turn, keys(1011), osc("idle", 1012)) == ("idle", 1012, "interrupted", None)
    refused = (osc("blocked", 1011, "permission"), osc("working", 1012), osc("idle", 1012.1))
    assert now(*turn, *refused) == ("idle", 1012.1, "interrupted", None), "Codex, at a refused permission"
    prompted = hook("UserPromptSubmit", 1009.9)
    assert now(*turn, prompted, osc("idle", 1012)) == ("idle", 1012, "interrupted", None), "without a key seen"


def test_small_affairs_are_no_interrupted_turns() -> None:
    flicker = (osc("idle", 1001), osc("working", 1002), osc("idle", 1003))
    assert now(*flicker) == ("idle", 1003, "started", None), "Codex, at its start"
    command = (osc("working", 1010), osc("done", 1020), osc("working", 1030), osc("idle", 1031))
    assert now(*command) == ("idle", 1031, "turn_finished", None)


def test_an_error_has_its_message() -> None:
    told = osc("working", 1010), osc("error", 1011, message="API Error: 400")
    assert now(*told) == ("idle", 1011, "error", "API Error: 400")


def test_a_program_that_leaves_the_terminal_takes_its_word_back() -> None:
    told = osc("working", 1010), osc("clear", 1011)
    assert now(*told) == ("unknown", 1011, None, None)
    assert now(*told, hook("Stop", 1010.5)) == ("unknown", 1011, None, None), "a late hook of it"
    assert now(*told, bell(1020)) == ("waiting_for_input", 1020, None, None)


@pytest.mark.parametrize("state", ["", "asleep", "Idle"])
def test_unknown_states_are_ignored(state: str) -> None:
    assert now(osc("working", 1010), osc(state, 1011)) == ("working", 1010, None, None)


# Hooks beside the terminal.


def test_a_hook_says_what_is_asked_whichever_comes_first() -> None:
    turn, blocked, asked = osc("working", 1010), osc("blocked", 1011, "permission"), asks(1011)
    wanted = ("waiting_for_input", 1011, "permission", "Bash: touch zzz")
    assert now(turn, blocked, asked) == wanted
    assert now(turn, asked, blocked) == wanted
    assert now(turn, asked, blocked, blocked) == wanted


def test_the_terminals_own_words_win() -> None:
    blocked = osc("blocked", 1011, "permission", "approve Bash: touch zzz")
    assert now(osc("working", 1010), asks(1011, text="other"), blocked)[3] == "Bash: touch zzz"
    assert now(osc("working", 1010), blocked, asks(1011, text="other"))[3] == "Bash: touch zzz"


def test_a_request_that_has_been_answered_is_not_asked_again() -> None:
    answered = osc("working", 1010), asks(1011), osc("blocked", 1011, "permission"), osc("working", 1012)
    assert now(*answered, osc("blocked", 1015, "permission")) == ("waiting_for_input", 1015, "permission", None)
    late = osc("working", 1010), osc("blocked", 1011, "permission"), osc("working", 1012), asks(1011)
    assert now(*late) == ("working", 1012, None, None)
    assert now(*late, osc("blocked", 1015, "permission"))[3] is None


def test_late_hooks_change_nothing_that_the_terminal_has_told() -> None:
    turn = osc("working", 1010), osc("done", 1011), osc("working", 1012)
    for event in ("Stop", "StopFailure", "UserPromptSubmit", "PostToolUse", "Notification", "SessionEnd"):
        assert now(*turn, hook(event, 1011, kind="permission_prompt")) == ("working", 1012, None, None), event


def test_a_new_conversation_is_a_new_start() -> None:
    turn = hook("SessionStart", 1001), osc("idle", 1002), osc("working", 1010), osc("done", 1020)
    cleared = hook("SessionEnd", 1030, kind="clear"), osc("working", 1030)
    begun = hook("SessionStart", 1030.1, conversation="second", kind="clear")
    assert now(*turn, *cleared, begun, osc("idle", 1030.2))[2] == "started"
    assert now(*turn, *cleared, osc("idle", 1030.2), begun)[2] == "started"
    stopped = hook("SessionStart", 1030.1, conversation="second", kind="compact")
    assert now(*turn, *cleared, osc("idle", 1030.2), stopped)[2] == "turn_finished"


def test_a_program_that_the_agent_starts_is_not_the_agent() -> None:
    began = hook("SessionStart", 1001), hook("UserPromptSubmit", 1010)
    for event in ("SessionStart", "Stop", "PermissionRequest", "SessionEnd"):
        assert now(*began, hook(event, 1011, conversation="other")) == ("working", 1010, None, None), event


# Hooks alone.


def test_hooks_tell_where_nothing_better_does() -> None:
    turn = hook("SessionStart", 1001), hook("UserPromptSubmit", 1010)
    assert now(turn[0]) == ("idle", 1001, "started", None)
    assert now(*turn) == ("working", 1010, None, None)
    assert now(*turn, asks(1011)) == ("waiting_for_input", 1011, "permission", "Bash: touch zzz")
    question = asks(1011, tool="AskUserQuestion", text="Tea?")
    assert now(*turn, question) == ("waiting_for_input", 1011, "question", "Tea?")
    assert now(*turn, asks(1011), hook("PostToolUse", 1012)) == ("working", 1012, None, None)
    assert (
        now(*turn, asks(1011), hook("Notification", 1012, kind="permission_prompt", text="x"))[3] == "Bash: touch zzz"
    )
    assert now(*turn, hook("Notification", 1012, kind="permission_prompt", text="x"))[2:] == ("permission", "x")
    assert now(*turn, hook("Notification", 1012, kind="idle_prompt")) == ("idle", 1012, "interrupted", None)
    assert now(*turn, hook("Stop", 1012)) == ("idle", 1012, "turn_finished", None)
    assert now(*turn, hook("agent-turn-complete", 1012)) == ("idle", 1012, "turn_finished", None)
    assert now(*turn, hook("StopFailure", 1012, text="400")) == ("idle", 1012, "error", "400")


def test_hooks_count_by_when_they_were_called() -> None:
    turn = hook("UserPromptSubmit", 1010), hook("Stop", 1020)
    assert now(*turn, hook("PostToolUse", 1019)) == now(*turn)
    assert now(*turn, asks(1015)) == now(*turn)
    assert now(hook("Stop", START - 1)) == ("unknown", START, "started", None), "of the run before"


# Bells.


def test_a_bell_calls_until_somebody_types() -> None:
    assert now(bell(1010)) == ("waiting_for_input", 1010, None, None)
    assert now(bell(1010, "Build: done"), bell(1011)) == ("waiting_for_input", 1010, None, "Build: done")
    assert now(bell(1010), keys(1020)) == ("unknown", 1020, None, None)


def test_a_bell_that_answers_a_key_is_none() -> None:
    assert now(keys(1010), bell(1010.2)) == ("unknown", START, "started", None)
    assert now(keys(1010), bell(1012))[0] == "waiting_for_input"
    assert now(keys(1010), bell(1010.2, "Build: done"))[0] == "waiting_for_input"


def test_a_bell_means_nothing_beside_a_better_source() -> None:
    for better in (osc("working", 1010), hook("UserPromptSubmit", 1010), bus("session.status", 1010, status=BUSY)):
        assert now(better, bell(1011, "look")) == ("working", 1010, None, None)
    assert now(bell(1009), osc("working", 1010)) == ("working", 1010, None, None)


# The bus of an API harness.

BUSY, RESTS = {"type": "busy"}, {"type": "idle"}


def served(*told: Told) -> tuple[str, float, str | None, str | None]:
    return now(lambda known: activity.ready(known, 1001), *told)


def test_a_turn_on_the_bus() -> None:
    turn = bus("session.status", 1010, status=BUSY), bus("message.part.updated", 1011, part={})
    assert served() == ("idle", 1001, "started", None)
    assert served(*turn) == ("working", 1010, None, None)
    ended = bus("session.status", 1020, status=RESTS), bus("session.idle", 1020.1)
    assert served(*turn, *ended) == ("idle", 1020, "turn_finished", None)
    assert served(*turn, *ended, bus("message.part.updated", 1021)) == ("idle", 1020, "turn_finished", None)
    assert served(*turn, bus("session.status", 1015, status={"type": "retry", "message": "Slow"}))[3] == "Slow"
    assert served(bus("message.part.delta", 1010)) == ("working", 1010, None, None), "without session.status"


@pytest.mark.parametrize(
    ("kind", "more", "reason", "message"),
    [
        ("session.error", {"error": {"name": "APIError", "data": {"message": "400"}}}, "error", "400"),
        ("session.error", {"error": {"name": "APIError"}}, "error", "APIError"),
        ("session.error", {"error": {"name": "MessageAbortedError"}}, "interrupted", None),
        ("session.aborted", {}, "interrupted", None),
    ],
)
def test_why_it_ended_counts_in_any_order(kind: str, more: Any, reason: str, message: str | None) -> None:
    turn, why, idle = bus("session.status", 1010, status=BUSY), bus(kind, 1020, **more), bus("session.idle", 1020)
    assert served(turn, why, idle) == served(turn, idle, why) == ("idle", 1020, reason, message)


def test_requests_on_the_bus() -> None:
    turn = bus("session.status", 1010, status=BUSY)
    first = bus("permission.asked", 1011, id="p1", permission="bash", patterns=["touch zzz"])
    second = bus("question.asked", 1012, id="q1", questions=[{"question": "Tea?"}])
    assert served(turn, first) == ("waiting_for_input", 1011, "permission", "bash: touch zzz")
    assert served(turn, first, bus("message.part.updated", 1012)) == served(turn, first)
    assert served(turn, first, bus("session.status", 1012, status=BUSY)) == served(turn, first)
    assert served(turn, first, second) == served(turn, first)
    answered = bus("permission.replied", 1013, requestID="p1", reply="once")
    assert served(turn, first, second, answered) == ("waiting_for_input", 1013, "question", "Tea?")
    assert served(turn, first, second, answered, bus("question.rejected", 1014, requestID="q1"))[:2] == (
        "working",
        1014,
    )
    assert served(turn, first, bus("permission.replied", 1013, requestID="other")) == served(turn, first)
    assert served(turn, first, bus("session.idle", 1020)) == ("idle", 1020, "turn_finished", None)
    older = bus("permission.updated", 1011, id="p1", type="bash", pattern="ls", title="ls")
    assert served(turn, older)[3] == "bash: ls"
    assert served(turn, older, bus("permission.replied", 1012, permissionID="p1"))[0] == "working"


def test_a_sub_agent_asks_but_its_end_is_not_the_agents() -> None:
    turn = bus("session.status", 1010, status=BUSY)
    child = bus("session.created", 1011, info={"id": "ses_2", "parentID": "ses_1"})
    assert served(turn, child, bus("session.idle", 1012, sessionID="ses_2")) == ("working", 1010, None, None)
    asked = bus("permission.asked", 1012, sessionID="ses_2", id="p", permission="bash", patterns=["ls"])
    assert served(turn, child, asked)[0] == "waiting_for_input"


# The end.


def test_the_end_of_the_process_ends_it_all() -> None:
    def end(exit_code: int | None, signal: int | None = None) -> Told:
        return lambda known: activity.ended(known, exit_code, signal, "exit code 1", 1020)

    for told in (osc("working", 1010), bell(1010), asks(1010), bus("session.status", 1010, status=BUSY)):
        assert now(told, end(1)) == ("idle", 1020, "exited", "exit code 1")
        assert now(told, end(None, 9))[2] == now(told, end(137))[2] == now(told, end(None, 11))[2] == "crashed"
        assert now(told, end(0))[2] == now(told, end(None, 2))[2] == now(told, end(130))[2] == "exited"
        assert now(told, end(255))[2] == now(told, end(128))[2] == "exited"
        later = osc("working", 1030), hook("Stop", 1030), bell(1030), bus("session.idle", 1030), keys(1030)
        assert now(told, end(1), *later) == ("idle", 1020, "exited", "exit code 1")


# What is stored.


@pytest.mark.parametrize(
    "told",
    [None, 3, [], {}, {"state": "idle"}, {"state": ["idle"], "since": SINCE}, {"state": "asleep", "since": SINCE}]
    + [{"state": "idle", "since": since} for since in (None, 5, "yesterday")],
)
def test_what_is_no_activity_is_not_stored(told: Any) -> None:
    assert activity.shown(told) is None


def test_what_is_stored_is_clean_and_bounded() -> None:
    told = {
        "state": "idle",
        "since": "2026-05-15T22:33:26.283000+00:00",
        "reason": ["x"],
        "message": "a\x1b[2J\n" * 999,
    }
    stored = activity.shown({**told, "other": 1})
    assert stored is not None
    assert (stored["since"], stored["reason"], set(stored)) == (SINCE, None, {"state", "since", "reason", "message"})
    assert len(stored["message"]) <= BODY_LIMIT and "\x1b" not in stored["message"] and "\n" not in stored["message"]


def test_other_words_for_the_same_work_can_wait() -> None:
    one = {"state": "working", "since": SINCE, "reason": None, "message": None}
    assert not activity.urgent(one, {**one, "message": "x"})
    for other in ({**one, "state": "idle"}, {**one, "since": "other"}, None):
        assert activity.urgent(one, other)
    waits = {**one, "state": "waiting_for_input"}
    assert activity.urgent(waits, {**waits, "message": "x"})


# In any order.

TIMES = st.floats(START, START + 100)
WORDS = st.sampled_from(["", "main", "other", "permission", "question", "clear", "compact", "idle_prompt", "Bash"])
EVENTS = ("SessionStart", "SessionEnd", "UserPromptSubmit", "PermissionRequest", "PostToolUse", "Notification", "Stop")
STATUSES = st.sampled_from([BUSY, RESTS, {}, None, 5])
KINDS = ("session.status", "session.idle", "session.error", "permission.asked", "permission.replied", "message.part.x")
ANYTHING: st.SearchStrategy[Told] = st.one_of(
    st.builds(osc, st.sampled_from([*AGENT_STATES, "x"]), TIMES, WORDS, WORDS),
    st.builds(
        lambda event, at, conversation, kind: hook(event, at, conversation=conversation, kind=kind, tool="Bash"),
        st.sampled_from(EVENTS),
        TIMES,
        WORDS,
        WORDS,
    ),
    st.builds(keys, TIMES),
    st.builds(bell, TIMES, st.none() | WORDS),
    st.builds(
        lambda kind, at, status, id: bus(kind, at, status=status, id=id), st.sampled_from(KINDS), TIMES, STATUSES, WORDS
    ),
)


@given(st.lists(ANYTHING, max_size=30))
def test_whatever_comes_there_is_an_answer(told: list[Told]) -> None:
    known = after(*told)
    assert known.now.state in STATES
    assert known.now.reason is None or known.now.reason in REASONS
    assert START <= known.now.since <= START + 100


@given(st.lists(ANYTHING, max_size=30), ANYTHING)
def test_what_is_told_twice_is_told_once(told: list[Told], again: Told) -> None:
    once = again(after(*told))
    assert again(once).now == once.now


@given(st.lists(ANYTHING, max_size=20), st.lists(st.builds(hook, st.sampled_from(EVENTS), TIMES), max_size=20))
def test_hooks_never_change_the_state_the_terminal_has_told(told: list[Told], hooks: list[Told]) -> None:
    known = osc("working", START + 100)(after(*told))
    if known.source is Source.TERMINAL:
        assert reduce(lambda one, late: late(one), hooks, known).now == known.now


@given(st.lists(ANYTHING, max_size=20))
def test_since_moves_only_with_what_is_new(told: list[Told]) -> None:
    known = activity.started(START)
    for one in told:
        before, known = known.now, one(known)
        if known.now.since != before.since:
            assert replace(known.now, since=before.since) != before

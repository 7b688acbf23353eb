"""lap's commands on sessions, as scripts use them: what they print, in words and as JSON, and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import LAP, InTerminal, run, until
from tests.cli.scripted import AGENT_ID, MANAGED, SESSION_ID, Script, agent, session
from tests.conversation import message, text, tool

Env = dict[str, str]
ID = SESSION_ID


def listed(number: int, status: str = "ready", **fields: Any) -> dict[str, Any]:
    return session(status, id=f"3333333{number}-3333-4333-8333-333333333333", **fields)


@pytest.fixture
def talking(platform: Script) -> Script:
    """A platform with one agent that works by messages, and a session of it."""
    platform.agents = [agent("coder", harness_id="opencode", tui=False), agent("term")]
    platform.readings = [session(supports_tui=False, harness_id="opencode", tty_url=None)]
    return platform


@pytest.mark.parametrize(
    "arguments",
    [
        ["stop"],
        ["logs"],
        ["logs", ID, "--tail", "x"],
        ["sessions", "x"],
        ["diagnose", ID, "--bogus"],
        ["run"],
        ["fix", ID, "all"],
    ],
)
def test_wrong_usage_is_2(env: Env, arguments: list[str]) -> None:
    done = run(LAP, *arguments, env=env)
    assert done.returncode == 2 and done.stderr.startswith("✗ ") and f"usage: lap {arguments[0]}" in done.stderr
    assert not done.stdout


@pytest.mark.parametrize("command", ["sessions", "stop", "logs", "messages", "message", "run", "diagnose", "fix"])
def test_each_command_has_help(env: Env, command: str) -> None:
    done = run(LAP, command, "--help", env=env)
    assert done.returncode == 0 and f"usage: lap {command}" in done.stdout and "--json" in done.stdout


def test_without_a_platform_it_says_how_to_log_in(env: Env) -> None:
    done = run(LAP, "sessions", env=env)
    assert done.returncode == 1 and "✗ no config — run `lap login` first." in done.stderr


def test_an_agent_with_the_name_of_a_command_is_opened_with_agent(platform: Script, env: Env) -> None:
    done = run(LAP, "--agent", "sessions", env=env)
    assert done.returncode == 1 and "✗ no agent named 'sessions'." in done.stderr


# sessions


def test_sessions_lists_those_that_are_not_dead(platform: Script, env: Env) -> None:
    platform.listed = [
        listed(1, "creating", phase="cloning_repo", agent_name="coder"),
        listed(2, title="evil\x1b[2J\ntitle"),
        listed(3, "dead"),
    ]
    done = run(LAP, "sessions", env=env)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 2 and "\x1b" not in done.stdout
    assert lines[0].startswith(platform.listed[0]["id"]) and "creating: cloning_repo" in lines[0]
    assert len(run(LAP, "sessions", "--all", env=env).stdout.splitlines()) == 3
    rows = json.loads(run(LAP, "sessions", "--all", "--json", env=env).stdout)
    assert [row["status"] for row in rows] == ["creating", "ready", "dead"] and rows[0]["agent_name"] == "coder"
    assert "tty_token" not in rows[0] and "tty-secret" not in str(rows)


def test_sessions_of_an_agent(platform: Script, env: Env) -> None:
    platform.listed = [listed(1), listed(2, agent_id="other")]
    done = run(LAP, "sessions", "--agent", "coder", "--json", env=env)
    assert done.returncode == 0 and [row["agent_id"] for row in json.loads(done.stdout)] == [AGENT_ID]
    done = run(LAP, "sessions", "--agent", "nobody", env=env)
    assert done.returncode == 1 and "✗ no agent named 'nobody'." in done.stderr
    platform.listed = [listed(3, "dead")]
    assert "(no sessions" in run(LAP, "sessions", env=env).stdout
    assert json.loads(run(LAP, "sessions", "--json", env=env).stdout) == []


# stop


@pytest.mark.parametrize("target", [ID, ID[:4], "{base}/sessions/" + ID])
def test_stop_by_id_start_and_url(platform: Script, env: Env, target: str) -> None:
    done = run(LAP, "stop", target.format(base=platform.base), env=env)
    assert done.returncode == 0 and done.stdout == f"✓ stopped session {ID[:8]}\n"
    assert platform.asked("POST") == [f"POST {MANAGED}/sessions/{ID}/stop"]


def test_stop_says_what_it_found(platform: Script, env: Env) -> None:
    assert json.loads(run(LAP, "stop", ID, "--json", env=env).stdout) == {"id": ID, "status": "dead"}
    platform.readings = [session("failed")]
    done = run(LAP, "stop", ID, env=env)
    assert done.returncode == 0 and "is failed already" in done.stdout and len(platform.asked("POST")) == 1
    platform.readings = [404]
    done = run(LAP, "stop", ID, env=env)
    assert done.returncode == 1 and f"✗ no session {ID}" in done.stderr
    assert run(LAP, "stop", "nonsense", env=env).returncode == 2
    assert run(LAP, "stop", "44444", env=env).returncode == 1
    platform.listed = [listed(1), listed(2)]
    done = run(LAP, "stop", "3333333", env=env)
    assert done.returncode == 1 and "begins 2 session ids" in done.stderr


def test_the_key_never_goes_to_another_host(platform: Script, env: Env, serve: Callable[[Script], Script]) -> None:
    other = serve(Script())
    done = run(LAP, "logs", f"{other.base}/sessions/{ID}", env=env)
    assert done.returncode == 1 and "it was not sent" in done.stderr and not other.requests and not platform.requests


# logs


def test_logs_in_words_and_as_json(platform: Script, env: Env) -> None:
    platform.logs = ["one\ntwo\x1b[2J\n"]
    done = run(LAP, "logs", ID, "--tail", "7", env=env)
    assert done.returncode == 0 and done.stdout == "one\ntwo [2J\n"
    assert "tailLines=7" in platform.asked(f"GET {MANAGED}/sessions/{ID}/sandbox_logs")[0]
    assert json.loads(run(LAP, "logs", ID, "--json", env=env).stdout)["lines"][0] == "one"
    platform.logs = [""]
    assert run(LAP, "logs", ID, env=env).stdout == ""


def test_logs_are_followed_to_the_end_of_the_session(platform: Script, env: Env) -> None:
    platform.logs = ["a\nb\n", "b\nc\n", "c\nd\ne\n"]
    platform.readings = [session(), session(), session("dead", failure_reason="stopped")]
    done = run(LAP, "logs", "-f", ID, env=env)
    assert done.returncode == 0 and done.stdout == "a\nb\nc\nd\ne\n"
    assert "(session is dead: stopped)" in done.stderr
    platform.logs, platform.readings = ["a\n", "a\nb\n"], [session(), session("dead")]
    done = run(LAP, "logs", "-f", ID, "--json", env=env)
    assert [json.loads(line)["line"] for line in done.stdout.splitlines()] == ["a", "b"]


# diagnose


def test_diagnose_prints_and_exits_with_what_it_found(platform: Script, env: Env) -> None:
    issue = {"code": "pod_not_ready_old", "severity": "med", "message": "slow", "recommended_action": "describe it"}
    platform.diagnosis = {"detected_issues": [issue], "pod_logs_tail": {"available": True, "text": "last\x1b[2J words"}}
    platform.readings = [session("failed", "cloning_repo", failure_reason="no branch")]
    done = run(LAP, "diagnose", ID, env=env)
    assert done.returncode == 3 and "\x1b" not in done.stdout
    assert f"session {ID} is failed in cloning_repo\n  reason: no branch\n" in done.stdout
    assert "pod_not_ready_old (med): slow\n  → describe it\n" in done.stdout and "last [2J words" in done.stdout
    done = run(LAP, "diagnose", ID, "--json", env=env)
    assert done.returncode == 3 and json.loads(done.stdout)["detected_issues"] == [issue]
    hint = {"code": "clone_failed", "severity": "high", "message": "no branch", "evidence": ["git said: no"]}
    platform.diagnosis = {"detected_issues": [issue], "hints": [hint]}
    done = run(LAP, "diagnose", ID, env=env)
    fix = f"  run: lap fix {ID[:8]} recreate\n"
    assert f"clone_failed (high): no branch\n  > git said: no\n{fix}pod_not_ready_old (med)" in done.stdout
    platform.diagnosis = {"detected_issues": [], "hints": [hint]}
    done = run(LAP, "diagnose", ID, env=env)
    assert done.returncode == 3 and "no issues" not in done.stdout
    platform.diagnosis = {"detected_issues": []}
    done = run(LAP, "diagnose", ID, env=env)
    assert done.returncode == 0 and "no issues detected" in done.stdout


NO_SERVICE = {
    "code": "service_missing",
    "severity": "high",
    "message": "no service",
    "recommended_action": "put it back; kubectl get services -n lap shows those there are",
}


def test_diagnose_prints_what_mends_it(platform: Script, env: Env) -> None:
    platform.diagnosis = {"detected_issues": [NO_SERVICE]}
    lines = run(LAP, "diagnose", ID, env=env).stdout.splitlines()
    assert "  run: kubectl get services -n lap" in lines
    assert f"  run: lap fix {ID[:8]} service" in lines and f"  run: lap fix {ID[:8]} recreate" in lines


# fix


def test_fix_does_what_helps_against_the_worst_finding(platform: Script, env: Env) -> None:
    platform.diagnosis = {"detected_issues": [NO_SERVICE]}
    platform.mended = "made the Service s-1-np again"
    done = run(LAP, "fix", ID, "--yes", env=env)
    assert (done.returncode, done.stdout) == (0, "✓ made the Service s-1-np again\n")
    assert "  The Service in front of its sandbox is made again, if it is missing." in done.stderr
    assert len(platform.asked(f"POST {MANAGED}/sessions/{ID}/mend")) == 1
    done = run(LAP, "fix", ID, "-y", "--json", env=env)
    assert json.loads(done.stdout) == {"id": ID, "fix": "service", "did": "made the Service s-1-np again"}


def test_fix_asks_first(platform: Script, env: Env) -> None:
    done = run(LAP, "fix", ID, "recreate", env=env)
    assert done.returncode == 2 and "✗ the question needs a terminal: say --yes to go on without it" in done.stderr
    assert "all that is not pushed" in done.stderr and not platform.asked(f"POST {MANAGED}/sessions/{ID}/restart")
    with InTerminal(LAP, "fix", ID, "recreate", env=env) as terminal:
        terminal.expect("Go on? [y/N]")
        terminal.type("\r")
        assert terminal.end() == 1
    assert not platform.asked(f"POST {MANAGED}/sessions/{ID}/restart")


def test_fix_recreates_one_that_hangs(platform: Script, env: Env) -> None:
    platform.readings = [session("creating", "pod_pending")]
    done = run(LAP, "fix", ID, "recreate", "--yes", env=env)
    assert done.returncode == 0 and f"✓ recreated session {ID}: it is ready" in done.stdout
    calls = [request for request in platform.requests if request.startswith("POST")]
    assert calls == [f"POST {MANAGED}/sessions/{ID}/{what}" for what in ("stop", "restart")]


def test_fix_says_what_it_cannot(platform: Script, env: Env) -> None:
    done = run(LAP, "fix", ID, "service", "--yes", env=env)
    assert done.returncode == 1 and "✗ fix failed: 409 Conflict: nothing is missing" in done.stderr
    platform.diagnosis = {"detected_issues": []}
    done = run(LAP, "fix", ID, env=env)
    assert (done.returncode, done.stdout) == (0, "nothing is wrong, nothing to mend\n")
    platform.diagnosis = {"hints": [{"code": "clone_failed", "severity": "high", "message": "no branch"}]}
    done = run(LAP, "fix", ID, "--json", env=env)
    assert done.returncode == 3 and json.loads(done.stdout) == {"id": ID, "fix": None, "did": None}


def test_fix_fills_the_pool(platform: Script, env: Env) -> None:
    platform.diagnosis = {"detected_issues": [{"code": "warm_pool_empty_for_agent", "message": "empty"}]}
    done = run(LAP, "fix", ID, "--yes", env=env)
    assert (done.returncode, done.stdout) == (0, "✓ 2 warm sandboxes begun\n")


def test_a_platform_without_diagnose_is_said_plainly(platform: Script, env: Env) -> None:
    done = run(LAP, "diagnose", ID, env=env)
    assert done.returncode == 1 and "✗ this platform has no diagnose (404 Not Found" in done.stderr and not done.stdout


# messages


def test_messages_prints_what_was_said(talking: Script, env: Env) -> None:
    talking.talk.messages = [
        message("u1", "user", text("hi there")),
        message("m1", "assistant", tool("Bash", "out", command="ls"), text("done\x1b[2J")),
    ]
    done = run(LAP, "messages", ID, env=env)
    assert done.returncode == 0 and "── user 2026-03-14" in done.stdout and "▸ Bash  ls  completed" in done.stdout
    assert "\x1b" not in done.stdout
    assert json.loads(run(LAP, "messages", ID, "--json", env=env).stdout) == talking.talk.messages


def test_message_sends_once_and_prints_the_answer_alone(talking: Script, env: Env) -> None:
    done = run(LAP, "message", ID, "say", "this", env=env)
    assert (done.returncode, done.stdout) == (0, "echo: say this\n") and talking.talk.received == ["say this"]
    done = run(LAP, "message", ID, "-", env=env, stdin="two\nlines\n")
    assert done.stdout == "echo: two\nlines\n" and talking.talk.received[1:] == ["two\nlines"]
    done = run(LAP, "message", "--json", ID, env=env, stdin="with a tool")
    answer = json.loads(done.stdout)
    assert answer["text"] == "echo: with a tool" and answer["session_id"] == ID and answer["error"] is None
    assert [part["type"] for part in answer["parts"]] == ["tool", "text"]


def test_an_answer_that_is_an_error_fails(talking: Script, env: Env) -> None:
    done = run(LAP, "message", ID, "error", env=env)
    assert done.returncode == 1 and "✗ the model refused: no credit" in done.stderr and not done.stdout
    done = run(LAP, "message", ID, "error", "--json", env=env)
    assert done.returncode == 1 and json.loads(done.stdout)["error"] == "the model refused: no credit"
    talking.talk.faults["send"] = [409]
    done = run(LAP, "message", ID, "again", env=env)
    assert done.returncode == 1 and "✗ message failed: 409 Conflict: scripted refusal" in done.stderr


def test_an_empty_message_is_not_sent(talking: Script, env: Env) -> None:
    done = run(LAP, "message", ID, env=env, stdin="\n")
    assert done.returncode == 2 and not talking.requests


def test_a_terminal_takes_no_messages(platform: Script, env: Env) -> None:
    done = run(LAP, "message", ID, "hi", env=env)
    assert done.returncode == 1 and "has a terminal" in done.stderr
    done = run(LAP, "run", "coder", "hi", env=env)
    assert done.returncode == 1 and "has a terminal" in done.stderr and not platform.asked("POST")


def test_run_starts_asks_and_stops(talking: Script, env: Env) -> None:
    done = run(LAP, "run", "coder", "--stop", "what", "is", "new?", env=env)
    assert (done.returncode, done.stdout) == (0, "echo: what is new?\n") and "✓ session 22222222" in done.stderr
    assert talking.asked("POST")[-1].endswith("/stop") and talking.talk.received == ["what is new?"]
    done = run(LAP, "run", "coder", "--json", env=env, stdin="piped")
    assert json.loads(done.stdout)["text"] == "echo: piped"
    talking.readings = [session("failed", failure_reason="no disk")]
    done = run(LAP, "run", "coder", "hi", env=env)
    assert done.returncode == 1 and "✗ failed\n" in done.stderr and not done.stdout


# Chat through pipes


def test_chat_answers_each_line(talking: Script, env: Env) -> None:
    talking.skills = [{"id": "1", "name": "review", "description": "how to", "content": "Look twice."}]
    done = run(LAP, "coder", env=env, stdin="hello\n/skill review look at a.py\n/skill\n/skill nope\n\n/etc/hosts\n")
    assert done.returncode == 0 and "Chat mode — Ctrl-D to exit\n1 skills loaded — type / to browse\n" in done.stdout
    assert "echo: hello\n" in done.stdout and "s · ↓ 42 tokens · $0.0123\n" in done.stdout
    assert done.stdout.endswith("[chat ended]\n") and "  review" in done.stdout
    assert talking.talk.received == [
        "hello",
        '<skill name="review">\nLook twice.\n</skill>\n\nlook at a.py',
        "/etc/hosts",
    ]
    assert "✗ no skill named 'nope'" in done.stderr


def test_a_skill_without_a_text_goes_with_the_next_message(talking: Script, env: Env) -> None:
    talking.skills = [
        {"id": "1", "name": "Code", "content": "short"},
        {"id": "2", "name": "Code review", "content": "Look twice."},
    ]
    run(LAP, "--resume", ID, env=env, stdin="/skill code review\ngo on\nand on\n")
    assert talking.talk.received == ['<skill name="Code review">\nLook twice.\n</skill>\n\ngo on', "and on"]


def test_chat_tells_errors_and_ends_with_the_session(talking: Script, env: Env) -> None:
    done = run(LAP, "coder", env=env, stdin="error\nmore with a tool\n")
    assert "✗ the model refused: no credit" in done.stderr and "▸ Bash  pytest -x tests  ✓\necho: more" in done.stdout
    talking.talk.faults["send"] = [404]
    talking.readings = [talking.readings[0], session("dead", failure_reason="idle")]
    done = run(LAP, "coder", env=env, stdin="one\ntwo\n")
    assert done.returncode == 1 and "✗ session is dead: idle" in done.stderr
    assert "two" not in talking.talk.received and "[chat ended]" in done.stdout


def test_no_history_is_left_behind(talking: Script, env: Env, home: Path) -> None:
    run(LAP, "coder", env=env, stdin="secret words\n")
    assert not [path for path in home.rglob("*") if path.is_file() and "secret words" in path.read_text("utf-8")]


# Chat in a terminal


def test_a_chat_completes_skills_streams_and_stops_a_turn(talking: Script, env: Env) -> None:
    talking.skills = [{"id": "1", "name": "Code review", "content": "Look twice."}]
    with InTerminal(LAP, "coder", env=env) as lap:
        lap.expect("type / to browse")
        lap.expect("› ")
        lap.type("/sk\tC\t")
        lap.expect("/skill Code review ")
        lap.type("please\r")
        lap.expect("please\r\n  ")
        assert talking.talk.received == ['<skill name="Code review">\nLook twice.\n</skill>\n\nplease']
        lap.expect("› ")
        lap.type("\x1b[200~first\nsecond\x1b[201~\\\rthird\r")
        lap.expect("tokens")
        assert talking.talk.received[1] == "first\nsecond\nthird"
        lap.expect("› ")
        lap.type("hold on\r")
        until(lambda: talking.talk.holding, "the turn")
        lap.expect("echo: hold")
        lap.type("\x03\x03")  # the second does not keep the first from stopping the turn
        lap.expect("(stopping the turn)")
        until(lambda: talking.talk.aborted == 1, "the abort")
        lap.expect("› ")
        lap.type("\x04")
        assert (
            lap.end() == 0
            and f"[chat ended]\r\nSession is still alive. Resume with:\r\n  lap --resume {ID}" in lap.shown
        )
        assert lap.mode() == lap.before

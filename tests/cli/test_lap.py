"""lap without a terminal: what it prints, asks and returns."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.commands import LAP, SECONDS, run
from tests.cli.scripted import AGENT_ID, KEY, MANAGED, SESSION_ID, Script, agent, session

Env = dict[str, str]


def nowhere() -> str:
    """An address on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_help_is_the_usage(env: Env) -> None:
    for argument in ("--help", "-h", "help"):
        done = run(LAP, argument, env=env)
        assert done.returncode == 0 and "lap --resume <id-or-url>" in done.stdout and ".lap/config.json" in done.stdout


@pytest.mark.parametrize("arguments", [["--bogus"], ["a", "b"], ["--agent"], ["--agent", "a", "b"], ["--json"]])
def test_wrong_usage_is_2(env: Env, arguments: list[str]) -> None:
    done = run(LAP, *arguments, env=env)
    assert done.returncode == 2 and "USAGE" in done.stderr and not done.stdout


@pytest.mark.parametrize("arguments", [["--resume"], ["resume"]])
def test_resume_wants_a_session(env: Env, arguments: list[str]) -> None:
    done = run(LAP, *arguments, env=env)
    assert done.returncode == 2 and done.stderr.startswith("usage: lap --resume <session_id>")


@pytest.mark.parametrize("target", ["nonsense", "http://x/sessions/short", f"ftp://x/sessions/{SESSION_ID}"])
def test_resume_refuses_what_is_no_session(platform: Script, env: Env, target: str) -> None:
    done = run(LAP, "--resume", target, env=env)
    assert done.returncode == 2 and f"✗ '{target}' is not a session_id or sessions URL" in done.stderr


# The account


def test_login_saves_privately_and_logout_forgets(env: Env, home: Path, serve: Callable[[Script], Script]) -> None:
    base = serve(Script()).base
    done = run(LAP, "login", env=env, stdin=f"{base}/\n{KEY}\n")
    path = home / ".lap" / "config.json"
    assert done.returncode == 0 and f"✓ saved to {path}" in done.stdout and not done.stderr
    assert json.loads(path.read_text()) == {"base": base, "key": KEY}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert KEY not in done.stdout
    shown = run(LAP, "config", env=env)
    assert shown.returncode == 0 and shown.stdout == f'{{"base":"{base}","key":"sk-t…cdef"}}\n'
    assert run(LAP, "logout", env=env).stdout == "logged out\n" and not path.exists()
    assert run(LAP, "logout", env=env).returncode == 0


def test_login_keeps_no_key_that_is_refused(env: Env, home: Path, serve: Callable[[Script], Script]) -> None:
    base = serve(Script()).base
    done = run(LAP, "login", env=env, stdin=f"{base}\nwrong-key\n")
    assert done.returncode == 1 and "401 Unauthorized: check the key. Nothing was saved." in done.stderr
    assert "saved to" not in done.stdout and not (home / ".lap").exists()
    run(LAP, "login", env=env, stdin=f"{base}\n{KEY}\n")
    run(LAP, "login", env=env, stdin=f"{base}\nwrong-key\n")
    assert json.loads((home / ".lap" / "config.json").read_text())["key"] == KEY


def test_login_keeps_a_key_that_cannot_be_checked_now(env: Env, home: Path) -> None:
    done = run(LAP, "login", env=env, stdin=f"{nowhere()}\nsome-key\n")
    assert done.returncode == 0 and "✓ saved to" in done.stdout and "connection refused" in done.stderr


@pytest.mark.parametrize(
    "typed", ["", "http://x\n", "http://user:pw@x\nkey\n", "http://x\nkey with spaces\n", "http://x\n\x80\n"]
)
def test_login_saves_nothing_unfit(env: Env, home: Path, typed: str) -> None:
    done = run(LAP, "login", env=env, stdin=typed)
    assert done.returncode == 1 and "✗" in done.stderr and not (home / ".lap").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"base": 1, "key": 2}', '{"base": "ftp://x", "key": "k"}', "\xff"])
def test_a_damaged_config_counts_as_none(env: Env, home: Path, content: str) -> None:
    (home / ".lap").mkdir()
    (home / ".lap" / "config.json").write_text(content, encoding="latin-1")
    done = run(LAP, "config", env=env)
    assert done.returncode == 0 and "(no config — run `lap login`)" in done.stdout
    done = run(LAP, "agents", env=env)
    assert done.returncode == 1 and "(no config — run `lap login`)" in done.stderr


@pytest.mark.parametrize("arguments", [["coder"], [], ["--resume", SESSION_ID]])
def test_without_a_platform_it_says_how_to_log_in(env: Env, arguments: list[str]) -> None:
    done = run(LAP, *arguments, env=env)
    assert done.returncode == 1 and "✗ no config — run `lap login` first." in done.stderr


def test_the_environment_serves_where_nothing_is_saved(env: Env, serve: Callable[[Script], Script]) -> None:
    base = serve(Script()).base
    env |= {"LAP_BASE_URL": base, "MASTER_KEY": KEY}
    done = run(LAP, "agents", env=env)
    assert done.returncode == 0 and "coder" in done.stdout and base in done.stderr
    shown = json.loads(run(LAP, "config", "--json", env=env).stdout)
    assert shown == {"base": base, "key": "sk-t…cdef", "source": "environment"}


# Agents


def test_agents_come_from_all_pages(platform: Script, env: Env) -> None:
    platform.agents = [agent(f"agent-{n}") for n in range(450)]
    platform.agents[3] |= {"harness_id": "opencode", "supports_tui": False}
    done = run(LAP, "agents", env=env)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 450
    assert lines[449] == f"{'agent-449':<28} {'claude-code':<20} [tui] {platform.agents[449]['id'][:8]}"
    assert lines[3].split() == ["agent-3", "opencode", platform.agents[3]["id"][:8]]
    rows = json.loads(run(LAP, "agents", "--json", env=env).stdout)
    assert rows[449]["name"] == "agent-449" and rows[3]["supports_tui"] is False


def test_agents_names_cannot_drive_the_terminal(platform: Script, env: Env) -> None:
    platform.agents = [agent("evil\x1b[2J\n\x07name")]
    done = run(LAP, "agents", env=env)
    assert "\x1b" not in done.stdout and len(done.stdout.splitlines()) == 1


def test_agents_with_the_platform_down_is_a_message(env: Env, login: Callable[..., None]) -> None:
    base = nowhere()
    login(base)
    done = run(LAP, "agents", env=env)
    assert done.returncode == 1 and base in done.stderr and "Traceback" not in done.stderr
    assert "lap config" in done.stderr


def test_agents_with_a_wrong_key(env: Env, serve: Callable[[Script], Script], login: Callable[..., None]) -> None:
    login(serve(Script()).base, "sk-wrong")
    done = run(LAP, "agents", env=env)
    assert done.returncode == 1 and done.stderr.startswith("✗ 401 Unauthorized\n") and "lap login" in done.stderr


def test_a_reader_that_goes_away_is_no_error(platform: Script, env: Env) -> None:
    platform.agents = [agent(f"agent-{n}") for n in range(2_000)]
    process = subprocess.Popen(
        [*LAP, "agents", "--json"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(SECONDS) == 128 + signal.SIGPIPE


# Opening


def test_an_unknown_name_lists_what_there_is(platform: Script, env: Env) -> None:
    platform.agents = [agent(f"a{n}") for n in range(11)]
    done = run(LAP, "coder", env=env)
    assert done.returncode == 1 and "✗ no agent named 'coder'.\n" in done.stderr
    assert "available: a0, a1, a2, a3, a4, a5, a6, a7 … (+3 more)" in done.stderr
    assert not platform.asked("POST")


@pytest.mark.parametrize("ignores_search", [False, True])
def test_a_name_is_found_beyond_the_first_page(platform: Script, env: Env, ignores_search: bool) -> None:
    platform.ignores_search = ignores_search
    platform.page = 50
    platform.agents = [*(agent(f"coder-{n}") for n in range(120)), agent("coder")]
    platform.readings = [session("failed", failure_reason="stop here")]
    done = run(LAP, "--agent", "coder", env=env)
    assert "→ resolving agent 'coder'…\n✓ agent coder (11111111, harness=claude-code)\n" in done.stdout


def test_a_wrong_key_ends_at_the_lookup_by_name(
    env: Env, serve: Callable[[Script], Script], login: Callable[..., None]
) -> None:
    login(serve(Script()).base, "sk-wrong")
    done = run(LAP, "coder", env=env)
    assert done.returncode == 1 and "✗ agent lookup failed: 401 Unauthorized\n" in done.stderr


def test_a_wrong_key_ends_at_create_by_id(
    env: Env, serve: Callable[[Script], Script], login: Callable[..., None]
) -> None:
    login(serve(Script()).base, "sk-wrong")
    done = run(LAP, AGENT_ID, env=env)
    assert done.returncode == 1 and "✗ session create failed: 401 Unauthorized\n" in done.stderr


def test_a_failed_session_is_told_with_all_that_is_known(platform: Script, env: Env) -> None:
    platform.readings = [
        session("creating", "pod_pending"),
        session("creating", "cloning_repo"),
        session("failed", "cloning_repo", failure_reason="git: no such branch"),
    ]
    platform.diagnosis = {
        "detected_issues": [
            {
                "code": "harness_unreachable",
                "severity": "high",
                "message": "no answer",
                "recommended_action": "read logs",
            }
        ],
        "hints": ["check the branch"],
    }
    done = run(LAP, "coder", env=env)
    assert done.returncode == 1
    assert "waiting for sandbox pod_pending → cloning_repo" in done.stdout
    for line in (
        "✗ failed\n",
        f"session_id     {SESSION_ID}\n",
        "failure_reason git: no such branch\n",
        "harness_unreachable (high): no answer\n    → read logs\n",
        "hint: check the branch\n",
        "please share this block when reporting the issue.\n",
    ):
        assert line in done.stderr
    assert "sandbox_url" not in done.stderr
    assert len(platform.asked(f"GET {MANAGED}/sessions/{SESSION_ID}/diagnose")) == 1


def test_a_platform_without_diagnose_adds_nothing(platform: Script, env: Env) -> None:
    platform.readings = [session("dead", failure_reason="stopped")]
    done = run(LAP, "coder", env=env)
    assert done.returncode == 1 and "✗ dead\n" in done.stderr
    assert "detected issues" not in done.stderr and "404" not in done.stderr


def test_polling_ends_at_once_on_a_refused_key(platform: Script, env: Env) -> None:
    platform.readings = [401]
    done = run(LAP, "coder", env=env)
    assert done.returncode == 1 and "✗ session poll: 401 Unauthorized (master key invalid?)\n" in done.stderr


def test_the_picker_needs_a_terminal(platform: Script, env: Env) -> None:
    platform.agents = [agent("one"), agent("two")]
    done = run(LAP, env=env)
    assert done.returncode == 2 and "lap <agent-name>" in done.stderr


def test_the_wizard_without_a_terminal_agent(platform: Script, env: Env) -> None:
    platform.agents = [agent("coder", harness_id="opencode", tui=False)]
    done = run(LAP, env=env)
    assert done.returncode == 1 and "✗ no TUI-compatible agents on this platform.\n" in done.stderr


# Attaching through pipes


def piped(env: Env, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*LAP, *arguments], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def read_until(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    assert process.stdout is not None
    seen = b""
    while text not in seen:
        byte = process.stdout.read(1)
        assert byte, seen
        seen += byte
    return seen


def test_piped_keys_reach_the_agent_and_a_lone_ctrl_d_detaches(platform: Script, env: Env) -> None:
    process = piped(env, "coder")
    assert process.stdin is not None
    seen = read_until(process, b"size 100x30")
    assert f"→ attaching local TTY to {platform.base.replace('http', 'ws')}".encode() in seen
    assert b"tty-secret" not in seen and b"\x1b" not in seen
    process.stdin.write(b"ls\x04\r")
    process.stdin.flush()
    read_until(process, b"ls\x04")
    process.stdin.write(b"\x04")
    process.stdin.flush()
    rest, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0 and errors == b"" and platform.typed == b"ls\x04\r"
    told = rest.decode()
    assert "[connection closed code=1000]" in told and "Session is still alive. Resume with:" in told
    assert f"lap --resume {SESSION_ID}\n" in told and f"lap --resume {platform.base}/sessions/{SESSION_ID}\n" in told
    assert platform.tty_tokens == ["Bearer tty-secret"] and platform.keys_seen == {f"Bearer {KEY}"}


def test_the_end_of_a_pipe_is_no_detach(platform: Script, env: Env) -> None:
    done = run(LAP, "coder", env=env, stdin="exit")
    assert done.returncode == 0 and "process exited (code=7, signal=0)" in done.stdout
    assert "[connection closed code=1000]" in done.stdout


def test_keys_may_come_from_a_file(platform: Script, env: Env, home: Path) -> None:
    (home / "keys").write_text("exit")
    with (home / "keys").open() as keys:
        done = subprocess.run(
            [*LAP, "coder"], env=env, stdin=keys, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    assert done.returncode == 0 and platform.typed == b"exit"


def test_the_token_of_the_environment_overrides(platform: Script, env: Env) -> None:
    run(LAP, "coder", env=env | {"LAP_TTY_TOKEN": "mine"}, stdin="exit")
    assert platform.tty_tokens == ["Bearer mine"]


def test_a_refused_upgrade_names_the_status(platform: Script, env: Env) -> None:
    platform.tty_status = 401
    platform.diagnosis = {"detected_issues": [{"code": "service_missing", "message": "gone"}]}
    done = run(LAP, "coder", env=env)
    assert done.returncode == 1 and "✗ ws error: Unexpected server response: 401\n" in done.stderr
    assert "upgrade rejected with 401 from harness" in done.stderr and "service_missing: gone" in done.stderr
    platform.tty_status = 503
    done = run(LAP, "coder", env=env)
    assert done.returncode == 1 and "✗ ws error: Unexpected server response: 503\n" in done.stderr


def test_a_terminal_closed_at_once_is_explained(platform: Script, env: Env) -> None:
    platform.tty_close = 1011
    platform.readings = [session(), session("dead", failure_reason="sandbox gone")]
    done = run(LAP, "coder", env=env)
    assert done.returncode == 0 and "[ws closed]" in done.stderr and "lap config" in done.stderr
    assert "[connection closed code=1011]" in done.stdout and "Session is dead — sandbox gone." in done.stdout


def test_a_session_that_cannot_be_looked_up_afterwards(platform: Script, env: Env) -> None:
    platform.readings = [session(), 500]
    done = run(LAP, "coder", env=env, stdin="exit")
    assert "(could not verify session state — try anyway)" in done.stdout


def test_a_session_without_a_route_to_its_terminal(platform: Script, env: Env) -> None:
    platform.readings = [session(tty_url=None, sandbox_url="http://p.ns.svc.cluster.local:4096")]
    done = run(LAP, "coder", env=env)
    assert done.returncode == 1 and "✗ session.sandbox_url is in-cluster (http://p.ns" in done.stderr
    assert "LAP_TTY_FALLBACK" in done.stderr
    fallback = f"{platform.base.replace('http', 'ws')}{MANAGED}/sessions/{SESSION_ID}/tty"
    done = run(LAP, "coder", env=env | {"LAP_TTY_FALLBACK": fallback}, stdin="exit")
    assert done.returncode == 0 and "(sandbox_url is in-cluster — using LAP_TTY_FALLBACK)" in done.stdout
    platform.readings = [session(tty_url=None)]
    done = run(LAP, "coder", env=env)
    assert "✗ platform returned neither tty_url nor a reachable sandbox_url." in done.stderr


# Resuming


@pytest.mark.parametrize("form", ["{id}", "{base}/sessions/{id}", "{base}/sessions/{id}/logs?x=1"])
def test_resume_by_id_and_url(platform: Script, env: Env, form: str) -> None:
    target = form.format(id=SESSION_ID, base=platform.base)
    done = run(LAP, "--resume", target, env=env, stdin="exit")
    assert done.returncode == 0 and "→ fetching session 22222222… ready\n" in done.stdout
    assert not platform.asked("POST")


def test_resume_waits_for_a_session_that_is_coming_up(platform: Script, env: Env) -> None:
    platform.readings = [session("creating", "pod_pending"), session("creating", "cloning_repo"), session()]
    done = run(LAP, "resume", SESSION_ID, env=env, stdin="exit")
    assert done.returncode == 0 and "cloning_repo ready" in done.stdout


def test_resume_of_a_dead_or_unknown_session(platform: Script, env: Env) -> None:
    platform.readings = [session("dead", failure_reason="idle for 24 h")]
    done = run(LAP, "--resume", SESSION_ID, env=env)
    assert done.returncode == 1 and "✗ session is dead: idle for 24 h\n" in done.stderr
    platform.readings = [404]
    done = run(LAP, "--resume", SESSION_ID, env=env)
    assert done.returncode == 1 and "✗ 404 Not Found\n" in done.stderr


def test_the_key_never_goes_to_another_host(platform: Script, env: Env, serve: Callable[[Script], Script]) -> None:
    other = serve(Script())
    for base in (other.base, platform.base.replace("http:", "https:")):
        done = run(LAP, "--resume", f"{base}/sessions/{SESSION_ID}", env=env)
        assert done.returncode == 1 and base in done.stderr and "lap login" in done.stderr
    assert other.requests == [] and platform.requests == []

"""lapconsole's commands, run as processes."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import LAP, LAPCONSOLE, SECONDS, run, until
from tests.cli.scripted import KEY

Env = dict[str, str]


def test_help_and_version(env: Env) -> None:
    done = run(LAPCONSOLE, "--help", env=env)
    assert done.returncode == 0 and "contexts" in done.stdout and "--key-file" in done.stdout
    done = run(LAPCONSOLE, "--version", env=env)
    assert done.returncode == 0 and done.stdout.startswith("lapconsole ")


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["up", "--port", "70000"], ["up", "--port", "x"], ["--platform", "x", "--context", "y"]]
)
def test_wrong_usage_is_2(env: Env, arguments: list[str]) -> None:
    assert run(LAPCONSOLE, *arguments, env=env).returncode == 2


def test_the_console_needs_a_terminal(env: Env) -> None:
    done = run(LAPCONSOLE, env=env)
    assert done.returncode == 2 and "needs a terminal" in done.stderr


# Contexts


def listed(env: Env) -> dict[str, object]:
    return json.loads(run(LAPCONSOLE, "contexts", "list", "--json", env=env).stdout)  # type: ignore[no-any-return]


def test_contexts_are_saved_used_and_removed(env: Env, home: Path) -> None:
    done = run(LAPCONSOLE, "contexts", "add", "prod", "https://lap.example/", env=env, stdin=f"{KEY}\n")
    assert done.returncode == 0 and KEY not in done.stdout + done.stderr
    (home / "key").write_text("sk-from-a-file\n")
    done = run(LAPCONSOLE, "contexts", "add", "dev", "http://10.0.0.1:3000", "--key-file", str(home / "key"), env=env)
    assert done.returncode == 0 and "unencrypted" in done.stdout
    assert run(LAPCONSOLE, "contexts", "use", "prod", env=env).returncode == 0
    shown = run(LAPCONSOLE, "contexts", env=env).stdout
    assert "* prod      https://lap.example" in shown and "  embedded" in shown and KEY not in shown
    path = home / "config" / "lapconsole" / "settings.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["contexts"]["dev"]["key"] == "sk-from-a-file"
    assert run(LAPCONSOLE, "contexts", "remove", "prod", env=env).returncode == 0
    assert listed(env) == {"current": "embedded", "contexts": [{"name": "dev", "url": "http://10.0.0.1:3000"}]}


@pytest.mark.parametrize(
    "arguments",
    [["use", "nowhere"], ["remove", "nowhere"], ["add", "x", "ftp://h"], ["add", "x", "http://h", "--key-file", "/no"]],
)
def test_contexts_that_cannot_be(env: Env, arguments: list[str]) -> None:
    done = run(LAPCONSOLE, "contexts", *arguments, env=env)
    assert done.returncode == 2 and done.stderr.startswith("✗ ") and "Traceback" not in done.stderr


def test_a_context_named_embedded_is_refused_before_the_key_is_asked_for(env: Env) -> None:
    done = run(LAPCONSOLE, "contexts", "add", "embedded", "http://h", env=env)
    assert done.returncode == 1 and "cannot name a context" in done.stderr and "Master key" not in done.stdout


def test_damaged_settings_are_named(env: Env, home: Path) -> None:
    path = home / "config" / "lapconsole" / "settings.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    done = run(LAPCONSOLE, "contexts", env=env)
    assert done.returncode == 1 and f"{path} is damaged" in done.stderr


# The platform alone, against the stand-in


@pytest.fixture
def up(env: Env, standin: str) -> Iterator[Env]:
    """An environment in which the platform is the stand-in; it is ended with the test."""
    env |= {"PYTHONPATH": standin}
    yield env
    assert run(LAPCONSOLE, "down", env=env).returncode == 0


def test_nothing_runs_at_first(env: Env) -> None:
    done = run(LAPCONSOLE, "status", env=env)
    assert done.returncode == 3 and "no platform runs on" in done.stdout
    assert json.loads(run(LAPCONSOLE, "status", "--json", env=env).stdout)["running"] is False
    done = run(LAPCONSOLE, "down", env=env)
    assert done.returncode == 0 and "no platform runs on" in done.stdout


def test_up_status_down(up: Env, home: Path) -> None:
    done = run(LAPCONSOLE, "up", "--detach", "--port", "0", env=up)
    assert done.returncode == 0 and done.stdout.startswith("✓ the platform listens on http://127.0.0.1:")
    status = run(LAPCONSOLE, "status", "--json", env=up)
    told = json.loads(status.stdout)
    assert status.returncode == 0 and told["healthy"] and told["url"] in done.stdout and told["pid"] > 1
    assert told["sessions"] == {"creating": 0, "ready": 0, "failed": 0, "dead": 0}
    assert told["data_dir"] == str(home / "data" / "lapconsole")
    shown = run(LAPCONSOLE, "status", env=up).stdout
    assert f"running    {told['url']} (pid {told['pid']}, up " in shown and "sessions   none" in shown
    again = run(LAPCONSOLE, "up", "--detach", env=up)
    assert again.returncode == 0 and "already runs" in again.stdout and told["url"] in again.stdout
    done = run(LAPCONSOLE, "down", env=up)
    assert done.returncode == 0 and "its sessions keep running" in done.stdout
    assert run(LAPCONSOLE, "status", env=up).returncode == 3


def test_status_tells_of_sessions_and_their_isolation(up: Env) -> None:
    run(LAPCONSOLE, "up", "--detach", "--port", "0", env=up | {"STANDIN": "busy"})
    shown = run(LAPCONSOLE, "status", env=up).stdout
    assert "sessions   1 ready\n" in shown
    assert "isolation  own process namespace; limits: by cgroup, pids 512; no cpu controller\n" in shown
    told = json.loads(run(LAPCONSOLE, "status", "--json", env=up).stdout)
    assert told["sessions"]["ready"] == 1 and told["isolation"]["limits"] == {"by": "cgroup", "pids": 512}


def test_lap_uses_the_platform_on_this_machine(up: Env) -> None:
    run(LAPCONSOLE, "up", "--detach", "--port", "0", env=up)
    shown = json.loads(run(LAP, "config", "--json", env=up).stdout)
    assert shown["source"] == "embedded" and shown["base"].startswith("http://127.0.0.1:")


def test_a_folder_called_backend_is_not_taken_for_the_platform(up: Env, home: Path) -> None:
    (home / "backend").mkdir()
    (home / "backend" / "__main__.py").write_text("raise SystemExit('the wrong one')")
    done = subprocess.run(
        [*LAPCONSOLE, "up", "--detach", "--port", "0"], env=up, cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_up_that_fails_shows_the_log(up: Env, home: Path) -> None:
    done = run(LAPCONSOLE, "up", "--detach", env=up | {"STANDIN": "refuse"})
    assert done.returncode == 1 and "✗ the platform did not start: it ended with exit code 1" in done.stderr
    assert "cannot listen" in done.stderr and "platform.log" in done.stderr and "\x1b" not in done.stderr


def test_up_in_the_foreground_becomes_the_platform(up: Env, home: Path) -> None:
    data = home / "elsewhere"
    data.mkdir()
    process = subprocess.Popen([*LAPCONSOLE, "--data-dir", str(data), "up", "--port", "0"], env=up)
    try:
        until((data / "platform.json").exists, "the platform")
        assert json.loads((data / "platform.json").read_text())["pid"] == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait()


def test_a_platform_that_does_not_answer_is_told(up: Env, home: Path) -> None:
    run(LAPCONSOLE, "up", "--detach", "--port", "0", env=up)
    pid = json.loads(run(LAPCONSOLE, "status", "--json", env=up).stdout)["pid"]
    record = home / "data" / "lapconsole" / "platform.json"
    good = record.read_text()
    record.write_text(json.dumps({"pid": pid, "url": "http://127.0.0.1:1"}))
    done = run(LAPCONSOLE, "status", env=up)
    assert done.returncode == 1 and "unknown: cannot reach http://127.0.0.1:1" in done.stdout
    record.write_text(good)

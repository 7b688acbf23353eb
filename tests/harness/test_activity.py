"""Activity as the harness tells it, of programs that stand for agents, and the way of the hooks."""

import asyncio
import json
import shlex
import socket
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from backend.domain.activity import Hook
from backend.harness import adapters, hook_sender
from backend.harness.adapters import Context
from backend.harness.hook_channel import HookChannel, hook_command, parse
from tests.harness.conftest import BASH, RunningHarness, bash
from tests.waiting import until

ROOT = Path("/sandbox")
HOOK = hook_command(ROOT)


def told(state: dict[str, Any]) -> tuple[str, str | None, str | None]:
    activity = state["activity"]
    return activity["state"], activity["reason"], activity["message"]


async def does(harness: RunningHarness, *expected: str | None) -> dict[str, Any]:
    return await harness.until(lambda state: state["activity"] is not None and told(state) == expected)


async def test_there_is_none_before_there_is_an_agent(harness: RunningHarness) -> None:
    assert (await harness.state())["activity"] is None


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("sleep 0.3; exit 0", ("idle", "exited", "exit code 0")),
        ("sleep 0.3; exit 1", ("idle", "exited", "exit code 1")),
        ("sleep 0.3; kill -9 $$", ("idle", "crashed", "exit code 137")),
    ],
)
async def test_how_a_program_ended(harness: RunningHarness, script: str, expected: tuple[str, str, str]) -> None:
    await harness.ready(command=bash(script))
    await does(harness, *expected)


async def test_a_shell_is_unknown_until_it_calls_and_somebody_types(harness: RunningHarness) -> None:
    await harness.ready(command=bash("sleep 0.3; printf '\\a'; exec cat"))
    await does(harness, "waiting_for_input", None, None)
    tty = await harness.attach()
    await tty.type("x")
    await does(harness, "unknown", None, None)
    await tty.type("\x03")
    await harness.until(lambda state: told(state)[:2] == ("idle", "exited"))
    await harness.attach()
    await does(harness, "unknown", "started", None)


async def test_a_program_in_a_shell_tells_until_it_leaves(harness: RunningHarness) -> None:
    await harness.ready(command=BASH)
    tty = await harness.attach()
    await tty.type("printf '\\033]7501;state=working:app=x\\033\\\\'\n")
    await does(harness, "working", None, None)
    await tty.type("printf '\\033]9;ready\\033\\\\\\033]7501;state=blocked:kind=permission:msg=bHM=\\033\\\\'\n")
    await does(harness, "waiting_for_input", "permission", "ls")
    await tty.type("printf '\\033]7501;state=clear\\033\\\\'\n")
    await does(harness, "unknown", None, None)


async def test_secrets_are_not_told(harness: RunningHarness) -> None:
    command = bash("sleep 0.2; printf '\\033]9;the key is %s\\033\\\\' $KEY; exec cat")
    await harness.ready(command=command, env={"KEY": "sk-a-secret-of-the-test"})
    state = await harness.until(lambda state: told(state)[0] == "waiting_for_input")
    assert "sk-a-secret" not in state["activity"]["message"]


async def test_a_hook_reaches_the_harness(harness: RunningHarness) -> None:
    await harness.ready(command=BASH)
    call(harness.root, hook_event_name="UserPromptSubmit", session_id="main")
    await does(harness, "working", None, None)
    asked = {"tool_name": "Bash", "tool_input": {"command": "touch zzz", "description": "Touches"}}
    call(harness.root, hook_event_name="PermissionRequest", session_id="main", **asked)
    await does(harness, "waiting_for_input", "permission", "Bash: touch zzz")
    notified = json.dumps({"type": "agent-turn-complete", "thread-id": "main"})
    assert subprocess.run([*hook_command(harness.root), notified], capture_output=True, check=True).stdout == b""
    await does(harness, "idle", "turn_finished", None)


async def test_nonsense_on_the_way_of_the_hooks_disturbs_nothing(harness: RunningHarness) -> None:
    await harness.ready(command=BASH)
    for message in (b"", b"\xff", b"[]", b"{" * 10_000, b'{"at": NaN}', b"x" * 60_000):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(str(harness.root / "hooks"))
            sender.send(message)
    call(harness.root, hook_event_name="UserPromptSubmit")
    await does(harness, "working", None, None)
    assert (harness.root / "hooks").stat().st_mode & 0o777 == 0o600


def call(root: Path, **event: Any) -> None:
    """Runs a hook as an agent's program does; it says nothing."""
    done = subprocess.run(hook_command(root), input=json.dumps(event).encode(), capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("given", [b"", b"{", b"[]", b"\xff\xfe", b"{}"])
def test_a_hook_always_succeeds_in_silence(tmp_path: Path, given: bytes) -> None:
    done = subprocess.run(hook_command(tmp_path), input=given, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


async def test_long_texts_in_a_deep_directory_arrive_cut(tmp_path: Path) -> None:
    root = tmp_path.joinpath(*["directory" * 4] * 5)
    root.mkdir(parents=True)
    hooks: list[Hook] = []
    channel = HookChannel(root, hooks.append)
    try:
        event = {
            "hook_event_name": "PermissionRequest",
            "tool_name": "Bash",
            "tool_input": {"command": "\U0001f600" * 9999},
        }
        await asyncio.to_thread(call, root, **event)
        [hook] = await until(lambda: hooks, "the hook arrives")
    finally:
        channel.close()
    assert hook.text == "\U0001f600" * hook_sender.MAX_TEXT
    assert abs(hook.at - time.time()) < 60


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"tool_input": {"file_path": "/a", "content": "x"}}, "/a"),
        ({"tool_input": {"questions": [{"question": "Tea?"}, {"question": "Milk?"}]}}, "Tea?"),
        ({"tool_input": {"other": 1}}, '{"other": 1}'),
        ({"tool_input": 7}, "7"),
        ({"message": "Claude needs you"}, "Claude needs you"),
        ({"last_assistant_message": "API Error: 400"}, "API Error: 400"),
        ({"message": ["x"]}, ""),
        ({}, ""),
    ],
)
def test_what_a_hook_tells(given: dict[str, Any], text: str) -> None:
    assert hook_sender.message(given)["text"] == text


def test_what_is_no_hook() -> None:
    whole = {"at": 1.0, "event": "Stop", "conversation": "", "kind": "", "tool": "", "text": ""}
    assert parse(json.dumps(whole).encode()) == Hook("Stop", 1.0)
    for change in ({"at": "1"}, {"at": True}, {"event": 5}, {"text": None}):
        assert parse(json.dumps(whole | change).encode()) is None


# What the programs' settings become.


def context(home: Path) -> Context:
    return Context(home=home, project=home, model="m", prompt=None, base="http://x", key="k", env={}, hook=HOOK)


def plan(harness_id: str, home: Path) -> dict[str, str]:
    return dict(adapters.plan(harness_id, context(home), "/bin/sh").files)


def test_claude_codes_hooks_come_after_the_users(tmp_path: Path) -> None:
    theirs = {"matcher": "Bash", "hooks": [{"type": "command", "command": "true"}]}
    settings = {"theme": "dark", "hooks": {"Stop": [theirs], "PreToolUse": [theirs]}}
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude/settings.json").write_text(json.dumps(settings))
    written = plan("claude-code", tmp_path)[".claude/settings.json"]
    merged = json.loads(written)
    assert merged["theme"] == "dark"
    assert merged["hooks"]["PreToolUse"] == [theirs]
    first, ours = merged["hooks"]["Stop"]
    assert (first, ours["hooks"][0]["command"]) == (theirs, shlex.join(HOOK))
    (tmp_path / ".claude/settings.json").write_text(written)
    assert json.loads(plan("claude-code", tmp_path)[".claude/settings.json"]) == merged, "twice is once"


@pytest.mark.parametrize("content", ["{", "[]", '{"hooks": []}'])
def test_settings_that_cannot_be_read_stay_as_they_are(tmp_path: Path, content: str) -> None:
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude/settings.json").write_text(content)
    assert ".claude/settings.json" not in plan("claude-code", tmp_path)


def test_codexs_hooks_are_in_its_configuration(tmp_path: Path) -> None:
    config = tomllib.loads(plan("codex", tmp_path)[".codex/config.toml"])
    assert config["notify"] == list(HOOK)
    [[hook]] = [group["hooks"] for group in config["hooks"]["PermissionRequest"]]
    assert hook == {"type": "command", "command": shlex.join(HOOK), "timeout": 5}
    trusted = config["hooks"]["state"][f"{tmp_path}/.codex/config.toml:permission_request:0:0"]["trusted_hash"]
    assert trusted.startswith("sha256:")
    assert config["model_provider"] == "litellm"

"""People talking to an agent that works by messages: from the console and from the shell, at the same session."""

import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.console import console
from tests.e2e.programs import API, Platform
from tests.loopback_model import MODEL, LoopbackModel
from tests.waiting import until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        importlib.util.find_spec("claude_agent_sdk") is None, reason="the claude-agent-sdk package is not installed"
    ),
]

ENTER, ESCAPE, LEAVE, PASTE = "\r", "\x1b", "\x04", "\x1b[200~{}\x1b[201~"


@pytest.fixture
async def chatty(tmp_path: Path) -> AsyncIterator[tuple[Platform, LoopbackModel]]:
    async with LoopbackModel() as model:
        platform = Platform(tmp_path / "data", {"LITELLM_API_BASE": model.url, "LITELLM_API_KEY": "sk-loopback"})
        await platform.start()
        try:
            made = await platform.http.post(
                f"{API}/agents", json={"name": "talker", "harness_id": "claude-agent-sdk", "model": MODEL}
            )
            assert made.status_code < 300, made.text
            yield platform, model
        finally:
            await platform.close()


async def lap(platform: Platform, home: Path, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("LAP_", "MASTER"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "lapconsole.cli.lap",
        *arguments,
        env=env | {"HOME": str(home), "LAP_BASE_URL": platform.url, "LAP_MASTER_KEY": platform.key},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, errors = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


async def test_console_and_shell_talk_to_one_session(chatty: tuple[Platform, LoopbackModel], tmp_path: Path) -> None:
    platform, model = chatty
    code, out, errors = await lap(platform, tmp_path, "run", "talker", "--json", stdin="tool: echo from the tool\n")
    assert code == 0, errors
    answer = json.loads(out)
    assert "tool said: from the tool" in answer["text"]
    session_id = answer["session_id"]

    env = {"LAP_MASTER_KEY": platform.key}
    async with console(tmp_path, "--platform", platform.url, columns=100, lines=30, env=env) as shown:
        await shown.shows("talker", "● ready")
        await shown.press("a")
        await shown.shows("▸ Bash  echo from the tool", "tool said: from the tool", "Write a message")
        await shown.press(PASTE.format("two lines\nin one message"), ENTER)
        await shown.shows("echo: two lines")
        code, out, errors = await lap(platform, tmp_path, "message", session_id[:8], "from", "the", "shell")
        assert (code, out) == (0, "echo: from the shell\n"), errors
        await shown.shows("echo: from the shell")
        await shown.press(*"wait", ENTER)
        await shown.shows("working", "esc esc")
        await shown.press(ESCAPE)
        await shown.shows("again stops the turn")
        await shown.press(ESCAPE)
        await shown.shows("✗ stopped")
        model.release()
        # The platform goes and comes back: the conversation is there again, and goes on.
        await platform.end()
        await shown.shows("stale")
    await platform.start()
    env = {"LAP_MASTER_KEY": platform.key}
    async with console(tmp_path, "--platform", platform.url, columns=80, lines=24, env=env) as shown:
        await shown.shows("talker", "● ready")
        await shown.press("a")
        await shown.shows("✗ stopped", "Write a message")
        await shown.press(*"and on", ENTER)
        await shown.shows("echo: and on")
        await shown.press(LEAVE)
        await shown.shows("Sessions(all)[1]")
        await shown.press("q")
        await shown.ends()

    code, out, errors = await lap(platform, tmp_path, "--resume", session_id, stdin="a line\nerror\n")
    assert "echo: a line\n" in out and "[chat ended]" in out and "✗" in errors
    code, out, errors = await lap(platform, tmp_path, "messages", session_id, "--json")
    said = [part["text"] for one in json.loads(out) for part in one["parts"] if one["info"]["role"] == "user"]
    assert [words for words in said if "two lines" in words] == ["two lines\nin one message"]
    code, out, errors = await lap(platform, tmp_path, "stop", session_id)
    assert (code, out) == (0, f"✓ stopped session {session_id[:8]}\n")

    async def dead() -> bool:
        return bool((await platform.http.get(f"{API}/sessions/{session_id}")).json()["status"] == "dead")

    await until(dead, "the session is dead")

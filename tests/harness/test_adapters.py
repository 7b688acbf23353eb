"""What each harness's program is started with. The real programs take part where they are on PATH."""

import asyncio
import base64
import json
import os
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lapconsole.terminal.emulator import Emulator
from tests.harness.conftest import WAIT, RunningHarness

LLM = {"base": "http://127.0.0.1:1/v1/", "key": "sk-gateway-key-of-the-test"}
# Shows how it was called and stays.
PROGRAM = f"""#!{sys.executable}
import json, os, sys
call = {{"argv": sys.argv, "env": dict(os.environ), "cwd": os.getcwd()}}
json.dump(call, open(os.environ["HOME"] + "/call", "w"))
print("started", flush=True)
sys.stdin.read()
"""
PROMPT = 'Be brief: "ä"'


def install(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PROGRAM)
    path.chmod(0o755)
    return path


async def call(harness: RunningHarness, program: Path | None, **body: Any) -> dict[str, Any]:
    """How the program was called; it is on the agent's PATH if it is given."""
    path = {"PATH": f"{program.parent}:/usr/bin:/bin"} if program else {}
    body["env"] = path | body.get("env", {})
    defaults = {"command": None, "llm": LLM, "model": "org/model", "prompt": PROMPT}
    state = await harness.ready(**defaults | body)
    assert state["setup"] == "done", state
    tty = await harness.attach()
    await tty.until("started")
    return dict(json.loads((harness.home / "call").read_text()))


async def test_claude_code_starts_at_its_prompt(harness: RunningHarness, tmp_path: Path) -> None:
    program = install(tmp_path / "bin/claude")
    found = await call(harness, program, harness_id="claude-code")
    assert found["argv"][0] == str(program)
    prompt = found["argv"][found["argv"].index("--append-system-prompt-file") + 1]
    assert Path(prompt).read_text() == PROMPT
    assert found["env"]["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:1"
    assert found["env"]["ANTHROPIC_AUTH_TOKEN"] == LLM["key"]
    assert found["env"]["ANTHROPIC_MODEL"] == "org/model"
    assert "ANTHROPIC_API_KEY" not in found["env"]
    config = harness.home / ".claude.json"
    assert config.stat().st_mode & 0o777 == 0o600
    assert json.loads(config.read_text())["projects"] == {str(harness.home): {"hasTrustDialogAccepted": True}}


async def test_claude_code_works_with_the_users_own_key_and_configuration(
    harness: RunningHarness, tmp_path: Path, repository: Path
) -> None:
    own = base64.b64encode(b'{"theme": "light", "projects": {"/x": {}}}').decode()
    found = await call(
        harness,
        install(tmp_path / "bin/claude"),
        harness_id="claude-code",
        repo_url=str(repository),
        env={"ANTHROPIC_API_KEY": "sk-ant-api03-0123456789abcdefghij"},
        files=[{"name": "c", "sandbox_path": "~/.claude.json", "content": own}],
    )
    assert found["cwd"] == str(harness.home / "widgets")
    assert "ANTHROPIC_AUTH_TOKEN" not in found["env"]
    config = json.loads((harness.home / ".claude.json").read_text())
    assert config["theme"] == "light"
    assert set(config["projects"]) == {"/x", str(harness.home / "widgets")}
    assert config["customApiKeyResponses"]["approved"] == ["0123456789abcdefghij"]


async def test_claude_code_comes_from_the_python_package_when_it_is_not_on_path(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    program = install(tmp_path / "packages/claude_agent_sdk/_bundled/claude")
    (tmp_path / "packages/claude_agent_sdk/__init__.py").touch()
    harness = await start(env={"PYTHONPATH": str(tmp_path / "packages")})
    found = await call(harness, None, harness_id="claude-code", env={"PATH": "/usr/bin:/bin"})
    assert found["argv"][0] == str(program)
    assert "PYTHONPATH" not in found["env"]


async def test_codex_starts_at_its_prompt(harness: RunningHarness, tmp_path: Path) -> None:
    program = install(tmp_path / "bin/codex")
    found = await call(harness, program, harness_id="codex")
    assert found["argv"] == [str(program), "--no-daemon"]
    assert found["env"]["LITELLM_API_KEY"] == LLM["key"]
    config = harness.home / ".codex/config.toml"
    assert config.stat().st_mode & 0o777 == 0o600
    assert LLM["key"] not in config.read_text()
    settings = tomllib.loads(config.read_text())
    assert settings.pop("notify")
    assert settings.pop("hooks")
    assert settings == {
        "check_for_update_on_startup": False,
        "model": "org/model",
        "model_provider": "litellm",
        "model_providers": {
            "litellm": {
                "name": "litellm",
                "base_url": "http://127.0.0.1:1/v1",
                "wire_api": "responses",
                "env_key": "LITELLM_API_KEY",
            }
        },
        "analytics": {"enabled": False},
        "projects": {str(harness.home): {"trust_level": "trusted"}},
    }
    assert (harness.home / ".codex/AGENTS.md").read_text() == PROMPT


async def test_codex_is_run_without_its_node_wrapper(harness: RunningHarness, tmp_path: Path) -> None:
    packages = tmp_path / "lib/node_modules/@openai"
    wrapper = install(packages / "codex/bin/codex.js")
    native = install(packages / "codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/codex").symlink_to(wrapper)
    found = await call(harness, tmp_path / "bin/codex", harness_id="codex")
    assert found["argv"][0] == str(native)


async def test_codex_takes_the_users_own_key_without_a_gateway(harness: RunningHarness, tmp_path: Path) -> None:
    await call(harness, install(tmp_path / "bin/codex"), harness_id="codex", llm={}, env={"OPENAI_API_KEY": "sk-own"})
    provider = tomllib.loads((harness.home / ".codex/config.toml").read_text())["model_providers"]["own"]
    assert provider["env_key"] == "OPENAI_API_KEY"
    assert provider["base_url"].startswith("https://")


async def test_the_gateways_key_goes_nowhere_without_the_gateway(harness: RunningHarness, tmp_path: Path) -> None:
    found = await call(
        harness, install(tmp_path / "bin/claude"), harness_id="claude-code", llm={"base": None, "key": LLM["key"]}
    )
    assert LLM["key"] not in found["env"].values()


async def test_the_users_variables_win_over_the_adapters(harness: RunningHarness, tmp_path: Path) -> None:
    found = await call(
        harness, install(tmp_path / "bin/claude"), harness_id="claude-code", env={"ANTHROPIC_MODEL": "mine"}
    )
    assert found["env"]["ANTHROPIC_MODEL"] == "mine"


async def test_a_command_of_the_users_own_gets_the_same_environment(harness: RunningHarness, tmp_path: Path) -> None:
    program = install(tmp_path / "my agent")
    found = await call(harness, None, harness_id="claude-code", command=f"'{program}' --flag 'two words'")
    assert found["argv"] == [str(program), "--flag", "two words"]
    assert found["env"]["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:1"


@pytest.mark.parametrize(("harness_id", "program"), [("claude-code", "claude"), ("codex", "codex")])
async def test_a_first_message_is_told_once(
    harness: RunningHarness, tmp_path: Path, harness_id: str, program: str
) -> None:
    message = "--help is no option here\nbut a message"
    found = await call(harness, install(tmp_path / "bin" / program), harness_id=harness_id, initial_prompt=message)
    assert found["argv"][-2:] == ["--", message]
    tty = await harness.attach()
    await tty.type("\x04")
    await tty.until("process exited")
    (harness.home / "call").unlink()
    again = await harness.attach()
    await again.until("started")
    assert message not in json.loads((harness.home / "call").read_text())["argv"]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("program", "harness_id", "prompt"), [("codex", "codex", "Ask Codex"), ("claude", "claude-code", "for shortcuts")]
)
async def test_the_real_program_shows_its_prompt_and_no_dialog(
    start: Callable[..., Any], repository: Path, program: str, harness_id: str, prompt: str
) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not on PATH")
    harness: RunningHarness = await start()
    state = await harness.ready(
        harness_id=harness_id, command=None, llm=LLM, model="a-model", prompt="Be brief.", repo_url=str(repository)
    )
    assert state["setup"] == "done", state
    tty, screen = await harness.attach(), Emulator(100, 30)
    async with asyncio.timeout(2 * WAIT):
        while not any(prompt in row for row in screen.text()):
            screen.feed(str(await tty.socket.recv()))
    below = Path(f"/proc/{state['agent']['pid']}/environ").read_bytes()
    assert os.environ["PATH"].encode() in below

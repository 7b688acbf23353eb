"""claude-agent-sdk: our own server on the PyPI package, in a process of its own."""

import importlib.util
import json
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path

import backend
from backend.domain.agents import HARNESSES
from backend.harness.adapters import Context, Launch, SetupError, basic_authorization, command_variable
from backend.harness.adapters.claude_code import environment

PACKAGE = "claude_agent_sdk"
PASSWORD = "LAP_SDK_SERVER_PASSWORD"
USER = "lap"
SETTINGS = "LAP_SDK_SETTINGS"
PROMPT_FILE = ".claude/lap-prompt.md"
_START = "import sys; sys.path.append(sys.argv.pop(1)); from backend.harness.sdk.__main__ import main; main()"


def launch(context: Context, command: Sequence[str] | None) -> Launch:
    """Our server, or the user's command with the same environment, on the given loopback port."""
    password = secrets.token_urlsafe(24)
    # A turn ends with its answer: nothing may go on behind it, or begin by itself.
    alone = {"CLAUDE_CODE_DISABLE_BACKGROUND_TASKS": "1", "CLAUDE_CODE_DISABLE_CRON": "1"}
    env = environment(context) | alone | {PASSWORD: password}
    files = {}
    settings: dict[str, str | None] = {"model": context.model}
    if context.prompt:
        files[PROMPT_FILE] = context.prompt  # A file, because an argument is limited to 128 KB.
        settings["prompt_file"] = str(context.home / PROMPT_FILE)
    env[SETTINGS] = json.dumps(settings)
    if command is None:
        if importlib.util.find_spec(PACKAGE) is None:
            raise SetupError(
                f"the Python package {PACKAGE} of harness claude-agent-sdk was not found. Install it with "
                f"`{HARNESSES['claude-agent-sdk'].install_hint}` where the platform runs, or name a program with "
                f"{command_variable('claude-agent-sdk')}."
            )
        # Isolated: nothing in the agent's directory or its requirements may stand in for a module of ours.
        command = (sys.executable, "-I", "-c", _START, str(Path(backend.__file__).parent.parent))
    headers = {"authorization": basic_authorization(USER, password)}
    return Launch(command, env, files, headers=headers, names_session=True, secret=password)

"""Claude Code: its terminal program, from npm or from the claude-agent-sdk package."""

import importlib.util
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backend.harness.adapters import Context, Launch, find

CONFIG = ".claude.json"
SETTINGS = ".claude/settings.json"
HOOKS = (
    "SessionStart",
    "SessionEnd",
    "UserPromptSubmit",
    "PermissionRequest",
    "PostToolUse",
    "PostToolUseFailure",
    "Notification",
    "Stop",
    "StopFailure",
)
"""What tells of the agent's activity. Earlier versions ignore the ones they do not know."""
HOOK_SECONDS = 5
KEY_TAIL = 20
"""Claude Code remembers an approved API key by so many of its last characters."""


def launch(context: Context, command: Sequence[str] | None) -> Launch:
    """Straight to the prompt: no onboarding, no trust, key or permission-mode dialog."""
    argv = list(command or (find("claude", "claude-code", context.env, *_bundled()), "--permission-mode", "default"))
    files = {CONFIG: json.dumps(_config(context), indent=2)}
    if (settings := _settings(context)) is not None:
        files[SETTINGS] = json.dumps(settings, indent=2)
    if context.prompt and command is None:
        files[".claude/lap-prompt.md"] = context.prompt  # A file, because an argument is limited to 128 KB.
        argv += ["--append-system-prompt-file", str(context.home / ".claude/lap-prompt.md")]
    return Launch(argv, environment(context), files, first_message(context, command))


def first_message(context: Context, command: Sequence[str] | None) -> Sequence[str]:
    """The message as Claude Code and Codex take it; a program of the user's own may not."""
    return ("--", context.initial_prompt) if context.initial_prompt and command is None else ()


def environment(context: Context) -> dict[str, str]:
    """What Claude Code and its SDK read; the gateway's key goes nowhere but to the gateway."""
    env = {"IS_SANDBOX": "1", "DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}
    if context.base:
        env["ANTHROPIC_BASE_URL"] = context.base.rstrip("/").removesuffix("/v1")
        if context.key and "ANTHROPIC_API_KEY" not in context.env:
            env["ANTHROPIC_AUTH_TOKEN"] = context.key
    if context.model:
        # One gateway model for every duty: it need not know the names of Anthropic's smaller ones.
        env["ANTHROPIC_MODEL"] = env["ANTHROPIC_DEFAULT_HAIKU_MODEL"] = context.model
    return env


def _config(context: Context) -> dict[str, Any]:
    """The user's own configuration file, if one was put there, with what skips the dialogs added."""
    try:
        config = json.loads((context.home / CONFIG).read_text())
    except (OSError, ValueError):
        config = {}
    config = config if isinstance(config, dict) else {}
    projects = config.get("projects")
    projects = projects if isinstance(projects, dict) else {}
    config |= {
        "hasCompletedOnboarding": True,
        "hasSeenAutoDefaultNotice": True,
        "bypassPermissionsModeAccepted": True,
        "projects": projects | {str(context.project): {"hasTrustDialogAccepted": True}},
    }
    if key := context.env.get("ANTHROPIC_API_KEY"):
        config["customApiKeyResponses"] = {"approved": [key[-KEY_TAIL:]], "rejected": []}
    return config


def _settings(context: Context) -> dict[str, Any] | None:
    """The user's own settings, if some were put there, with our hooks after theirs; None to leave them as they are."""
    try:
        settings = json.loads((context.home / SETTINGS).read_text())
    except FileNotFoundError:
        settings = {}
    except (OSError, ValueError):
        return None
    if not context.hook or not isinstance(settings, dict) or not isinstance(hooks := settings.get("hooks", {}), dict):
        return None
    ours = {"hooks": [{"type": "command", "command": shlex.join(context.hook), "timeout": HOOK_SECONDS}]}
    added: dict[str, Any] = {}
    for event in HOOKS:
        theirs = hooks.get(event, [])
        if isinstance(theirs, list):
            added[event] = [*(hook for hook in theirs if hook != ours), ours]
    return settings | {"hooks": hooks | added}


def _bundled() -> list[Path]:
    """The copy of the program inside the claude-agent-sdk package."""
    spec = importlib.util.find_spec("claude_agent_sdk")
    return [Path(place, "_bundled", "claude") for place in (spec.submodule_search_locations or ())] if spec else []

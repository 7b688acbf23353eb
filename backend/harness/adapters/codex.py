"""Codex: its terminal program, from npm."""

import hashlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from backend.harness.adapters import Context, Launch, find
from backend.harness.adapters.claude_code import first_message

KEY_VARIABLE = "LITELLM_API_KEY"
OWN_KEY_VARIABLE = "OPENAI_API_KEY"
OPENAI_BASE = "https://api.openai.com/v1"
CONFIG = ".codex/config.toml"
HOOKS = {
    "SessionStart": "session_start",
    "UserPromptSubmit": "user_prompt_submit",
    "PermissionRequest": "permission_request",
    "PostToolUse": "post_tool_use",
    "Stop": "stop",
}
"""What tells of the agent's activity: the names in the configuration, and in the list of trusted hooks."""
HOOK_SECONDS = 5


def launch(context: Context, command: Sequence[str] | None) -> Launch:
    """Straight to the prompt: no login, trust or update dialog, and no daemon that outlives the terminal."""
    files = {}
    if not (context.home / CONFIG).exists():  # The user's own file stays as it is.
        files[CONFIG] = _config(context)
    if context.prompt:
        files[".codex/AGENTS.md"] = context.prompt
    env = {KEY_VARIABLE: context.key} if context.base and context.key else {}
    return Launch(command or (_program(context), "--no-daemon"), env, files, first_message(context, command))


def _program(context: Context) -> str:
    """The native program: npm's `codex` is a script that keeps a whole Node beside it."""
    found = find("codex", "codex", context.env)
    packages = Path(found).resolve().parent.parent.parent
    return next((str(native) for native in packages.glob("codex-*/vendor/*/bin/codex")), found)


def _config(context: Context) -> str:
    lines = ["check_for_update_on_startup = false"]
    if context.model:
        lines.append(f"model = {_toml(context.model)}")
    if context.base:
        lines += _provider("litellm", context.base, KEY_VARIABLE if context.key else None)
    elif OWN_KEY_VARIABLE in context.env:  # Named as a provider, because else Codex asks for a login.
        lines += _provider("own", context.env.get("OPENAI_BASE_URL", OPENAI_BASE), OWN_KEY_VARIABLE)
    lines += ["", "[analytics]", "enabled = false", "", f"[projects.{_toml(str(context.project))}]"]
    lines += ['trust_level = "trusted"', ""]
    if context.hook:
        lines[:0] = [f"notify = [{', '.join(map(_toml, context.hook))}]"]
        lines += _hooks(shlex.join(context.hook), str(context.home / CONFIG))
    return "\n".join(lines)


def _hooks(command: str, config: str) -> list[str]:
    """`command` for each hook, trusted from the start: Codex would first ask a person to look at it."""
    lines = []
    for event, name in HOOKS.items():
        handler = {"type": "command", "command": command, "timeout": HOOK_SECONDS, "async": False}
        what = {"event_name": name, "hooks": [handler]}
        trusted = hashlib.sha256(json.dumps(what, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
        lines += [f"[[hooks.{event}]]", f"[[hooks.{event}.hooks]]", 'type = "command"']
        lines += [f"command = {_toml(command)}", f"timeout = {HOOK_SECONDS}", ""]
        lines += [f"[hooks.state.{_toml(f'{config}:{name}:0:0')}]", f'trusted_hash = "sha256:{trusted}"', ""]
    return lines


def _provider(name: str, base: str, key_variable: str | None) -> list[str]:
    return [
        f"model_provider = {_toml(name)}",
        "",
        f"[model_providers.{name}]",
        f"name = {_toml(name)}",
        f"base_url = {_toml(base.rstrip('/').removesuffix('/v1') + '/v1')}",
        'wire_api = "responses"',
        *([f"env_key = {_toml(key_variable)}"] if key_variable else []),
    ]


def _toml(text: str) -> str:
    """A TOML basic string; JSON's escapes are a subset of TOML's once DEL is escaped, too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

"""opencode: its HTTP server."""

import json
from collections.abc import Sequence
from typing import Any

from backend.harness.adapters import Context, Launch, find

CONFIG = ".config/opencode/opencode.json"
KEY_VARIABLE = "LITELLM_API_KEY"


def launch(context: Context, command: Sequence[str] | None) -> Launch:
    """`opencode serve` on the given loopback port, with the gateway as its only provider when there is one."""
    argv = command or (
        find("opencode", "opencode", context.env),
        *("serve", "--hostname", "127.0.0.1", "--port", str(context.port)),
    )
    env = {"OPENCODE_DISABLE_AUTOUPDATE": "1"}
    if context.base:
        env["OPENCODE_DISABLE_MODELS_FETCH"] = "1"
        if context.key:
            env[KEY_VARIABLE] = context.key
    files = {}
    if not (context.home / CONFIG).exists():  # The user's own file stays as it is.
        files[CONFIG] = json.dumps(_config(context), indent=2)
    if context.prompt:
        files[".config/opencode/AGENTS.md"] = context.prompt
    return Launch(argv, env, files, probe="/global/health")


def _config(context: Context) -> dict[str, Any]:
    config: dict[str, Any] = {"autoupdate": False, "share": "disabled"}
    if context.base:
        options = {"baseURL": context.base.rstrip("/").removesuffix("/v1") + "/v1"}
        if context.key:
            options["apiKey"] = f"{{env:{KEY_VARIABLE}}}"
        models: dict[str, Any] = {context.model: {}} if context.model else {}
        config["provider"] = {"litellm": {"npm": "@ai-sdk/openai-compatible", "options": options, "models": models}}
        config["enabled_providers"] = ["litellm"]
        if context.model:
            config["model"] = config["small_model"] = f"litellm/{context.model}"
    return config

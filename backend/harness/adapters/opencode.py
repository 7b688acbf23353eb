"""opencode: its HTTP server."""

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from backend.harness.adapters import PORT, Context, Launch, basic_authorization, find

CONFIG = ".config/opencode/opencode.json"
KEY_VARIABLE = "LITELLM_API_KEY"
PASSWORD = "OPENCODE_SERVER_PASSWORD"
PROVIDER = "litellm"
LIMIT = {"context": 200_000, "output": 32_000}
# "ask" would hold a turn for ever where nobody sees the question. A user's own configuration may have it: the
# requests are on the event bus then, and answered through the passthrough.
PERMISSION = {"*": "allow", "question": "deny"}


def launch(context: Context, command: Sequence[str] | None) -> Launch:
    """`opencode serve` on the given loopback port, with the gateway as its only provider when there is one."""
    argv = command or (
        find("opencode", "opencode", context.env),
        *("serve", "--hostname", "127.0.0.1", "--port", PORT),
    )
    password = context.env.get(PASSWORD) or secrets.token_urlsafe(24)
    env = {"OPENCODE_DISABLE_AUTOUPDATE": "1", PASSWORD: password}
    if context.base:
        env["OPENCODE_DISABLE_MODELS_FETCH"] = "1"
        if context.key:
            env[KEY_VARIABLE] = context.key
    files = {}
    users = (context.home / CONFIG).exists()  # The user's own file stays as it is.
    if not users:
        files[CONFIG] = json.dumps(_config(context), indent=2)
    if context.prompt:
        files[".config/opencode/AGENTS.md"] = context.prompt
    model = context.model if context.base and not users else None
    return Launch(
        argv,
        env,
        files,
        probe="/global/health",
        headers={"authorization": basic_authorization("opencode", password)},
        translate=lambda message: _translated(message, model),
        secret=password,
    )


def _config(context: Context) -> dict[str, Any]:
    config: dict[str, Any] = {"autoupdate": False, "share": "disabled", "permission": PERMISSION}
    if context.base:
        options = {"baseURL": context.base.rstrip("/").removesuffix("/v1") + "/v1"}
        if context.key:
            options["apiKey"] = f"{{env:{KEY_VARIABLE}}}"
        # Said to take images: else opencode leaves them out without a word. Without a limit it never sums up what
        # has got too long for the model.
        can = {"attachment": True, "modalities": {"input": ["text", "image"], "output": ["text"]}, "limit": LIMIT}
        models: dict[str, Any] = {context.model: can} if context.model else {}
        config["provider"] = {PROVIDER: {"npm": "@ai-sdk/openai-compatible", "options": options, "models": models}}
        config["enabled_providers"] = [PROVIDER]
        if context.model:
            config["model"] = config["small_model"] = f"{PROVIDER}/{context.model}"
    return config


def _translated(message: Mapping[str, Any], model: str | None) -> dict[str, Any]:
    """The message with opencode's kind of image part, and with a model that its configuration knows."""
    translated = dict(message)
    asked = message.get("model")
    if model is not None:
        translated["model"] = {"providerID": PROVIDER, "modelID": model}
    elif isinstance(asked, Mapping) and asked.get("providerID") == PROVIDER:
        del translated["model"]  # The platform's word for "the agent's": here that is what the user has configured.
    if isinstance(parts := message.get("parts"), list):
        translated["parts"] = [_part(part) for part in parts]
    return translated


def _part(part: Any) -> Any:
    source = part.get("source") if isinstance(part, Mapping) and part.get("type") == "image" else None
    if not isinstance(source, Mapping) or source.get("type") != "base64":
        return part
    mime = source.get("media_type")
    return {"type": "file", "mime": mime, "url": f"data:{mime};base64,{source.get('data')}"}

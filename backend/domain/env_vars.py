"""Rules for `env_vars` of agents and sessions: names, counts, sizes, reserved keys, masking (seed 003)."""

import json
import re
from collections.abc import Mapping
from typing import Final

from backend.domain.problems import Problem

RESERVED_KEYS: Final[tuple[str, ...]] = (
    "REPO_URL",
    "BRANCH",
    "LITELLM_API_KEY",
    "LITELLM_API_BASE",
    "LITELLM_DEFAULT_MODEL",
    "AGENT_PROMPT",
    "PORT",
    "GIT_TOKEN",
    "AGENT_REQUIREMENTS",
)
PLATFORM_FACTS: Final[frozenset[str]] = frozenset(
    {"SESSION_ID", "AGENT_ID", "REPO_URL", "BRANCH", "AGENT_PROMPT", "LITELLM_API_BASE", "LITELLM_DEFAULT_MODEL"}
    | {"LAP_BASE_URL"}
)
"""What the platform itself puts into an agent's environment: none of it is a secret."""
NETWORK: Final[frozenset[str]] = frozenset(
    {"http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
    | {"SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_INDEX_URL"}
)
"""What git and uv need to get out of a machine. Set-up gets it; the agent only if its own env says so."""
MAX_KEYS: Final = 50
MAX_BYTES: Final = 16_384
MASK: Final = "********"
"""Stands for every value in responses. Sent back, it means "keep the stored value"."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
# A NUL cannot be part of a process environment, nor a lone surrogate.
_UNFIT: Final = re.compile(r"[\0\ud800-\udfff]")


def json_bytes(env: Mapping[str, str]) -> int:
    """Size of `env` as compact JSON in UTF-8, the measure of the 16 KB limit."""
    text = json.dumps(dict(env), ensure_ascii=False, separators=(",", ":"))
    return len(text.encode("utf-8", "surrogatepass"))


def problems(env: Mapping[str, str]) -> list[Problem]:
    """Everything wrong with `env`, at once; empty when it is fine. Paths start at `env_vars`."""
    found = [
        Problem(("env_vars", key), "invalid env var name", "invalid_name") for key in env if not _NAME.fullmatch(key)
    ]
    found += [
        Problem(("env_vars", key), "value must not contain a NUL character or broken Unicode", "invalid_value")
        for key, value in env.items()
        if _UNFIT.search(value)
    ]
    if len(env) > MAX_KEYS:
        found.append(Problem(("env_vars",), f"env_vars: max {MAX_KEYS} keys", "too_many"))
    if json_bytes(env) > MAX_BYTES:
        found.append(Problem(("env_vars",), f"env_vars: total size must be ≤ {MAX_BYTES} bytes", "too_big"))
    if any(key in RESERVED_KEYS for key in env):
        message = f"env_vars cannot override reserved keys: {', '.join(RESERVED_KEYS)}"
        found.append(Problem(("env_vars",), message, "reserved"))
    return found


def masked(keys: Mapping[str, object]) -> dict[str, str]:
    """The same keys with every value hidden."""
    return dict.fromkeys(keys, MASK)

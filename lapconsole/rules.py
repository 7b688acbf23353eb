"""What a platform will refuse, checked before anything is sent (LAP REST 2.1, 2.3; seed 003). Pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

HARNESSES = ("claude-code", "codex", "opencode", "claude-agent-sdk")
RESERVED_KEYS = frozenset(
    {
        "REPO_URL",
        "BRANCH",
        "LITELLM_API_KEY",
        "LITELLM_API_BASE",
        "LITELLM_DEFAULT_MODEL",
        "AGENT_PROMPT",
        "PORT",
        "GIT_TOKEN",
        "AGENT_REQUIREMENTS",
    }
)
MAXIMUM_VARIABLES = 50
MAXIMUM_VARIABLE_BYTES = 16_384

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SCP_LIKE = re.compile(r"[A-Za-z0-9._-]+@[A-Za-z0-9._-]+:(?!//)\S+")
_BAD_IN_BRANCH = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|\.lock(/|$)|/\.|^\.")


def parse_variables(text: str) -> tuple[dict[str, str], str]:
    """Read KEY=VALUE lines: the variables, and the first thing wrong with them, "" when all is well.

    Blank lines and lines that start with # are skipped, a leading `export ` too, and one pair of quotes round a value.
    """
    variables: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip().removeprefix("export ").strip()
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        key, value = key.strip(), value.strip()
        if not equals:
            return variables, f"line {number}: write KEY=VALUE"
        if not _VARIABLE.fullmatch(key):
            return variables, f'line {number}: "{key[:40]}" is not a name; letters, digits and _, no digit first'
        if key in variables:
            return variables, f"line {number}: {key} is there twice"
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        variables[key] = value
    return variables, variables_problem(variables)


def variables_problem(variables: Mapping[str, str]) -> str:
    """What is wrong with variables as a whole; "" when nothing is."""
    if reserved := sorted(RESERVED_KEYS & set(variables)):
        hint = "; for use by the agent name it GITHUB_TOKEN" if reserved == ["GIT_TOKEN"] else ""
        return f"{', '.join(reserved)}: set by the platform itself{hint}"
    if len(variables) > MAXIMUM_VARIABLES:
        return f"{len(variables)} variables; at most {MAXIMUM_VARIABLES} are taken"
    size = len(json.dumps(dict(variables), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))
    if size > MAXIMUM_VARIABLE_BYTES:
        return f"{size} bytes in all; at most {MAXIMUM_VARIABLE_BYTES} are taken"
    return ""


def repository_problem(url: str) -> str:
    """What is wrong with a repository's address; "" when nothing is, also when there is none."""
    if not url:
        return ""
    if url.startswith("-") or "::" in url or not url.isprintable() or " " in url:
        return "not an address git should be given"
    if url.startswith("/") or _SCP_LIKE.fullmatch(url):
        return ""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 (raises for a bad port)
    except ValueError:
        return "not a valid URL"
    if parts.scheme not in ("https", "http", "ssh", "git", "file"):
        return "start with https://, ssh:// or git@host:, or give an absolute path"
    if parts.scheme != "file" and not parts.hostname:
        return "the host is missing"
    if parts.password:
        return "leave the password out; give the platform a GIT_TOKEN instead"
    return ""


def branch_problem(branch: str) -> str:
    """What is wrong with a branch name, by git's own rules; "" when nothing is, also when there is none."""
    if branch and (branch[0] in "-/" or branch[-1] in "/." or branch == "@" or _BAD_IN_BRANCH.search(branch)):
        return "not a branch name git takes"
    return ""

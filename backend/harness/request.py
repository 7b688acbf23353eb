"""The body of `POST /session`, checked: nothing after this meets a value of the wrong kind."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.domain.agents import HARNESSES
from backend.domain.files import SandboxFile

PORT_SECONDS = 60.0
MAX_PORT_SECONDS = 600.0
"""How long an API harness may take to answer on its port, by default and at most."""

RECORDING_MB = 64.0
MAX_RECORDING_MB = 4096.0
"""How large a recording may grow, by default and at most."""

_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class Request:
    """The checked body of `POST /session`."""

    harness_id: str
    title: str | None
    model: str | None
    prompt: str | None
    initial_prompt: str | None
    """What a terminal program is told first, once."""
    repo_url: str | None
    branch: str | None
    git_token: str | None
    requirements: str | None
    env: Mapping[str, str]
    files: list[SandboxFile]
    skills: list[tuple[str, str]]
    command: str | None
    base: str | None
    key: str | None
    port_seconds: float
    recording_bytes: int | None
    """How large the recording may grow; None when there is none."""
    certificate: str | None
    bundle: str | None
    """Authorities to trust, as PEM: one besides the usual ones, and all together."""

    @classmethod
    def from_body(cls, body: bytes) -> "Request":
        """Raises ValueError that says what is wrong."""
        try:
            value = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ValueError("the body is not JSON") from error
        if _HALF_CHARACTER.search(body):
            json.dumps(value, ensure_ascii=False).encode()  # Half of a character could not be written anywhere.
        if not isinstance(value, dict):
            raise ValueError("the body is not a JSON object")
        harness_id = _text(value, "harness_id")
        if harness_id is None or harness_id not in HARNESSES:
            raise ValueError(f"harness_id must be one of {', '.join(HARNESSES)}")
        env = _typed(value, "env", dict, {})
        if not all(_is_environment(name, item) for name, item in env.items()):
            raise ValueError("env must map names to texts, without NUL, and without '=' in a name")
        llm = _typed(value, "llm", dict, {})
        authorities = _typed(value, "authorities", dict, {})
        try:
            sandbox_files = [SandboxFile.from_json(item) for item in _typed(value, "files", list, [])]
            skills = [(item["slug"], item["content"]) for item in _typed(value, "skills", list, [])]
        except (KeyError, TypeError) as error:
            raise ValueError("files need name, sandbox_path and content; skills need slug and content") from error
        texts = [text for file in sandbox_files for text in (file.name, file.sandbox_path, file.content)]
        if not all(isinstance(text, str) for text in (*texts, *(text for skill in skills for text in skill))):
            raise ValueError("files and skills consist of texts")
        return cls(
            harness_id=harness_id,
            title=_text(value, "title"),
            model=_text(value, "model"),
            prompt=_text(value, "prompt"),
            initial_prompt=_text(value, "initial_prompt"),
            repo_url=_text(value, "repo_url"),
            branch=_text(value, "branch"),
            git_token=_text(value, "git_token") or env.get("GITHUB_TOKEN") or env.get("GH_TOKEN"),
            requirements=_text(value, "requirements"),
            env=env,
            files=sandbox_files,
            skills=skills,
            command=_text(value, "command"),
            base=_text(llm, "base"),
            key=_text(llm, "key"),
            port_seconds=_number(value, "port_timeout", 0.1, MAX_PORT_SECONDS, PORT_SECONDS),
            recording_bytes=_recording_bytes(value),
            certificate=_text(authorities, "certificate"),
            bundle=_text(authorities, "bundle"),
        )


def _text(value: Mapping[str, Any], name: str) -> str | None:
    """A text, None when it is missing or empty."""
    text = _typed(value, name, str, None)
    if text is not None and "\0" in text:
        raise ValueError(f"{name} must not contain NUL")
    return text or None


def _number(value: Mapping[str, Any], name: str, least: float, most: float, default: float) -> float:
    """A number, brought between `least` and `most`."""
    return float(min(max(least, _typed(value, name, (int, float), default)), most))


def _recording_bytes(value: Mapping[str, Any]) -> int | None:
    wanted = value.get("recording")
    if wanted is not None and not isinstance(wanted, bool):
        raise ValueError("recording must be true or false")
    megabytes = _number(value, "recording_max_mb", 0.001, MAX_RECORDING_MB, RECORDING_MB)
    return int(megabytes * 1024 * 1024) if wanted else None


def _typed(value: Mapping[str, Any], name: str, kind: Any, default: Any) -> Any:
    found = value.get(name)
    if found is None:
        return default
    if not isinstance(found, kind) or isinstance(found, bool):
        raise ValueError(f"{name} has the wrong type")
    return found


def _is_environment(name: str, value: Any) -> bool:
    return isinstance(value, str) and bool(name) and "=" not in name and "\0" not in name + value

"""One adapter per harness: the command, the files and the environment that start its program without any dialog."""

import base64
import importlib
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from backend.domain.agents import HARNESSES

PORT = "$PORT"
"""A word of `argv` that stands for the port where an API harness has to listen. It is in the environment, too."""

_SHELL = re.compile(r"[|&;<>()$`\\*?\[\]#~={}!\n]")


class SetupError(Exception):
    """A set-up step failed; the text says what happened and what to do next."""


@dataclass(frozen=True, slots=True)
class Context:
    """What an adapter may use. `project` is what the agent works in, `base` and `key` the LLM gateway's."""

    home: Path
    project: Path
    model: str | None
    prompt: str | None
    base: str | None
    key: str | None
    env: Mapping[str, str]
    """The agent's environment without the adapter's part."""
    initial_prompt: str | None = None
    hook: Sequence[str] = ()
    """The command that a hook of the program is to run, to tell the harness what happens."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a program. `files` maps paths below HOME to contents, for the owner's eyes only."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    first: Sequence[str] = ()
    """Arguments of the first start only, such as the message to begin with."""
    probe: str = "/"
    """What an API harness answers to, with any status, once it is ready."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """What every request to an API harness has to carry."""
    names_session: bool = False
    """Whether an API harness calls its session as it is told to."""
    translate: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None
    """A message as the platform sends it, in the form the API harness takes."""
    secret: str | None = None
    """What must not be in the log."""


def plan(harness_id: str, context: Context, command: str | None) -> Launch:
    """The launch of `harness_id`; `command` replaces its program. Raises SetupError when the program is missing."""
    module = importlib.import_module(f"{__name__}.{harness_id.replace('-', '_')}")
    launch = cast(Callable[[Context, Sequence[str] | None], Launch], module.launch)
    return launch(context, _split(command, harness_id, context) if command else None)


def find(program: str, harness_id: str, env: Mapping[str, str], *others: Path) -> str:
    """The program's path: on PATH first, then `others`, then beside this Python. Raises SetupError."""
    found = shutil.which(program, path=env.get("PATH", ""))
    if found is not None:
        return found
    for path in (*others, Path(sys.executable).parent / program):
        if path.is_file():
            return str(path)
    raise missing(program, harness_id)


def missing(program: str, harness_id: str) -> SetupError:
    """The error for a program that is not there."""
    return SetupError(
        f"the program {program!r} of harness {harness_id} was not found. Install it with "
        f"`{HARNESSES[harness_id].install_hint}`, or name another with {command_variable(harness_id)}."
    )


def command_variable(harness_id: str) -> str:
    """The platform setting that replaces a harness's command."""
    return f"LAP_HARNESS_COMMAND_{harness_id.replace('-', '_').upper()}"


def basic_authorization(user: str, password: str) -> str:
    """The value of an `Authorization` header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _split(command: str, harness_id: str, context: Context) -> Sequence[str]:
    """`command` as a shell would run it, without the shell where that makes no difference."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise SetupError(f"{command_variable(harness_id)} is not a shell command: {error}. Correct it.") from error
    if not words:
        raise SetupError(f"{command_variable(harness_id)} is blank. Remove it or name a program.")
    if _SHELL.search(command):
        return ("/bin/sh", "-c", command)
    program = shutil.which(words[0], path=context.env.get("PATH", ""))
    if program is None:
        raise SetupError(
            f"the program {words[0]!r} of {command_variable(harness_id)} was not found. Correct the command, or remove "
            f"it and install the harness with `{HARNESSES[harness_id].install_hint}`."
        )
    return (program, *words[1:])

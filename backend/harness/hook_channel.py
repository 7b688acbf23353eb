"""The way from the hooks of the agent's program to the harness: a Unix socket in the sandbox's directory.

Whoever can send to it is in the sandbox, so it may say no more than the agent might as well show on its terminal;
messages that are too long, or no hook's, are dropped.
"""

import asyncio
import contextlib
import json
import math
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backend.domain.activity import Hook
from backend.harness import hook_sender

NAME = "hooks"
MAX_MESSAGE = 16_384
"""More than the longest that hook_sender sends."""


def hook_command(root: Path) -> tuple[str, ...]:
    """The command that a hook has to run, word by word."""
    return (sys.executable, "-I", "-S", str(Path(hook_sender.__file__).resolve()), str(root / NAME))


class HookChannel:
    """Gives each hook's message to `hook`. Raises OSError when the socket cannot be made."""

    def __init__(self, root: Path, hook: Callable[[Hook], None]) -> None:
        self._hook = hook
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        (root / NAME).unlink(missing_ok=True)
        with contextlib.chdir(root):  # A socket's address must be short.
            self._socket.bind(NAME)
        (root / NAME).chmod(0o600)
        asyncio.get_running_loop().add_reader(self._socket, self._receive)

    def close(self) -> None:
        """Listens no longer."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            message = self._socket.recv(MAX_MESSAGE + 1)
            if len(message) <= MAX_MESSAGE and (hook := parse(message)) is not None:
                self._hook(hook)


def parse(message: bytes) -> Hook | None:
    """The hook a message tells of; None when it tells of none."""
    try:
        told: Any = json.loads(message)
        at = told["at"]
        texts = {name: told[name] for name in ("event", "conversation", "kind", "tool", "text")}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not (isinstance(at, float) and math.isfinite(at) and all(isinstance(text, str) for text in texts.values())):
        return None
    return Hook(at=at, **texts)

"""The network of a walled sandbox: a namespace whose only ways out are three listeners that we hold."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backend.sandboxes.local.network_stage import EXPLICIT_PORT

PROXY: Final = f"127.0.0.1:{EXPLICIT_PORT}"
"""Where the explicit proxy is, as seen in the sandbox."""
KINDS: Final = ("explicit", "transparent", "dns")
START_SECONDS: Final = 10.0
SPARE_SECONDS: Final = 1.0
"""After a start, until the next network is made: the new sandbox needs the processors more."""

_STAGE: Final = Path(__file__).with_name("network_stage.py")
_MAX_TOLD: Final = 4096

Connect = Callable[[str, Mapping[str, socket.socket]], Awaitable[None]]
"""Gives a sandbox's listeners, by kind, to whoever serves them. The caller closes its own."""


@dataclass(slots=True)
class Network:
    """Descriptors of the namespaces, and the listeners in them."""

    user: int
    net: int
    listeners: dict[str, socket.socket]
    reason: str | None
    """Why programs that ignore the proxy get nowhere; None when they are led to it, too."""

    def close(self) -> None:
        for descriptor in (self.user, self.net):
            os.close(descriptor)
        for listener in self.listeners.values():
            listener.close()


def make() -> Network:
    """A new network. Blocks for some 50 ms. Raises OSError, with why as its text."""
    unshare = shutil.which("unshare")
    if unshare is None or shutil.which("nsenter") is None:
        raise OSError("unshare or nsenter is missing (install util-linux)")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [unshare, "--user", "--map-root-user", "--net", "--", sys.executable, "-I", "-S", str(_STAGE)]
        process = subprocess.Popen(
            [*command, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        )
        theirs.close()
        try:
            ours.settimeout(START_SECONDS)
            told, descriptors, _, _ = socket.recv_fds(ours, _MAX_TOLD, 8, socket.MSG_CMSG_CLOEXEC)
            _, errors = process.communicate(timeout=START_SECONDS)
        except (TimeoutError, subprocess.TimeoutExpired):
            raise TimeoutError("the network's first stage does not answer") from None
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()
    if len(descriptors) != 2 + len(KINDS):
        for descriptor in descriptors:
            os.close(descriptor)
        lines = errors.decode(errors="replace").strip().splitlines()
        raise OSError(lines[-1][:200] if lines else f"its first stage ended with {process.returncode}")
    user, net, *rest = descriptors
    listeners = {kind: socket.socket(fileno=descriptor) for kind, descriptor in zip(KINDS, rest, strict=True)}
    return Network(user, net, listeners, json.loads(told)["reason"])


class Networks:
    """Makes networks, one ahead, so that no start has to wait for it."""

    def __init__(self) -> None:
        self._spare: asyncio.Task[Network] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def take(self) -> Network:
        """A network that nobody has used; the caller closes it. Raises OSError."""
        spare, self._spare = self._spare, None
        if spare is not None:
            with contextlib.suppress(OSError):  # It may be long ago that it failed.
                return await spare
        return await asyncio.to_thread(make)

    def prepare(self) -> None:
        """Make one soon, unless there is one."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SPARE_SECONDS, self._make_spare)

    async def aclose(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._spare is not None:
            with contextlib.suppress(OSError):
                (await self._spare).close()
            self._spare = None

    def _make_spare(self) -> None:
        self._timer = None
        if self._spare is None:
            self._spare = asyncio.create_task(asyncio.to_thread(make))
            self._spare.add_done_callback(_look_at)


def _look_at(task: "asyncio.Task[Network]") -> None:
    """So that a failure which nobody comes to ask for is not reported as one nobody has seen."""
    if not task.cancelled():
        task.exception()

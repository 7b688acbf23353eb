"""A PID namespace of its own for each sandbox, by util-linux `unshare`, where the machine allows it."""

import os
import shutil
from dataclasses import dataclass

from backend.sandboxes.local import trial

# The harness becomes PID 1 inside: when it ends, the kernel ends everything it started, detached or not. With
# --kill-child that also holds when the outer unshare process is killed. Nothing ties either to the platform.
_PID_NAMESPACE = ("--pid", "--mount", "--mount-proc", "--fork", "--kill-child")
_USER_NAMESPACE = ("--user", "--map-current-user")

# What util-linux 2.38 and older makes of a harness that was ended by SIGKILL: it cannot end itself the same way.
KILLED_CODE = "exit code 1"
KILLED_WORDS = "unshare: sigprocmask unblock failed: Invalid argument\n"


@dataclass(frozen=True, slots=True)
class Namespace:
    """`prefix` goes before the harness command; empty when `reason` says why there is no namespace."""

    prefix: tuple[str, ...]
    reason: str | None = None


async def probe() -> Namespace:
    """Find the namespace flags that work here by starting a process with them.

    Raises OSError when that could not be found out just now (TimeoutError: the machine is too busy).
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        return Namespace((), "no PID namespace: unshare is missing (install util-linux)")
    attempts: list[tuple[str, ...]] = [(*_USER_NAMESPACE, *_PID_NAMESPACE)]
    if os.geteuid() == 0:
        attempts.insert(0, _PID_NAMESPACE)
    refusal: list[str] = []
    for flags in attempts:
        prefix = (unshare, *flags, "--")
        refusal = await trial.refused((*prefix, "/bin/sh", "-c", 'test "$$" = 1'), "unshare")
        if not refusal:
            return Namespace(prefix)
    return Namespace((), f"no PID namespace: {refusal[0]}")

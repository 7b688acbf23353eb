"""How a sandbox's process is started: its command line, environment and descriptors."""

import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import backend
from backend.sandboxes.local.limits import open_files

# Without `site` (-S) Python starts 17 ms sooner. -P: the working directory, which the agent writes to, is no place to
# import from; the import path comes in PYTHONPATH instead.
HARNESS_COMMAND = (sys.executable, "-S", "-P", "-m", "backend.harness")

_LISTENER = 3
"""The descriptor of the listener in the harness."""

# Joins the control groups named up to "--" ("0" is the writer itself), so that not even the first process of the
# sandbox runs outside its limits.
_JOIN_AND_RUN = """
ulimit -c 0; ulimit -n "$1"; cd -- "$2" || exit 126; shift 2
while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs" || exit 126; shift; done
shift; exec "$@"
"""


def command_line(root: Path, groups: Sequence[str], namespace: Sequence[str], harness: Sequence[str]) -> list[str]:
    """The whole command of one sandbox, from outermost to innermost: limits, namespace, harness.

    Any further wall (file system, network) is one more prefix before the harness, here.
    """
    enter = ["/bin/sh", "-c", _JOIN_AND_RUN, "sandbox", str(open_files()), str(root / "home"), *groups, "--"]
    return [*enter, *namespace, *harness, "--listen-fd", str(_LISTENER), "--root", str(root)]


def home_variable(root: Path) -> str:
    """The value of HOME, for the harness and all that starts from it. By it strays are recognised."""
    return str(root / "home")


def environment(root: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of the harness process: nothing of the platform's own but PATH and what it imports from."""
    source = str(Path(backend.__file__).resolve().parents[1])
    imports = dict.fromkeys([source, *(path for path in sys.path if Path(path).is_absolute())])
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        **extra,
        "HOME": home_variable(root),
        "TMPDIR": str(root / "tmp"),
        "PYTHONPATH": os.pathsep.join(imports),
    }


def spawn(command: Sequence[str], variables: Mapping[str, str], stdin: int, output: int, listener: int) -> int:
    """Start a process in a session of its own with just these descriptors and default signals; its number.

    It is our child, but nothing else: neither our end nor our terminal's reaches it. (An asyncio subprocess would be
    killed when the event loop closes.)
    """
    inherited = [descriptor for descriptor in _inheritable() if descriptor not in {0, 1, 2, _LISTENER}]
    return os.posix_spawn(
        command[0],
        list(command),
        dict(variables),
        file_actions=[
            *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in inherited),
            (os.POSIX_SPAWN_DUP2, stdin, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
            (os.POSIX_SPAWN_DUP2, listener, _LISTENER),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
    )


def _inheritable() -> list[int]:
    """Descriptors that whoever started the platform left open to its children."""
    found: list[int] = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        # The listing's own descriptor is closed again by now, and any thread may have closed another.
        with contextlib.suppress(OSError):
            if os.get_inheritable(int(name)):
                found.append(int(name))
    return found

"""How a sandbox's process is started: its command line, environment and descriptors."""

import compileall
import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import backend
from backend.sandboxes.local.limits import open_files
from backend.sandboxes.local.walls import FILTER

# Without `site` (-S) Python starts 17 ms sooner. -P: the working directory, which the agent writes to, is no place to
# import from; the import path comes in PYTHONPATH instead.
HARNESS_COMMAND = (sys.executable, "-S", "-P", "-m", "backend.harness")

_LISTENER = 3
"""The descriptor of the listener in the harness."""
_USER, _NET = 4, 5
"""Those of the namespaces to enter, in the shell only."""
_SAFE = 64
"""Descriptors from here on are nobody's target."""

# Joins the control groups named up to "--" ("0" is the writer itself), so that not even the first process of the
# sandbox runs outside its limits.
_JOIN = """
ulimit -c 0; ulimit -n "$1"; ulimit -f "$2"; cd -- "$3" || exit 126; shift 3
while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs" || exit 126; shift; done
shift
"""
_RUN = f'{_JOIN}exec "$@"'
# Behind walls the shell stays: what it has started goes when it is killed, and it does not end with the platform.
_STAY = f'{_JOIN}"$@"; exit "$?"'
_ENTER_AND_STAY = (
    f"{_JOIN}(exec nsenter --preserve-credentials --user=/proc/$$/fd/{_USER} --net=/proc/$$/fd/{_NET} -- "
    f'"$@" {_USER}<&- {_NET}<&-); exit "$?"'
)
_RUN_LIMITED = 'ulimit -u "$0" 2>/dev/null || ulimit -p "$0"; exec "$@"'
"""Inside: the kernel counts the processes of a user namespace apart."""


def command_line(
    root: Path,
    groups: Sequence[str],
    prefix: Sequence[str],
    harness: Sequence[str],
    *,
    file_mb: int,
    walled: bool = False,
    network: bool = False,
    processes: int | None = None,
) -> list[str]:
    """The whole command of one sandbox, from outermost to innermost: limits, namespaces or walls, harness.

    `prefix` makes the namespaces or, `walled`, the walls; with `network` those of a network are entered before.
    `processes` limits their number where no control group does.
    """
    script = _ENTER_AND_STAY if network else _STAY if walled else _RUN
    limits = [str(open_files()), str(file_mb * 2048), str(root / "home")]
    limited = ["/bin/sh", "-c", _RUN_LIMITED, str(processes)] if processes else []
    innermost = [*limited, *harness, "--listen-fd", str(_LISTENER), "--root", str(root)]
    return ["/bin/sh", "-c", script, "sandbox", *limits, *groups, "--", *prefix, *innermost]


def compile_harness() -> None:
    """Compile what the harness imports: within its walls it cannot write, and would do so anew at each start."""
    packages = Path(backend.__file__).parents[1]
    for folder in ("backend/harness", "backend/domain", "lapconsole/terminal"):
        compileall.compile_dir(packages / folder, quiet=2)


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


def spawn(
    command: Sequence[str],
    variables: Mapping[str, str],
    stdin: int,
    output: int,
    listener: int,
    *,
    namespaces: tuple[int, int] | None = None,
    filter_: int | None = None,
) -> int:
    """Start a process in a session of its own with just these descriptors and default signals; its number.

    It is our child, but nothing else: neither our end nor our terminal's reaches it. (An asyncio subprocess would be
    killed when the event loop closes.) `namespaces` are those to enter, user and network; `filter_` is for bubblewrap.
    """
    targets = {0: stdin, 1: output, 2: output, _LISTENER: listener}
    if namespaces is not None:
        targets |= {_USER: namespaces[0], _NET: namespaces[1]}
    if filter_ is not None:
        targets[FILTER] = filter_
    with contextlib.ExitStack() as stack:
        # First out of the way of each other.
        sources = {target: fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, _SAFE) for target, source in targets.items()}
        for source in sources.values():
            stack.callback(os.close, source)
        return os.posix_spawn(
            command[0],
            list(command),
            dict(variables),
            file_actions=[
                *((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inheritable() if descriptor not in targets),
                *((os.POSIX_SPAWN_DUP2, source, target) for target, source in sources.items()),
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

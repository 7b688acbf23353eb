"""The walls of a sandbox: bubblewrap with namespaces of its own, and what it may see, write and call.

The sandbox's own directory is writable, the machine's system and programs can be read (see `visible`), and nothing
else is there. The user in it has no capability and can make no namespaces. Its network is one that `network` has made,
or none at all.

The platform's user and the sandbox's are the same to the kernel: what holds is what is mounted, not file permissions.
Therefore run the platform as an ordinary user, who in turn owns little that the system's trees could show.
"""

import asyncio
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backend.sandboxes.local import record, seccomp, trial, visible

SHARED_MEMORY_BYTES: Final = 256 * 1024 * 1024
FILTER: Final = 6
"""The descriptor of the system call filter in bubblewrap."""

# As process 1 the harness takes everything that runs inside with it when it ends. --die-with-parent: and it ends when
# what holds it from outside is killed, which is our own shell, not the platform.
_NAMESPACES: Final = (
    *("--unshare-user", "--uid", "1000", "--gid", "1000", "--disable-userns", "--cap-drop", "ALL"),
    *("--unshare-pid", "--as-pid-1", "--die-with-parent"),
    *("--unshare-ipc", "--unshare-uts", "--hostname", "sandbox", "--unshare-cgroup-try"),
)
_NO_NETWORK: Final = "--unshare-net"


@dataclass(frozen=True, slots=True)
class Walls:
    """`bwrap` is its program; None when `reason` says why there are no walls here."""

    bwrap: str | None
    etc: Path
    reason: str | None = None


async def probe(directory: Path) -> Walls:
    """Find out whether walls can be had here, by running a program behind them. `directory` is for what they show.

    Raises OSError when that could not be found out just now.
    """
    etc = directory / "etc"
    # The wheel of it lies beside this Python.
    bwrap = shutil.which("bwrap") or shutil.which("bwrap", path=Path(sys.executable).parent)
    if not sys.platform.startswith("linux") or bwrap is None:
        return Walls(None, etc, "bubblewrap is missing (install bubblewrap)")
    await asyncio.to_thread(visible.write_etc, etc)
    frame = [*_NAMESPACES, _NO_NETWORK, *(word for words in visible.system() for word in words), *_private(etc)]
    said = await trial.refused(
        (bwrap, *frame, "--remount-ro", "/", "--", "/bin/sh", "-c", 'test "$$" = 1'), "bubblewrap"
    )
    if not said:
        return Walls(bwrap, etc)
    return Walls(None, etc, f"{said[-1]} (bubblewrap 0.8 or later and user namespaces are needed)")


def command(
    walls: Walls, root: Path, shown: Sequence[Path], public: Path, repository: Sequence[Path], network: bool
) -> list[str]:
    """What goes before the harness's command.

    `shown` are paths of programs, `public` a folder of certificates, `repository` what set-up clones. Without a
    `network` to enter first, the sandbox has none.
    """
    assert walls.bwrap is not None
    data_dir = root.parents[1]
    arguments = [walls.bwrap, *_NAMESPACES]
    if seccomp.program() is not None:
        arguments += ["--seccomp", str(FILTER)]
    if not network:
        arguments.append(_NO_NETWORK)
    trees = list(visible.system())
    arguments += [word for words in trees for word in words]
    arguments += [*_private(walls.etc), "--bind", str(root / "tmp"), "/tmp"]
    seen = [Path(words[2]) for words in trees if words[0] == "--ro-bind"]
    empty = [path for path in (visible.home(), data_dir) if any(path.is_relative_to(tree) for tree in seen)]
    for path in empty:
        arguments += ["--tmpfs", str(path)]
    for path in shown:
        arguments += ["--ro-bind", str(path), str(path)]
    arguments += ["--ro-bind-try", str(public), str(public)]
    arguments += ["--bind", str(root), str(root), "--tmpfs", str(root / record.FOLDER)]
    for path in repository:
        arguments += ["--ro-bind", str(path), str(path)]
    for path in (*empty, root / record.FOLDER, Path("/")):
        arguments += ["--remount-ro", str(path)]
    return [*arguments, "--chdir", str(root / "home"), "--"]


def _private(etc: Path) -> list[str]:
    """Its own of what every program needs."""
    return [
        # Read-only, for where the platform is root: the kernel takes settings from root, whatever namespace it is in.
        *("--ro-bind", str(etc), "/etc", "--proc", "/proc", "--remount-ro", "/proc", "--dev", "/dev"),
        *("--size", str(SHARED_MEMORY_BYTES), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),
        *("--dir", "/run", "--dir", "/var", "--symlink", "../tmp", "/var/tmp"),
    ]

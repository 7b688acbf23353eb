"""CPU, memory and process limits of a sandbox through control groups (v2 or v1), as far as this machine lets us."""

import contextlib
import functools
import hashlib
import os
import resource
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

CGROUP_ROOT = Path("/sys/fs/cgroup")
CPU_PERIOD_MICROSECONDS = 100_000
MAX_OPEN_FILES = 65_536
_PROBE_TIMEOUT = 3.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sandbox may use at most. `pids` counts threads too; `cpus` is in whole processors.

    `disk_mb` holds at once for each file, and for all together when the driver looks (see `disk`).
    """

    memory_mb: int = 4096
    cpus: float = 2.0
    pids: int = 1024
    disk_mb: int = 20_480

    def __post_init__(self) -> None:
        if self.memory_mb < 16 or self.cpus < 0.01 or self.pids < 16 or self.disk_mb < 16:
            raise ValueError(
                "sandbox limits must be at least 16 MB of memory and of disk, 0.01 processors and 16 processes"
            )


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A place where control groups can be made: `parent`, the controllers it offers, and its version (1 or 2)."""

    parent: Path
    controllers: tuple[str, ...]
    version: int


@dataclass(frozen=True, slots=True)
class Held:
    """What a new sandbox got: its control group directories and the controllers whose limits are in force."""

    directories: list[str]
    controllers: frozenset[str]
    version: int | None


CONTROLLERS = ("memory", "cpu", "pids")


def hierarchies(
    mountinfo: Path = Path("/proc/self/mountinfo"), membership: Path = Path("/proc/self/cgroup")
) -> list[Hierarchy]:
    """Where this process may make control groups with limits: one v2 place, else one place per v1 controller.

    v1 groups go below our own, so that limits on the platform hold for its sandboxes too. A v2 group with processes
    cannot have children with limits, therefore the nearest ancestor that hands its controllers down is taken.
    """
    own = {controller: path for controllers, path in _memberships(membership) for controller in controllers.split(",")}
    found: list[Hierarchy] = []
    for kind, root, mount, options in _mounts(mountinfo):
        if kind == "cgroup2":
            if place := _delegated(mount, _below(mount, root, own.get("", "/"))):
                return [place]
            continue
        for controller in sorted(set(CONTROLLERS) & set(options.split(","))):
            parent = _below(mount, root, own.get(controller, "/"))
            if os.access(parent, os.W_OK) and all(controller not in other.controllers for other in found):
                found.append(Hierarchy(parent, (controller,), 1))
    return found


def _memberships(file: Path) -> Iterator[tuple[str, str]]:
    """(controllers, path) of each line of /proc/self/cgroup; controllers are "" for v2."""
    for line in _lines(file):
        parts = line.split(":", 2)
        if len(parts) == 3:
            yield parts[1], parts[2]


def _mounts(file: Path) -> Iterator[tuple[str, str, Path, str]]:
    """(file system type, root within it, mount point, its options) of each control group mount."""
    for line in _lines(file):
        before, _, after = line.partition(" - ")
        fields, details = before.split(), after.split()
        if len(fields) < 5 or len(details) < 3 or details[0] not in {"cgroup", "cgroup2"}:
            continue
        if (mount := Path(fields[4])).is_relative_to(CGROUP_ROOT):
            yield details[0], fields[3], mount, details[2]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def _below(mount: Path, root: str, path: str) -> Path:
    """Where the group `path` is under a mount that shows the hierarchy from `root` on (a container's, mostly)."""
    try:
        relative = PurePosixPath(path).relative_to(root)
    except ValueError:
        return mount
    return mount if ".." in relative.parts else mount / relative


def _delegated(mount: Path, own: Path) -> Hierarchy | None:
    for parent in (own, *own.parents):
        if not parent.is_relative_to(mount):
            return None
        handed_down = _read(parent / "cgroup.subtree_control").split()
        controllers = tuple(name for name in CONTROLLERS if name in handed_down)
        if controllers and _lets_us_in(parent):
            return Hierarchy(parent, controllers, 2)
    return None


@functools.cache
def _lets_us_in(parent: Path) -> bool:
    """Whether a process of ours may move into a group made there. Delegation has many rules, so one is sent to try."""
    group = parent / f"lap-probe-{os.getpid()}"
    join = ["/bin/sh", "-c", 'echo 0 > "$1/cgroup.procs"', "sh", str(group)]
    try:
        group.mkdir()
        done = subprocess.run(join, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    finally:
        deadline = time.monotonic() + _PROBE_TIMEOUT
        while not remove_groups([group]) and time.monotonic() < deadline:
            time.sleep(0.005)
    return done.returncode == 0


def make_groups(root: Path, limits: Limits) -> Held:
    """Make the control groups of the sandbox in `root` and set its limits; what a machine refuses is left out."""
    directories: list[str] = []
    controllers: set[str] = set()
    version = None
    for place in hierarchies():
        group = place.parent / group_name(root)
        try:
            group.mkdir(exist_ok=True)
        except OSError:
            continue
        held = {entry for entry in place.controllers if _limit(group, entry, place.version, limits)}
        if held:
            directories.append(str(group))
            controllers |= held
            version = place.version
        else:
            group.rmdir()
    return Held(directories, frozenset(controllers), version)


def _limit(group: Path, controller: str, version: int, limits: Limits) -> bool:
    quota = max(1000, int(limits.cpus * CPU_PERIOD_MICROSECONDS))
    memory = limits.memory_mb * 1024 * 1024
    try:
        match controller, version:
            case "memory", 1:
                _write(group / "memory.limit_in_bytes", memory)
                # Only where the kernel counts swap: memory and swap together.
                with contextlib.suppress(OSError):
                    _write(group / "memory.memsw.limit_in_bytes", memory)
            case "memory", _:
                _write(group / "memory.max", memory)
                with contextlib.suppress(OSError):
                    _write(group / "memory.swap.max", 0)
            case "cpu", 1:
                _write(group / "cpu.cfs_period_us", CPU_PERIOD_MICROSECONDS)
                _write(group / "cpu.cfs_quota_us", quota)
            case "cpu", _:
                _write(group / "cpu.max", f"{quota} {CPU_PERIOD_MICROSECONDS}")
            case _:
                _write(group / "pids.max", limits.pids)
    except OSError:
        return False
    return True


def describe(limits: Limits, held: Held, counted: bool = False) -> tuple[dict[str, object], str | None]:
    """The limits as the session page shows them (None: not in force), and which could not be set.

    `counted`: the number of processes is limited without a control group.
    """
    in_force = held.controllers | ({"pids"} if counted else set())
    values = {"memory": limits.memory_mb, "cpu": limits.cpus, "pids": limits.pids}
    labels = {"memory": "memory_mb", "cpu": "cpus", "pids": "pids"}
    shown: dict[str, object] = {
        labels[controller]: values[controller] if controller in in_force else None for controller in CONTROLLERS
    }
    shown["open_files"] = open_files()
    shown["disk_mb"] = limits.disk_mb
    shown["by"] = f"cgroup v{held.version}" if held.version else None
    missing = [controller for controller in CONTROLLERS if controller not in in_force]
    return shown, f"no {', '.join(missing)} limit: no writable control group for it" if missing else None


def open_files() -> int:
    """The descriptor limit for a sandbox: the platform's own hard limit, within reason."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)


def group_name(root: Path) -> str:
    """The name of a sandbox's control groups: the same for the same directory, another for any other."""
    return f"lap-{root.name}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:8]}"


def find_groups(root: Path, recorded: Iterable[str]) -> list[Path]:
    """The control groups of a sandbox: those recorded, and those a lost or forged record does not tell of."""
    name = group_name(root)
    places = {place.parent / name for place in hierarchies()} | {Path(directory) for directory in recorded}
    return sorted(
        path
        for path in places
        if path.name == name and path.is_relative_to(CGROUP_ROOT) and ".." not in path.parts and path.is_dir()
    )


def members(groups: Iterable[Path]) -> set[int]:
    """Processes in the groups and in groups made below them."""
    found: set[int] = set()
    for group in groups:
        for directory, _, _ in os.walk(group):
            found.update(int(pid) for pid in _read(Path(directory) / "cgroup.procs").split() if pid != "0")
    return found


def forbid_forks(groups: Iterable[Path]) -> None:
    """Let no process of the groups start another one, so that killing them all comes to an end."""
    for group in groups:
        with contextlib.suppress(OSError):
            _write(group / "pids.max", 0)


def remove_groups(groups: Iterable[Path]) -> bool:
    """Remove groups without processes; True when none is left. A process still being buried keeps one for moments."""
    left = False
    for group in groups:
        for directory, _, _ in os.walk(group, topdown=False):
            try:
                Path(directory).rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                left = True
    return not left


def memory_kills(groups: Iterable[Path]) -> int:
    """How many processes of the groups the kernel ended for lack of memory."""
    for group in groups:
        for name in ("memory.events", "memory.oom_control"):
            for line in _read(group / name).splitlines():
                key, _, count = line.partition(" ")
                if key == "oom_kill" and count.isdigit():
                    return int(count)
    return 0


def _write(file: Path, value: int | str) -> None:
    """Write to a control file, which must exist."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, str(value).encode())
    finally:
        os.close(descriptor)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""

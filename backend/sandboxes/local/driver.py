"""The local driver: a sandbox is a directory, a process tree and a loopback port of this machine."""

import asyncio
import contextlib
import errno
import json
import logging
import os
import re
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar
from weakref import WeakValueDictionary

from backend.sandboxes.contract import Inspection, Rescue, Sandbox, SandboxError, SandboxSpec, SandboxState
from backend.sandboxes.local import (
    ending,
    inspecting,
    launch,
    limits,
    logs,
    namespaces,
    processes,
    record,
    rescuing,
    seccomp,
    visible,
)
from backend.sandboxes.local import walls as walls_of
from backend.sandboxes.local.disk import DiskWatch
from backend.sandboxes.local.limits import Held, Limits
from backend.sandboxes.local.namespaces import Namespace
from backend.sandboxes.local.network import PROXY, Connect, Network, Networks
from backend.sandboxes.local.processes import Process
from backend.sandboxes.local.record import Record
from backend.sandboxes.local.walls import Walls

T = TypeVar("T")

LOG_FILE = "log"
NO_NETWORK = "no network: the vault is off (LAP_VAULT), and LAP_ISOLATION=off would open the machine's"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_BACKLOG = 128
"""Connections that may wait until the harness accepts."""
_MAX_TOKEN = 1024
"""Characters. The token line must fit a pipe at once."""
_CLOSE_TIMEOUT = 10.0
"""Seconds for what is under way when the driver is closed."""
_MACHINE_SECONDS = 1.0
"""How long what is known of this machine is good enough."""
_REAP_TIMEOUT = 5.0
"""Seconds from the end of a process to the notice of it."""

_NEXT_STEPS = {
    errno.ENOSPC: "free disk space",
    errno.EDQUOT: "free disk space",
    errno.EACCES: "let the platform's user write there",
    errno.EPERM: "let the platform's user write there",
    errno.EROFS: "choose a data directory that can be written to",
    errno.EMFILE: "raise the platform's limit of open files",
    errno.ENFILE: "raise the machine's limit of open files",
    errno.EAGAIN: "delete sessions or raise the machine's process limit",
    errno.ENOMEM: "delete sessions to free memory",
    errno.ETIMEDOUT: "wait until the machine is less busy",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ground:
    """What this machine offers, as found out once: walls, or the namespace that takes their place."""

    walls: Walls
    namespace: Namespace


class LocalDriver:
    """See contract.SandboxDriver. Directories are `<data_dir>/sandboxes/<name>/`.

    `grace_seconds` is how long a harness may take to end its agent before everything is killed. `isolation` says what
    to do about walls: take them where they can be had, require them, or do without. Behind walls a sandbox sees, of the
    machine, what `visible` lists, with the programs of `commands` (harness command lines) and the `readable` paths;
    its network goes to whom `connect` gives the listeners, and nowhere without it. `released` is told of each sandbox
    that was to be deleted, whether that worked or not.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        limits: Limits | None = None,
        harness_command: Sequence[str] = launch.HARNESS_COMMAND,
        grace_seconds: float = 2.0,
        isolation: Literal["auto", "required", "off"] = "auto",
        connect: Connect | None = None,
        released: Callable[[str], Awaitable[None]] | None = None,
        commands: Iterable[str] = (),
        readable: Sequence[Path] = (),
    ) -> None:
        self._data_dir = data_dir.absolute()
        self._directory = data_dir.absolute() / "sandboxes"
        self._limits = limits or Limits()
        self._harness_command = tuple(harness_command)
        self._grace_seconds = grace_seconds
        self._wanted = isolation
        self._connect = connect
        self._released = released
        self._words = [word for command in commands for word in visible.words(command)]
        self._readable = tuple(readable)
        self._ground: Ground | None = None
        self._probing = asyncio.Lock()
        self._networks = Networks()
        self._over: dict[str, str] = {}
        self._disk = DiskWatch(self._directory, self._limits.disk_mb, self._running, self._members, self._over_disk)
        self._looking: asyncio.Task[None] | None = None
        self._watches: dict[str, processes.ExitWatch] = {}
        self._creating: set[str] = set()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._machine: dict[str, Any] = {}
        self._machine_until = 0.0
        self.on_moved: Callable[[str, str], None] = lambda _name, _url: None

    async def create(self, spec: SandboxSpec) -> Sandbox:
        root = self._root(spec.name)
        if not hasattr(os, "pidfd_open"):
            raise SandboxError("local sandboxes need Linux 5.3 or later; run the platform there")
        if len(spec.token) > _MAX_TOKEN:
            raise SandboxError(f"the harness token is longer than {_MAX_TOKEN} characters; use a shorter one")
        creation = self._start_task(self._create(spec, root))
        try:
            return await asyncio.shield(creation)
        except asyncio.CancelledError:
            self._start_task(self._undo(creation, spec.name, root))
            raise

    async def state(self, name: str) -> SandboxState:
        root = self._root(name)
        if name in self._creating:
            return SandboxState.PENDING
        watch = await self._watch(name, root)
        return SandboxState.GONE if watch is None or watch.reason.done() else SandboxState.RUNNING

    async def wait_gone(self, name: str) -> str:
        root = self._root(name)
        async with self._lock(name):
            watch = await self._watch(name, root)
        return "gone" if watch is None else await asyncio.shield(watch.reason)

    async def waiting_for(self, name: str) -> str | None:
        return None  # nobody schedules here

    async def delete(self, name: str, rescue: Rescue | None = None) -> None:
        # Goes on when its caller is cancelled: half a sandbox is of no use to anyone.
        try:
            await asyncio.shield(self._start_task(self._delete(name, self._root(name), rescue)))
        finally:
            if self._released is not None:
                await self._released(name)

    async def logs(self, name: str, tail_lines: int, since_seconds: int | None = None) -> str:
        return await asyncio.to_thread(logs.tail, self._root(name) / LOG_FILE, tail_lines, since_seconds)

    async def inspect(self, name: str) -> Inspection:
        root = self._root(name)
        watch = await self._watch(name, root)
        ended = watch.reason.result() if watch and watch.reason.done() and not watch.reason.cancelled() else None
        running = watch is not None and not watch.reason.done()
        return await asyncio.to_thread(self._inspected, root, running, ended)

    def _inspected(self, root: Path, running: bool, ended: str | None) -> Inspection:
        return inspecting.inspect(root, _load(root), running, ended, self._this_machine())

    def _this_machine(self) -> dict[str, Any]:
        # The machine is the same for all of a fleet that is looked at in one go.
        if time.monotonic() >= self._machine_until:
            self._machine, self._machine_until = (
                inspecting.machine(self._directory),
                time.monotonic() + _MACHINE_SECONDS,
            )
        return self._machine

    async def list(self) -> list[str]:
        return await asyncio.to_thread(_names, self._directory)

    async def mend(self, name: str) -> str:
        raise SandboxError("nothing to mend: a local sandbox's port is its process's own")

    def follow_address(self, name: str, url: str) -> None:
        pass  # a port stays what it is

    def away(self) -> str | None:
        return None

    def problems(self) -> Sequence[str]:
        ground = self._ground
        return [_unwalled(ground.walls.reason)] if ground and self._refuses(ground) else []

    async def nodes(self) -> Sequence[dict[str, Any]]:
        machine = await asyncio.to_thread(self._this_machine)
        return [{**machine, "sandboxes": await self.list()}]

    async def image_cache(self) -> Mapping[str, Any]:
        return {"daemonset_exists": False, "notes": "this platform's sandboxes need no image"}

    async def isolation(self) -> dict[str, Any]:
        """What a new sandbox would get, in short: {"filesystem", "network", "reason"} as in its own isolation."""
        try:
            ground = await self._found()
        except OSError as error:
            return {"filesystem": False, "network": "open", "reason": f"not found out yet: {error}"}
        if ground.walls.bwrap is None:
            return {"filesystem": False, "network": "open", "reason": ground.walls.reason}
        if self._connect is None:
            return {"filesystem": True, "network": "none", "reason": NO_NETWORK}
        return {"filesystem": True, "network": "vault", "reason": None}

    async def proxy(self, name: str) -> str | None:
        """Where a sandbox, or the one that will have this name, finds the explicit proxy; None: on the machine."""
        note = await asyncio.to_thread(_load, self._root(name))
        told = note.isolation if note else await self.isolation()
        return PROXY if told.get("network") == "vault" else None

    async def close(self) -> None:
        if self._tasks:
            _, unfinished = await asyncio.wait(self._tasks, timeout=_CLOSE_TIMEOUT)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await self._networks.aclose()
        for watch in self._watches.values():
            watch.close()
        self._watches.clear()

    async def _undo(self, creation: asyncio.Task[Sandbox], name: str, root: Path) -> None:
        """Delete what a cancelled `create` still made: nobody heard of it, so nobody else would."""
        try:
            await creation
            await self._delete(name, root)
        except SandboxError as error:
            logger.warning("sandbox %s, whose start was cancelled: %s", name, error)

    async def _create(self, spec: SandboxSpec, root: Path) -> Sandbox:
        async with self._lock(spec.name):
            self._creating.add(spec.name)
            try:
                return await self._make(spec, root)
            finally:
                self._creating.discard(spec.name)

    async def _make(self, spec: SandboxSpec, root: Path) -> Sandbox:
        ground = await self._allowed()
        await asyncio.to_thread(_claim, root)
        groups: Sequence[Path] = ()
        network: Network | None = None
        lacking = NO_NETWORK if ground.walls.bwrap and self._connect is None else None
        try:
            if ground.walls.bwrap and self._connect:
                try:
                    network = await self._networks.take()
                    lacking = f"only what asks the proxy reaches it: {network.reason}" if network.reason else None
                except OSError as error:
                    lacking = f"no network: {error}"
            held = await asyncio.to_thread(limits.make_groups, root, self._limits)
            groups = [Path(directory) for directory in held.directories]
            started, handle = await asyncio.to_thread(self._start, spec, root, ground, held, network, lacking)
            self._watches[spec.name] = processes.ExitWatch(handle, partial(self._explain, root, held.directories))
            if network and self._connect:
                await self._connect(spec.name, network.listeners)
        except (OSError, ValueError, SandboxError) as error:
            await self._remove(root, groups, await asyncio.to_thread(_load, root))
            await self._forget(spec.name)
            raise error if isinstance(error, SandboxError) else _cannot_start(error) from error
        finally:
            if network:
                network.close()
                self._networks.prepare()
        self._look_after()
        return Sandbox(spec.name, f"http://127.0.0.1:{started.port}", started.isolation)

    async def _allowed(self) -> Ground:
        """What the machine offers, if the settings are content with it. Raises SandboxError."""
        try:
            ground = await self._found()
        except OSError as error:
            raise _cannot_start(error) from error
        if self._refuses(ground):
            raise SandboxError(_unwalled(ground.walls.reason))
        return ground

    def _refuses(self, ground: Ground) -> bool:
        return self._wanted == "required" and ground.walls.bwrap is None

    async def _found(self) -> Ground:
        async with self._probing:
            if self._ground is None:
                directory = self._data_dir / "walls"
                if self._wanted == "off":
                    walls = Walls(None, directory / "etc", "switched off (LAP_ISOLATION=off)")
                else:
                    walls = await walls_of.probe(directory)
                if walls.reason:
                    logger.warning("sandboxes are not isolated: %s", walls.reason)
                await asyncio.to_thread(launch.compile_harness)
                self._ground = Ground(walls, Namespace(()) if walls.bwrap else await namespaces.probe())
            return self._ground

    def _start(
        self, spec: SandboxSpec, root: Path, ground: Ground, held: Held, network: Network | None, lacking: str | None
    ) -> tuple[Record, int]:
        """Start the process and note it down; the record and a pidfd. Runs in a thread."""
        for name in ("home", "tmp", "rootfs", record.FOLDER):
            (root / name).mkdir(mode=0o700)
        walled = ground.walls.bwrap is not None
        prefix = self._walls_around(spec, root, ground.walls, network) if walled else ground.namespace.prefix
        command = launch.command_line(
            root,
            held.directories,
            prefix,
            self._harness_command,
            file_mb=self._limits.disk_mb,
            walled=walled,
            network=network is not None,
            processes=self._limits.pids if _counted(walled, held) else None,
        )
        variables = launch.environment(root, spec.env)
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG))
            port = listener.getsockname()[1]
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            output = os.open(root / LOG_FILE, flags, 0o600)
            stack.callback(os.close, output)
            stdin = _pipe_with(json.dumps({"token": spec.token}).encode() + b"\n")
            stack.callback(os.close, stdin)
            code = seccomp.program() if walled else None
            if code is not None:
                stack.callback(os.close, filter_ := _pipe_with(code))
            pid = launch.spawn(
                command,
                variables,
                stdin,
                output,
                listener.fileno(),
                namespaces=(network.user, network.net) if network else None,
                filter_=filter_ if code is not None else None,
            )
        isolation = self._isolation(ground, held, network is not None, lacking)
        return self._note(spec.name, root, pid, port, isolation, held)

    def _walls_around(self, spec: SandboxSpec, root: Path, walls: Walls, network: Network | None) -> Sequence[str]:
        scripts = [word for word in self._harness_command if word.startswith("/")]
        return walls_of.command(
            walls,
            root,
            visible.programs(self._data_dir, [*self._words, *scripts], self._readable),
            self._data_dir / "vault" / "public",
            visible.repository(spec.repository, self._data_dir) if spec.repository else (),
            network is not None,
        )

    def _note(
        self, name: str, root: Path, pid: int, port: int, isolation: dict[str, Any], held: Held
    ) -> tuple[Record, int]:
        handle = -1
        try:
            handle = os.pidfd_open(pid)
            process = processes.read(pid)
            if process is None:
                raise ProcessLookupError(errno.ESRCH, "its process vanished")
            note = Record(
                name=name,
                pid=pid,
                start_ticks=process.start_ticks,
                boot_id=processes.boot_id(),
                port=port,
                created_at=datetime.now(UTC).isoformat(),
                isolation=isolation,
                cgroups=held.directories,
            )
            record.save(root, note)
        except OSError:
            if handle >= 0:
                os.close(handle)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        return note, handle

    def _isolation(self, ground: Ground, held: Held, network: bool, lacking: str | None) -> dict[str, Any]:
        walled = ground.walls.bwrap is not None
        shown, missing = limits.describe(self._limits, held, _counted(walled, held))
        bare = None if walled else f"not isolated: {ground.walls.reason}"
        reasons = [reason for reason in (bare, ground.namespace.reason, lacking, missing) if reason]
        return {
            "pid_namespace": walled or bool(ground.namespace.prefix),
            "filesystem": walled,
            "network": "vault" if network else "none" if walled else "open",
            "limits": shown,
            "reason": "; ".join(reasons) or None,
        }

    def _explain(self, root: Path, groups: Sequence[str], reason: str) -> str:
        """Better the reason for an end: what the outer programs hide, and what we or the kernel did for a limit."""
        if over := self._over.get(root.name):
            return over
        if reason == namespaces.KILLED_CODE and logs.ends_with(root / LOG_FILE, namespaces.KILLED_WORDS):
            reason = "signal 9 (SIGKILL)"
        reason = processes.of_shell(reason)
        if not reason.startswith(("signal 9 ", "gone")) or not limits.memory_kills(limits.find_groups(root, groups)):
            return reason
        memory = f"the {self._limits.memory_mb} MB limit of the sandbox was reached"
        return f"gone, perhaps out of memory: {memory}" if reason == "gone" else f"out of memory: {memory}"

    async def _delete(self, name: str, root: Path, rescue: Rescue | None = None) -> None:
        async with self._lock(name):
            watch = await self._watch(name, root)
            note = await asyncio.to_thread(_load, root)
            known: Sequence[Process] = ()
            if note and watch:
                asked, known = await ending.ask_to_end(note)
                if asked:
                    await asyncio.wait([watch.reason], timeout=self._grace_seconds)
            groups = await asyncio.to_thread(limits.find_groups, root, note.cgroups if note else ())
            await self._remove(root, groups, note, known, rescue)
            await self._forget(name)

    async def _forget(self, name: str) -> None:
        self._over.pop(name, None)
        if watch := self._watches.pop(name, None):
            await asyncio.wait([watch.reason], timeout=_REAP_TIMEOUT)
            watch.close()

    def _look_after(self) -> None:
        """Watch the disk from the first sandbox on."""
        if self._looking is None:
            self._looking = asyncio.create_task(self._disk.run())

    def _running(self) -> Sequence[str]:
        return [name for name, watch in self._watches.items() if not watch.reason.done()]

    def _members(self, name: str) -> set[int]:
        note = _load(self._directory / name)
        return processes.descendants(processes.table(), note.pid) if note else set()

    def _over_disk(self, name: str) -> None:
        note = _load(self._directory / name)
        outer = processes.read(note.pid) if note else None
        if note and outer and outer.start_ticks == note.start_ticks:
            self._over[name] = f"out of disk: the {self._limits.disk_mb} MB limit of the sandbox was reached"
            logger.warning("sandbox %s: %s", name, self._over[name])
            processes.send(outer, signal.SIGKILL)

    async def _remove(
        self,
        root: Path,
        groups: Sequence[Path],
        note: Record | None = None,
        known: Sequence[Process] = (),
        rescue: Rescue | None = None,
    ) -> None:
        try:
            await ending.kill_all(note, groups, launch.home_variable(root), known)
            await ending.remove_groups(groups)
            if rescue:
                await asyncio.to_thread(rescuing.copy, root, rescue)
            await ending.remove_tree(root)
        except OSError as error:
            raise SandboxError(f"sandbox {root.name} cannot be removed: {error}; delete it again") from error

    async def _watch(self, name: str, root: Path) -> processes.ExitWatch | None:
        """The watch on a sandbox's process, also of one that an earlier platform process started."""
        if name not in self._watches:
            note = await asyncio.to_thread(_load, root)
            handle = processes.open_handle(note.pid, note.start_ticks) if note else None
            if note is None or handle is None:
                return None
            if name in self._watches:
                os.close(handle)
            else:
                self._watches[name] = processes.ExitWatch(handle, partial(self._explain, root, note.cgroups))
                self._look_after()
        return self._watches[name]

    def _root(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise SandboxError(f"{name[:80]!r} is no sandbox name; use 1 to 63 of a-z, 0-9 and '-'")
        return self._directory / name

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    def _start_task(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _counted(walled: bool, held: Held) -> bool:
    """Whether an ordinary limit stands in for the control group's: it counts the processes of a user namespace apart,
    but not root's.
    """
    return walled and "pids" not in held.controllers and os.geteuid() != 0


def _unwalled(reason: str | None) -> str:
    return (
        f"LAP_ISOLATION=required, but sandboxes cannot be isolated here: {reason}. Put that right, or set "
        "LAP_ISOLATION=auto to run them without walls"
    )


def _claim(root: Path) -> None:
    try:
        root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        root.mkdir(mode=0o700)
    except OSError as error:
        if os.path.lexists(root):
            raise SandboxError(f"sandbox {root.name} exists already; delete it first") from error
        raise _cannot_start(error) from error


def _load(root: Path) -> Record | None:
    """The record of a sandbox, unless it is from before the machine's last start: then nothing of it can run."""
    note = record.load(root)
    return note if note and note.boot_id == processes.boot_id() else None


def _pipe_with(content: bytes) -> int:
    """The reading end of a pipe that holds a few bytes and then ends."""
    reader, writer = os.pipe()
    try:
        os.write(writer, content)
    finally:
        os.close(writer)
    return reader


def _names(directory: Path) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.name for entry in entries if _NAME.fullmatch(entry.name) and _is_directory(entry))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_directory(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _cannot_start(error: OSError | ValueError) -> SandboxError:
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        step = _NEXT_STEPS.get(error.errno or 0, "see the platform's log")
        return SandboxError(f"the sandbox cannot be started: {error.strerror or error}{where}; {step} and try again")
    return SandboxError(f"the sandbox cannot be started: {error}; check the environment it is given")

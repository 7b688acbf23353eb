"""Processes of this machine: telling one from a later one of the same number, watching its end, finding its tree."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

MAX_ENVIRONMENT_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/<pid>/stat, as far as it matters here."""

    pid: int
    state: str
    parent: int
    session: int
    start_ticks: int

    @property
    def ended(self) -> bool:
        """Over, only not yet collected by its parent."""
        return self.state in "ZX"


def boot_id() -> str:
    """Process numbers and start times mean something only within one boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def read(pid: int) -> Process | None:
    """The process of that number, or None."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The second field is the program's name in parentheses and may hold anything, parentheses and spaces too.
    fields = text[text.rindex(")") + 2 :].split()
    return Process(pid, fields[0], int(fields[1]), int(fields[3]), int(fields[19]))


def open_handle(pid: int, start_ticks: int) -> int | None:
    """A pidfd of exactly this process, or None when it has ended. The caller closes it."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    # The start time is older than the handle: if it is still what is read now, the handle means that process.
    current = read(pid)
    if current is not None and current.start_ticks == start_ticks and not current.ended:
        return handle
    os.close(handle)
    return None


def send(process: Process, number: signal.Signals) -> None:
    """Send a signal to exactly this process; nothing happens when it has ended."""
    handle = open_handle(process.pid, process.start_ticks)
    if handle is None:
        return
    try:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(handle, number)
    finally:
        os.close(handle)


def handles_sigterm(pid: int) -> bool:
    """Whether the program has installed a handler for SIGTERM. A namespace's first process ignores it otherwise."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def is_first(pid: int) -> bool:
    """Whether it is process 1 of a PID namespace below ours."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
            if line.startswith("NSpid:"):
                numbers = line.split()[1:]
                return len(numbers) > 1 and numbers[-1] == "1"
    return False


def table() -> dict[int, Process]:
    """All processes that have not ended."""
    found = (read(int(name)) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - names only, half the time
    return {process.pid: process for process in found if process is not None and not process.ended}


def descendants(processes: dict[int, Process], root: int) -> set[int]:
    """Children of `root`, their children and so on, without `root` itself."""
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    found: set[int] = set()
    queue = [root]
    while queue:
        new = [pid for pid in children.get(queue.pop(), ()) if pid not in found]
        found.update(new)
        queue.extend(new)
    return found


def with_variable(processes: Iterable[int], variable: bytes) -> set[int]:
    """Those processes that were started with this `NAME=value` in their environment, as far as we may look."""
    found: set[int] = set()
    for pid in processes:
        with contextlib.suppress(OSError), Path(f"/proc/{pid}/environ").open("rb") as file:
            if variable in file.read(MAX_ENVIRONMENT_BYTES).split(b"\0"):
                found.add(pid)
    return found


class ExitWatch:
    """Tells when one process has ended, and how if it was our child. Collects it then, so no zombie stays."""

    def __init__(self, handle: int, explain: Callable[[str], str]) -> None:
        """Take over the pidfd `handle`. `explain` may better the reason; it is called at the end and must not wait."""
        self._loop = asyncio.get_running_loop()
        self._handle = handle
        self._explain = explain
        self.reason: asyncio.Future[str] = self._loop.create_future()
        self._loop.add_reader(handle, self._ended)

    def close(self) -> None:
        """Stop watching. Who still waits for the reason is cancelled."""
        self._release()
        self.reason.cancel()

    def _ended(self) -> None:
        reason = self._explain(_collect(self._handle))
        self._release()
        self.reason.set_result(reason)

    def _release(self) -> None:
        if self._handle >= 0:
            self._loop.remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1


def of_shell(reason: str) -> str:
    """What a shell tells as exit code 128 + N of a program that signal N has ended."""
    code = reason.removeprefix("exit code ")
    if code.isdigit() and int(code) - 128 in signal.valid_signals():
        return _signal_words(int(code) - 128)
    return reason


def _signal_words(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = "real-time signal"
    return f"signal {number} ({name})"


def _collect(handle: int) -> str:
    """Collect the ended process of a pidfd; how it ended, or "gone" when it was not our child."""
    try:
        result = os.waitid(os.P_PIDFD, handle, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return "gone"
    if result is None:
        return "gone"
    if result.si_code == os.CLD_EXITED:
        return f"exit code {result.si_status}"
    return _signal_words(result.si_status)

"""Child processes of the harness: start, exit status, orphans, and the end of the whole tree.

The harness is process 1 of its namespace where the driver could make one; elsewhere it makes itself the "subreaper"
of its descendants. Either way daemons that an agent leaves behind become children of the harness: it reaps them
and it can find them when everything has to go.
"""

import asyncio
import contextlib
import fcntl
import os
import re
import signal
import subprocess
import sys
import termios
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

GRACE_SECONDS = 1.0
"""Between asking processes to end and killing them."""
KILL_SECONDS = 5.0
MAX_LINE = 2_000
KEPT_LINES = 200

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_LINE_END = re.compile(rb"[\r\n]+")


class Child:
    """A running child; `exited` resolves to its exit code, or minus the signal that ended it."""

    def __init__(self, popen: "subprocess.Popen[bytes]") -> None:
        self.pid = popen.pid
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.stdout = popen.stdout
        self._popen = popen

    def _ended(self, code: int) -> None:
        self._popen.returncode = code  # Popen must not wait for a pid that is gone already.
        if not self.exited.done():
            self.exited.set_result(code)

    def kill(self) -> None:
        """Kills the child and the process group it leads."""
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def kill_left(self) -> None:
        """Kills what is left of the process group it led, once it has ended itself."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


class Processes:
    """All children of this process. Only one may exist: it waits for every child there is."""

    def __init__(self) -> None:
        self._children: dict[int, Child] = {}
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        terminal: int | None = None,
        piped: bool = False,
    ) -> Child:
        """Starts `argv` in its own session. Raises OSError when the program or `cwd` cannot be used.

        `terminal` is a PTY's slave side that becomes its standard streams and controlling terminal; else output
        goes to a pipe (`piped`, standard error included) or nowhere.
        """
        output = subprocess.PIPE if piped else subprocess.DEVNULL
        popen = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=output if terminal is None else terminal,
            stderr=subprocess.STDOUT if terminal is None else terminal,
            start_new_session=True,
            preexec_fn=None if terminal is None else _take_terminal,  # Safe beside our threads: takes no lock.
        )
        child = self._children[popen.pid] = Child(popen)
        return child

    async def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        timeout: float,
        on_line: Callable[[str], None],
    ) -> tuple[int, list[str]]:
        """Runs `argv` to its end: exit code and the last lines of its output, each also given to `on_line`.

        Raises OSError when it cannot start and TimeoutError, with the process killed, after `timeout` seconds.
        """
        lines: deque[str] = deque(maxlen=KEPT_LINES)

        def keep(line: str) -> None:
            lines.append(line)
            on_line(line)

        child = self.start(argv, env=env, cwd=cwd, piped=True)
        reading = asyncio.create_task(read_lines(child, keep))
        try:
            async with asyncio.timeout(timeout):
                code = await child.exited
            await asyncio.wait([reading], timeout=1)  # A background process may hold the pipe open.
        finally:
            child.kill()
            reading.cancel()
        return code, list(lines)

    async def end_all(self) -> None:
        """Asks every descendant to end, then kills what is left."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGCONT):  # A shell heeds the first, others the second.
            self._signal(number)
        deadline = loop.time() + GRACE_SECONDS
        while self._left() and loop.time() < deadline:
            await asyncio.sleep(0.01)
        deadline = loop.time() + KILL_SECONDS
        while self._left() and loop.time() < deadline:
            self._signal(signal.SIGKILL)
            await asyncio.sleep(0.01)

    def _left(self) -> bool:
        self._reap()
        if os.getpid() != 1:
            return bool(self._children or _descendants())
        try:
            os.kill(-1, 0)  # Not /proc, which may be that of another namespace.
        except ProcessLookupError:
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpid() == 1:
                os.kill(-1, number)  # Everything in this namespace but process 1, in one step.
                return
        for pid in _descendants() or self._children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                child = self._children.pop(pid, None)
                if child is not None:
                    child._ended(os.waitstatus_to_exitcode(status))


async def read_lines(child: Child, on_line: Callable[[str], None]) -> None:
    """Gives each line of the child's output to `on_line` until it ends; `\\r` ends a line too (progress)."""
    assert child.stdout is not None
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), child.stdout
    )
    try:
        rest = b""
        while chunk := await reader.read(65_536):
            *whole, rest = _LINE_END.split(rest + chunk)
            for line in whole:
                if line:
                    on_line(line[:MAX_LINE].decode(errors="replace"))
            rest = rest[:MAX_LINE]
        if rest:
            on_line(rest.decode(errors="replace"))
    finally:
        transport.close()


def become_subreaper() -> None:
    """Makes orphaned descendants children of this process, where the system can (Linux)."""
    if os.getpid() != 1 and sys.platform == "linux":
        import ctypes  # Late: only needed once, and slow to load.

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def hide_from_others() -> None:
    """Keeps programs of the same user out of this process: its token, and its sockets, which are the machine's."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def describe_exit(code: int) -> str:
    """`exit code 7` or `signal 9 (SIGKILL)`."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"


def _take_terminal() -> None:
    """In the child: makes standard input its controlling terminal, with the default reaction to signals."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_DFL)


def _descendants() -> list[int]:
    """Living descendants of this process, zombies left out; empty where there is no /proc."""
    parents: dict[int, int] = {}
    with contextlib.suppress(FileNotFoundError):
        for entry in os.listdir("/proc"):  # noqa: PTH208  (names are all that is needed)
            if entry.isdigit():
                with contextlib.suppress(OSError, IndexError, ValueError):
                    state, parent = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[:2]
                    if state not in "ZX":
                        parents[int(entry)] = int(parent)
    found, known = [], {os.getpid()}
    children: dict[int, list[int]] = {}
    for pid, parent_pid in parents.items():
        children.setdefault(parent_pid, []).append(pid)
    queue = deque(known)
    while queue:
        for pid in children.get(queue.popleft(), ()):
            if pid not in known:
                known.add(pid)
                found.append(pid)
                queue.append(pid)
    return found

"""Programs on a pseudo-terminal of their own, timed from outside."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator, Mapping, Sequence


class Terminal:
    """A child process on a new pseudo-terminal."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self.descriptor = descriptor
        self.seen = b""

    def write(self, data: bytes) -> None:
        os.write(self.descriptor, data)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read_until(self, marker: bytes, seconds: float = 30.0) -> float:
        """Reads until `marker` stands in what came since the last call; returns the moment it was there."""
        deadline = time.perf_counter() + seconds
        seen = b""
        while True:
            left = deadline - time.perf_counter()
            if left <= 0 or not select.select([self.descriptor], [], [], left)[0]:
                raise AssertionError(f"{marker!r} never came; the last bytes were {seen[-400:]!r}")
            seen += os.read(self.descriptor, 65536)
            if marker in seen:
                self.seen = seen
                return time.perf_counter()

    def drain(self, quiet: float = 0.3, seconds: float = 10.0) -> None:
        """Reads until nothing came for `quiet` seconds."""
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline and select.select([self.descriptor], [], [], quiet)[0]:
            os.read(self.descriptor, 65536)


@contextlib.contextmanager
def running(
    command: Sequence[str], columns: int = 120, lines: int = 35, env: Mapping[str, str] | None = None
) -> Iterator[Terminal]:
    """Runs `command` on a pseudo-terminal of that size; ends it on leaving."""
    pid, descriptor = pty.fork()
    if pid == 0:
        # Here and not in the parent: the program must not start before its terminal has a size.
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        os.environ.update({"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"} | dict(env or {}))
        os.execvp(command[0], list(command))
    try:
        yield Terminal(pid, descriptor)
    finally:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 5
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(OSError):  # a child that still writes must not block on a full terminal
                if select.select([descriptor], [], [], 0.02)[0]:
                    os.read(descriptor, 65536)
        os.close(descriptor)

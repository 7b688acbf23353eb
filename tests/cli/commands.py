"""Runs lap and lapconsole as a person's shell does: as processes, with a home of their own, with or without a PTY."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS = 20.0
LAP = [sys.executable, "-P", "-m", "lapconsole.cli.lap"]
LAPCONSOLE = [sys.executable, "-P", "-m", "lapconsole.cli.main"]


def environment(home: Path, **more: str) -> dict[str, str]:
    """A clean environment whose home, settings and data are all under `home`."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH", "VIRTUAL_ENV") if name in os.environ}
    folders = {"HOME": home, "XDG_CONFIG_HOME": home / "config", "XDG_DATA_HOME": home / "data"}
    return kept | {name: str(path) for name, path in folders.items()} | {"TERM": "xterm-256color"} | more


def run(command: list[str], *arguments: str, env: dict[str, str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command to its end without a terminal."""
    return subprocess.run(
        [*command, *arguments], env=env, input=stdin, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.01)


class InTerminal:
    """A command on a PTY of its own. `shown` is all it wrote; `before` and `mode()` are the terminal's modes."""

    def __init__(self, command: list[str], *arguments: str, env: dict[str, str], size: tuple[int, int] = (80, 24)):
        self._master, self._slave = pty.openpty()
        self._set_size(size)
        self.before = self.mode()
        self.shown = ""
        self.process = subprocess.Popen(
            [*command, *arguments],
            env=env,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def __enter__(self) -> InTerminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SECONDS)
        os.close(self._master)
        os.close(self._slave)

    def mode(self) -> list[Any]:
        return termios.tcgetattr(self._slave)

    def restore(self) -> None:
        """Put the terminal's first modes back, as a shell does when the command is stopped."""
        termios.tcsetattr(self._slave, termios.TCSANOW, self.before)

    def expect(self, text: str) -> None:
        """Wait until `text` has been shown, and drop all up to its end."""
        self._read_until(lambda: text in self.shown, repr(text))
        self.shown = self.shown.partition(text)[2]

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def resize(self, size: tuple[int, int]) -> None:
        self._set_size(size)
        os.killpg(self.process.pid, signal.SIGWINCH)

    def end(self) -> int:
        """Wait for the end of the command and return its exit code; `shown` is complete then."""
        self._read_until(lambda: self.process.poll() is not None, "the end")
        while self._read(0):
            pass
        return self.process.wait()

    def _read_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"timed out waiting for {what}; shown: {self.shown!r}"
            self._read(0.02)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        self.shown += os.read(self._master, 65536).decode("utf-8", "replace")
        return True

    def _set_size(self, size: tuple[int, int]) -> None:
        columns, rows = size
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

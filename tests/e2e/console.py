"""The real console on a pseudo-terminal: keys in, and the screen it shows."""

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from lapconsole.terminal.emulator import Emulator
from tests.waiting import until


class Console:
    """A running `lapconsole`."""

    def __init__(self, pid: int, descriptor: int, columns: int, lines: int) -> None:
        self.pid = pid
        self._descriptor = descriptor
        self.emulator = Emulator(columns, lines)

    @property
    def screen(self) -> str:
        return "\n".join(self.emulator.text())

    async def press(self, *keys: str) -> None:
        """Type one after the other, as a person does: each is read before the next comes."""
        for key in keys:
            os.write(self._descriptor, key.encode())
            await asyncio.sleep(0.05)

    async def shows(self, *texts: str, seconds: float = 20.0) -> None:
        """Waits until all texts are on the screen."""

        def shown() -> bool:
            return all(text in self.screen for text in texts)

        try:
            await until(shown, f"the console shows {texts}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.screen}") from None

    async def ends(self) -> None:
        """Waits until the program has ended by itself."""
        await until(self.ended, "the console ends", 15.0)

    def ended(self) -> bool:
        """Whether the program is gone."""
        with contextlib.suppress(ChildProcessError):
            return os.waitpid(self.pid, os.WNOHANG)[0] != 0
        return True

    def read(self) -> None:
        """What came from the program goes to the screen, and the screen's answers back."""
        with contextlib.suppress(OSError):
            self.emulator.feed(os.read(self._descriptor, 65536))
            if replies := self.emulator.take_replies():
                os.write(self._descriptor, replies)


@contextlib.asynccontextmanager
async def console(
    folder: Path, *arguments: str, columns: int = 80, lines: int = 24, env: Mapping[str, str] | None = None
) -> AsyncIterator[Console]:
    """Starts `lapconsole` with all its files in `folder`; ends it, if it did not end by itself."""
    pid, descriptor = pty.fork()
    if pid == 0:
        # Here and not in the parent: the program must not start before its terminal has a size.
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        for name in [
            name for name in os.environ if name.startswith(("LAP_", "MASTER", "LITELLM", "TEXTUAL", "COLUMNS", "LINES"))
        ]:
            del os.environ[name]
        os.environ.update({"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"} | dict(env or {}))
        os.environ.update({"XDG_CONFIG_HOME": str(folder / "config"), "LAP_DATA_DIR": str(folder / "data")})
        # With this environment and no other: the C library may hold a COLUMNS and LINES of pytest's own terminal.
        os.execve(sys.executable, [sys.executable, "-m", "lapconsole", *arguments], os.environ)
    started = Console(pid, descriptor, columns, lines)
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, started.read)
    try:
        yield started
    finally:
        if not started.ended():
            os.kill(pid, signal.SIGTERM)
            await started.ends()
        loop.remove_reader(descriptor)
        os.close(descriptor)

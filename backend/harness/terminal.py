"""The agent's terminal: a PTY, the screen it shows, and the viewers who watch and type.

The screen is kept by an emulator, so a viewer begins with one exact repaint, and one who cannot keep up is brought to
the present by another. Nothing a viewer does or fails to do ever holds up the agent.
"""

import asyncio
import contextlib
import fcntl
import os
import pty
import struct
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from backend.harness.log import Log
from backend.harness.output import OutputCutter, without_questions
from backend.harness.processes import Child, Processes, describe_exit
from backend.harness.state import Agent, State

if TYPE_CHECKING:
    from lapconsole.terminal.emulator import Emulator

MAX_COLUMNS = 500
MAX_ROWS = 300
MAX_TITLE = 200
READ_BYTES = 16_384
"""Of output in one turn: what is read ahead is what the echo of a key has to wait for."""
SLICE = 2_048
TURN_SECONDS = 0.004
"""How long output may be worked on before keys and other connections get their turn."""
MAX_PENDING_KEYS = 262_144
"""Keys the agent has not read yet; beyond this, viewers are not read from."""
START_SECONDS = 0.15
"""A program that lives this long has started, also without output."""
SETTLE_SECONDS = 0.02
"""One that wrote something must at least live this long: an error message is output, too."""

_IUTF8 = 0o40000


class Viewer(Protocol):
    """What the terminal needs of a connection."""

    size: tuple[int, int] | None

    def show(self, text: str) -> None: ...
    def repaint(self) -> None: ...
    def end(self, notice: str) -> None: ...
    def pause(self, paused: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class Command:
    """How to run the agent."""

    argv: Sequence[str]
    env: Mapping[str, str]
    directory: Path


class Terminal:
    """One agent on one PTY. `start` it once; an attach after its end starts it again."""

    def __init__(self, command: Command, processes: Processes, state: State, log: Log) -> None:
        self._command = command
        self._processes = processes
        self._state = state
        self._log = log
        self._viewers: list[Viewer] = []
        self._master = -1
        self._child: Child | None = None
        self._output = OutputCutter()
        self._emulator: Emulator
        self._painting: str | None = None  # The repaint of the present screen, once somebody has asked for it.
        self._working = False
        self._keys = bytearray()
        self._paused = False
        self._wrote = asyncio.Event()

    async def start(self) -> str | None:
        """Starts the agent. None once it runs; the reason, with its last lines, when it ended at once or cannot start.

        Raises OSError when the program cannot be executed.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        child = self._spawn()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wrote.wait(), START_SECONDS)
        settle = began + SETTLE_SECONDS - loop.time()
        await asyncio.wait({child.exited}, timeout=max(settle, 0))
        if not child.exited.done():
            return None
        while self._child is child:  # Its last output is still on its way.
            await asyncio.sleep(0)
        lines = [line for line in self._emulator.text() if line.strip()][-8:]
        return f"ended at once with {describe_exit(child.exited.result())}" + (": " + "\n".join(lines) if lines else "")

    def attach(self, viewer: Viewer) -> None:
        """Shows the present screen to `viewer` and what follows; starts the agent anew if it has ended."""
        self._viewers.append(viewer)
        self._state.update(viewers=len(self._viewers))
        if self._child is None:
            try:
                self._spawn()
            except OSError as error:
                reason = f"cannot run {self._command.argv[0]}: {error.strerror}"
                self._log.write(reason)
                viewer.end(f"\r\n\x1b[31m[bridge] {reason}\x1b[0m\r\n")
                return
        viewer.repaint()
        viewer.pause(self._paused)

    def detach(self, viewer: Viewer) -> None:
        """Forgets `viewer`; the agent goes on."""
        with contextlib.suppress(ValueError):
            self._viewers.remove(viewer)
            self._state.update(viewers=len(self._viewers))

    def repaint(self) -> str:
        """What brings any terminal of the present size to the present screen."""
        if self._painting is None:
            self._painting = self._emulator.repaint().decode()
        return self._painting

    def keys(self, viewer: Viewer, data: bytes) -> None:
        """Types `data`; the screen takes the size of the viewer who types."""
        self._resize_to(viewer)
        self._write(data)
        self._state.touch_input()

    def resize(self, viewer: Viewer, columns: int, rows: int) -> None:
        """Gives the screen the size of `viewer`'s window."""
        viewer.size = (min(max(columns, 1), MAX_COLUMNS), min(max(rows, 1), MAX_ROWS))
        asyncio.get_running_loop().call_soon(self._resize_to, viewer)  # Of many in one read only the last counts.

    def close(self) -> None:
        """Gives up the PTY: its programs get SIGHUP."""
        for viewer in tuple(self._viewers):
            viewer.end("")
        self._child = None
        self._close_master()

    def _spawn(self) -> Child:
        master, slave = pty.openpty()
        try:
            _prepare(slave, self._state.columns, self._state.rows)
            child = self._processes.start(
                self._command.argv, env=self._command.env, cwd=self._command.directory, terminal=slave
            )
        except BaseException:
            os.close(master)
            raise
        finally:
            os.close(slave)
        os.set_blocking(master, False)
        self._master, self._child = master, child
        self._output = OutputCutter()
        from lapconsole.terminal.emulator import Emulator  # Late: the agent starts while this loads.

        self._emulator = Emulator(self._state.columns, self._state.rows)
        self._painting = None
        self._wrote.clear()
        self._readable(True)
        child.exited.add_done_callback(lambda _: self._read())
        self._log.write(f"agent started: {self._command.argv[0]} (pid {child.pid})")
        self._state.update(agent=Agent(running=True, pid=child.pid), title="")
        return child

    def _read(self) -> None:
        """Reads what there is and shows it, unless earlier output is still being worked on."""
        if self._child is None or self._working:
            return
        ended = self._child.exited.done()  # Asked before reading: what it wrote last is there by now.
        size, drained = 0, False
        while size < READ_BYTES and not drained:
            try:
                data = os.read(self._master, READ_BYTES - size)
            except BlockingIOError:
                drained = True
                break
            except OSError:  # EIO: nobody has the other side open any more. Not every system calls it an error.
                data = b""
            if not data:
                self._readable(False)
                drained = True
            self._output.feed(data)
            size += len(data)
        if size:
            self._wrote.set()
            self._state.touch_output()
        self._work(ended and drained)
        if ended and not drained:  # Nothing else may call: a background process can keep the terminal open.
            asyncio.get_running_loop().call_soon(self._read)

    def _work(self, last: bool) -> None:
        """Shows output for one turn and goes on in the next one if there is more. `last`: nothing will follow it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + TURN_SECONDS
        while piece := self._output.take(SLICE):
            self._show(piece)
            if loop.time() > deadline:
                self._working = True
                self._readable(False)
                loop.call_soon(loop.call_soon, self._work_on, last)  # Keys that have arrived go first.
                return
        if last and self._child is not None:
            self._ended(self._child)

    def _work_on(self, last: bool) -> None:
        self._working = False
        if self._child is not None:
            self._work(last)
        if self._child is not None and not self._working:
            self._readable(True)
            if self._child.exited.done():
                self._read()

    def _readable(self, wanted: bool) -> None:
        """Listens, or no longer, for output."""
        loop = asyncio.get_running_loop()
        if wanted:
            loop.add_reader(self._master, self._read)
        else:
            loop.remove_reader(self._master)

    def _show(self, piece: str) -> None:
        if shown := without_questions(piece):
            for viewer in tuple(self._viewers):
                viewer.show(shown)
        self._emulator.feed(piece)
        self._painting = None
        if replies := self._emulator.take_replies():
            self._write(replies)
        self._emulator.take_notices()
        self._emulator.take_dirty()
        self._state.update(title=self._emulator.title[:MAX_TITLE])

    def _ended(self, child: Child) -> None:
        """The agent is gone and all its output is shown."""
        if rest := self._output.rest():
            self._show(rest)
        self._child = None
        self._close_master()
        code = child.exited.result()
        self._log.write(f"agent ended: {describe_exit(code)}")
        exit_code, number = (code, 0) if code >= 0 else (0, -code)
        self._state.update(agent=Agent(False, None, None if number else exit_code, number or None))
        notice = f"\r\n\x1b[2m[bridge] process exited (code={exit_code}, signal={number})\x1b[0m\r\n"
        for viewer in tuple(self._viewers):
            viewer.end(notice)

    def _write(self, data: bytes) -> None:
        if self._master < 0:
            return
        if not self._keys:
            with contextlib.suppress(BlockingIOError, OSError):
                data = data[os.write(self._master, data) :]
            if not data:
                return
            asyncio.get_running_loop().add_writer(self._master, self._write_on)
        self._keys += data
        if len(self._keys) > MAX_PENDING_KEYS:
            self._pause(True)

    def _write_on(self) -> None:
        try:
            del self._keys[: os.write(self._master, self._keys)]
        except BlockingIOError:
            return
        except OSError:
            self._keys.clear()
        if not self._keys:
            asyncio.get_running_loop().remove_writer(self._master)
            self._pause(False)

    def _pause(self, paused: bool) -> None:
        if paused != self._paused:
            self._paused = paused
            for viewer in tuple(self._viewers):
                viewer.pause(paused)

    def _resize_to(self, viewer: Viewer) -> None:
        if viewer.size in (None, (self._state.columns, self._state.rows)):
            return
        columns, rows = viewer.size
        self._state.update(columns=columns, rows=rows)
        self._emulator.resize(columns, rows)
        self._painting = None
        if self._master >= 0:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, _window_size(columns, rows))
        for viewer in tuple(self._viewers):
            viewer.repaint()

    def _close_master(self) -> None:
        if self._master < 0:
            return
        self._readable(False)
        asyncio.get_running_loop().remove_writer(self._master)
        os.close(self._master)
        self._master = -1
        self._keys.clear()
        self._pause(False)


def _prepare(slave: int, columns: int, rows: int) -> None:
    fcntl.ioctl(slave, termios.TIOCSWINSZ, _window_size(columns, rows))
    attributes = termios.tcgetattr(slave)
    attributes[0] |= _IUTF8  # So that the line editor erases whole characters.
    termios.tcsetattr(slave, termios.TCSANOW, attributes)


def _window_size(columns: int, rows: int) -> bytes:
    return struct.pack("HHHH", rows, columns, 0, 0)

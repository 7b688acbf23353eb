"""The agent's terminal: a PTY, the screen it shows, and the viewers who watch and drive.

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from backend.harness.activity import Activity
from backend.harness.audience import MAX_VIEWERS, Audience, Ending, Viewer
from backend.harness.log import Log
from backend.harness.notices import NO_FACTS, after
from backend.harness.output import OutputCutter, without_questions
from backend.harness.painting import Painter, Repaint
from backend.harness.processes import Child, Processes, describe_exit
from backend.harness.recording import Recording
from backend.harness.state import Agent, State

if TYPE_CHECKING:
    from lapconsole.terminal.emulator import Emulator

MAX_COLUMNS = 500
MAX_ROWS = 300
READ_BYTES = 4_096
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

RESIZE_SECONDS = 0.03
"""Between two changes of size: each costs a rewrap, and a repaint for everybody."""

_IUTF8 = 0o40000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Command:
    """How to run the agent."""

    argv: Sequence[str]
    env: Mapping[str, str]
    directory: Path
    first: Sequence[str] = ()
    """Further arguments of the first start."""


class Terminal:
    """One agent on one PTY. `start` it once; an attach after its end starts it again."""

    def __init__(
        self,
        command: Command,
        processes: Processes,
        state: State,
        activity: Activity,
        log: Log,
        recording: Recording | None = None,
    ) -> None:
        self._command = command
        self._first = command.first
        self._processes = processes
        self._state = state
        self._activity = activity
        self._log = log
        self._recording = recording
        self._audience = Audience(state)
        self._painter = Painter()
        self._master = -1
        self._child: Child | None = None
        self._output = OutputCutter()
        self._emulator: Emulator
        self._working = False
        self._keys = bytearray()
        self._paused = False
        self._wrote = asyncio.Event()
        self._resized_at = 0.0
        self._resize_timer: asyncio.TimerHandle | None = None

    @property
    def driven(self) -> bool:
        """Whether one of the viewers drives."""
        return self._audience.driver is not None

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

    def attach(self, viewer: Viewer, *, drive: bool) -> bool:
        """Lets `viewer` in, who has to ask for a repaint then; starts the agent anew if it has ended.

        One who is to drive gives the screen its size at once. False, with the viewer sent away, when there is no room
        or the agent cannot be started.
        """
        if len(self._audience) >= MAX_VIEWERS:
            viewer.end(Ending(reason=f"{MAX_VIEWERS} viewers are attached, which is the most; detach one first"))
            return False
        if drive and viewer.size is not None:
            self._set_size(*viewer.size)
        if self._child is None:
            try:
                self._spawn()
            except OSError as error:
                reason = f"cannot run {self._command.argv[0]}: {error.strerror}"
                self._log.write(reason)
                viewer.end(Ending(reason=reason))
                return False
        self._audience.add(viewer, drive=drive)
        viewer.pause(self._paused)
        return True

    def detach(self, viewer: Viewer) -> None:
        """Forgets `viewer`; the agent goes on, and the screen keeps its size."""
        self._audience.remove(viewer)

    def describe(self, viewer: Viewer) -> dict[str, Any]:
        """What `viewer` is told first: its mode, the screen's cols and rows, and the viewers."""
        size = {"cols": self._state.columns, "rows": self._state.rows}
        return {"mode": self._audience.mode(viewer), **size, "viewers": self._audience.describe()}

    def repaint(self, scrollback: int) -> Repaint:
        """What brings any terminal of the present size to the present screen; output from now on follows it."""
        return self._painter.repaint(self._emulator, scrollback)

    async def draw(self, drawing: "Callable[[Emulator], T]") -> T:
        """The result of `drawing`, in a thread, for the present screen. Raises TimeoutError."""
        return await self._painter.draw(self._emulator, drawing)

    def drive(self, viewer: Viewer) -> None:
        """Hands the terminal to `viewer`, whose size the screen takes."""
        self._audience.drive(viewer)
        self._fit_soon()

    def watch(self, viewer: Viewer) -> None:
        """Leaves the terminal to nobody if it was `viewer` who drove."""
        self._audience.watch(viewer)

    def keys(self, viewer: Viewer, data: bytes) -> None:
        """Types `data` if `viewer` drives, and drops it otherwise."""
        if viewer is not self._audience.driver:
            return
        if self._resize_timer is not None:
            self.fit()  # It typed after it had got this size.
        self._write(data)
        self._state.touch_input()
        self._activity.typed()

    def resize(self, viewer: Viewer, columns: int, rows: int) -> None:
        """Notes the size of `viewer`'s window; the screen takes it if `viewer` drives."""
        size = window(columns, rows)
        if size != viewer.size:
            viewer.size = size
            self._audience.changed()
        self._fit_soon()

    def fit(self) -> None:
        """Gives the screen the size of the driver's window, now."""
        if self._resize_timer is not None:
            self._resize_timer.cancel()
            self._resize_timer = None
        driver = self._audience.driver
        if driver is not None and driver.size is not None:
            self._set_size(*driver.size)

    def close(self) -> None:
        """Gives up the PTY: its programs get SIGHUP."""
        if self._resize_timer is not None:
            self._resize_timer.cancel()
        for viewer in self._audience:
            viewer.end(None)
        self._child = None
        self._close_master()
        self._painter.close()

    def _spawn(self) -> Child:
        master, slave = pty.openpty()
        try:
            _prepare(slave, self._state.columns, self._state.rows)
            argv = (*self._command.argv, *self._first)
            child = self._processes.start(argv, env=self._command.env, cwd=self._command.directory, terminal=slave)
            self._first = ()
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
        self._painter.changed()
        self._wrote.clear()
        self._readable(True)
        child.exited.add_done_callback(lambda _: self._read())
        self._log.write(f"agent started: {self._command.argv[0]} (pid {child.pid})")
        self._state.update(agent=Agent(running=True, pid=child.pid), terminal=NO_FACTS)
        self._activity.started()
        if self._recording is not None:
            self._recording.started(self._state.columns, self._state.rows)
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
            data = shown.encode(errors="replace")
            for viewer in self._audience:
                viewer.show(data)
            if self._recording is not None:
                self._recording.output(shown)
        self._emulator.feed(piece)
        self._painter.changed()
        if replies := self._emulator.take_replies():
            self._write(replies)
        self._emulator.take_dirty()
        if notices := self._emulator.take_notices():
            facts, urgent = after(self._state.terminal, notices)
            self._state.update(terminal=facts, urgent=urgent)
            for notice in notices:
                self._activity.notice(notice)

    def _ended(self, child: Child) -> None:
        """The agent is gone and all its output is shown."""
        if rest := self._output.rest():
            self._show(rest)
        self._child = None
        self._close_master()
        code = child.exited.result()
        self._log.write(f"agent ended: {describe_exit(code)}")
        exit_code, number = (code, None) if code >= 0 else (None, -code)
        facts = self._state.terminal.without_activity()
        self._state.update(agent=Agent(False, None, exit_code, number), terminal=facts)
        self._activity.exited(exit_code, number)
        if self._recording is not None:
            self._recording.exited(128 - code if code < 0 else code)
        for viewer in self._audience:
            viewer.end(Ending(exit_code, number))

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
            for viewer in self._audience:
                viewer.pause(paused)

    def _fit_soon(self) -> None:
        """Fits in the next turn, as of many sizes in one read only the last counts, or when it is time again."""
        if self._resize_timer is None:
            loop = asyncio.get_running_loop()
            self._resize_timer = loop.call_at(max(loop.time(), self._resized_at + RESIZE_SECONDS), self.fit)

    def _set_size(self, columns: int, rows: int) -> None:
        if (columns, rows) == (self._state.columns, self._state.rows):
            return
        self._resized_at = asyncio.get_running_loop().time()
        self._state.update(columns=columns, rows=rows)
        self._emulator.resize(columns, rows)
        self._painter.changed()
        if self._master >= 0:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, _window_size(columns, rows))
        if self._recording is not None:
            self._recording.resized(columns, rows)
        self._audience.tell({"type": "size", "cols": columns, "rows": rows})
        for viewer in self._audience:
            viewer.refresh()

    def _close_master(self) -> None:
        if self._master < 0:
            return
        self._readable(False)
        asyncio.get_running_loop().remove_writer(self._master)
        os.close(self._master)
        self._master = -1
        self._keys.clear()
        self._pause(False)


def window(columns: int, rows: int) -> tuple[int, int]:
    """The size within what the terminal takes."""
    return min(max(columns, 1), MAX_COLUMNS), min(max(rows, 1), MAX_ROWS)


def _prepare(slave: int, columns: int, rows: int) -> None:
    fcntl.ioctl(slave, termios.TIOCSWINSZ, _window_size(columns, rows))
    attributes = termios.tcgetattr(slave)
    attributes[0] |= _IUTF8  # So that the line editor erases whole characters.
    termios.tcsetattr(slave, termios.TCSANOW, attributes)


def _window_size(columns: int, rows: int) -> bytes:
    return struct.pack("HHHH", rows, columns, 0, 0)

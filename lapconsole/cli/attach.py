"""This terminal joined to an agent's: keys out, screen in, and the terminal given back as it was (LAP harness 3.1)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import termios
import tty
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from lapconsole.client.errors import TtyClosed
from lapconsole.client.models import safe_line

if TYPE_CHECKING:
    from lapconsole.client.tty import Tty

DETACH = b"\x04"
"""Read alone, Ctrl-D detaches; as part of more it is the agent's, as is every other key."""

DEFAULT_SIZE = (100, 30)
_READ_BYTES = 65_536

# The window's title is kept aside; what is on the screen moves up to the scrollback, for the agent's takes its place.
_KEEP_TITLE, _TITLE_BACK = b"\x1b[22;0t", b"\x1b[23;0t"
# What a program may have switched on, put back: synchronized output, mouse, focus, paste, key protocols, cursor and
# keypad modes, margins, origin, wrap, character sets, reverse video, link, cursor shape, colours.
_RESET = (
    b"\x1b[?2026l\x1b[?9l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1005l\x1b[?1006l\x1b[?1015l\x1b[?1004l\x1b[?2004l\x1b[?2031l"
    b"\x1b[<99u\x1b[=0u\x1b[>4m\x1b[?1l\x1b>\x1b[?69l\x1b[r\x1b[?6l\x1b[?7h\x1b[4l\x1b(B\x1b)B\x0f\x1b[?5l\x1b]8;;\x1b\\"
    b"\x1b[0 q\x1b[0m\x1b[?25h"
)
_LEAVE = b"\x1b[?1049l"
_TO_BOTTOM = b"\x1b[999;1H\r\n"

_ALTERNATE = re.compile(rb"\x1b\[\?(?:\d+;)*(?:1049|1047|47)(?:;\d+)*([hl])")
_NOTICE = re.compile(r"\[bridge\] [^\x1b\r\n]{1,200}")
_KEPT_BYTES = 512


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attachment ended. `notice` is the harness's last word on the agent where its screen has gone with it."""

    closed: TtyClosed
    detached: bool
    silent: bool
    notice: str | None


async def attach(connection: Tty) -> Ending:
    """Join this terminal to `connection` until the far side closes it or the person detaches."""
    with _LocalTerminal() as terminal:
        shown = asyncio.create_task(_show(connection, terminal))
        typed = asyncio.create_task(_type(connection, terminal))
        sized = asyncio.create_task(_follow_size(connection, terminal))
        try:
            await asyncio.wait({shown, typed}, return_when=asyncio.FIRST_COMPLETED)
            detached = not shown.done()
            await connection.aclose()
        finally:
            for task in (shown, typed, sized):
                task.cancel()
            results = await asyncio.gather(shown, typed, sized, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
    closed = connection.closed or TtyClosed(1006, "")
    return Ending(closed, detached, silent=not terminal.shown, notice=terminal.notice)


async def _show(connection: Tty, terminal: _LocalTerminal) -> None:
    """Show what the agent's terminal shows; returns when it is closed, or this terminal has gone."""
    with contextlib.suppress(OSError):
        async for data in connection:
            await asyncio.to_thread(terminal.write, data.encode() if isinstance(data, str) else data)


async def _type(connection: Tty, terminal: _LocalTerminal) -> None:
    """Send what is typed; returns when the person detaches, or the terminal has gone."""
    with contextlib.suppress(TtyClosed):
        while keys := await terminal.read():
            if keys == DETACH:
                return
            await connection.send(keys)
        if terminal.interactive:
            return
    # The end of a pipe is not a detach, and a closed connection is told by what it showed last.
    await asyncio.get_running_loop().create_future()


async def _follow_size(connection: Tty, terminal: _LocalTerminal) -> None:
    with contextlib.suppress(TtyClosed):
        while True:
            terminal.resized.clear()
            await connection.resize(*terminal.size())
            await terminal.resized.wait()


class _LocalTerminal:
    """Standard input and output as a raw terminal, where they are one; given back whole whatever happens."""

    def __init__(self) -> None:
        self._input = sys.stdin.fileno()
        self._output = sys.stdout.fileno()
        self.interactive = os.isatty(self._input)
        self._shows = os.isatty(self._output)
        self._before: list[int | list[bytes | int]] | None = None
        self._alternate = False
        self._kept = b""
        self.shown = False
        self.resized = asyncio.Event()

    def __enter__(self) -> _LocalTerminal:
        sys.stdout.flush()
        loop = asyncio.get_running_loop()
        if self.interactive:
            self._before = termios.tcgetattr(self._input)
            tty.setraw(self._input, termios.TCSADRAIN)
            # After a stop by signal the shell has put its own mode back.
            loop.add_signal_handler(signal.SIGCONT, self._again)
        loop.add_signal_handler(signal.SIGWINCH, self.resized.set)
        if self._shows:
            self._send(_KEEP_TITLE + b"\r\n" * self.size()[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGWINCH, signal.SIGCONT):
            loop.remove_signal_handler(number)
        with contextlib.suppress(OSError):
            if self._shows:
                self._send(_RESET + (_LEAVE if self._alternate else b"") + _TITLE_BACK + _TO_BOTTOM)
        if self._before is not None:
            # FLUSH: answers of the terminal to the agent's questions, still on their way, must not reach the shell.
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._input, termios.TCSAFLUSH, self._before)

    @property
    def notice(self) -> str | None:
        if not self._alternate:
            return None
        found = _NOTICE.findall(self._kept.decode("utf-8", "replace"))
        return safe_line(found[-1]) if found else None

    def size(self) -> tuple[int, int]:
        """Return (columns, rows) of the output; the harness's own first size where it is not a terminal."""
        try:
            return tuple(os.get_terminal_size(self._output))  # type: ignore[return-value]
        except OSError:
            return DEFAULT_SIZE

    def write(self, data: bytes) -> None:
        """Show bytes from the agent. Blocks as long as the terminal takes nothing."""
        # With the end of what came before, for a sequence may be split between two frames.
        recent = self._kept + data
        for switch in _ALTERNATE.finditer(recent):
            self._alternate = switch[1] == b"h"
        self._kept = recent[-_KEPT_BYTES:]
        self.shown = True
        self._send(data)

    async def read(self) -> bytes:
        """Return what was typed since the last call, at least one byte; b"" at the end of input."""
        loop = asyncio.get_running_loop()
        readable = loop.create_future()
        try:
            loop.add_reader(self._input, _settle, readable)
        except OSError:
            # A regular file can always be read, and cannot be waited for.
            return await asyncio.to_thread(_read, self._input)
        try:
            await readable
        finally:
            loop.remove_reader(self._input)
        return _read(self._input)

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._output, view) :]

    def _again(self) -> None:
        tty.setraw(self._input, termios.TCSADRAIN)
        self.resized.set()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _READ_BYTES)
    except OSError:
        return b""

"""Questions asked on the terminal: a line, a secret, a choice from a list."""

from __future__ import annotations

import codecs
import os
import re
import shutil
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lapconsole.cli.report import Failure

_MAXIMUM_LINE = 4096
_ERASE = ("\x7f", "\b")
_KILL_LINE = "\x15"
_END_OF_INPUT = "\x04"
_UP = ("\x1b[A", "\x1bOA", "k", "\x10")
_KEY = re.compile(r"\x1b\[[0-?]*[@-~]|\x1bO.|.", re.DOTALL)
_DOWN = ("\x1b[B", "\x1bOB", "j", "\x0e")


def interactive() -> bool:
    """Tell whether a person can be asked something."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def ask(label: str) -> str:
    """Ask for a line; "" when the input has ended. Without a terminal the line is read from the pipe."""
    print(f"{label} ", end="", flush=True)
    return sys.stdin.readline(_MAXIMUM_LINE).strip()


def ask_secret(label: str) -> str:
    """Ask for a secret, shown as one • a character; "" when the input has ended."""
    if not sys.stdin.isatty():
        return ask(label)
    typed: list[str] = []
    with keys() as read:
        # Asked only now that nothing is echoed any more.
        print(f"{label} ", end="", flush=True)
        for key in read:
            if key in ("\r", "\n", _END_OF_INPUT):
                break
            if key in _ERASE or key == _KILL_LINE:
                erased = len(typed) if key == _KILL_LINE else min(1, len(typed))
                del typed[len(typed) - erased :]
                print("\b \b" * erased, end="", flush=True)
            elif key.isprintable() and len(typed) < _MAXIMUM_LINE:
                typed.append(key)
                print("•", end="", flush=True)
    print(flush=True)
    return "".join(typed).strip()


def choose(title: str, rows: Sequence[str]) -> int | None:
    """Let a person pick one of the rows; returns its index, or None when cancelled. Needs a terminal."""
    selected, drawn = 0, 0
    try:
        with keys() as read:
            print(f"{title}\x1b[?25l", flush=True)
            while True:
                drawn = _draw(rows, selected, drawn)
                key = next(read, _END_OF_INPUT)
                if key in ("\r", "\n"):
                    return selected
                if key in ("q", "\x1b", _END_OF_INPUT):
                    return None
                if key in _UP:
                    selected = (selected - 1) % len(rows)
                elif key in _DOWN:
                    selected = (selected + 1) % len(rows)
    finally:
        sys.stdout.write("\x1b[?25h")
        sys.stdout.flush()


@contextmanager
def keys() -> Iterator[Iterator[str]]:
    """Read keys as they are typed, unechoed: one character or one escape sequence each.

    Ctrl-C still interrupts. The terminal's mode is put back whatever happens.
    """
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor, termios.TCSADRAIN)
    try:
        yield _keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _keys(descriptor: int) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while data := os.read(descriptor, 1024):
        yield from _KEY.findall(decoder.decode(data))


def _draw(rows: Sequence[str], selected: int, drawn: int) -> int:
    """Draw the part of the list around the selection over the `drawn` lines of last time; returns the lines drawn."""
    columns, lines = shutil.get_terminal_size()
    height = min(len(rows), max(1, lines - 2))
    top = min(max(0, selected - height // 2), len(rows) - height)
    out = [f"\x1b[{drawn}A" if drawn else ""]
    for index in range(top, top + height):
        mark, style = ("❯", "\x1b[7m") if index == selected else (" ", "")
        out.append(f"\r\x1b[K{style}{f'{mark} {rows[index]}'[: columns - 1]}\x1b[0m\n")
    sys.stdout.write("".join(out))
    sys.stdout.flush()
    return height


def need_terminal(what: str, instead: str) -> None:
    """Refuse a question where nobody can answer it; raises Failure."""
    if not interactive():
        raise Failure(f"{what} needs a terminal: {instead}", 2)

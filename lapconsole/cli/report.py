"""What lapconsole and lap share: what they print, and how they end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, NoReturn, TypeVar

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_MASK_SHOWS = 4

T = TypeVar("T")


class Failure(Exception):
    """Ends the command: the text (cause, then what to do) goes to stderr, `code` is the exit code."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


def guard(work: Callable[[], int]) -> int:
    """Run a command and return its exit code; whatever a person can cause ends in a message, not a traceback."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        # Neither a ✓ on a Latin-1 terminal nor stray bytes in a pipe may be an error.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    _end_on_signals()
    try:
        code = work()
        sys.stdout.flush()
    except Failure as failure:
        complain(f"✗ {failure}")
        return failure.code
    except KeyboardInterrupt:
        complain("interrupted")
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output has gone (`lap agents | head`). Nothing more may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        if not _is_told(error):
            raise
        complain(f"✗ {error}")
        return 1
    return code


def run_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as asyncio.run does, ended by SIGTERM and SIGHUP as in order as by Ctrl-C."""
    import asyncio

    ended_by: list[int] = []

    async def main() -> T:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(work)

        def end(number: int) -> None:
            ended_by.append(number)
            task.cancel()

        for number in _ENDING:
            loop.add_signal_handler(number, end, number)
        return await task

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        raise SystemExit(128 + ended_by[0] if ended_by else 1) from None
    finally:
        _end_on_signals()  # the loop has put the defaults back


def say(text: str = "") -> None:
    """Print a line of what was asked for."""
    print(text, flush=True)


def complain(text: str) -> None:
    """Print a line about what is wrong or worth knowing."""
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)


def mask(key: str) -> str:
    """Return a key's ends, enough to tell two keys apart; nothing of one too short to spare them."""
    return f"{key[:_MASK_SHOWS]}…{key[-_MASK_SHOWS:]}" if len(key) >= 4 * _MASK_SHOWS else "…"


def duration(seconds: float) -> str:
    """Return a length of time in its two largest units, such as "2 h 5 min"."""
    whole = int(seconds)
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    parts: list[str] = []
    for name, size in units:
        if whole >= size or (parts and whole):
            parts.append(f"{whole // size} {name}")
        whole %= size
    return " ".join(parts[:2]) or "0 s"


def version() -> str:
    """Return the installed version."""
    from importlib.metadata import version as installed

    return installed("lapconsole")


def _is_told(error: Exception) -> bool:
    """Tell whether the error's own text is meant for a person."""
    from lapconsole.client.errors import ClientError
    from lapconsole.connection import ConnectionFailed
    from lapconsole.settings import SettingsError

    return isinstance(error, ClientError | ConnectionFailed | SettingsError)


def _end_on_signals() -> None:
    for number in _ENDING:
        signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    # As an exception it passes every `finally` on its way out, and with it whatever restores the terminal.
    raise SystemExit(128 + number)

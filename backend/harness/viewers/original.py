"""The original terminal protocol: text out, keys in, sizes as JSON among them (LAP harness 1.3-1.6)."""

import asyncio
import contextlib
import json
from typing import Any

from websockets.frames import Opcode

from backend.harness.audience import Ending
from backend.harness.viewers.connection import Viewer, whole_number

NAME = "lap"
"""This protocol has no names; this is the program it was made for."""
MAX_CONTROL = 1_024
"""Longer texts are keys, also those that look like a control message."""
FIRST_REPAINT_SECONDS = 0.1
"""How long its first size is waited for: a repaint before it would have to be repeated."""


class OriginalViewer(Viewer):
    """It drives: typing or a resize takes the terminal over."""

    opcode = Opcode.TEXT

    def begin(self) -> None:
        self.name = NAME
        self._started = False
        self._timer = asyncio.get_running_loop().call_later(FIRST_REPAINT_SECONDS, self._start)
        self._terminal.attach(self, drive=not self._terminal.driven)

    def show(self, data: bytes) -> None:
        if self._started:
            super().show(data)

    def refresh(self, scrollback: int = 0) -> None:
        if self._started:
            super().refresh(scrollback)

    def end(self, ending: Ending | None) -> None:
        if ending is not None and ending.reason is None:
            self._start()
        self._timer.cancel()
        super().end(ending)

    def farewell(self, ending: Ending | None) -> None:
        if ending is not None and ending.reason is not None:
            self.output(f"\r\n\x1b[31m[bridge] {ending.reason}\x1b[0m\r\n".encode())
        elif ending is not None:
            numbers = f"code={ending.exit_code or 0}, signal={ending.signal or 0}"
            self.output(f"\r\n\x1b[2m[bridge] process exited ({numbers})\x1b[0m\r\n".encode())
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def received(self, message: bytes, is_text: bool) -> None:
        control = _control(message) if is_text else None
        if control is None:
            if message:
                self._terminal.drive(self)
                self._start()
                self._terminal.keys(self, message)
        elif control["type"] == "resize":
            with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
                self._resize(whole_number(control["cols"]), whole_number(control["rows"]))

    def _resize(self, columns: int, rows: int) -> None:
        self._terminal.resize(self, columns, rows)
        self._terminal.drive(self)
        if not self._started:
            self._terminal.fit()
            self._start()

    def _start(self) -> None:
        """Shows the present screen, and from now on what follows."""
        self._timer.cancel()
        if not self._started:
            self._started = True
            super().refresh()


def _control(message: bytes) -> dict[str, Any] | None:
    """The control message in a text frame, or None when it is keys."""
    if not message.startswith(b"{") or len(message) > MAX_CONTROL:
        return None
    try:
        value = json.loads(message)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and value.get("type") in ("resize", "ping") else None

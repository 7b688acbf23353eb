"""Terminal protocol 2 (`lap.tty.2`): binary frames are the terminal's bytes, text frames are JSON control messages.

A client begins with `hello` and is told `welcome`, then `repaint` and the repaint itself. It drives or it watches; what
a watcher types is dropped. A hello's mode is `watch`, `drive`, which takes the terminal over from whoever drives it, or
`offer`, which drives if nobody does and watches otherwise; the welcome says which it is. Control messages of unknown
type are ignored on both sides.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Any

from websockets.frames import CloseCode, Opcode
from websockets.typing import Subprotocol

from backend.domain.terminal import WORD_LIMIT
from backend.harness.audience import Ending
from backend.harness.painting import MAX_SCROLLBACK
from backend.harness.terminal import window
from backend.harness.text import fit
from backend.harness.viewers.connection import Viewer, whole_number

SUBPROTOCOL = Subprotocol("lap.tty.2")
MAX_CONTROL = 16_384
MAX_REASON = 100
"""Characters of a close reason: at most 123 bytes fit, and what is beyond is cut off."""
HELLO_SECONDS = 5.0
NAMELESS = "unnamed"


class Protocol2Viewer(Viewer):
    """Nobody until its hello, then one of the audience."""

    opcode = Opcode.BINARY

    def begin(self) -> None:
        self._greeted = False
        self._timer = asyncio.get_running_loop().call_later(HELLO_SECONDS, self._refuse, "no hello came")

    def tell(self, message: Mapping[str, Any]) -> None:
        self.control(message["type"], json.dumps(message, ensure_ascii=False).encode())

    def announce(self, scrollback: int, skipped: int) -> None:
        message = {"type": "repaint", "scrollback": scrollback, "skipped": skipped}
        self._protocol.send_text(json.dumps(message).encode())

    def farewell(self, ending: Ending | None) -> None:
        if ending is None:
            self.close(CloseCode.GOING_AWAY, "the harness stops")
        elif ending.reason is not None:
            reason = ending.reason.encode()[:MAX_REASON].decode(errors="ignore")
            self.close(CloseCode.INTERNAL_ERROR, reason)
        else:
            self.tell({"type": "exit", "code": ending.exit_code, "signal": ending.signal})
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def received(self, message: bytes, is_text: bool) -> None:
        if is_text:
            control = _control(message)
            if self._greeted:
                self._obey(control)
            elif control.get("type") == "hello":
                self._hello(control)
            else:
                self._refuse("the first message must be a hello")
        elif not self._greeted:
            self._refuse("the first message must be a hello")
        elif message:
            self._terminal.keys(self, message)

    def _hello(self, hello: Mapping[str, Any]) -> None:
        self._timer.cancel()
        self._greeted = True
        name = hello.get("name")
        self.name = (fit(name, WORD_LIMIT) if isinstance(name, str) else "") or NAMELESS
        self.size = _size(hello)
        mode = hello.get("mode")
        if self._terminal.attach(self, drive=mode == "drive" or (mode == "offer" and not self._terminal.driven)):
            self.tell({"type": "welcome", "viewer": self.id, **self._terminal.describe(self)})
            self.refresh(_scrollback(hello))

    def _obey(self, control: Mapping[str, Any]) -> None:
        terminal = self._terminal
        match control.get("type"):
            case "resize":
                if (size := _size(control)) is not None:
                    terminal.resize(self, *size)
            case "drive":
                terminal.drive(self)
            case "watch":
                terminal.watch(self)
            case "repaint":
                self.refresh(_scrollback(control))
            case "seen":
                with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
                    self.seen(whole_number(control["bytes"]))

    def _refuse(self, reason: str) -> None:
        """Ends a connection that does not speak this protocol."""
        self._timer.cancel()
        self._ended = True
        self.close(CloseCode.POLICY_VIOLATION, reason)
        self._check_closing(-1)


def _control(message: bytes) -> dict[str, Any]:
    """The control message, empty when it is none."""
    value = None
    if len(message) <= MAX_CONTROL:
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(message)
    return value if isinstance(value, dict) else {}


def _size(control: Mapping[str, Any]) -> tuple[int, int] | None:
    """The window's size within what the terminal takes; None when there is none."""
    try:
        return window(whole_number(control["cols"]), whole_number(control["rows"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _scrollback(control: Mapping[str, Any]) -> int:
    try:
        return min(max(whole_number(control["scrollback"]), 0), MAX_SCROLLBACK)
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0

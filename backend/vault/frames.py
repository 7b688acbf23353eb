"""Texts in the frames of a WebSocket, changed on their way through.

Each frame for itself: what lies across two fragments of a message is not found. Frames with bits of an extension are
none of ours, so nobody may agree on compression; longer ones than are kept pass as they are.
"""

from collections.abc import Callable
from typing import Final

from backend.vault.limits import WHOLE_BODY

Change = Callable[[bytes], bytes]

_CONTINUATION, _TEXT, _BINARY = 0, 1, 2
_EXTENSION_BITS: Final = 0x70
_MASKED: Final = 0x80


class Frames:
    """One direction of a connection."""

    __slots__ = ("_change", "_data", "_passing", "_within_text")

    def __init__(self, change: Change) -> None:
        self._change = change
        self._data = b""
        self._passing = 0
        """Bytes to come that are not looked at."""
        self._within_text = False

    def feed(self, data: bytes) -> bytes:
        """What can be passed on now."""
        self._data += data
        passed = []
        while piece := self._next():
            passed.append(piece)
        return b"".join(passed)

    def _next(self) -> bytes:
        """A frame, or a piece of one; b"" when more must come first."""
        if self._passing:
            return self._take(min(self._passing, len(self._data)), passing=True)
        head = _head(self._data)
        if head is None:
            return b""
        start, length = head
        kind = self._data[0] & 0x0F
        if kind in (_TEXT, _BINARY):
            self._within_text = kind == _TEXT
        text = kind == _TEXT or (kind == _CONTINUATION and self._within_text)
        if not text or self._data[0] & _EXTENSION_BITS or length > WHOLE_BODY:
            self._passing = start + length
            return self._take(min(self._passing, len(self._data)), passing=True)
        if len(self._data) < start + length:
            return b""
        return self._changed(self._take(start + length), start)

    def _take(self, count: int, *, passing: bool = False) -> bytes:
        piece, self._data = self._data[:count], self._data[count:]
        if passing:
            self._passing -= count
        return piece

    def _changed(self, frame: bytes, start: int) -> bytes:
        mask = frame[start - 4 : start] if frame[1] & _MASKED else b""
        text = _masked(frame[start:], mask)
        changed = self._change(text)
        if changed == text:
            return frame
        length, flag = len(changed), frame[1] & _MASKED
        if length < 126:
            size = bytes((flag | length,))
        elif length < 65_536:
            size = bytes((flag | 126,)) + length.to_bytes(2, "big")
        else:
            size = bytes((flag | 127,)) + length.to_bytes(8, "big")
        return frame[:1] + size + mask + _masked(changed, mask)


def _head(data: bytes) -> tuple[int, int] | None:
    """Length of the head that `data` begins with, and of what follows it; None when it is not whole."""
    if len(data) < 2:
        return None
    length, start = data[1] & 0x7F, 2
    if length >= 126:
        start = 4 if length == 126 else 10
        if len(data) < start:
            return None
        length = int.from_bytes(data[2:start], "big")
    start += 4 if data[1] & _MASKED else 0
    return (start, length) if len(data) >= start else None


def _masked(text: bytes, mask: bytes) -> bytes:
    """`text` under a mask, or out of it."""
    if not mask or not text:
        return text
    long = (mask * (len(text) // 4 + 1))[: len(text)]
    return (int.from_bytes(text, "little") ^ int.from_bytes(long, "little")).to_bytes(len(text), "little")

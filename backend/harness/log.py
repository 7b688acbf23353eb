"""The sandbox log: time-stamped lines on standard error, secrets masked, size bounded."""

import os
import re
import time
from pathlib import Path

MAX_BYTES = 5_000_000
KEEP_BYTES = 2_500_000
"""What stays of a log that grew beyond MAX_BYTES."""
MAX_TAIL_BYTES = 1_000_000
MAX_LINE = 4_000
MIN_SECRET = 6
"""Shorter values are not masked: they would blank out ordinary words."""

_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")


class Log:
    """Writes to standard error, which the driver points at `path`, and reads `path` back."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._secrets: list[str] = []
        self._written = MAX_BYTES  # So that the first line looks at the file's real size.

    def hide(self, *secrets: str | None) -> None:
        """Masks these values from now on, here and in `mask`."""
        known = {*self._secrets, *(secret for secret in secrets if secret and len(secret) >= MIN_SECRET)}
        self._secrets = sorted(known, key=len, reverse=True)  # The longest first: one may contain another.

    def mask(self, text: str) -> str:
        """`text` without hidden values, user names and passwords in URLs, and escape sequences."""
        for secret in self._secrets:
            text = text.replace(secret, "********")
        return _CONTROL.sub("", _CREDENTIALS.sub("********@", text))

    def write(self, text: str) -> None:
        """One entry; several lines become several entries."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        lines = (line[:MAX_LINE] for line in self.mask(text).splitlines())
        data = "".join(f"{stamp} {line}\n" for line in lines).encode(errors="replace")
        if self._written + len(data) > MAX_BYTES:
            self._shorten()
        self._written += len(data)
        try:
            os.write(2, data)
        except OSError:
            pass  # A full disk must not end the agent.

    def tail(self, lines: int) -> str:
        """The last `lines` lines, at most MAX_TAIL_BYTES of them; empty without a log file."""
        try:
            data = _end_of(self._path, MAX_TAIL_BYTES)
        except OSError:
            return ""
        return "".join(data.decode(errors="replace").splitlines(keepends=True)[-lines:]) if lines > 0 else ""

    def _shorten(self) -> None:
        """Drops the oldest entries of a log that is too long. Standard error must be in append mode for this."""
        try:
            self._written = self._path.stat().st_size
            if self._written <= MAX_BYTES - KEEP_BYTES:
                return
            kept = _end_of(self._path, KEEP_BYTES)
            kept = kept[kept.find(b"\n") + 1 :]
            with self._path.open("r+b") as file:
                file.write(kept)
                file.truncate()
            self._written = len(kept)
        except OSError:
            self._written = 0


def _end_of(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - size))
        return file.read(size)

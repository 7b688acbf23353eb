"""The end of a sandbox's log as plain text."""

import os
import re
import stat
import time
from datetime import UTC, datetime
from pathlib import Path

MAX_LINES = 10_000
MAX_BYTES = 2_097_152
"""Of the file's end; longer lines than this are cut at their beginning."""

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|\x9c|$)"  # OSC, DCS and other strings, also cut ones
    r"|\x1b[ -/]*[0-~]"  # other sequences
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,6})?(?:Z|[+-]\d\d:?\d\d)?")


def tail(file: Path, lines: int, since_seconds: int | None) -> str:
    """The last lines of a log, without escape sequences and control characters; "" when there is none.

    `since_seconds` drops what is older, by the time a line begins with; a line without one belongs to the line before.
    """
    kept = [_plain(line) for line in _end_of(file, since_seconds).split("\n")]
    if kept and not kept[-1]:
        kept.pop()
    if since_seconds is not None:
        kept = _newer(kept, time.time() - since_seconds)
    return "".join(f"{line}\n" for line in kept[-max(1, min(lines, MAX_LINES)) :])


def ends_with(file: Path, text: str) -> bool:
    """Whether a log's last bytes are this text."""
    wanted = text.encode()
    return _read_end(file, len(wanted), None)[0] == wanted


def _end_of(file: Path, since_seconds: int | None) -> str:
    data, cut = _read_end(file, MAX_BYTES, since_seconds)
    if cut:
        data = data[data.find(b"\n") + 1 :]
    return data.decode(errors="replace")


def _read_end(file: Path, size: int, since_seconds: int | None) -> tuple[bytes, bool]:
    """The last bytes of a regular file, and whether there is more before them; nothing if it was not written since."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b"", False
    try:
        status = os.fstat(descriptor)
        old = since_seconds is not None and status.st_mtime < time.time() - since_seconds
        if old or not stat.S_ISREG(status.st_mode):
            return b"", False
        start = max(0, status.st_size - size)
        return os.pread(descriptor, size, start), start > 0
    finally:
        os.close(descriptor)


def _plain(line: str) -> str:
    """One line as a terminal would leave it: of a progress bar drawn over itself only the last state."""
    shown = _ESCAPES.sub("", line).rstrip("\r").rpartition("\r")[2]
    return _CONTROLS.sub("", shown)


def _newer(lines: list[str], oldest: float) -> list[str]:
    kept: list[str] = []
    recent = True
    for line in lines:
        if (found := _TIME.match(line)) and (moment := _timestamp(found[0])) is not None:
            recent = moment >= oldest
        if recent:
            kept.append(line)
    return kept


def _timestamp(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text.replace(",", "."))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()

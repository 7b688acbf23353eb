"""Log lines: one for each record, as text for people or as JSON for machines; tracebacks are told in full in both."""

import json
import logging
import sys
from typing import Final, Literal

from backend.domain import clock

Format = Literal["text", "json"]

_NOISY: Final = ("uvicorn", "httpx", "httpcore", "alembic", "websockets")
_HARMLESS: Final = "ASGI callable returned without completing handshake"
"""What uvicorn complains of each time a terminal is refused before the upgrade, which is how it is meant to be."""


def to_stderr(form: Format) -> None:
    """Send the log of this process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLine() if form == "json" else TextLine())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(lambda record: not record.getMessage().startswith(_HARMLESS))


class TextLine(logging.Formatter):
    """`<time> <LEVEL> <logger>: <message>`; a message of several lines becomes one, a traceback follows on its own."""

    def format(self, record: logging.LogRecord) -> str:
        message = " | ".join(line.strip() for line in record.getMessage().splitlines() if line.strip())
        line = f"{clock.now()} {record.levelname} {record.name}: {message}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonLine(logging.Formatter):
    """`{"at", "level", "logger", "message"}`, and the traceback as `error`."""

    def format(self, record: logging.LogRecord) -> str:
        told = {"at": clock.now(), "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)

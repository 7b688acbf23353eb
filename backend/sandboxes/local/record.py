"""`.driver/sandbox.json`: what a later platform process must know to find, watch and end a sandbox. Holds no secret."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FOLDER = ".driver"
"""The driver's own folder in a sandbox's directory. What runs behind walls does not see it."""
FILE = "sandbox.json"
MAX_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Record:
    name: str
    pid: int
    """The process the driver started: the namespace's outer process, or the harness itself without a namespace."""
    start_ticks: int
    """Field 22 of /proc/<pid>/stat; with `boot_id` it tells this process from a later one of the same number."""
    boot_id: str
    port: int
    created_at: str
    isolation: dict[str, Any]
    cgroups: list[str]
    """Control group directories made for this sandbox."""


def save(directory: Path, record: Record) -> None:
    """Write the record (0600) so that a reader sees all of it or nothing."""
    temporary = directory / FOLDER / f".{FILE}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(record), file)
    temporary.replace(directory / FOLDER / FILE)


def load(directory: Path) -> Record | None:
    """The record, or None when there is none or it cannot be trusted: without walls it is in reach of the agent."""
    try:
        descriptor = os.open(directory / FOLDER / FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            fields = json.loads(file.read(MAX_BYTES))
        record = Record(**fields)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    numbers = (record.pid, record.start_ticks, record.port)
    texts = (record.name, record.boot_id, record.created_at)
    valid = (
        all(type(number) is int and number > 0 for number in numbers)
        and all(isinstance(text, str) for text in texts)
        and record.pid > 1
        and record.name == directory.name
        and isinstance(record.isolation, dict)
        and isinstance(record.cgroups, list)
        and all(isinstance(path, str) for path in record.cgroups)
    )
    return record if valid else None

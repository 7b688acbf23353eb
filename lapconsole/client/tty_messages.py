"""What a harness says beside the terminal's bytes, in the text frames of the protocol `lap.tty.2`."""

from __future__ import annotations

import json
from dataclasses import dataclass

from lapconsole.client.models import as_count, as_list, as_object, safe_line

#: The WebSocket subprotocol in which binary frames are terminal bytes and text frames are JSON, both ways.
PROTOCOL = "lap.tty.2"
#: What to offer. A server that takes whatever is offered first takes the former, and means the original protocol.
OFFER = ("lap.tty.1", PROTOCOL)

MAX_NAME = 64
MAX_VIEWERS = 100
MAX_COLUMNS, MAX_ROWS = 500, 300
MAX_SCROLLBACK = 10_000

DRIVE, WATCH = "drive", "watch"
#: In a hello: drive if nobody does, else watch. A harness that does not know it takes it for the latter.
OFFER_DRIVE = "offer"


@dataclass(frozen=True, slots=True)
class Viewer:
    """Somebody at a terminal. `mode` is DRIVE or WATCH."""

    id: str
    name: str
    mode: str


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to a hello: who one is, who else is there, and the terminal's size."""

    viewer: str
    mode: str
    columns: int
    rows: int
    viewers: tuple[Viewer, ...]


@dataclass(frozen=True, slots=True)
class Repaint:
    """The next binary frame is the whole present state, with so many lines of scrollback.

    `skipped`: bytes of output that are not sent, because this viewer had fallen behind.
    """

    scrollback: int
    skipped: int


@dataclass(frozen=True, slots=True)
class Size:
    """The terminal has another size; a repaint follows."""

    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class ModeGiven:
    """One drives, or only watches, from now on; by whose doing."""

    mode: str
    by: str


@dataclass(frozen=True, slots=True)
class Viewers:
    """Who is there now."""

    viewers: tuple[Viewer, ...]


@dataclass(frozen=True, slots=True)
class Exit:
    """The agent has ended."""

    code: int | None
    signal: int | None


Message = Welcome | Repaint | Size | ModeGiven | Viewers | Exit


def read(text: str) -> Message | None:
    """A control message; None for one of a kind not known here, or that is none at all."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    data = as_object(value)
    match data.get("type"):
        case "welcome":
            columns, rows = _size(data)
            return Welcome(_name(data.get("viewer")), _mode(data), columns, rows, _viewers(data))
        case "repaint":
            return Repaint(as_count(data.get("scrollback")) or 0, as_count(data.get("skipped")) or 0)
        case "size":
            return Size(*_size(data))
        case "mode":
            return ModeGiven(_mode(data), _name(data.get("by")))
        case "viewers":
            return Viewers(_viewers(data))
        case "exit":
            return Exit(as_count(data.get("code")), as_count(data.get("signal")))
    return None


def _size(data: dict[str, object]) -> tuple[int, int]:
    columns, rows = as_count(data.get("cols")), as_count(data.get("rows"))
    return min(max(columns or 80, 1), MAX_COLUMNS), min(max(rows or 24, 1), MAX_ROWS)


def _mode(data: dict[str, object]) -> str:
    return DRIVE if data.get("mode") == DRIVE else WATCH


def _viewers(data: dict[str, object]) -> tuple[Viewer, ...]:
    people = map(as_object, as_list(data.get("viewers"))[:MAX_VIEWERS])
    return tuple(Viewer(_name(person.get("id")), _name(person.get("name")), _mode(person)) for person in people)


def _name(value: object) -> str:
    return safe_line(value[:MAX_NAME]).strip() if isinstance(value, str) else ""

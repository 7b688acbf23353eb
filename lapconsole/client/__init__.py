"""The typed client of a platform: REST, event feed and terminals. Nothing here imports a network library at import."""

from importlib import import_module
from typing import TYPE_CHECKING

from lapconsole.client.errors import (
    BadInput,
    ClientError,
    PlatformError,
    TtyClosed,
    TtyRefused,
    Unreachable,
    Unsupported,
)
from lapconsole.client.models import Agent, Diagnosis, Event, EventPage, Issue, Page, Session, SessionList
from lapconsole.client.urls import TtyAddress, tty_address

if TYPE_CHECKING:
    from lapconsole.client.feed import events
    from lapconsole.client.platform import Platform
    from lapconsole.client.tty import Tty

__all__ = [
    "Agent",
    "BadInput",
    "ClientError",
    "Diagnosis",
    "Event",
    "EventPage",
    "Issue",
    "Page",
    "Platform",
    "PlatformError",
    "Session",
    "SessionList",
    "Tty",
    "TtyAddress",
    "TtyClosed",
    "TtyRefused",
    "Unreachable",
    "Unsupported",
    "events",
    "tty_address",
]

# What the console's first frame does without is imported when it is asked for.
_LATER = {"Platform": "platform", "Tty": "tty", "events": "feed"}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)

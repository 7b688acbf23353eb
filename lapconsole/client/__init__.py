"""The typed client of a platform: REST, event feed and terminals. Nothing here imports a network library at import."""

from lapconsole.client.errors import (
    BadInput,
    ClientError,
    PlatformError,
    TtyClosed,
    TtyRefused,
    Unreachable,
    Unsupported,
)
from lapconsole.client.feed import events
from lapconsole.client.models import Agent, Diagnosis, Event, EventPage, Issue, Page, Session, SessionList
from lapconsole.client.platform import Platform
from lapconsole.client.tty import Tty
from lapconsole.client.urls import TtyAddress, tty_address

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

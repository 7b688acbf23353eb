"""The live model of a platform, what keeps it up to date, and lists of it for tables."""

from typing import TYPE_CHECKING

from lapconsole.live.model import Changes, Link, LinkState, LiveModel
from lapconsole.live.views import AGENT_SORTS, SESSION_SORTS, View, agents_view, sessions_view

if TYPE_CHECKING:
    from lapconsole.live.sync import Sync, Timing

__all__ = [
    "AGENT_SORTS",
    "SESSION_SORTS",
    "Changes",
    "Link",
    "LinkState",
    "LiveModel",
    "Sync",
    "Timing",
    "View",
    "agents_view",
    "sessions_view",
]


def __getattr__(name: str) -> object:
    # Sync brings the client's transports with it; the console's first frame does without.
    if name not in ("Sync", "Timing"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from lapconsole.live import sync

    return getattr(sync, name)

"""The live model of a platform, what keeps it up to date, and lists of it for tables."""

from lapconsole.live.model import Changes, Link, LinkState, LiveModel
from lapconsole.live.sync import Sync, Timing
from lapconsole.live.views import AGENT_SORTS, SESSION_SORTS, View, agents_view, sessions_view

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

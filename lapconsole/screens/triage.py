"""What needs a look: failed sessions, agents that wait for a person, bring-ups that take too long; kept by id."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime

from lapconsole.client.models import Session
from lapconsole.live.model import LiveModel
from lapconsole.widgets.phase_bar import too_long

_RANKS = {"failed": 0, "creating": 3, "ready": 4, "dead": 5}
_FAR = 1e11  # seconds; more than any time of day, so that a rank always outweighs an age


class Triage:
    """Keeps failed, blocked and creating sessions apart, so that nothing here costs more with many healthy ones."""

    def __init__(self, model: LiveModel, clock: Callable[[], datetime]) -> None:
        self._model = model
        self._clock = clock
        self._creating: set[str] = set()
        self._failed: set[str] = set()
        self._blocked: set[str] = set()
        self.changed(model.sessions.keys())

    def changed(self, ids: Collection[str]) -> None:
        """Take over changed sessions."""
        for session_id in ids:
            session = self._model.sessions.get(session_id)
            status = session.status if session else ""
            (self._creating.add if status == "creating" else self._creating.discard)(session_id)
            (self._failed.add if status == "failed" else self._failed.discard)(session_id)
            (self._blocked.add if session and session.blocked else self._blocked.discard)(session_id)

    @property
    def stuck(self) -> frozenset[str]:
        """Sessions coming up for longer than bring-up should take."""
        now = self._clock()
        return frozenset(id for id in self._creating if too_long(self._model.sessions[id], now))

    @property
    def blocked(self) -> int:
        """How many agents wait for a person."""
        return len(self._blocked)

    def worst(self, limit: int) -> list[Session]:
        """At most `limit` sessions that need a look, worst first, then newest first."""
        wanted = [self._model.sessions[id] for id in (*self._failed, *self._blocked, *self.stuck)]
        return sorted(wanted, key=self.key)[:limit]

    @property
    def count(self) -> int:
        """How many sessions need a look."""
        return len(self._failed) + len(self._blocked) + len(self.stuck)

    def key(self, session: Session) -> float:
        """Sorts faults first: failed, needing you, coming up too long, coming up, ready, dead; each newest first."""
        rank = _RANKS.get(session.status, 5)
        if session.blocked:
            rank = 1
        elif too_long(session, self._clock()):
            rank = 2
        return rank * _FAR - (session.created_at.timestamp() if session.created_at else 0.0)

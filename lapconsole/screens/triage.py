"""What needs a look: agents that wait for a person, sessions in trouble or failed, bring-ups that take too long."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import datetime

from lapconsole.client.models import Session
from lapconsole.live.model import LiveModel
from lapconsole.widgets.phase_bar import too_long

_WAITING, _TROUBLE, _ENDED, _WARNED, _TOO_LONG = 0, 1, 2, 4, 5
_RANKS = {"failed": 3, "creating": 6, "ready": 7, "dead": 8}
_FAR = 1e11  # seconds; more than any time of day, so that a rank always outweighs an age


class Triage:
    """Keeps the ids of such sessions apart, so that nothing here costs more with many healthy ones."""

    def __init__(self, model: LiveModel, clock: Callable[[], datetime]) -> None:
        self._model = model
        self._clock = clock
        self._creating: set[str] = set()
        self._failed: set[str] = set()
        self._needing: set[str] = set()
        self.changed(model.sessions.keys())

    def changed(self, ids: Collection[str]) -> None:
        """Take over changed sessions."""
        for session_id in ids:
            session = self._model.sessions.get(session_id)
            status = session.status if session else ""
            (self._creating.add if status == "creating" else self._creating.discard)(session_id)
            (self._failed.add if status == "failed" else self._failed.discard)(session_id)
            (self._needing.add if session and session.needs_you else self._needing.discard)(session_id)

    @property
    def stuck(self) -> frozenset[str]:
        """Sessions coming up for longer than bring-up should take."""
        now = self._clock()
        late = frozenset(id for id in self._creating if too_long(self._model.sessions[id], now))
        return late - self._needing

    @property
    def needing(self) -> int:
        """How many sessions need a person: their agent waits or has ended, or something is wrong with them."""
        return len(self._needing)

    @property
    def calm(self) -> Mapping[str, int]:
        """Sessions by status, without those that need a person."""
        counts = dict(self._model.counts)
        for session_id in self._needing:
            if session := self._model.sessions.get(session_id):
                counts[session.status] -= 1
        return counts

    def worst(self, limit: int) -> list[Session]:
        """At most `limit` sessions that need a look, worst first, then newest first."""
        wanted = [self._model.sessions[id] for id in (*self._needing, *self._failed, *self.stuck)]
        return sorted(wanted, key=self.key)[:limit]

    @property
    def count(self) -> int:
        """How many sessions need a look."""
        return len(self._failed) + len(self._needing) + len(self.stuck)

    def key(self, session: Session) -> float:
        """Sorts who needs a person first, each newest first.

        Waiting for one, in serious trouble, ended agents, failed, in other trouble, coming up too long, coming up,
        ready, dead.
        """
        rank = _RANKS.get(session.status, 8)
        if session.trouble is not None and session.trouble.severity == "high":
            rank = _TROUBLE
        elif session.calls and session.activity is not None:
            rank = _WAITING if session.activity.state == "waiting_for_input" else _ENDED
        elif session.trouble is not None:
            rank = _WARNED
        elif too_long(session, self._clock()):
            rank = _TOO_LONG
        return rank * _FAR - (session.created_at.timestamp() if session.created_at else 0.0)

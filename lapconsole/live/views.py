"""Sorted and filtered lists of ids for tables, that follow the live model row by row."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Generic, TypeVar, overload

from lapconsole.client.models import Agent, Session
from lapconsole.live.model import LiveModel

E = TypeVar("E")

# A value to sort by; of one type for all entities.
Key = str | float

_STATUS_ORDER = {"failed": 0, "creating": 1, "ready": 2, "dead": 3}

SESSION_SORTS: Mapping[str, Callable[[Session], Key]] = {
    "created": lambda session: session.created_at.timestamp() if session.created_at else 0.0,
    "title": lambda session: session.label.casefold(),
    "agent": lambda session: (session.agent_name or session.agent_id).casefold(),
    "harness": lambda session: session.harness_id,
    "status": lambda session: float(_STATUS_ORDER.get(session.status, 4)),
    "doing": lambda session: _doing(session),
    "seen": lambda session: session.last_seen_at.timestamp() if session.last_seen_at else 0.0,
}

_DOING_ORDER = {"waiting_for_input": 0.0, "idle": 2.0, "working": 3.0}


def _doing(session: Session) -> float:
    """Trouble first, then who waits for a person, whose turn is a person's, who works, then how far it came up."""
    activity = session.activity
    if session.trouble is not None:
        return -1.0
    if session.status != "ready" or activity is None:
        return 100.0 - session.furthest
    return 1.0 if activity.needs_you and activity.state == "idle" else _DOING_ORDER.get(activity.state, 4.0)


AGENT_SORTS: Mapping[str, Callable[[Agent], Key]] = {
    "created": lambda agent: agent.created_at.timestamp() if agent.created_at else 0.0,
    "name": lambda agent: agent.label.casefold(),
    "harness": lambda agent: agent.harness_id,
    "model": lambda agent: (agent.model or "").casefold(),
}


class View(Generic[E], Sequence[str]):
    """Ids of the entities that match a filter, in order.

    A row keeps its place when what it is sorted by changes, so that rows do not move under the cursor; `out_of_order`
    says that some would, and `resort` moves them. New rows come in where they belong.
    """

    def __init__(
        self,
        entities: Mapping[str, E],
        sorts: Mapping[str, Callable[[E], Key]],
        words: Callable[[E], str],
        *,
        sort: str = "created",
        descending: bool = True,
        only: Callable[[E], bool] | None = None,
    ) -> None:
        self._entities: Mapping[str, E] = entities
        self._sorts: Mapping[str, Callable[[E], Key]] = sorts
        self._words: Callable[[E], str] = words
        self._only: Callable[[E], bool] | None = only
        self._sort = sort
        self._descending = descending
        self._filter = ""
        self._wanted: list[str] = []
        self._unwanted: list[str] = []
        self._keys: dict[str, Key] = {}
        self._rows: list[tuple[Key, str]] = []  # always ascending; read from the end when descending
        self.out_of_order = False
        self.resort()

    @property
    def sort(self) -> str:
        """What the rows are sorted by: a key of the sorts."""
        return self._sort

    @property
    def descending(self) -> bool:
        """Whether the largest comes first."""
        return self._descending

    @property
    def filter(self) -> str:
        """The filter as typed."""
        return self._filter

    def sort_by(self, sort: str, *, descending: bool = False) -> None:
        """Sort by another key. An unknown one raises KeyError."""
        self._sorts[sort]
        self._sort, self._descending = sort, descending
        self.resort()

    def set_filter(self, text: str) -> None:
        """Keep rows that hold every word of `text` and none that is written `!word`, whatever the case."""
        self._filter = text
        words = text.casefold().split()
        self._wanted = [word for word in words if not word.startswith("!")]
        self._unwanted = [word[1:] for word in words if word.startswith("!") and len(word) > 1]
        self.resort()

    def resort(self) -> None:
        """Build the list anew from all entities."""
        self._rebuild({})

    def update(self, ids: Collection[str]) -> bool:
        """Take over changed entities; whether rows came or went."""
        if len(ids) > 100 and len(ids) * 4 > len(self._rows):
            before = self._rows
            self._rebuild(self._keys)
            return self._rows != before
        key, moved = self._sorts[self._sort], False
        for id in ids:
            entity = self._entities.get(id)
            if entity is None or not self._matches(entity):
                moved |= self._drop(id)
            elif id not in self._keys:
                self._keys[id] = key(entity)
                insort(self._rows, (self._keys[id], id))
                moved = True
            elif self._keys[id] != key(entity):
                self.out_of_order = True
        return moved

    def index_of(self, id: str) -> int | None:
        """The row an id is in; None when it is not shown."""
        if id not in self._keys:
            return None
        place = bisect_left(self._rows, (self._keys[id], id))
        return len(self._rows) - 1 - place if self._descending else place

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, id: object) -> bool:
        return id in self._keys

    def __iter__(self) -> Iterator[str]:
        rows = reversed(self._rows) if self._descending else iter(self._rows)
        return (id for _, id in rows)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not -len(self._rows) <= index < len(self._rows):
            raise IndexError(index)
        return self._rows[-1 - index if self._descending else index][1]

    def _rebuild(self, kept: Mapping[str, Key]) -> None:
        """Build the list anew; ids in `kept` keep the place they have by it."""
        key = self._sorts[self._sort]
        now = {id: key(entity) for id, entity in self._entities.items() if self._matches(entity)}
        self._keys = {id: kept.get(id, value) for id, value in now.items()}
        self._rows = sorted((value, id) for id, value in self._keys.items())
        self.out_of_order = self._keys != now

    def _drop(self, id: str) -> bool:
        if id not in self._keys:
            return False
        del self._rows[bisect_left(self._rows, (self._keys.pop(id), id))]
        return True

    def _matches(self, entity: E) -> bool:
        if self._only is not None and not self._only(entity):
            return False
        if not self._wanted and not self._unwanted:
            return True
        words = self._words(entity).casefold()
        return all(word in words for word in self._wanted) and not any(word in words for word in self._unwanted)


def sessions_view(
    model: LiveModel,
    only: Callable[[Session], bool] | None = None,
    sorts: Mapping[str, Callable[[Session], Key]] = SESSION_SORTS,
) -> View[Session]:
    """The sessions, newest first. `only` narrows them, such as to one agent's; `sorts` must hold "created"."""
    return View(model.sessions, sorts, _session_words, only=only)


def agents_view(model: LiveModel) -> View[Agent]:
    """The agents, by name."""
    return View(model.agents, AGENT_SORTS, _agent_words, sort="name", descending=False)


def _session_words(session: Session) -> str:
    return " ".join(
        (
            session.label,
            session.id,
            session.agent_name or "",
            session.status,
            session.phase or "",
            session.harness_id,
            session.failure_reason or "",
            "needs you" if session.needs_you else "",
            *(word for issue in session.issues for word in (issue.code.replace("_", " "), issue.message)),
            *_activity_words(session),
        )
    )


def _activity_words(session: Session) -> tuple[str, ...]:
    activity = session.activity
    if session.status != "ready" or activity is None:
        return ()
    return activity.state, activity.reason, activity.message


def _agent_words(agent: Agent) -> str:
    return " ".join((agent.name or "", agent.id, agent.harness_id, agent.model or "", agent.repo_url or ""))

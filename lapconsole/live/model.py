"""The live model: every agent and session by id, kept up to date by events or polls, and who wants to know of it.

Whatever happens to the link, the last known data stays. An update costs the same however many rows there are.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType

from lapconsole.client.models import Agent, Event, Session

log = logging.getLogger(__name__)

_NO_COUNTS: dict[str, int] = {}
_NO_PHASES: dict[str, datetime] = {}


class LinkState(StrEnum):
    """How the data shown relates to the platform."""

    CONNECTING = "connecting"  # nothing has come yet
    LIVE = "live"  # changes arrive as they happen
    POLLING = "polling"  # changes are asked for every few seconds: the platform has no event feed
    STALE = "stale"  # the link is broken: the data is as old as `since`


@dataclass(frozen=True, slots=True)
class Link:
    """The state of the link, for the status line.

    `since` is when this state began: for STALE, the time of the last good data. `reason` is one line, why the link is
    broken. `attempt` counts failures in a row (only a link that held for a while starts over), `next_retry` is when the
    next attempt begins, None while one is under way.
    `key_refused`: the platform answers, but wants another key.
    """

    state: LinkState
    since: datetime
    reason: str | None = None
    attempt: int = 0
    next_retry: datetime | None = None
    key_refused: bool = False

    @property
    def current(self) -> bool:
        """Whether the data shown is that of now."""
        return self.state in (LinkState.LIVE, LinkState.POLLING)


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed since observers were last told: ids of agents and sessions (also of removed ones), and the link."""

    agents: frozenset[str]
    sessions: frozenset[str]
    link: bool


Observer = Callable[[Changes], None]
Listener = Callable[[Event], None]


class LiveModel:
    """All that is known of a platform.

    `agents` and `sessions` are read-only views that are always up to date. Observers are called with batched changes,
    at most once in a turn of the event loop. Sessions here have no `tty_url` and no `tty_token`: events do not carry
    them, and they may be outdated by the time someone attaches. Ask the platform for the one session then.
    """

    def __init__(self) -> None:
        self._agents: dict[str, Agent] = {}
        self._sessions: dict[str, Session] = {}
        self.agents: Mapping[str, Agent] = MappingProxyType(self._agents)
        self.sessions: Mapping[str, Session] = MappingProxyType(self._sessions)
        self.link = Link(LinkState.CONNECTING, datetime.now(UTC))
        self._counts: Counter[str] = Counter()
        self._of_agent: dict[str, dict[str, None]] = {}
        self._counts_of_agent: dict[str, Counter[str]] = {}
        self._phases: dict[str, dict[str, datetime]] = {}
        self._clock = 0
        self._versions: dict[str, int] = {}
        self._observers: list[Observer] = []
        self._listeners: list[Listener] = []
        self._changed_agents: set[str] = set()
        self._changed_sessions: set[str] = set()
        self._changed_link = False
        self._scheduled = False

    # Reading

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of sessions by status; statuses without any are absent (`.get(status, 0)`)."""
        return MappingProxyType(self._counts)

    def agent_counts(self, agent_id: str) -> Mapping[str, int]:
        """Number of an agent's sessions by status."""
        return MappingProxyType(self._counts_of_agent.get(agent_id, _NO_COUNTS))

    def sessions_of(self, agent_id: str) -> tuple[str, ...]:
        """Ids of an agent's sessions."""
        return tuple(self._of_agent.get(agent_id, ()))

    def version(self, entity_id: str) -> int:
        """A number that grows with each change of an agent or session, for caches of drawn rows; 0 when unknown."""
        return self._versions.get(entity_id, 0)

    def phases_seen(self, session_id: str) -> Mapping[str, datetime]:
        """When each phase of the present bring-up was first seen, in that order.

        Event times where there is a feed, the console's own when polled. Empty for a session that was already up.
        """
        return MappingProxyType(self._phases.get(session_id, _NO_PHASES))

    # Observers

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Have `observer` called after changes. Call what is returned to end it; doing so twice is harmless."""
        self._observers.append(observer)

        def stop() -> None:
            if observer in self._observers:
                self._observers.remove(observer)

        return stop

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Have `listener` called with each event at once, such as those of memories, which are not kept here.

        Call what is returned to end it; doing so twice is harmless.
        """
        self._listeners.append(listener)

        def stop() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return stop

    def flush(self) -> None:
        """Tell observers of pending changes now."""
        self._scheduled = False
        changes = Changes(frozenset(self._changed_agents), frozenset(self._changed_sessions), self._changed_link)
        if not (changes.agents or changes.sessions or changes.link):
            return
        self._changed_agents.clear()
        self._changed_sessions.clear()
        self._changed_link = False
        for observer in tuple(self._observers):
            try:
                observer(changes)
            except Exception:
                log.exception("an observer of the live model failed")

    # Writing

    def apply(self, event: Event) -> None:
        """Take over what an event says. Types it does not know are taken by the entity they carry."""
        if event.type == "agent.deleted":
            self._remove_agent(event.agent_id or (event.agent.id if event.agent else ""))
        elif event.type == "session.deleted":
            self._remove_session(event.session_id or (event.session.id if event.session else ""))
        else:
            if event.agent is not None:
                self._put_agent(event.agent)
            if event.session is not None:
                self._put_session(event.session, event.at)
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                log.exception("a listener of the live model failed")

    def remove_agents(self, ids: Iterable[str]) -> None:
        """Take over that these agents are gone, and their sessions with them. Unknown ids are fine."""
        for agent_id in ids:
            self._remove_agent(agent_id)

    def remove_sessions(self, ids: Iterable[str]) -> None:
        """Take over that these sessions are gone. Unknown ids are fine."""
        for session_id in ids:
            self._remove_session(session_id)

    def update_sessions(self, sessions: Iterable[Session]) -> None:
        """Take over sessions from a list that need not be complete, such as the answer of a change made here."""
        for session in sessions:
            self._put_session(session)

    def update_agents(self, agents: Iterable[Agent]) -> None:
        """Take over agents, such as the answer of a change made here, before its event comes."""
        for agent in agents:
            self._put_agent(agent)

    def set_link(self, link: Link) -> None:
        """Take over the state of the link."""
        if link != self.link:
            self.link = link
            self._changed_link = True
            self._schedule()

    def _put_agent(self, agent: Agent) -> None:
        if agent.id and self._agents.get(agent.id) != agent:
            self._agents[agent.id] = agent
            self._touch_agent(agent.id)

    def _put_session(self, session: Session, at: datetime | None = None) -> None:
        previous = self._sessions.get(session.id)
        if session.tty_token or session.tty_url:
            session = replace(session, tty_token=None, tty_url=None)
        if previous is not None:
            session = session.following(previous)
        if not session.id or session == previous:
            return
        self._note_phase(session, previous, at)
        self._sessions[session.id] = session
        if previous is None or (previous.status, previous.agent_id) != (session.status, session.agent_id):
            if previous is not None:
                self._uncount(previous)
            self._count(session)
        self._touch_session(session.id)

    def _note_phase(self, session: Session, previous: Session | None, at: datetime | None) -> None:
        if previous is not None and not session.same_bring_up(previous):
            self._phases.pop(session.id, None)
        if session.phase and (session.status == "creating" or session.id in self._phases):
            self._phases.setdefault(session.id, {}).setdefault(session.phase, at or datetime.now(UTC))

    def _remove_agent(self, agent_id: str) -> None:
        for session_id in self.sessions_of(agent_id):
            self._remove_session(session_id)
        if self._agents.pop(agent_id, None) is not None:
            self._touch_agent(agent_id)
            self._versions.pop(agent_id, None)

    def _remove_session(self, session_id: str) -> None:
        session = self._sessions.pop(session_id, None)
        if session is not None:
            self._uncount(session)
            self._phases.pop(session_id, None)
            self._touch_session(session_id)
            self._versions.pop(session_id, None)

    def _count(self, session: Session) -> None:
        self._counts[session.status] += 1
        self._of_agent.setdefault(session.agent_id, {})[session.id] = None
        self._counts_of_agent.setdefault(session.agent_id, Counter())[session.status] += 1
        self._touch_agent(session.agent_id)

    def _uncount(self, session: Session) -> None:
        _take_one(self._counts, session.status)
        of_agent, counts = self._of_agent[session.agent_id], self._counts_of_agent[session.agent_id]
        del of_agent[session.id]
        _take_one(counts, session.status)
        if not of_agent:
            del self._of_agent[session.agent_id], self._counts_of_agent[session.agent_id]
        self._touch_agent(session.agent_id)

    def _touch_agent(self, agent_id: str) -> None:
        self._changed_agents.add(agent_id)
        self._touch(agent_id)

    def _touch_session(self, session_id: str) -> None:
        self._changed_sessions.add(session_id)
        self._touch(session_id)

    def _touch(self, entity_id: str) -> None:
        # One clock for all, so that an entity that comes back is never taken for its former self.
        self._clock += 1
        self._versions[entity_id] = self._clock
        self._schedule()

    def _schedule(self) -> None:
        if self._scheduled:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # without a loop the owner calls flush
        self._scheduled = True
        loop.call_soon(self.flush)


def _take_one(counts: Counter[str], status: str) -> None:
    counts[status] -= 1
    if counts[status] <= 0:
        del counts[status]

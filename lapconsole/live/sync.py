"""Keeps a live model in step with a platform, for ever: by its event feed, or by polling where there is none."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from lapconsole.client.errors import NOT_LAP, ClientError, PlatformError, Unreachable, Unsupported
from lapconsole.client.feed import IDLE_SECONDS, events
from lapconsole.client.models import Agent, Event, Session
from lapconsole.client.platform import PAGE, Platform
from lapconsole.live.model import Link, LinkState, LiveModel

log = logging.getLogger(__name__)

# How many agents are asked for their sessions one by one, where the platform lists only the newest sessions.
_AGENTS_ASKED = 50


@dataclass(frozen=True, slots=True)
class Timing:
    """All waits, in seconds."""

    first_retry: float = 0.5
    last_retry: float = 15.0
    refused_retry: float = 30.0  # a refused key rarely gets better
    steady: float = 15.0  # a link that held this long starts over with the first retry
    idle: float = IDLE_SECONDS
    poll_sessions: float = 2.0
    poll_all: float = 10.0
    look_for_feed: float = 60.0  # how long a platform without a feed is polled before it is asked for one again


class _Reset(ClientError):
    """The feed cannot go on where it was; `event` says from where it does."""

    def __init__(self, event: Event) -> None:
        super().__init__("events were missed that the platform no longer keeps; listing again")
        self.event = event


class Sync:
    """Keeps `model` in step with `platform`. Run `run()` in a task; cancel it to stop."""

    def __init__(self, platform: Platform, model: LiveModel, timing: Timing | None = None) -> None:
        self._platform = platform
        self._model = model
        self._timing = timing or Timing()
        self._position: int | None = None  # of the last event in the model; None when it must list first
        self._held: list[Event] | None = None  # events that came while listing; None when not listing
        self._attempt = 0
        self._wake = asyncio.Event()

    def retry_now(self) -> None:
        """End the wait for the next attempt."""
        self._wake.set()

    async def run(self) -> None:
        """Connect, follow, and connect again after every failure. Ends only by being cancelled."""
        while True:
            try:
                await self._stay_connected()
            except ClientError as error:
                await self._wait_to_retry(error)
            except Exception as error:  # a fault of ours must not freeze what an engineer is looking at
                log.exception("following the platform failed")
                await self._wait_to_retry(ClientError(f"internal error: {type(error).__name__}"))

    async def _stay_connected(self) -> None:
        """Follow the feed, or poll for a while where it cannot be had."""
        try:
            await self._follow()
        except Unsupported:
            await self._poll(self._timing.look_for_feed)
        except PlatformError as error:
            if error.key_refused:
                raise
            # A platform without a feed may answer the unknown path with any error (LAP REST 0.1, 52).
            await self._poll(self._timing.last_retry)

    # With a feed

    async def _follow(self) -> NoReturn:
        async with aclosing(events(self._platform, self._position, idle_seconds=self._timing.idle)) as feed:
            first = await anext(feed, None)
            if first is None:
                raise self._lost("the platform closed the event feed")
            if self._resumes_at(first):
                self._held = None
                self._now(LinkState.LIVE)
                try:
                    await self._read(feed)
                except _Reset as reset:
                    first = reset.event
                    self._model.set_link(Link(LinkState.STALE, datetime.now(UTC), str(reset)))
            self._position = None
            self._held = [] if first.type.startswith("feed.") else [first]
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._read(feed))
                    await self._list_all()
                    self._position = first.seq
                    held, self._held = self._held, None
                    for event in held:
                        self._take(event)
                    self._now(LinkState.LIVE)
            except* Exception as failures:
                failed = failures.exceptions[0]
            raise failed

    def _resumes_at(self, first: Event) -> bool:
        """Whether the feed goes on where the model is, and nothing needs to be listed."""
        if self._position is None or first.type != "feed.opened":
            return False
        # A platform that has not come so far yet is not the one it was: its data was replaced.
        return first.seq is None or first.seq >= self._position

    async def _read(self, feed: AsyncIterator[Event]) -> NoReturn:
        async for event in feed:
            if event.type == "feed.reset":
                self._position = None
                raise _Reset(event)
            if self._held is None:
                self._take(event)
            else:
                self._held.append(event)
        raise self._lost("the platform closed the event feed")

    def _take(self, event: Event) -> None:
        if event.seq is not None:
            if self._position is not None and event.seq <= self._position:
                return
            self._position = event.seq
        self._model.apply(event)

    # Without

    async def _poll(self, seconds: float) -> None:
        """Ask for changes again and again, for about `seconds`."""
        self._position = None
        loop = asyncio.get_running_loop()
        end, all_due = loop.time() + seconds, 0.0
        while loop.time() < end:
            if loop.time() >= all_due:
                await self._list_all()
                all_due = loop.time() + self._timing.poll_all
            else:
                known = set(self._model.sessions)
                newest = await self._platform.sessions(limit=PAGE)
                await self._take_sessions(newest, known if len(newest) < PAGE else set())
            self._now(LinkState.POLLING)
            await asyncio.sleep(self._timing.poll_sessions)

    async def _list_all(self) -> None:
        """List agents and sessions into the model."""
        known_agents = set(self._model.agents)
        agents = await self._platform.all_agents()
        self._model.update_agents(agents)
        self._model.remove_agents(known_agents - {agent.id for agent in agents})
        known = set(self._model.sessions)
        listing = await self._platform.all_sessions()
        sessions = listing.rows
        if not listing.complete:
            sessions = (*sessions, *await self._older(agents, {session.id for session in sessions}))
        await self._take_sessions(sessions, known if listing.complete else set())

    async def _take_sessions(self, sessions: Sequence[Session], known: set[str]) -> None:
        """Take over listed sessions. Those `known` before that the list lacks are gone; what came meanwhile is not."""
        for start in range(0, len(sessions), PAGE):
            self._model.update_sessions(sessions[start : start + PAGE])
            await asyncio.sleep(0)  # a long list must not hold up keys and drawing
        self._model.remove_sessions(known - {session.id for session in sessions})

    async def _older(self, agents: Sequence[Agent], listed: set[str]) -> list[Session]:
        """Sessions of agents that have active ones, which may be older than the platform's list of the newest."""
        active = {agent.id for agent in agents if agent.has_active_session}
        active |= {session.agent_id for session in self._model.sessions.values() if session.active}
        found = []
        for agent_id in sorted(active)[:_AGENTS_ASKED]:
            rows = await self._platform.sessions(agent_id=agent_id)
            found += [session for session in rows if session.id not in listed]
        return found

    # The link

    def _now(self, state: LinkState) -> None:
        if self._model.link.state != state:
            self._model.set_link(Link(state, datetime.now(UTC)))

    def _lost(self, cause: str) -> Unreachable:
        return Unreachable(self._platform.base_url, cause)

    async def _wait_to_retry(self, broken: ClientError) -> None:
        """Say that the link is broken and since when, and wait: longer after each failure, or until told to go on."""
        now, link, timing = datetime.now(UTC), self._model.link, self._timing
        if link.current:
            if (now - link.since).total_seconds() >= timing.steady:
                self._attempt = 0
            silent = timedelta(seconds=broken.silent_seconds if isinstance(broken, Unreachable) else 0)
            link = Link(LinkState.STALE, now - silent)
        refused = isinstance(broken, PlatformError) and broken.key_refused
        delay = timing.refused_retry if refused else min(timing.last_retry, timing.first_retry * 2**self._attempt)
        delay *= random.uniform(0.8, 1.2)  # so that many consoles do not come back at the same moment
        self._attempt = min(self._attempt + 1, 30)
        self._model.set_link(
            replace(
                link,
                reason=_reason(broken),
                attempt=self._attempt,
                next_retry=now + timedelta(seconds=delay),
                key_refused=refused,
            )
        )
        self._wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._wake.wait()
        self._model.set_link(replace(self._model.link, next_retry=None))


def _reason(broken: ClientError) -> str:
    if isinstance(broken, Unreachable):
        return broken.cause
    if isinstance(broken, PlatformError):
        if broken.key_refused:
            return f"the platform refused the key ({broken.status_line})"
        if broken.code == NOT_LAP:
            return f"no LAP platform answers there: {broken.message}"
        return f"the platform answers {broken.status_line}: {broken.message}"
    return str(broken)

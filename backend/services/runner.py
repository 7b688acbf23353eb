"""One owned task per live session: it brings the session up, then watches it until it ends."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from backend.domain import clock, sessions
from backend.sandboxes.contract import SandboxDriver, SandboxError
from backend.services.bringup import REASON_LIMIT, BringUp, BringUpFailed, Launch, Seal, Superseded, unsealed
from backend.services.harness_client import HarnessClient, HarnessUnreachable
from backend.services.harness_notes import HarnessNotes
from backend.services.last_look import last_look
from backend.services.recordings import Recordings
from backend.store import memories
from backend.store import sessions as session_store
from backend.store.database import Database, Transaction

logger = logging.getLogger(__name__)

RECONNECT_SECONDS = 1.0

NOBODY_THERE: Final[Mapping[str, Any]] = {"activity": None, "viewers": 0, "attached": []}
"""What the row of a session without a sandbox says of its agent and viewers."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A ready session."""

    session_id: str
    sandbox_name: str
    url: str
    token: str = field(repr=False)
    recording: bool
    creating_since: str
    """Which of its starts this is."""


class AgentLost(Exception):
    """A ready session's harness knows nothing of it: it is another, in the place of the one that was set up."""

    def __str__(self) -> str:
        return "its harness was started anew, without the agent"


class Runner:
    """Starts, finds and stops the tasks of live sessions. Only it moves a session on from `creating` by itself."""

    def __init__(
        self,
        database: Database,
        driver: SandboxDriver,
        harness: HarnessClient,
        recordings: Recordings,
        phase_timeouts: Mapping[str, float],
        creating_timeout: float,
        holder: str,
        seal: Seal = unsealed,
    ) -> None:
        """`holder` is this process: it writes nothing of a session that another one has taken over."""
        self._holder = holder
        self._database = database
        self._driver = driver
        self._harness = harness
        self._recordings = recordings
        self._phase_timeouts = phase_timeouts
        self._creating_timeout = creating_timeout
        self._seal = seal
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._follows: dict[str, asyncio.Task[None] | None] = {}
        """What follows a ready session's harness at present, by sandbox."""
        self._moved_to: dict[str, str] = {}
        driver.on_moved = self._moved
        self.unreachable: dict[str, str] = {}
        """Why the harness of a ready session cannot be reached, by session."""
        self.on_ready: Callable[[str], None] = lambda _session_id: None
        """Called with the id of each session that has just become ready."""

    def bring_up(self, launch: Launch, creating_since: str) -> asyncio.Future[None]:
        """Start a session's task. The result is done once the session is ready, failed, or no longer ours."""
        settled = asyncio.get_running_loop().create_future()
        self._own(launch.session_id, self._run(launch, creating_since, settled))
        return settled

    def watch(self, session: Watched) -> None:
        """Start the task of a session that is ready already."""
        self._own(session.session_id, self._watch(session))

    def runs(self, session_id: str) -> bool:
        """Whether the session has a task."""
        return session_id in self._tasks

    async def stop(self, session_id: str) -> None:
        """End the session's task, whatever it is doing. The sandbox stays as it is."""
        task = self._tasks.pop(session_id, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def discard(self, name: str, recorded: str | None = None) -> None:
        """Remove a sandbox that no session needs; what cannot be removed is logged.

        `recorded` is the id of the session whose recording it holds, which is kept.
        """
        rescue = self._recordings.rescue(recorded) if recorded else None
        try:
            await self._driver.delete(name, rescue)
        except SandboxError as error:
            logger.error("sandbox %s: %s", name, error)
        if recorded:
            async with self._database.read() as tx:
                exists = await session_store.get(tx, recorded) is not None
            if not exists:  # deleted with its agent meanwhile
                await self._recordings.remove([recorded])
            await self._recordings.trim()

    async def last_look(self, name: str, end: Mapping[str, Any]) -> Mapping[str, Any]:
        """What to keep of a sandbox that goes, for the row that gets `end`."""
        return await last_look(self._driver, name, end)

    async def aclose(self) -> None:
        """End all tasks. Sandboxes live on."""
        for session_id in tuple(self._tasks):
            await self.stop(session_id)

    def _own(self, session_id: str, work: Any) -> None:
        task = asyncio.create_task(work, name=f"session {session_id}")
        self._tasks[session_id] = task
        task.add_done_callback(lambda done: self._ended(session_id, done))

    def _ended(self, session_id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(session_id) is task:
            del self._tasks[session_id]
            self.unreachable.pop(session_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("session %s: its task failed", session_id, exc_info=error)

    async def _run(self, launch: Launch, creating_since: str, settled: asyncio.Future[None]) -> None:
        mine = self._mine(sessions.CREATING, creating_since)

        async def write(values: Mapping[str, Any], event: str) -> bool:
            async def change(tx: Transaction) -> bool:
                row = await session_store.transition(
                    tx, launch.session_id, expected=mine, values=values, event_type=event
                )
                if row is not None and values.get("status") == sessions.READY:
                    await memories.note_use(tx, launch.memory_ids, clock.now())
                return row is not None

            return await self._database.write(change)

        try:
            try:
                bring_up = BringUp(
                    *(launch, self._driver, self._harness, write),
                    *(self._phase_timeouts, self._creating_timeout, self._seal),
                )
                sandbox = await bring_up.run()
            except Superseded:
                await self._clear_up(launch)
                return
            except BringUpFailed as failed:
                await self._fail(launch, write, str(failed))
                return
            except Exception:
                logger.exception("session %s: bring-up broke", launch.session_id)
                await self._fail(launch, write, "the platform failed to bring the session up; its log says why")
                return
            self.on_ready(launch.session_id)
        finally:
            if not settled.done():
                settled.set_result(None)
        await self._watch(
            Watched(launch.session_id, sandbox.name, sandbox.url, launch.token, launch.recording, creating_since)
        )

    def _mine(self, status: str, creating_since: str) -> Mapping[str, Any]:
        """What to expect of the row of a session that this process runs."""
        return {"status": status, "creating_since": creating_since, "owner": self._holder}

    async def _fail(self, launch: Launch, write: Any, reason: str) -> None:
        logger.warning("session %s failed: %s", launch.session_id, reason)
        end = {"status": sessions.FAILED, "failure_reason": reason[:REASON_LIMIT], "stopped_at": clock.now()}
        values = {**end, **await self.last_look(launch.sandbox_name, end)}
        if await write(values, "session.failed"):
            await self.discard(launch.sandbox_name, launch.session_id if launch.recording else None)
        else:
            await self._clear_up(launch)

    async def _clear_up(self, launch: Launch) -> None:
        """Remove what was made for a session that somebody else has ended or started anew, maybe before it was made."""
        async with self._database.read() as tx:
            row = await session_store.get(tx, launch.session_id)
        if row is None or row["status"] in sessions.ENDED or row["task_arn"] != launch.sandbox_name:
            await self.discard(launch.sandbox_name)

    async def _watch(self, session: Watched) -> None:
        """Follow a ready session until its sandbox is gone."""
        name = session.sandbox_name
        gone = asyncio.create_task(self._driver.wait_gone(name))
        self._follows[name] = None
        try:
            self._driver.follow_address(name, session.url)
            while not gone.done():
                if url := self._moved_to.pop(name, None):
                    session = replace(session, url=url)
                    await self._change_ready(session, {"sandbox_url": url}, "session.updated")
                follow = self._follows[name] = asyncio.create_task(self._follow(session))
                try:
                    await asyncio.wait({follow, gone}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    self._follows[name] = None
                    follow.cancel()
                    [ended] = await asyncio.gather(follow, return_exceptions=True)
                if isinstance(ended, AgentLost):
                    await self._died(session, str(ended))
                    return
                if not gone.done() and name not in self._moved_to:
                    await asyncio.wait({gone}, timeout=RECONNECT_SECONDS)
            await self._died(session, gone.result())
        finally:
            self._follows.pop(name)
            self._moved_to.pop(name, None)
            gone.cancel()

    def _moved(self, name: str, url: str) -> None:
        """Follow a sandbox at its new address."""
        if name in self._follows:
            logger.info("sandbox %s is reached at %s from now on", name, url)
            self._moved_to[name] = url
            if follow := self._follows[name]:
                follow.cancel()

    async def _follow(self, session: Watched) -> None:
        """Carry what the harness tells into the session's row until the link breaks. Raises AgentLost."""

        async def write(values: Mapping[str, Any]) -> None:
            await self._change_ready(session, values, "session.updated")

        async def read() -> None:
            async with self._harness.watch(session.url, session.token) as states:
                async for state in states:
                    self.unreachable.pop(session.session_id, None)
                    if state.setup == "waiting":
                        raise AgentLost
                    notes.take(state)

        async with self._database.read() as tx:
            row = await session_store.get(tx, session.session_id)
        if row is None:
            return
        notes = HarnessNotes(row, write)
        both = [asyncio.create_task(read()), asyncio.create_task(notes.write_for_ever())]
        try:
            done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except HarnessUnreachable as error:
            self.unreachable[session.session_id] = str(error)
            logger.warning("session %s: %s", session.session_id, error)
        except AgentLost:
            raise
        except Exception:
            logger.exception("session %s: what its harness tells could not be noted", session.session_id)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    async def _died(self, session: Watched, why: str) -> None:
        end = {"status": sessions.DEAD, "failure_reason": sessions.disappeared(why), "stopped_at": clock.now()}
        values = {**end, **NOBODY_THERE, **await self.last_look(session.sandbox_name, end)}
        if await self._change_ready(session, values, "session.dead"):
            await self.discard(session.sandbox_name, session.session_id if session.recording else None)

    async def _change_ready(self, session: Watched, values: Mapping[str, Any], event: str) -> bool:
        mine = self._mine(sessions.READY, session.creating_since)
        async with self._database.begin() as tx:
            row = await session_store.transition(tx, session.session_id, expected=mine, values=values, event_type=event)
        return row is not None

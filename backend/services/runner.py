"""One owned task per live session: it brings the session up, then watches it until it ends."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from backend.domain import clock, sessions
from backend.sandboxes.contract import SandboxDriver, SandboxError
from backend.services.bringup import REASON_LIMIT, BringUp, BringUpFailed, Launch, Superseded
from backend.services.harness_client import HarnessClient, HarnessUnreachable
from backend.store import sessions as session_store
from backend.store.database import Database

logger = logging.getLogger(__name__)

RECONNECT_SECONDS = 1.0
KEPT_LOG_LINES = 200
KEPT_LOG_CHARACTERS = 64_000


class Runner:
    """Starts, finds and stops the tasks of live sessions. Only it moves a session on from `creating` by itself."""

    def __init__(
        self,
        database: Database,
        driver: SandboxDriver,
        harness: HarnessClient,
        phase_timeouts: Mapping[str, float],
        creating_timeout: float,
    ) -> None:
        self._database = database
        self._driver = driver
        self._harness = harness
        self._phase_timeouts = phase_timeouts
        self._creating_timeout = creating_timeout
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def bring_up(self, launch: Launch, creating_since: str) -> asyncio.Future[None]:
        """Start a session's task. The result is done once the session is ready, failed, or no longer ours."""
        settled = asyncio.get_running_loop().create_future()
        self._own(launch.session_id, self._run(launch, creating_since, settled))
        return settled

    def watch(self, session_id: str, name: str, url: str, token: str, viewers: int) -> None:
        """Start the task of a session that is ready already; `viewers` is what its row says."""
        self._own(session_id, self._watch(session_id, name, url, token, viewers))

    async def stop(self, session_id: str) -> None:
        """End the session's task, whatever it is doing. The sandbox stays as it is."""
        task = self._tasks.pop(session_id, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def discard(self, name: str) -> None:
        """Remove a sandbox that no session needs; what cannot be removed is logged."""
        try:
            await self._driver.delete(name)
        except SandboxError as error:
            logger.error("sandbox %s: %s", name, error)

    async def last_log(self, name: str) -> str | None:
        """The end of the sandbox's log, to keep when the sandbox goes."""
        return (await self._driver.logs(name, KEPT_LOG_LINES))[-KEPT_LOG_CHARACTERS:] or None

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
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("session %s: its task failed", session_id, exc_info=error)

    async def _run(self, launch: Launch, creating_since: str, settled: asyncio.Future[None]) -> None:
        mine = {"status": sessions.CREATING, "creating_since": creating_since}

        async def write(values: Mapping[str, Any], event: str) -> bool:
            async with self._database.begin() as tx:
                row = await session_store.transition(
                    tx, launch.session_id, expected=mine, values=values, event_type=event
                )
            return row is not None

        try:
            try:
                bring_up = BringUp(
                    launch, self._driver, self._harness, write, self._phase_timeouts, self._creating_timeout
                )
                sandbox = await bring_up.run()
            except Superseded:
                return
            except BringUpFailed as failed:
                await self._fail(launch, write, str(failed))
                return
            except Exception:
                logger.exception("session %s: bring-up broke", launch.session_id)
                await self._fail(launch, write, "the platform failed to bring the session up; its log says why")
                return
        finally:
            if not settled.done():
                settled.set_result(None)
        await self._watch(launch.session_id, sandbox.name, sandbox.url, launch.token, viewers=0)

    async def _fail(self, launch: Launch, write: Any, reason: str) -> None:
        logger.warning("session %s failed: %s", launch.session_id, reason)
        values = {
            "status": sessions.FAILED,
            "failure_reason": reason[:REASON_LIMIT],
            "stopped_at": clock.now(),
            "log_tail": await self.last_log(launch.sandbox_name),
        }
        if await write(values, "session.failed"):
            await self.discard(launch.sandbox_name)

    async def _watch(self, session_id: str, name: str, url: str, token: str, viewers: int) -> None:
        """Follow a ready session until its sandbox is gone."""
        gone = asyncio.create_task(self._driver.wait_gone(name))
        try:
            while not gone.done():
                follow = asyncio.create_task(self._follow(session_id, url, token, viewers))
                try:
                    await asyncio.wait({follow, gone}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    follow.cancel()
                    await asyncio.gather(follow, return_exceptions=True)
                if not gone.done():
                    await asyncio.wait({gone}, timeout=RECONNECT_SECONDS)
            await self._died(session_id, name, gone.result())
        finally:
            gone.cancel()

    async def _follow(self, session_id: str, url: str, token: str, viewers: int) -> None:
        try:
            async with self._harness.watch(url, token) as states:
                async for state in states:
                    if state.viewers != viewers:
                        viewers = state.viewers
                        await self._change_ready(session_id, {"viewers": viewers}, "session.updated")
        except HarnessUnreachable as error:
            logger.warning("session %s: %s", session_id, error)

    async def _died(self, session_id: str, name: str, why: str) -> None:
        values = {
            "status": sessions.DEAD,
            "failure_reason": f"task disappeared: the sandbox ended by itself ({why})",
            "stopped_at": clock.now(),
            "viewers": 0,
            "log_tail": await self.last_log(name),
        }
        if await self._change_ready(session_id, values, "session.dead"):
            await self.discard(name)

    async def _change_ready(self, session_id: str, values: Mapping[str, Any], event: str) -> bool:
        async with self._database.begin() as tx:
            row = await session_store.transition(
                tx, session_id, expected={"status": sessions.READY}, values=values, event_type=event
            )
        return row is not None

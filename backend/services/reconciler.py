"""The reconciler: brings rows and sandboxes together again that something tore apart (LAP REST 4.5).

What happens in good order, each session's own task sees to, at once. This is for what no task sees: sessions nobody
uses, rows nobody runs, sandboxes nobody needs.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeVar

from backend.domain import clock, sessions, warm_pool
from backend.domain.activity import works
from backend.sandboxes.contract import SandboxDriver, SandboxState
from backend.services.leases import Leases
from backend.services.messages import MessagesService
from backend.services.metrics import Metrics
from backend.services.sessions import SessionsService
from backend.services.warm_pool import WarmPool
from backend.store import leases as lease_store
from backend.store import sessions as session_store
from backend.store import warm_tasks
from backend.store.database import Database, Row

logger = logging.getLogger(__name__)

DUTY: Final = "reconcile"
STUCK_SECONDS: Final = 90.0
"""How long a session may be `creating` with no task bringing it up: one that was just stored has none yet."""
ORPHAN_SECONDS: Final = 300.0
"""How long a sandbox without any row is left alone: another process may be about to tell of it."""
ROW_SECONDS: Final = 60.0
AT_ONCE: Final = 4
MISSED_TICKS: Final = 3
"""How many ticks a process may miss before it counts as not ready."""

T = TypeVar("T")


@dataclass(slots=True)
class Result:
    """What one tick did (the counters of LAP REST 4.5)."""

    inspected: int = 0
    """Active sessions."""
    idle_killed: int = 0
    ghost_killed: int = 0
    taken_over: int = 0
    """Sessions that no process ran, and this one runs now."""
    failed_creating: int = 0
    stopped: int = 0
    """Sandboxes removed that belonged to no active session."""
    warm_orphans_stopped: int = 0
    """The same, for sandboxes of the warm pool."""
    warm_stale_killed: int = 0
    warm_recycled: int = 0
    warm_provisioned: int = 0
    errors: int = 0
    """Rows and sweeps that failed; the log says how."""
    elapsed_ms: int = 0

    @property
    def did_something(self) -> bool:
        return any(value for name, value in asdict(self).items() if name not in ("inspected", "elapsed_ms"))


Sweep = Callable[[Result], Awaitable[None]]


class Reconciler:
    """One task that sweeps at every interval, if this process has the duty. No row or sweep stops another."""

    def __init__(
        self,
        database: Database,
        driver: SandboxDriver,
        sessions: SessionsService,
        pool: WarmPool,
        leases: Leases,
        metrics: Metrics,
        interval_seconds: float,
        messages: MessagesService,
    ) -> None:
        self._database = database
        self._driver = driver
        self._sessions = sessions
        self._pool = pool
        self._leases = leases
        self._metrics = metrics
        self._interval_seconds = interval_seconds
        self._messages = messages
        self._single = asyncio.Lock()
        self._wake = asyncio.Event()
        self._orphans_since: dict[str, float] = {}
        self._ticked_at = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        leases.when_lost(self._wake.set)

    def start(self) -> None:
        """Begin; the first tick comes after one interval, as taking over at the start did the same."""
        self._task = asyncio.create_task(self._run(), name="reconciler")

    async def aclose(self) -> None:
        """End the task."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def fresh(self) -> bool:
        """Whether the task runs, and got through a tick not long ago."""
        running = self._task is not None and not self._task.done()
        return running and time.monotonic() - self._ticked_at < MISSED_TICKS * self._interval_seconds

    async def tick(self) -> Result | None:
        """One round of all sweeps, never two at a time; None when another process has the duty."""
        async with self._single:
            if not self._leases.alone:
                await self._sessions.give_up_taken()
            if await self._leases.take(DUTY):
                result = await self._sweep_all()
            else:
                result = None
                await self._pool.top_up()  # if that duty is this process's
            await self._messages.resume_left()
            self._ticked_at = time.monotonic()
            return result

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._interval_seconds):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                await self.tick()
            except Exception:
                logger.exception("reconcile: the tick failed")

    async def _sweep_all(self) -> Result:
        started = time.perf_counter()
        result = Result()
        sweeps: dict[str, Sweep] = {
            "idle": self._end_idle,
            "ghosts": self._end_ghosts,
            "stuck": self._fail_stuck,
            "orphans": self._remove_orphans,
            "warm pool": self._top_up,
        }
        for name, sweep in sweeps.items():
            try:
                await sweep(result)
            except Exception:
                logger.exception("reconcile: the sweep for %s failed", name)
                result.errors += 1
        elapsed = time.perf_counter() - started
        result.elapsed_ms = round(elapsed * 1000)
        self._metrics.reconciled(elapsed, result.failed_creating, result.idle_killed, result.ghost_killed)
        async with self._database.begin() as tx:
            await lease_store.beat(tx, DUTY, self._leases.holder, at=clock.now(), result=asdict(result))
        told = " ".join(f"{counter}={value}" for counter, value in asdict(result).items())
        logger.log(
            logging.INFO if result.did_something else logging.DEBUG, "reconcile: ok=%s %s", not result.errors, told
        )
        return result

    async def _end_idle(self, result: Result) -> None:
        async with self._database.read() as tx:
            rows = await session_store.active(tx)
        result.inspected = len(rows)

        async def end(row: Row) -> None:
            # A restart does not make a session seen, but it is in use since then.
            activity = row["activity"]
            if works(activity):
                return
            # An agent that has just ended a long turn is not idle since that was asked for.
            ended = activity["since"] if activity else ""
            since = max(row["last_seen_at"] or "", row["ready_at"] or row["created_at"], ended)
            idle = clock.seconds_since(since) * 1000 > row["idle_timeout_ms"]
            if idle and await self._sessions.reap(row, "idle timeout", sessions.DEAD):
                result.idle_killed += 1

        await self._each((row for row in rows if row["status"] == sessions.READY), end, result)

    async def _end_ghosts(self, result: Result) -> None:
        async def end(row: Row) -> None:
            if await self._driver.state(row["task_arn"]) is not SandboxState.GONE:
                await self._take_over(row, result)
            elif await self._sessions.reap(row, sessions.disappeared("nobody watched it"), sessions.DEAD):
                result.ghost_killed += 1

        await self._each(await self._sessions.abandoned(sessions.READY), end, result)

    async def _fail_stuck(self, result: Result) -> None:
        async def fail(row: Row) -> None:
            if row["owner"] not in (None, self._leases.holder):  # its process was lost
                await self._take_over(row, result)
                return
            seconds = clock.seconds_since(row["creating_since"])
            reason = f"watchdog: nothing was bringing the session up any more after {seconds:.0f} s: restart it"
            if seconds > STUCK_SECONDS and await self._sessions.reap(row, reason, sessions.FAILED):
                result.failed_creating += 1

        await self._each(await self._sessions.abandoned(sessions.CREATING), fail, result)

    async def _take_over(self, row: Row, result: Result) -> None:
        if await self._sessions.take_over(row):
            result.taken_over += 1
            await self._messages.resume([row["id"]])

    async def _remove_orphans(self, result: Result) -> None:
        # The names first: what is made from now on is not among them, and what is among them has a row by now.
        names = await self._driver.list()
        async with self._database.read() as tx:
            needed = {row["task_arn"] for row in await session_store.active(tx)} | await warm_tasks.names(tx)
        now = time.monotonic()
        self._orphans_since = {name: self._orphans_since.get(name, now) for name in names if name not in needed}

        async def remove(name: str) -> None:
            async with self._database.read() as tx:
                row = await session_store.of_sandbox(tx, name)
            settled = row is not None and row["status"] in sessions.ENDED
            if not settled and now - self._orphans_since[name] < ORPHAN_SECONDS:
                return
            logger.info("reconcile: removing sandbox %s, which no session needs", name)
            await self._sessions.discard(name)
            if name.startswith(warm_pool.PREFIX):
                result.warm_orphans_stopped += 1
            else:
                result.stopped += 1

        await self._each(tuple(self._orphans_since), remove, result)

    async def _top_up(self, result: Result) -> None:
        done = await self._pool.top_up()
        result.warm_provisioned = done.provisioned
        result.warm_recycled = done.recycled
        result.warm_stale_killed = done.stale
        result.errors += done.errors

    async def _each(self, items: Iterable[T], action: Callable[[T], Awaitable[Any]], result: Result) -> None:
        """Do `action` for all items, a few at a time; one that fails or hangs is logged, and the others go on."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(item: T) -> None:
            async with gate:
                try:
                    async with asyncio.timeout(ROW_SECONDS):
                        await action(item)
                except Exception:
                    logger.exception("reconcile: %s", item["id"] if isinstance(item, dict) else item)
                    result.errors += 1

        await asyncio.gather(*(one(item) for item in items))

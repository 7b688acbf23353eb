"""The warm pool: sandboxes set up in advance, so that a session of their agent is ready at once (LAP REST 6).

Sessions claim them by themselves, in the transaction that stores the session (store.warm_tasks.claim). This makes
them, watches them, and removes those that are too old, no longer work, or were made of what has changed since.
"""

import asyncio
import logging
import secrets
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from backend.domain import clock, sessions
from backend.domain import warm_pool as rules
from backend.sandboxes.contract import SandboxDriver, SandboxError
from backend.services.bringup import BringUp, BringUpFailed, Launch, Seal, Superseded, unsealed
from backend.services.errors import Conflict
from backend.services.harness_client import HarnessClient, HarnessUnreachable
from backend.services.leases import Leases
from backend.services.metrics import Metrics
from backend.settings import Settings
from backend.store import agents as agent_store
from backend.store import events, warm_tasks
from backend.store import sessions as session_store
from backend.store.database import Database, Row, Transaction
from backend.store.events import Event
from backend.store.secrets import Cipher, DecryptError

logger = logging.getLogger(__name__)

DUTY: Final = "warm pool"
_WAKING: Final = ("session.ready", "session.failed", "session.dead", "agent.", "skill.", "memory.", "pool.")
"""How the types of events begin after which the pool may lack a sandbox, or have one too many.

A claim counts once its session is ready: making the next sandbox must not slow down the start it was made for.
"""
_KEPT: Final = ("sandbox_url", "isolation", "harness_session_id", "ready_at")
"""What a bring-up says of its session that holds for a sandbox without one."""

HandOver = Callable[[Transaction, Row], Awaitable[Mapping[str, Any]]]
"""What the harness is told for a session of the agent that has nothing of its own, not even an id."""


@dataclass(slots=True)
class TopUp:
    """What one pass did."""

    provisioned: int = 0
    recycled: int = 0
    stale: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """An agent whose sandboxes kept failing, and gets none until `retry_at`, or until what they are made of changes."""

    fingerprint: str
    count: int
    reason: str
    retry_at: str


@dataclass(frozen=True, slots=True)
class _Kept:
    """A row of the pool that this process works on."""

    name: str
    task: asyncio.Task[None]


class WarmPool:
    """Keeps the pool as full as the settings say, if this process has the duty."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        driver: SandboxDriver,
        harness: HarnessClient,
        leases: Leases,
        metrics: Metrics,
        settings: Settings,
        hand_over: HandOver,
        seal: Seal = unsealed,
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._driver = driver
        self._harness = harness
        self._leases = leases
        self._metrics = metrics
        self._settings = settings
        self._hand_over = hand_over
        self._seal = seal
        self._kept: dict[str, _Kept] = {}
        self._failures: dict[str, Failure] = {}
        self._single = asyncio.Lock()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def failures(self) -> Mapping[str, Failure]:
        """By agent id."""
        return self._failures

    def start(self) -> None:
        """Begin: take over what is there, then fill up, and again after each change that matters."""
        self._wake.set()
        if self._settings.warm_pool_size:
            self._database.on_commit(self._committed)
        self._task = asyncio.create_task(self._run(), name="warm pool")

    async def aclose(self) -> None:
        """End all tasks. What is warm lives on; what is half made, the next process removes."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._drop(tuple(self._kept))

    async def top_up(self) -> TopUp:
        """One pass: remove what is of no use, then fill up. Never two at a time."""
        async with self._single:
            done = TopUp()
            rows = await self._rows()
            if not rows and not self._kept and not self._settings.warm_pool_size:
                return done
            if not await self._leases.take(DUTY):
                await self._drop(tuple(self._kept))
                return done
            await self._forget_vanished({row["id"] for row in rows})
            await asyncio.gather(*(self._guarded(self._inspect(row, done), done) for row in rows))
            dead = [row for row in await self._rows() if row["status"] == rules.DEAD]
            await asyncio.gather(*(self._guarded(self._recycle(row, done), done) for row in dead))
            await self._fill(done)
            return done

    async def top_up_now(self, by: str | None = None) -> TopUp:
        """A pass that somebody asked for: failing agents are tried again, too. Raises Conflict with the pool off.

        It is an event, which says `by` whom, as `flush` is.
        """
        if not self._settings.warm_pool_size:
            raise Conflict("the warm pool is off: set WARM_POOL_SIZE to how many sandboxes it may hold, and start anew")
        self._failures.clear()
        done = await self.top_up()
        async with self._database.begin() as tx:
            await events.append(tx, "pool.topped_up", {"by": by, "pool": asdict(done)}, agent_id=None)
        return done

    async def flush(self, agent_id: str | None = None, by: str | None = None) -> int:
        """Have every sandbox of the pool replaced, or those of one agent; how many go."""
        rows = [row for row in await self._rows() if row["status"] in rules.LIVE]
        wanted = [row for row in rows if agent_id is None or row["agent_id"] == agent_id]
        flushed = sum([await self._dismiss(row, "flushed by an operator") for row in wanted])
        async with self._database.begin() as tx:
            await events.append(tx, "pool.flushed", {"by": by, "pool": {"flushed": flushed}}, agent_id=agent_id)
        self._wake.set()
        return flushed

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.top_up()
            except Exception:
                logger.exception("warm pool: the pass failed")

    def _committed(self, events: Sequence[Event]) -> None:
        if any(event.type == "pool.topped_up" for event in events):  # maybe by way of another process
            self._failures.clear()
        if any(event.type.startswith(_WAKING) for event in events):
            self._wake.set()

    async def _rows(self) -> list[Row]:
        async with self._database.read() as tx:
            return await warm_tasks.rows(tx)

    async def _guarded(self, work: Awaitable[None], done: TopUp) -> None:
        try:
            await work
        except Exception:  # one bad row must not keep the others from being seen to
            logger.exception("warm pool: a sandbox could not be seen to")
            done.errors += 1

    async def _forget_vanished(self, present: set[str]) -> None:
        """Let go of what was claimed; what went with its agent has a sandbox that is nobody's."""
        vanished = [task_id for task_id in self._kept if task_id not in present]
        names = [self._kept[task_id].name for task_id in vanished]
        await self._drop(vanished)
        for name in names:
            async with self._database.read() as tx:
                claimed = await session_store.of_sandbox(tx, name) is not None
            if not claimed:
                await self._discard(name)

    async def _inspect(self, row: Row, done: TopUp) -> None:
        """Mark a row dead that is of no use any more; watch a warm one that nobody watches."""
        if row["status"] == rules.DEAD:
            return
        if (reason := await self._unfit(row)) is not None:
            await self._dismiss(row, reason)
        elif row["status"] == rules.WARM:
            if row["id"] not in self._kept:
                self._keep(
                    row["id"],
                    row["task_arn"],
                    self._watch(row["id"], row["task_arn"], row["agent_id"], row["fingerprint"]),
                )
            reason = await self._stale(row)
            if reason is None:
                self._forgive(row["agent_id"])
            elif await self._dismiss(row, reason):
                self._note_failure(row["agent_id"], row["fingerprint"], reason)
                self._metrics.warm_stale()
                done.stale += 1

    async def _dismiss(self, row: Row, reason: str) -> bool:
        dismissed = await self._bury(row["id"], reason)
        if dismissed:
            logger.info("warm pool: sandbox %s of agent %s goes: %s", row["task_arn"], row["agent_id"], reason)
        return dismissed

    async def _unfit(self, row: Row) -> str | None:
        """Why a row is not wanted, whether its sandbox works or not."""
        if not self._settings.warm_pool_size:
            return "the warm pool is off"
        if row["status"] == rules.PROVISIONING and row["id"] not in self._kept:
            return "provisioning interrupted: the platform was restarted"
        expired = datetime.now(UTC) - timedelta(minutes=self._settings.warm_pool_ttl_minutes)
        if row["status"] == rules.WARM and row["ready_at"] < clock.text(expired):
            return "ttl-expired"
        if row["fingerprint"] != await self._fingerprint(row["agent_id"]):
            return "agent_changed"
        return None

    async def _stale(self, row: Row) -> str | None:
        """What is wrong with a warm sandbox."""
        try:
            state = await self._harness.state(row["sandbox_url"], self._cipher.decrypt(row["token"]))
        except (HarnessUnreachable, DecryptError) as error:
            return f"stale: {error}"
        return None if state.works else "stale: its agent has ended"

    async def _fingerprint(self, agent_id: str) -> str | None:
        """Of what a sandbox of the agent would be made now; None when nothing can be made."""
        async with self._database.read() as tx:
            agent = await agent_store.get(tx, agent_id)
            if agent is None:
                return None
            try:
                hand_over = await self._hand_over(tx, agent)
            except DecryptError:
                return None
        return rules.fingerprint(self._settings.encryption_key_value, hand_over)

    async def _recycle(self, row: Row, done: TopUp) -> None:
        """Remove a dead row's sandbox, then the row."""
        await self._drop([row["id"]])
        if not await self._discard(row["task_arn"]):
            done.errors += 1  # the row stays, and with it the next attempt
            return
        async with self._database.begin() as tx:
            await warm_tasks.remove(tx, row["id"])
        done.recycled += 1

    async def _fill(self, done: TopUp) -> None:
        settings = self._settings
        live = [row for row in await self._rows() if row["status"] in rules.LIVE]
        busy = sum(row["status"] == rules.PROVISIONING for row in live)
        free = min(settings.warm_pool_size - len(live), settings.warm_pool_max_provisioning - busy)
        if free <= 0:
            return
        since = clock.text(datetime.now(UTC) - timedelta(hours=settings.warm_pool_recent_agent_hours))
        async with self._database.read() as tx:
            recent = await warm_tasks.recent_agents(tx, since, settings.warm_pool_size + len(self._failures))
        self._failures = {agent_id: failure for agent_id, failure in self._failures.items() if agent_id in recent}
        candidates = [agent_id for agent_id in recent if not await self._backs_off(agent_id)]
        have = Counter(row["agent_id"] for row in live)
        for agent_id in rules.next_agents(candidates[: settings.warm_pool_size], have, free):
            done.provisioned += await self._provision(agent_id)

    async def _backs_off(self, agent_id: str) -> bool:
        failure = self._failures.get(agent_id)
        if failure is None or failure.retry_at <= clock.now():
            return False
        if failure.fingerprint == await self._fingerprint(agent_id):
            return True
        del self._failures[agent_id]
        return False

    async def _provision(self, agent_id: str) -> bool:
        """Store a row and start making its sandbox."""
        task_id = uuid.uuid4().hex
        name = f"{rules.PREFIX}{task_id}"
        token = secrets.token_urlsafe(32)
        async with self._database.begin() as tx:
            agent = await agent_store.get(tx, agent_id)
            if agent is None:
                return False
            try:
                hand_over = await self._hand_over(tx, agent)
            except DecryptError as error:
                self._note_failure(agent_id, "", str(error))
                return False
            fingerprint = rules.fingerprint(self._settings.encryption_key_value, hand_over)
            await warm_tasks.add(
                tx,
                {
                    "id": task_id,
                    "agent_id": agent_id,
                    "status": rules.PROVISIONING,
                    "task_arn": name,
                    "fingerprint": fingerprint,
                    "token": self._cipher.encrypt(token),
                    "created_at": clock.now(),
                },
            )
        launch = Launch(
            session_id="",
            agent_id=agent_id,
            harness_id=agent["harness_id"],
            sandbox_name=name,
            token=token,
            hand_over=hand_over,
        )
        self._keep(task_id, name, self._make(task_id, launch, fingerprint))
        return True

    def _keep(self, task_id: str, name: str, work: Any) -> None:
        task = asyncio.create_task(work, name=f"warm sandbox {name}")
        self._kept[task_id] = _Kept(name, task)
        task.add_done_callback(lambda ended: self._ended(task_id, ended))

    def _ended(self, task_id: str, task: asyncio.Task[None]) -> None:
        if task_id in self._kept and self._kept[task_id].task is task:
            del self._kept[task_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("warm pool: the task of %s failed", task_id, exc_info=error)

    async def _drop(self, task_ids: Sequence[str]) -> None:
        """End the tasks of rows; their sandboxes stay as they are."""
        tasks = [kept.task for task_id in task_ids if (kept := self._kept.pop(task_id, None))]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _make(self, task_id: str, launch: Launch, fingerprint: str) -> None:
        """Set a sandbox up, then watch it."""
        started = time.perf_counter()

        async def write(values: Mapping[str, Any], _event: str) -> bool:
            told = {name: values[name] for name in _KEPT if name in values}
            if values.get("status") == sessions.READY:
                told["status"] = rules.WARM
            async with self._database.begin() as tx:
                return await warm_tasks.change(tx, task_id, expected=(rules.PROVISIONING,), values=told)

        settings = self._settings
        bring_up = BringUp(
            *(launch, self._driver, self._harness, write),
            *(settings.phase_timeouts, settings.creating_timeout_seconds, self._seal),
        )
        try:
            sandbox = await bring_up.run()
        except Superseded:  # the row was marked dead, or went with its agent, while we were at it
            await self._discard(launch.sandbox_name)
            return
        except BringUpFailed as failed:
            reason = str(failed)
        except Exception:
            logger.exception("warm pool: making sandbox %s broke", launch.sandbox_name)
            reason = "the platform failed to set the sandbox up; its log says why"
        else:
            self._metrics.provisioned("success", time.perf_counter() - started)
            await self._watch(task_id, sandbox.name, launch.agent_id, fingerprint)
            return
        self._metrics.provisioned("failed", time.perf_counter() - started)
        self._note_failure(launch.agent_id, fingerprint, reason)
        if not await self._bury(task_id, f"warm bring-up failed: {reason}"):
            await self._discard(launch.sandbox_name)
        self._wake.set()

    async def _watch(self, task_id: str, name: str, agent_id: str, fingerprint: str) -> None:
        """Wait for a warm sandbox to end by itself, which none should."""
        why = await self._driver.wait_gone(name)
        reason = f"the sandbox ended by itself: {why}"
        if await self._bury(task_id, reason):
            self._note_failure(agent_id, fingerprint, reason)
            self._wake.set()

    async def _bury(self, task_id: str, reason: str) -> bool:
        """Mark a row dead, unless it is that already, was claimed, or is gone; a pass then removes it."""
        values = {"status": rules.DEAD, "failure_reason": reason[: rules.REASON_LIMIT]}
        async with self._database.begin() as tx:
            return await warm_tasks.change(tx, task_id, expected=rules.LIVE, values=values)

    def _note_failure(self, agent_id: str, fingerprint: str, reason: str) -> None:
        before = self._failures.get(agent_id)
        count = 1 + (before.count if before and before.fingerprint == fingerprint else 0)
        seconds = rules.retry_seconds(count)
        retry_at = clock.text(datetime.now(UTC) + timedelta(seconds=seconds))
        self._failures[agent_id] = Failure(fingerprint, count, reason[: rules.REASON_LIMIT], retry_at)
        logger.warning("warm pool: agent %s failed %d times, again in %d s: %s", agent_id, count, seconds, reason)

    def _forgive(self, agent_id: str) -> None:
        """Forget an agent's failures once a sandbox made after the last of them has stood for a while."""
        failure = self._failures.get(agent_id)
        if failure is not None and failure.retry_at <= clock.now():
            del self._failures[agent_id]

    async def _discard(self, name: str) -> bool:
        """Remove a sandbox; False, and a line in the log, when it cannot be."""
        try:
            await self._driver.delete(name)
        except SandboxError as error:
            logger.error("warm pool: sandbox %s: %s", name, error)
            return False
        return True

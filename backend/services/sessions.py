"""Sessions: create, stop, delete, restart, attach, and what is taken over from an earlier platform process."""

import asyncio
import hmac
import logging
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, BinaryIO, Final

from pydantic import SecretStr

from backend.domain import clock, phases, prompts, sessions, warm_pool
from backend.domain.agents import supports_tui
from backend.sandboxes.contract import Sandbox, SandboxDriver, SandboxError, SandboxState
from backend.services import memory, skills
from backend.services.bringup import Launch, Seal, Warm, unsealed
from backend.services.errors import Conflict, NotFound, Unavailable, agent_not_found, session_not_found
from backend.services.harness_client import HarnessClient, HarnessHasNone, HarnessUnreachable
from backend.services.history import user_message
from backend.services.leases import Leases
from backend.services.recordings import Recordings
from backend.services.runner import NOBODY_THERE, Runner, Watched
from backend.settings import Settings
from backend.store import agents as agent_store
from backend.store import messages as message_store
from backend.store import sessions as session_store
from backend.store import skills as skill_store
from backend.store import warm_tasks
from backend.store.database import Database, Row, Transaction
from backend.store.secrets import Cipher, DecryptError

logger = logging.getLogger(__name__)

TOUCH_SECONDS: Final = 15.0
"""Terminal traffic is noted in `last_seen_at` at most once in this time."""
MAX_SCREEN_BYTES: Final = 32 * 1024 * 1024
MAX_SCROLLBACK: Final = 10_000
REMOVAL_SECONDS: Final = 10.0
"""How long who asks for a recording waits for the end of the sandbox: only then is it kept."""
REMOVAL_PROBE_SECONDS: Final = 0.1
FINISH_SECONDS: Final = 10.0
ORPHANS_AT_ONCE: Final = 4
ORPHANS_SECONDS: Final = 10.0
"""How long the removal of what an earlier process left may hold up the start."""
CHUNK: Final = 256 * 1024

MAX_PROMPT_VARIABLE: Final = 100_000
"""Bytes of prompt that are also given as AGENT_PROMPT: Linux starts no program with a variable above 128 KiB."""

_NO_SCREEN: Final = {
    sessions.CREATING: "session {session_id} is creating: its screen can be read once it is ready",
    sessions.FAILED: "session {session_id} has failed and has no screen: restart it, or read its log",
    sessions.DEAD: "session {session_id} has ended and has no screen any more: restart it, or read its log",
}
_NO_RECORDING: Final = {
    sessions.CREATING: "nothing of session {session_id} is recorded yet: ask again once it is ready",
    sessions.FAILED: "session {session_id} failed before anything was recorded",
    sessions.DEAD: "there is no recording of session {session_id}: it ended before anything was recorded, or the "
    "recording made room for newer ones (LAP_RECORDINGS_KEPT_MB sets how much is kept)",
}
_ELSEWHERE: Final = (
    "; or the platform process that ran the session has it, on whose disk it is: ask that one, or give all processes "
    "one `recordings` folder in their data directories"
)
LOST_ENV: Final = (
    "the session's own env_vars are gone: they are never stored; create a new session if the agent needs them"
)
NOT_REPLAYED: Final = "the agent starts afresh in its terminal: what was said there before is not replayed"
LOST_WITH_RESTART: Final = (
    "the platform was restarted before the sandbox had got this session's own env_vars, which are never stored: "
    "create the session again"
)


@dataclass(frozen=True, slots=True)
class Terminal:
    """Where a session's terminal is. Call `touch` for traffic on it."""

    url: str
    token: str = field(repr=False)
    touch: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Download:
    """A body on its way: read `pieces` once, which may raise HarnessUnreachable; then close `held` in any case."""

    pieces: AsyncIterator[bytes]
    held: AsyncExitStack


@dataclass(frozen=True, slots=True)
class _HandOver:
    """The body of the harness's POST /session, which holds secrets, and the memories told in it."""

    body: dict[str, Any] = field(repr=False)
    memory_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Start:
    """How a session begins: what its row says of its sandbox, the sandbox's token, and the sandbox if it is warm."""

    values: Mapping[str, Any]
    token: str = field(repr=False)
    warm: Warm | None


class TerminalRefused(Exception):
    """The terminal cannot be had; `status` is the HTTP status that says why (LAP REST 3.4)."""

    def __init__(self, status: int) -> None:
        super().__init__(f"terminal refused with {status}")
        self.status = status


class SessionsService:
    """What users can do with sessions."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        driver: SandboxDriver,
        harness: HarnessClient,
        recordings: Recordings,
        leases: Leases,
        settings: Settings,
        seal: Seal = unsealed,
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._driver = driver
        self._harness = harness
        self._recordings = recordings
        self._leases = leases
        self._settings = settings
        self._runner = Runner(
            *(database, driver, harness, recordings),
            *(settings.phase_timeouts, settings.creating_timeout_seconds, leases.holder, seal),
        )
        self._opened = lru_cache(session_store.TOLD)(cipher.decrypt)
        self._touched: dict[str, float] = {}
        self._notes: set[asyncio.Task[None]] = set()
        self._only_here: set[asyncio.Future[None]] = set()
        """Bring-ups that no other process could go on with: env_vars of a session's own are not stored."""

    async def create(
        self,
        agent_id: str,
        *,
        title: str | None = None,
        env_vars: Mapping[str, str] | None = None,
        initial_prompt: str | None = None,
        recording: bool | None = None,
        skill_ids: Sequence[str] = (),
        attachments: Sequence[Mapping[str, Any]] = (),
        session_id: str | None = None,
    ) -> Row:
        """Store a session in `creating` and start its bring-up. `env_vars` are checked already and never stored.

        `initial_prompt` is said once it is ready, to a harness without a terminal with `attachments`, of which only
        that there were some is stored. `recording` None is what the agent says. Of `skill_ids` the session has, and
        its row shows, those that exist. `session_id` is a fresh one of the caller's, who can so tell that it did it.
        """
        session_id = session_id or str(uuid.uuid4())
        now = clock.now()

        async def store(tx: Transaction) -> tuple[Launch, Row]:
            agent = await agent_store.get(tx, agent_id)
            if agent is None:
                raise agent_not_found(agent_id)
            recorded = agent["recording"] if recording is None else recording
            known = [skill["id"] for skill in await skill_store.by_ids(tx, skill_ids)]
            hand_over = await self._hand_over(tx, agent, session_id, title, env_vars or {}, recorded, known)
            if initial_prompt and supports_tui(agent["harness_id"]):
                hand_over.body["initial_prompt"] = initial_prompt
            name = _sandbox_name(session_id)
            start = await self._start(tx, name, agent_id, hand_over.body, warm=not env_vars)
            row = await session_store.add(
                tx,
                {
                    "id": session_id,
                    "agent_id": agent_id,
                    "status": sessions.CREATING,
                    **start.values,
                    "title": title,
                    "recording": recorded,
                    "skill_ids": known,
                    "has_own_env": bool(env_vars),
                    "idle_timeout_ms": self._settings.idle_timeout_ms,
                    "created_at": now,
                    "creating_since": now,
                },
            )
            if (initial_prompt or attachments) and not supports_tui(agent["harness_id"]):
                await _queue(tx, session_id, initial_prompt, attachments)
            return _launch(row, start.token, hand_over, warm=start.warm), row

        launch, row = await self._database.write(store)
        settled = self._runner.bring_up(launch, now)
        if env_vars:
            self._only_here.add(settled)
            settled.add_done_callback(self._only_here.discard)
        return row

    async def get(self, session_id: str) -> Row:
        """The session's row. Raises NotFound."""
        async with self._database.read() as tx:
            row = await session_store.get(tx, session_id)
        if row is None:
            raise session_not_found(session_id)
        return row

    def tty_token(self, row: Row) -> str | None:
        """The bearer of the session's terminal; None for a harness without one, or when it cannot be read."""
        return self.harness_token(row) if supports_tui(row["harness_id"]) else None

    def harness_token(self, row: Row) -> str | None:
        """The bearer of the session's harness; None when there is none, or it cannot be read."""
        return self.token(row["id"], row["tty_token"])

    def token(self, session_id: str, stored: str | None) -> str | None:
        """The same, of what the row has of it."""
        if stored is None:
            return None
        try:
            return self._opened(stored)
        except DecryptError as error:
            logger.error("session %s: %s", session_id, error)
            return None

    def unreachable(self, session_id: str) -> str | None:
        """Why the harness of a ready session cannot be reached at present; None when it can."""
        return self._runner.unreachable.get(session_id)

    async def stop(self, session_id: str, by: str | None = None) -> Row:
        """Let the agent finish what it can, then end the session. Idempotent. `by` asked for it, as its event says."""
        row = await self.get(session_id)
        if row["status"] == sessions.READY and row["harness_session_id"]:
            token = self._cipher.decrypt(row["tty_token"])
            await self._harness.abort(row["sandbox_url"], token, row["harness_session_id"])
        return await self._end(row, "stopped", by=by)

    async def delete(self, session_id: str, by: str | None = None) -> tuple[Row, bool]:
        """End the session at once; the row stays, `dead`. Also says whether it was dead before."""
        before = await self.get(session_id)
        return await self._end(before, "deleted", by=by), before["status"] == sessions.DEAD

    async def mend(self, session_id: str, by: str | None = None) -> str:
        """Put back what is missing around a session's sandbox; what was done, in one line.

        Raises NotFound, and Conflict when there is no sandbox, nothing is missing, or it cannot be put back.
        """
        row = await self.get(session_id)
        if row["task_arn"] is None or row["status"] in sessions.ENDED:
            raise Conflict(f"session {session_id} is {row['status']} and has no sandbox to mend: restart it")
        try:
            did = await self._driver.mend(row["task_arn"])
        except SandboxError as error:
            raise Conflict(str(error)) from error
        async with self._database.begin() as tx:
            await session_store.mended(tx, session_id, did, by)
        return did

    async def restart(self, session_id: str, by: str | None = None) -> Row:
        """A new sandbox for a session that has settled; returns once it is ready.

        Raises Conflict while it is being created, Unavailable with the failure reason when it does not come up.
        Its own env_vars are gone: they were never stored, and its `warnings` say so. A recording it has is kept until
        the new one takes its place.
        """
        row = await self.get(session_id)
        if row["status"] == sessions.CREATING:
            raise Conflict(f"session {session_id} is creating; wait for it to settle before restarting")
        now = clock.now()
        async with self._database.begin() as tx:
            agent = await agent_store.get(tx, row["agent_id"])
            if agent is None:
                raise agent_not_found(row["agent_id"])
            hand_over = await self._hand_over(
                tx, agent, session_id, row["title"], {}, row["recording"], row["skill_ids"]
            )
            name = _later_sandbox_name(session_id)
            start = await self._start(tx, name, row["agent_id"], hand_over.body, warm=True)
            started = await session_store.transition(
                tx,
                session_id,
                expected={"status": (sessions.READY, *sessions.ENDED), "creating_since": row["creating_since"]},
                values={
                    "status": sessions.CREATING,
                    **start.values,
                    "phase_detail": None,
                    "harness_session_id": None,
                    "failure_reason": None,
                    "log_tail": None,
                    "last_inspection": None,
                    "issues": [],
                    "warnings": _lost(row),
                    "has_own_env": False,
                    "creating_since": now,
                    "ready_at": None,
                    "stopped_at": None,
                    "terminal": None,
                    **NOBODY_THERE,
                },
                event_type="session.restarted",
                by=by,
            )
            if started is None:  # within the transaction, so that no warm sandbox is lost with it
                raise Conflict(f"session {session_id} was changed by someone else just now; look at it and try again")
        await self._runner.stop(session_id)
        await self._runner.discard(row["task_arn"], _recorded(row))
        await self._runner.bring_up(_launch(started, start.token, hand_over, warm=start.warm), now)
        settled = await self.get(session_id)
        if settled["status"] != sessions.READY:
            raise Unavailable(f"session restart failed: {settled['failure_reason'] or settled['status']}")
        return settled

    async def report_phase(self, session_id: str, phase: str, detail: str | None) -> bool:
        """Note a phase that a harness reports by itself (LAP REST 3.10); False when the session is not creating."""
        async with self._database.begin() as tx:
            row = await session_store.transition(
                tx,
                session_id,
                expected={"status": sessions.CREATING},
                values={"phase": phase, "phase_detail": detail},
                event_type="session.phase",
            )
        return row is not None

    async def sandbox_log(self, session_id: str, tail_lines: int, since_seconds: int) -> str:
        """The end of the sandbox's log; of an ended session, what was kept of it."""
        row = await self.get(session_id)
        if row["status"] in sessions.ENDED:
            async with self._database.read() as tx:
                return await session_store.kept_log(tx, session_id) or ""
        return await self._driver.logs(row["task_arn"], tail_lines, since_seconds)

    async def terminal(self, session_id: str, token: str | None) -> Terminal:
        """The way to the session's terminal for who has its token. Raises TerminalRefused 401, 404 or 503."""
        async with self._database.read() as tx:
            row = await session_store.get(tx, session_id)
        expected = self.tty_token(row) if row is not None else None
        # One answer for "no such session" and "wrong token": the terminal tells strangers nothing.
        if (
            row is None
            or not token
            or not hmac.compare_digest((expected or secrets.token_hex()).encode(), token.encode())
        ):
            raise TerminalRefused(401)
        if row["status"] != sessions.READY:
            raise TerminalRefused(503)
        url = row["sandbox_url"].replace("http", "ws", 1) + "/tty"
        return Terminal(url, token, lambda: self._touch(session_id))

    async def screen(self, session_id: str, form: str, scrollback: int) -> Download:
        """The present screen, with up to `scrollback` lines before it, as the harness gives it in that form.

        Raises NotFound, Conflict while the session is not ready, Unavailable when the harness does not answer.
        """
        row = await self._with_terminal(session_id)
        if row["status"] != sessions.READY:
            raise Conflict(_NO_SCREEN[row["status"]].format(session_id=session_id))
        try:
            params = {"format": form, "scrollback": str(scrollback)}
            return await self._fetch(row, "/screen", params, MAX_SCREEN_BYTES)
        except HarnessHasNone as none:
            raise Unavailable(
                f"the sandbox of session {session_id} tells no screen ({none}): if an earlier version of the platform "
                "started it, restart the session"
            ) from none

    async def recording(self, session_id: str) -> Download:
        """The recording of the session's terminal so far, or the kept one when it has ended.

        Raises NotFound when there is none, Unavailable when the harness does not answer.
        """
        row = await self._with_terminal(session_id)
        if not row["recording"]:
            raise NotFound(
                f"session {session_id} is not recorded: create one with recording true, or set it on the agent"
            )
        if row["status"] == sessions.READY:
            try:
                return await self._fetch(row, "/recording", {}, self._recordings.max_bytes)
            except HarnessHasNone as none:
                raise NotFound(f"session {session_id} has no recording: {none}") from none
        if row["status"] in sessions.ENDED:
            await self._removed(row["task_arn"])
        file = await self._recordings.open(session_id)
        if file is None:
            other = row["owner"] not in (None, self._leases.holder) and row["status"] == sessions.DEAD
            raise NotFound(_NO_RECORDING[row["status"]].format(session_id=session_id) + (_ELSEWHERE if other else ""))
        stack = AsyncExitStack()
        stack.callback(file.close)
        return Download(_pieces(file), stack)

    async def stop_all_for_agent(self, agent_id: str) -> None:
        """End every live session of an agent."""
        async with self._database.read() as tx:
            rows = await session_store.active(tx, agent_id)
        await asyncio.gather(*(self._end(row, "agent deleted") for row in rows))

    async def resume(self) -> None:
        """Take over what an earlier platform process left: live sessions, half-made ones, orphaned sandboxes."""
        # The names first: what another process makes from now on is not among them.
        names = await self._driver.list()
        async with self._database.read() as tx:
            rows = await session_store.active(tx)
            wanted = {row["task_arn"] for row in rows} | await warm_tasks.names(tx)
            others = await self._leases.others(tx)
        await self._remove_orphans([name for name in names if name not in wanted])
        async with self._database.read() as tx:
            recorded = await session_store.recorded(tx)
        await self._recordings.tidy(recorded)
        for row in rows:
            if row["owner"] in others:
                continue
            try:
                await self.take_over(row)
            except Exception:  # one bad row must not keep the others from coming back
                logger.exception("session %s could not be taken over", row["id"])

    async def _remove_orphans(self, names: Sequence[str]) -> None:
        """Remove these sandboxes, a few at a time; those that take too long for a start are the reconciler's."""
        waiting = iter(names)

        async def remove() -> None:
            for name in waiting:
                logger.info("removing sandbox %s, which no session needs", name)
                try:
                    await self.discard(name)
                except Exception:  # it must not keep the platform from starting
                    logger.exception("sandbox %s could not be removed", name)

        try:
            async with asyncio.timeout(ORPHANS_SECONDS):
                await asyncio.gather(*(remove() for _ in range(ORPHANS_AT_ONCE)))
        except TimeoutError:
            logger.warning("some sandboxes that no session needs are still there; the reconciler removes them")

    def when_ready(self, observer: Callable[[str], None]) -> None:
        """Call `observer` with the id of each session that this process has brought to `ready`. It must not raise."""
        self._runner.on_ready = observer

    def runs(self, session_id: str) -> bool:
        """Whether this process watches the session, or is bringing it up."""
        return self._runner.runs(session_id)

    async def abandoned(self, status: str) -> list[Row]:
        """Active sessions of that status which no platform process runs."""
        async with self._database.read() as tx:
            rows = await session_store.active(tx)
            others = await self._leases.others(tx)
        return [
            row
            for row in rows
            if row["status"] == status and row["owner"] not in others and not self._runner.runs(row["id"])
        ]

    async def take_over(self, row: Row) -> bool:
        """Run an active session that nobody runs; False when it is not as `row` says any more."""
        token = self._cipher.decrypt(row["tty_token"])
        async with self._database.begin() as tx:
            owned = await session_store.transition(
                *(tx, row["id"]),
                expected={**_unchanged(row), "owner": row["owner"]},
                values={"owner": self._leases.holder},
                event_type=None,
            )
        if owned is None:
            return False
        # Nothing may come in between here: whoever changes the row from now on stops the task this starts.
        if row["status"] == sessions.READY:
            self._runner.watch(
                Watched(
                    *(row["id"], row["task_arn"], row["sandbox_url"], token),
                    *(row["recording"], row["creating_since"]),
                )
            )
        else:
            await self._bring_up_again(row, token)
        return True

    async def give_up_taken(self) -> None:
        """Run no session any more that another process runs, to which this one seemed lost for a while."""
        async with self._database.read() as tx:
            rows = await session_store.active(tx)
        for row in rows:
            if row["owner"] != self._leases.holder and self._runner.runs(row["id"]):
                logger.warning("session %s: another process runs it now", row["id"])
                await self._runner.stop(row["id"])

    async def reap(self, row: Row, reason: str, status: str) -> bool:
        """End an active session if it is still as `row` says; whether it was."""
        ended = await self._end_if(row, _unchanged(row), reason, status)
        return ended is not None

    async def discard(self, name: str) -> None:
        """Remove a sandbox that no session needs, and keep the recording in it."""
        async with self._database.read() as tx:
            ended = await session_store.of_sandbox(tx, name)
        await self._runner.discard(name, _recorded(ended) if ended else None)

    async def common_hand_over(self, tx: Transaction, agent: Row) -> Mapping[str, Any]:
        """What the harness is told for a session of the agent that has nothing of its own, not even an id."""
        hand_over = await self._hand_over(tx, agent, "", None, {}, agent["recording"], ())
        return hand_over.body

    async def finish(self) -> None:
        """At the end of the process, before anything else ends: bring up what no other process could."""
        if self._only_here:
            logger.info("ending: %d sessions with their own env_vars come up first", len(self._only_here))
            await asyncio.wait(tuple(self._only_here), timeout=FINISH_SECONDS)

    async def aclose(self) -> None:
        """End all tasks; sandboxes live on."""
        await self._runner.aclose()
        if self._notes:
            await asyncio.gather(*self._notes, return_exceptions=True)

    async def _with_terminal(self, session_id: str) -> Row:
        row = await self.get(session_id)
        if not supports_tui(row["harness_id"]):
            raise NotFound(f"session {session_id} has no terminal: {row['harness_id']} answers messages instead")
        return row

    async def _fetch(self, row: Row, path: str, params: dict[str, str], max_bytes: int) -> Download:
        """A GET of the harness. Raises HarnessHasNone, Unavailable."""
        token = self._cipher.decrypt(row["tty_token"])
        stack = AsyncExitStack()
        try:
            pieces = await stack.enter_async_context(
                self._harness.fetch(row["sandbox_url"], token, path, params, max_bytes)
            )
        except HarnessUnreachable as error:
            raise Unavailable(
                f"{error}. Try again; if it stays so, look at the sandbox's log or restart session {row['id']}"
            ) from error
        return Download(pieces, stack)

    async def _removed(self, name: str) -> None:
        """Wait until nothing is left of a sandbox, though not for ever."""
        try:
            async with asyncio.timeout(REMOVAL_SECONDS):
                while name in await self._driver.list():
                    await asyncio.sleep(REMOVAL_PROBE_SECONDS)
        except TimeoutError:
            logger.warning("sandbox %s is still there", name)

    async def _bring_up_again(self, row: Row, token: str) -> None:
        """Go on with a bring-up that ended with its platform process."""
        lives = await self._driver.state(row["task_arn"]) is not SandboxState.GONE
        adopt = None
        if lives and row["sandbox_url"]:
            adopt = Sandbox(row["task_arn"], row["sandbox_url"], row["isolation"] or {})
        elif not self._driver.away():  # else it could not be removed now; who makes the next one sees to it
            await self._runner.discard(row["task_arn"], _recorded(row))
        handed_over = phases.step(row["phase"] or phases.PHASES[0]) > phases.step("harness_ready")
        if row["has_own_env"] and not (adopt and handed_over):
            await self._end(row, LOST_WITH_RESTART, sessions.FAILED)
            return
        async with self._database.begin() as tx:
            agent = await agent_store.get(tx, row["agent_id"])
            if agent is None:  # deleted since; its sessions went with it
                return
            name = row["task_arn"] if adopt else _later_sandbox_name(row["id"])
            expected = {"status": sessions.CREATING, "creating_since": row["creating_since"]}
            begun = await session_store.transition(
                tx, row["id"], expected=expected, values={"task_arn": name}, event_type=None
            )
            if begun is None:  # ended meanwhile
                return
            hand_over = await self._hand_over(
                tx, agent, row["id"], row["title"], {}, row["recording"], row["skill_ids"]
            )
        self._runner.bring_up(_launch(begun, token, hand_over, adopt), row["creating_since"])

    async def _start(
        self, tx: Transaction, name: str, agent_id: str, hand_over: Mapping[str, Any], *, warm: bool
    ) -> _Start:
        """Where a session's sandbox comes from: the warm pool if it may and has one, else one of that name is made."""
        claimed = None
        if warm and self._settings.warm_pool_size:
            fingerprint = warm_pool.fingerprint(self._settings.encryption_key_value, hand_over)
            claimed = await warm_tasks.claim(tx, agent_id, fingerprint)
        values: dict[str, Any] = {"owner": self._leases.holder}
        if claimed is None:
            token = secrets.token_urlsafe(32)
            values |= {
                "phase": phases.PHASES[0],
                "task_arn": name,
                "tty_token": self._cipher.encrypt(token),
                "sandbox_url": None,
                "isolation": None,
            }
            return _Start(values, token, None)
        values |= {
            "phase": "harness_ready",
            "task_arn": claimed["task_arn"],
            "tty_token": claimed["token"],
            "sandbox_url": claimed["sandbox_url"],
            "isolation": claimed["isolation"],
        }
        sandbox = Sandbox(claimed["task_arn"], claimed["sandbox_url"], claimed["isolation"] or {})
        return _Start(values, self._cipher.decrypt(claimed["token"]), Warm(sandbox, claimed["harness_session_id"]))

    async def _end(self, row: Row, reason: str, status: str = sessions.DEAD, by: str | None = None) -> Row:
        while row["status"] != sessions.DEAD:  # what has become something else meanwhile is ended as that
            expected = {"status": row["status"], "creating_since": row["creating_since"]}
            if ended := await self._end_if(row, expected, reason, status, by):
                return ended
            row = await self.get(row["id"])
        return row

    async def _end_if(
        self, row: Row, expected: Mapping[str, Any], reason: str, status: str, by: str | None = None
    ) -> Row | None:
        """Bring a session to its end: first the row, so that nothing brings it back, then task and sandbox.

        None when the row was not as `expected`; then nothing was done.
        """
        session_id = row["id"]
        values = {"status": status, "stopped_at": clock.now(), **NOBODY_THERE}
        if row["status"] in sessions.ACTIVE:
            values["failure_reason"] = reason
            values |= await self._runner.last_look(row["task_arn"], values)
        async with self._database.begin() as tx:
            ended = await session_store.transition(
                tx,
                session_id,
                expected=expected,
                values=values,
                event_type=f"session.{status}",
                by=by,
            )
        if ended is None:
            return None
        self._touched.pop(session_id, None)
        await self._runner.stop(session_id)
        await self._runner.discard(ended["task_arn"], _recorded(ended))
        return ended

    async def _hand_over(
        self,
        tx: Transaction,
        agent: Row,
        session_id: str,
        title: str | None,
        own_env: Mapping[str, str],
        recording: bool,
        skill_ids: Sequence[str],
    ) -> _HandOver:
        """What the harness is told: the agent's configuration with all secrets, own values winning (seed 003)."""
        settings = self._settings
        stored = {key: self._cipher.decrypt(value) for key, value in agent["env_vars"].items()}
        recalled = await memory.recall(tx, agent)
        own_prompt, skill_files = await skills.for_session(tx, agent["prompt"], skill_ids)
        prompt = prompts.composed(recalled.block, own_prompt)
        repo_url = agent["repo_url"] or settings.preinstalled_github_repo
        platform = {
            "SESSION_ID": session_id,
            "AGENT_ID": agent["id"],
            "REPO_URL": repo_url or "",
            "BRANCH": agent["branch"],
            "AGENT_PROMPT": prompt if prompt and len(prompt.encode()) <= MAX_PROMPT_VARIABLE else "",
            "LITELLM_API_BASE": settings.litellm_api_base,
            "LITELLM_DEFAULT_MODEL": agent["model"],
            "LAP_BASE_URL": settings.lap_base_url,
        }
        body = {
            "title": title,
            "harness_id": agent["harness_id"],
            "command": settings.harness_commands.get(agent["harness_id"]),
            "model": agent["model"],
            "prompt": prompt,
            "repo_url": repo_url,
            "branch": agent["branch"],
            "git_token": _secret(settings.git_token),
            "requirements": agent["requirements"],
            "env": {**settings.container_env, **stored, **own_env, **{k: v for k, v in platform.items() if v}},
            "files": agent["sandbox_files"],
            "skills": skill_files,
            "llm": {"base": settings.litellm_api_base, "key": _secret(settings.litellm_api_key)},
            "recording": recording,
            "recording_max_mb": settings.recording_max_mb,
        }
        return _HandOver(body, recalled.memory_ids)

    def _touch(self, session_id: str) -> None:
        now = time.monotonic()
        if now - self._touched.get(session_id, -TOUCH_SECONDS) >= TOUCH_SECONDS:
            self._touched[session_id] = now
            note = asyncio.create_task(self._note_activity(session_id))
            self._notes.add(note)
            note.add_done_callback(self._notes.discard)

    async def _note_activity(self, session_id: str) -> None:
        async with self._database.begin() as tx:
            await session_store.transition(
                tx,
                session_id,
                expected={"status": sessions.READY},
                values={"last_seen_at": clock.now()},
                event_type="session.updated",
            )


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    while data := await asyncio.to_thread(file.read, CHUNK):
        yield data


async def _queue(tx: Transaction, session_id: str, text: str | None, attachments: Sequence[Mapping[str, Any]]) -> None:
    """Store a session's first message, which waits for it to be ready."""
    message = user_message(None, [*([{"type": "text", "text": text}] if text else []), *attachments])
    at_ms = message["info"]["time"]["created"]
    await message_store.add(tx, session_id, None, message, state=message_store.QUEUED, at_ms=at_ms)


def _lost(row: Row) -> list[str]:
    """What the caller of a restart should know is not as it was."""
    lost = []
    if row["has_own_env"] or LOST_ENV in row["warnings"]:
        lost.append(LOST_ENV)
    if supports_tui(row["harness_id"]):
        lost.append(NOT_REPLAYED)
    return lost


def _recorded(row: Row) -> str | None:
    """The session's id, if its sandbox holds a recording to keep."""
    return row["id"] if row["recording"] else None


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()


def _sandbox_name(session_id: str) -> str:
    return f"s-{session_id.replace('-', '')}"


def _later_sandbox_name(session_id: str) -> str:
    """For a later start: what may still be done for an earlier one, by whichever process, does not touch it."""
    return f"{_sandbox_name(session_id)}-{secrets.token_hex(3)}"


def _unchanged(row: Row) -> Mapping[str, Any]:
    """What to expect of a row that nobody restarted, ended or used since it was read."""
    return {name: row[name] for name in ("status", "creating_since", "task_arn", "last_seen_at")}


def _launch(
    row: Row, token: str, hand_over: _HandOver, adopt: Sandbox | None = None, warm: Warm | None = None
) -> Launch:
    return Launch(
        session_id=row["id"],
        agent_id=row["agent_id"],
        harness_id=row["harness_id"],
        sandbox_name=_later_sandbox_name(row["id"]) if warm else row["task_arn"],
        token=token,
        hand_over=hand_over.body,
        memory_ids=hand_over.memory_ids,
        recording=row["recording"],
        adopt=adopt,
        warm=warm,
    )

"""Turns: one message at a time per session, from what the user says to the stored answer.

Within this process they wait in a line; with other processes on the database, who has the session's lease has the turn.
A turn belongs to the platform, not to who asked for it: it goes on when the client goes away, and one that the
platform's own end cut off is found again in what the harness tells.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from backend.domain import clock, messages, sessions
from backend.domain.agents import supports_tui
from backend.services.agent_client import IN_THREAD, AgentClient, HarnessRefused, Reply, Target
from backend.services.errors import Conflict, NotFound, ServiceError
from backend.services.exchange import Exchange, Said, Turn
from backend.services.frames import Frames, failure
from backend.services.harness_client import HarnessClient, HarnessUnreachable
from backend.services.history import History, user_message, warn
from backend.services.leases import Leases
from backend.store import messages as store
from backend.store import sessions as session_store
from backend.store.database import Database, Row, Transaction
from backend.store.secrets import Cipher

logger = logging.getLogger(__name__)

BEAT_SECONDS: Final = 15.0
"""How often a turn that lasts is noted in `last_seen_at`, and what has come of it so far is kept."""
SNAPSHOT_SECONDS: Final = 5.0
SYNC_SECONDS: Final = 1.0
"""How long after a turn the harness is asked for all of it: what was said in between, and by which ids it knows it."""
MAX_WAITING: Final = 32
"""Messages that may wait for their turn in one session."""
ABORT_PAUSES: Final = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds until a turn is aborted once more that has not ended: the agent may have been about to get it."""
LOOK_FIRST, LOOK_LAST = 0.05, 0.5
"""Seconds between two looks at whether another process has ended its turn: the first, and the longest."""
MODEL_PROVIDER: Final = "litellm"
BUSY: Final = "session {} is answering another message: wait for it, abort it, or leave out if_busy=refuse"
CROWDED: Final = f"session {{}} has {MAX_WAITING} messages waiting already: try again later"


class TerminalInsteadError(Exception):
    """The session's harness has a terminal and answers no messages."""


class _OccupiedError(Exception):
    """The session's turn is not free: another process has it, or was lost with it."""


class _Line:
    """Those who want to say something in one session, first come first served."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
        self.turn: Turn | None = None
        self.taking: asyncio.Future[None] | None = None
        """Of the turn that runs, from before the agent gets it; done at its end."""
        self.opening: asyncio.Task[None] | None = None
        self.sync: asyncio.TimerHandle | None = None


class Turns:
    """Runs turns. `reap` ends a session whose sandbox does not answer (services.sessions)."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        client: AgentClient,
        harness: HarnessClient,
        history: History,
        reap: Callable[[Row, str, str], Awaitable[bool]],
        leases: Leases,
        *,
        base_url: str | None,
        seconds: float,
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._client = client
        self._history = history
        self._leases = leases
        self._exchange = Exchange(database, client, harness, history, reap, seconds)
        self._base_url = base_url
        self._lines: dict[str, _Line] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def say(
        self, session_id: str, said: Said, *, wait: bool = True, frames: Frames | None = None
    ) -> asyncio.Future[Reply | None]:
        """Have a turn when it is its turn. The result is the answer; None once `frames` tell it instead.

        It is also None for a harness with a terminal, which answers no messages. Raises Conflict at once, or the result
        does for a turn of another process; it raises ServiceError or HarnessRefused. Need not be awaited.
        """
        line = self._lines.get(session_id)
        if line is not None and line.users:
            if not wait:
                raise Conflict(BUSY.format(session_id))
            if line.users > MAX_WAITING:
                raise Conflict(CROWDED.format(session_id))
        outcome: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._own(self._have_turn(self._enter(session_id), session_id, said, outcome, frames, wait))
        return outcome

    def busy(self, session_id: str) -> bool:
        """Whether a turn of this process runs, or waits to."""
        return session_id in self._lines and self._lines[session_id].users > 0

    async def refuse_if_elsewhere(self, session_id: str) -> None:
        """Raise Conflict while another process has a turn in the session."""
        if await self._leases.elsewhere(session_id):
            raise Conflict(BUSY.format(session_id))

    def begin(self, session_id: str, first: Callable[[str], Sequence[Mapping[str, Any]] | None]) -> None:
        """Say what is to be said in a session that is ready now, before anybody else does.

        That is its history when the sandbox is a new one, its first message, and what an earlier platform process did
        not hear the end of. `first` gives what of the first message is not stored.
        """
        line = self._enter(session_id)
        line.opening = self._own(self._open(line, session_id, first))

    async def opened(self, session_id: str, seconds: float) -> bool:
        """Wait for what `begin` began; False when it takes longer."""
        line = self._lines.get(session_id)
        if line is None or line.opening is None:
            return True
        done, _ = await asyncio.wait({line.opening}, timeout=seconds)
        return bool(done)

    async def abort(self, session_id: str, target: Target) -> None:
        """End the turn that runs, also one that the agent is just being given.

        Raises HarnessRefused, HarnessUnreachable.
        """
        line = self._lines.get(session_id)
        taking = line.taking if line is not None else None
        await self._client.abort(target)
        if taking is None and not await self._leases.elsewhere(session_id):
            return
        for pause in ABORT_PAUSES:
            if taking is not None:
                await asyncio.wait({taking}, timeout=pause)
            else:
                await asyncio.sleep(pause)
            if taking.done() if taking is not None else not await self._leases.elsewhere(session_id):
                return
            await self._client.abort(target)

    def gathered(self, session_id: str) -> tuple[str, list[dict[str, Any]]] | None:
        """The harness session, and what has come so far, of a turn that is followed by its events."""
        line = self._lines.get(session_id)
        if line is None or line.turn is None:
            return None
        return line.turn.target.harness_session_id, line.turn.gathered.parts

    def target(self, row: Row) -> Target:
        """Where the messages of a ready session go."""
        return Target(row["sandbox_url"], self._cipher.decrypt(row["tty_token"]), row["harness_session_id"])

    async def snapshot(self, row: Row) -> None:
        """Keep what was said in a ready session; best effort."""
        target = self.target(row)
        try:
            live = await self._client.messages(target, SNAPSHOT_SECONDS)
        except HarnessUnreachable as error:
            logger.debug("session %s: %s", row["id"], error)
            return
        await self._history.sync(row["id"], target.harness_session_id, live)

    async def aclose(self) -> None:
        """Leave all turns to the harnesses; what comes of them is found by the next platform process."""
        self._closed = True
        for line in self._lines.values():
            if line.sync is not None:
                line.sync.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _own(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a turn broke", exc_info=error)

    def _enter(self, session_id: str) -> _Line:
        line = self._lines.setdefault(session_id, _Line())
        line.users += 1
        if line.sync is not None:
            line.sync.cancel()
            line.sync = None
        return line

    def _leave(self, line: _Line, session_id: str) -> None:
        line.users -= 1
        if not line.users and not self._closed:
            line.sync = asyncio.get_running_loop().call_later(SYNC_SECONDS, self._sync_later, line, session_id)

    def _sync_later(self, line: _Line, session_id: str) -> None:
        if self._lines.get(session_id) is line:
            del self._lines[session_id]
        self._own(self._sync(session_id))

    async def _sync(self, session_id: str) -> None:
        async with self._database.read() as tx:
            row = await session_store.get(tx, session_id)
        if row is not None and provisioned(row):
            await self.snapshot(row)

    async def _have_turn(
        self,
        line: _Line,
        session_id: str,
        said: Said,
        outcome: asyncio.Future[Reply | None],
        frames: Frames | None,
        wait: bool,
    ) -> None:
        try:
            async with line.lock, self._giving_back(session_id):
                await self._take(line, session_id, said, outcome, frames, wait)
        except TerminalInsteadError:
            outcome.set_result(None)
        except Exception as error:
            if not isinstance(error, ServiceError | HarnessRefused):
                logger.exception("session %s: a turn broke", session_id)
            if frames is not None and not frames.failed:
                told = "event stream interrupted" if outcome.done() else "prompt_async failed"
                frames.put(failure(told) | {"detail": str(error)})
            if not outcome.done():
                outcome.set_exception(error)
        finally:
            outcome.cancel()  # unless it is done
            if frames is not None:
                frames.close()
            self._leave(line, session_id)

    async def _open(
        self, line: _Line, session_id: str, first: Callable[[str], Sequence[Mapping[str, Any]] | None]
    ) -> None:
        try:
            async with line.lock, self._giving_back(session_id):
                for said in await self._left_to_say(session_id, first):
                    nobody: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
                    nobody.cancel()
                    try:
                        await self._take(line, session_id, said, nobody, None)
                    except (ServiceError, HarnessRefused) as error:
                        await self.complain(session_id, f"{said.complaint}: {error}")
        finally:
            line.opening = None
            self._leave(line, session_id)

    async def _left_to_say(
        self, session_id: str, first: Callable[[str], Sequence[Mapping[str, Any]] | None]
    ) -> list[Said]:
        """Hears the end of what was sent already; returns what is still to be said."""
        async with self._database.read() as tx:
            row = await session_store.get(tx, session_id)
        if row is None or not provisioned(row) or supports_tui(row["harness_id"]):
            return []
        await self._occupy(session_id)
        here = row["harness_session_id"]
        async with self._database.read() as tx:
            queued = [turn for turn in await store.open_turns(tx, [session_id]) if turn["state"] == store.QUEUED]
            said_before = await store.any_said(tx, session_id)
            new_sandbox = said_before and not await store.any_said(tx, session_id, here)
        left = []
        if new_sandbox:
            told = messages.replay(await self._history.of(session_id, without=here))
            left.append(Said(told, replay=True, complaint="the history could not be replayed"))
        for stored in queued:
            parts = list(first(session_id) or stored["parts"])
            if any(part.get("omitted") for part in parts):
                lost = "initial_attachments were lost: the platform ended before the session was ready"
                await self.complain(session_id, lost)
            parts = [part for part in parts if not part.get("omitted")]
            if parts:
                left.append(Said(parts, queued=stored["seq"], complaint="initial_prompt failed"))
        return left

    async def _occupy(self, session_id: str, *, wait: bool = True) -> None:
        """Get the session's turn, once no other process has it, and hear the end of the one before if that was left.

        Raises Conflict instead of waiting.
        """
        if not wait:
            raise Conflict(BUSY.format(session_id))
        pause = LOOK_FIRST
        while not await self._leases.take_turn(session_id):
            await asyncio.sleep(pause)
            pause = min(2 * pause, LOOK_LAST)
        async with self._database.begin() as tx:
            row = await session_store.get(tx, session_id)
            if row is None or not provisioned(row):
                return
            await store.give_up(tx, session_id, row["harness_session_id"])
            left = [turn for turn in await store.open_turns(tx, [session_id]) if turn["state"] == store.SENT]
        for stored in left:
            began_at = clock.text(datetime.fromtimestamp(stored["at_ms"] / 1000, UTC))
            turn = Turn(session_id, self.target(row), Said(stored["parts"]), b"", stored["seq"], began_at)
            try:
                with self._beating(turn):
                    await self._exchange.recover(turn)
            except ServiceError as error:
                await self._failed(turn)
                await self.complain(session_id, f"an answer was lost when the platform was restarted: {error}")

    @asynccontextmanager
    async def _giving_back(self, session_id: str) -> AsyncIterator[None]:
        """Give the turn back at its end; one that the platform's own end cuts off is left."""
        try:
            yield
        finally:
            if not self._closed:
                try:
                    await self._leases.give_back(session_id)
                except Exception as error:
                    logger.warning("session %s: its turn was not given back, which takes longer: %s", session_id, error)

    async def complain(self, session_id: str, warning: str) -> None:
        """Tell in the session's row, and the log, what its user should know."""
        logger.warning("session %s: %s", session_id, warning)
        async with self._database.begin() as tx:
            row = await session_store.get(tx, session_id)
            if row is not None:
                await warn(tx, row, warning)

    async def _take(
        self,
        line: _Line,
        session_id: str,
        said: Said,
        outcome: asyncio.Future[Reply | None],
        frames: Frames | None,
        wait: bool = True,
    ) -> None:
        """Have the turn now, to its end. `outcome` may be done before: then the rest is only for the history."""
        taking = line.taking = asyncio.get_running_loop().create_future()
        try:
            turn = line.turn = await self._start(session_id, said, wait)
            try:
                with self._beating(turn):
                    if frames is None:
                        await self._exchange.converse(turn, outcome)
                    else:
                        await self._exchange.prompt(turn, outcome, frames)
            except (ServiceError, HarnessRefused):
                await self._failed(turn)
                raise
        finally:
            line.turn = line.taking = None
            taking.set_result(None)

    async def _start(self, session_id: str, said: Said, wait: bool) -> Turn:
        """Note that it is said, and be sure that there is somebody to say it to, and nobody else who does.

        Raises NotFound, TerminalInsteadError, and Conflict instead of waiting for another process.
        """
        now = clock.now()

        async def note(tx: Transaction) -> tuple[Row, Target, list[Mapping[str, Any]], int | None]:
            row = await session_store.get(tx, session_id)
            if row is None or not provisioned(row):
                raise not_ready(session_id)
            if supports_tui(row["harness_id"]):
                raise TerminalInsteadError
            if not await self._leases.enter(tx, session_id):
                raise _OccupiedError
            target = self.target(row)
            parts = list(said.parts)
            seq = said.queued
            if seq is not None:
                await store.change(tx, seq, state=store.SENT, harness_session_id=target.harness_session_id)
            elif not said.replay:
                seq = await self._note(tx, session_id, target, parts)
            is_first = seq is not None and (said.queued is not None or row["title_preview"] is None)
            if is_first and messages.takes_preamble(parts):
                parts.insert(0, messages.preamble(session_id, self._base_url))
            values: dict[str, Any] = {"last_seen_at": now}
            if is_first:
                values["title_preview"] = sessions.title_preview(messages.text_of(said.parts)) or "(attachments)"
            if is_first or not row["last_seen_at"] or clock.seconds_since(row["last_seen_at"]) > BEAT_SECONDS:
                await session_store.note(tx, session_id, values)
            return row, target, parts, seq

        while True:
            try:
                row, target, parts, seq = await self._database.write(note)
                break
            except _OccupiedError:
                await self._occupy(session_id, wait=wait)
        self._leases.entered(session_id)
        model = {"providerID": MODEL_PROVIDER, "modelID": row["agent_model"]}
        message = {"model": model, **said.extra, "parts": parts}
        body = await asyncio.to_thread(_encoded, message) if _is_long(parts) else _encoded(message)
        return Turn(session_id, target, said, body, seq, now)

    async def _note(self, tx: Transaction, session_id: str, target: Target, parts: Sequence[Mapping[str, Any]]) -> int:
        message = user_message(target.harness_session_id, parts)
        at_ms = message["info"]["time"]["created"]
        return await store.add(tx, session_id, target.harness_session_id, message, state=store.SENT, at_ms=at_ms)

    async def _failed(self, turn: Turn) -> None:
        if turn.seq is not None:
            async with self._database.begin() as tx:
                await store.change(tx, turn.seq, state=store.FAILED)

    @contextmanager
    def _beating(self, turn: Turn) -> Iterator[None]:
        """Meanwhile note again and again that the session is in use, and what has come so far."""
        loop = asyncio.get_running_loop()

        timer: asyncio.TimerHandle

        def beat() -> None:
            nonlocal timer
            timer = loop.call_later(BEAT_SECONDS, beat)
            self._own(self._beat(turn))

        timer = loop.call_later(BEAT_SECONDS, beat)
        try:
            yield
        finally:
            timer.cancel()

    async def _beat(self, turn: Turn) -> None:
        async with self._database.begin() as tx:
            row = await session_store.get(tx, turn.session_id)
            if row is None or not provisioned(row):
                return
            await session_store.note(tx, turn.session_id, {"last_seen_at": clock.now()})
        await self.snapshot(row)


def _is_long(parts: Sequence[Mapping[str, Any]]) -> bool:
    """Whether to write them as JSON would hold up everything else."""
    return any(part.get("type") != "text" or len(str(part.get("text"))) > IN_THREAD for part in parts)


def _encoded(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def not_ready(session_id: str) -> NotFound:
    """With the text of LAP REST 3.4."""
    return NotFound(f"session {session_id} not found or not ready")


def provisioned(row: Row) -> bool:
    """Whether the session is ready and its agent can be talked to."""
    return bool(row["status"] == sessions.READY and row["sandbox_url"] and row["harness_session_id"])

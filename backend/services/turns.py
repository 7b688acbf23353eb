"""Turns: one message at a time per session, from what the user says to the stored answer.

A turn belongs to the platform, not to who asked for it: it goes on when the client goes away, and one that the
platform's own end cut off is found again in what the harness tells.
"""

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from backend.domain import clock, messages, sessions
from backend.domain.agents import supports_tui
from backend.services.agent_client import (
    IN_THREAD,
    AgentClient,
    HarnessRefused,
    NoMessage,
    NotDelivered,
    Reply,
    Target,
)
from backend.services.errors import Conflict, HarnessFailed, NotFound, ServiceError, TookTooLong
from backend.services.frames import Frames, failure
from backend.services.harness_client import HarnessClient, HarnessUnreachable
from backend.services.history import History, pending_message, user_message, warn
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
VERDICT_SECONDS: Final = 3.0
"""How long the end of a sandbox may take to be noted, before its not answering is taken for one."""
PROBE_SECONDS: Final = 0.1
RECOVER_FIRST, RECOVER_LAST = 0.25, 5.0
"""Seconds between two looks at whether a turn that is not followed any more is over: the first, and the longest."""
RECOVER_OVER: Final = 3.0
"""How long the answer of a turn that is over may take to be told."""
ARRIVAL_SECONDS: Final = 10.0
"""How long a message whose call broke off may take to show among what the agent was told, before it counts as lost."""
ABORT_PAUSES: Final = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds until a turn is aborted once more that has not ended: the agent may have been about to get it."""
MODEL_PROVIDER: Final = "litellm"
BUSY: Final = "session {} is answering another message: wait for it, abort it, or leave out if_busy=refuse"
CROWDED: Final = f"session {{}} has {MAX_WAITING} messages waiting already: try again later"


class TerminalInsteadError(Exception):
    """The session's harness has a terminal and answers no messages."""


@dataclass(slots=True)
class Said:
    """What is to be said. `extra` are further fields of the harness's call."""

    parts: Sequence[Mapping[str, Any]] = field(repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)
    queued: int | None = None
    """The number of the stored message, if it is: the first one of a session."""
    replay: bool = False
    """Whether the platform says it by itself, to a sandbox that knows nothing of the session."""
    complaint: str | None = None
    """What a warning that it failed begins with, where nobody waits for the answer."""


@dataclass(slots=True)
class Turn:
    """A message that was given, or is being given, to the agent."""

    session_id: str
    target: Target
    said: Said
    body: bytes = field(repr=False)
    seq: int | None
    began_at: str
    gathered: messages.Gathered = field(default_factory=messages.Gathered)


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
        *,
        base_url: str | None,
        seconds: float,
    ) -> None:
        self._database = database
        self._cipher = cipher
        self._client = client
        self._harness = harness
        self._history = history
        self._reap = reap
        self._base_url = base_url
        self._seconds = seconds
        self._lines: dict[str, _Line] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def say(
        self, session_id: str, said: Said, *, wait: bool = True, frames: Frames | None = None
    ) -> asyncio.Future[Reply | None]:
        """Have a turn when it is its turn. The result is the answer; None once `frames` tell it instead.

        It is also None for a harness with a terminal, which answers no messages. Raises Conflict at once; the result
        raises ServiceError or HarnessRefused. Need not be awaited.
        """
        line = self._lines.get(session_id)
        if line is not None and line.users:
            if not wait:
                raise Conflict(BUSY.format(session_id))
            if line.users > MAX_WAITING:
                raise Conflict(CROWDED.format(session_id))
        outcome: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._own(self._have_turn(self._enter(session_id), session_id, said, outcome, frames))
        return outcome

    def busy(self, session_id: str) -> bool:
        """Whether a turn runs, or waits to."""
        return session_id in self._lines and self._lines[session_id].users > 0

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
        for pause in ABORT_PAUSES if taking is not None else ():
            assert taking is not None
            done, _ = await asyncio.wait({taking}, timeout=pause)
            if done:
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
    ) -> None:
        try:
            async with line.lock:
                await self._take(line, session_id, said, outcome, frames)
        except TerminalInsteadError:
            outcome.set_result(None)
        except Exception as error:
            if not isinstance(error, ServiceError | HarnessRefused):
                logger.exception("session %s: a turn broke", session_id)
            if frames is not None and not frames.failed:
                frames.put(failure("prompt_async failed") | {"detail": str(error)})
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
            async with line.lock:
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
        async with self._database.begin() as tx:
            row = await session_store.get(tx, session_id)
            if row is None or not provisioned(row) or supports_tui(row["harness_id"]):
                return []
            here = row["harness_session_id"]
            await store.give_up(tx, session_id, here)
            open_turns = await store.open_turns(tx, [session_id])
            said_before = await store.any_said(tx, session_id)
            new_sandbox = said_before and not await store.any_said(tx, session_id, here)
        left = []
        if new_sandbox:
            told = messages.replay(await self._history.of(session_id, without=here))
            left.append(Said(told, replay=True, complaint="the history could not be replayed"))
        for stored in open_turns:
            if stored["state"] == store.QUEUED:
                parts = list(first(session_id) or stored["parts"])
                if any(part.get("omitted") for part in parts):
                    lost = "initial_attachments were lost: the platform ended before the session was ready"
                    await self.complain(session_id, lost)
                parts = [part for part in parts if not part.get("omitted")]
                if parts:
                    left.append(Said(parts, queued=stored["seq"], complaint="initial_prompt failed"))
            else:
                turn = Turn(
                    session_id,
                    self.target(row),
                    Said(stored["parts"]),
                    b"",
                    stored["seq"],
                    clock.text(datetime.fromtimestamp(stored["at_ms"] / 1000, UTC)),
                )
                try:
                    with self._beating(turn):
                        await self._recover(turn)
                except ServiceError as error:
                    await self._failed(turn)
                    await self.complain(session_id, f"an answer was lost when the platform was restarted: {error}")
        return left

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
    ) -> None:
        """Have the turn now, to its end. `outcome` may be done before: then the rest is only for the history."""
        taking = line.taking = asyncio.get_running_loop().create_future()
        try:
            turn = line.turn = await self._start(session_id, said)
            try:
                with self._beating(turn):
                    if frames is None:
                        await self._converse(turn, outcome)
                    else:
                        await self._prompt(turn, outcome, frames)
            except (ServiceError, HarnessRefused):
                await self._failed(turn)
                raise
        finally:
            line.turn = line.taking = None
            taking.set_result(None)

    async def _start(self, session_id: str, said: Said) -> Turn:
        """Note that it is said, and be sure that there is somebody to say it to.

        Raises NotFound, TerminalInsteadError.
        """
        now = clock.now()
        async with self._database.begin() as tx:
            row = await session_store.get(tx, session_id)
            if row is None or not provisioned(row):
                raise not_ready(session_id)
            if supports_tui(row["harness_id"]):
                raise TerminalInsteadError
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
        model = {"providerID": MODEL_PROVIDER, "modelID": row["agent_model"]}
        message = {"model": model, **said.extra, "parts": parts}
        body = await asyncio.to_thread(_encoded, message) if _is_long(parts) else _encoded(message)
        return Turn(session_id, target, said, body, seq, now)

    async def _note(self, tx: Transaction, session_id: str, target: Target, parts: Sequence[Mapping[str, Any]]) -> int:
        message = user_message(target.harness_session_id, parts)
        at_ms = message["info"]["time"]["created"]
        return await store.add(tx, session_id, target.harness_session_id, message, state=store.SENT, at_ms=at_ms)

    async def _converse(self, turn: Turn, outcome: asyncio.Future[Reply | None]) -> None:
        """The whole turn as one call of the harness."""
        try:
            reply = await self._client.message(turn.target, turn.body, self._seconds)
        except TimeoutError:
            raise await self._too_long(turn) from None
        except NoMessage as error:
            raise await self._gone(turn, error) from error
        except HarnessRefused as refused:
            if refused.unknown_session or await self._is_gone(turn):
                raise await self._gone(turn, refused) from refused
            raise
        except HarnessUnreachable as error:
            broken = await self._broken(turn, error)
            if broken is None:
                raise HarnessFailed(f"harness request failed: {error}. The agent did not get it: try again") from error
            if not outcome.done():
                outcome.set_exception(broken)
            await self._recover(turn)
            return
        await self._settle(turn, reply.message)
        if not outcome.done():
            outcome.set_result(reply)

    async def _prompt(self, turn: Turn, outcome: asyncio.Future[Reply | None], frames: Frames) -> None:
        """The turn as events: they are listened to first, so that none is missed."""
        told = "harness event stream failed"
        try:
            async with asyncio.timeout(self._seconds), self._client.events(turn.target) as events:
                told = "prompt_async failed"
                await self._client.prompt(turn.target, turn.body)
                if not outcome.done():
                    outcome.set_result(None)
                told = "event stream interrupted"
                await self._follow(turn, events, frames)
        except TimeoutError:
            frames.put(failure("stream timeout"))
            raise await self._too_long(turn) from None
        except HarnessRefused as refused:
            gone = None
            if refused.unknown_session or await self._is_gone(turn):
                gone = await self._gone(turn, refused)
            frames.put(failure(told) | {"detail": str(gone or refused)})
            raise gone or refused from refused
        except HarnessUnreachable as error:
            broken = await self._broken(turn, error)
            frames.put(failure(told) | {"detail": str(broken or error)})
            if broken is None or not outcome.done():
                raise broken or HarnessFailed(f"harness request failed: {error}") from error
            frames.close()
            await self._recover(turn)
        else:
            await self._recover(turn, over=True)
            frames.put({"type": "done"})

    async def _follow(self, turn: Turn, events: AsyncIterator[dict[str, Any]], frames: Frames) -> None:
        begun = False
        async for event in events:
            turn.gathered.take(event)
            frames.put({"type": "harness_event", "event": event})
            # An end before anything began is that of the turn before.
            if messages.is_idle(event) and begun:
                return
            begun = begun or messages.is_progress(event)
        raise HarnessUnreachable("the harness ended the event stream")

    async def _broken(self, turn: Turn, error: HarnessUnreachable) -> HarnessFailed | None:
        """What to tell of a call that broke off; None when the agent never got it.

        Raises HarnessFailed when the session ended with it.
        """
        if not await self._harness.healthy(turn.target.url):
            raise await self._gone(turn, error) from error
        if isinstance(error, NotDelivered):
            return None
        return HarnessFailed(
            f"harness request failed: {error}. The agent may be at work on it all the same: what it answers will be "
            "in the session's messages"
        )

    async def _row(self, turn: Turn) -> Row | None:
        """The row of the turn's session; None once another sandbox, or none, has taken the place of its own."""
        async with self._database.read() as tx:
            row = await session_store.get(tx, turn.session_id)
        return row if row is not None and row["harness_session_id"] == turn.target.harness_session_id else None

    async def _is_gone(self, turn: Turn) -> bool:
        """Whether the session was ended or restarted since the turn began: then its agent's refusal says nothing."""
        row = await self._row(turn)
        return row is None or row["status"] != sessions.READY

    async def _gone(self, turn: Turn, error: Exception) -> HarnessFailed:
        """The refusal for a session that ended with this turn; ends it unless it has by itself."""
        loop = asyncio.get_running_loop()
        until = loop.time() + (0 if isinstance(error, HarnessRefused | NoMessage) else VERDICT_SECONDS)
        while True:
            row = await self._row(turn)
            if row is None:
                return HarnessFailed(f"harness request failed: session {turn.session_id} was restarted or deleted")
            if row["status"] != sessions.READY:
                break
            if loop.time() > until:
                await self._reap(row, f"sandbox unreachable: {error}", sessions.DEAD)
                until = loop.time() + VERDICT_SECONDS
            await asyncio.sleep(PROBE_SECONDS)
        if parts := turn.gathered.parts:
            await self._history.keep_pending(turn.session_id, turn.target.harness_session_id, parts)
        return HarnessFailed(
            f"harness request failed: session {turn.session_id} is {row['status']} "
            f"({row['failure_reason'] or 'no reason given'}). Restart it to go on: what was said is kept"
        )

    async def _too_long(self, turn: Turn) -> TookTooLong:
        with suppress(HarnessUnreachable, HarnessRefused):
            await self._client.abort(turn.target)
        return TookTooLong(
            f"the turn took longer than {self._seconds:g} s and was aborted "
            "(LAP_MESSAGE_TIMEOUT_SECONDS sets the limit)"
        )

    async def _recover(self, turn: Turn, *, over: bool = False) -> None:
        """Wait until the harness tells the end of the turn, and store it. `over` says that it is known to be over.

        Raises HarnessFailed, TookTooLong.
        """
        pause, loop = 0.0, asyncio.get_running_loop()
        lost_at = loop.time() + ARRIVAL_SECONDS
        before = await self._history.answers_before(turn.session_id, turn.target.harness_session_id, turn.seq)
        live: list[dict[str, Any]] = []
        try:
            async with asyncio.timeout(RECOVER_OVER if over else self._seconds):
                while True:
                    told = await self._told(turn)
                    live = _since(told or [], before)
                    if messages.is_final(live) or (not over and await self._is_idle(turn, live)):
                        break
                    if not over and told is not None and not live and loop.time() > lost_at:
                        raise HarnessFailed(
                            "harness request failed: the agent knows nothing of the message. It did not arrive, or "
                            "the agent's server has ended since: send it again"
                        )
                    pause = min(max(2 * pause, RECOVER_FIRST), RECOVER_LAST)
                    await asyncio.sleep(pause)
        except TimeoutError:
            if not over:
                raise await self._too_long(turn) from None
        await self._history.sync(turn.session_id, turn.target.harness_session_id, live)
        if live and live[-1]["info"].get("role") == "assistant":
            await self._settle(turn, live[-1])
        elif turn.gathered.parts or turn.gathered.error:
            await self._settle(turn, unfinished(turn))
        else:
            raise HarnessFailed("harness request failed: the turn ended without an answer")

    async def _told(self, turn: Turn) -> list[dict[str, Any]] | None:
        """All messages of the session; None while the harness lives, but does not tell them."""
        try:
            return await self._client.messages(turn.target)
        except HarnessUnreachable as error:
            if not await self._harness.healthy(turn.target.url):
                raise await self._gone(turn, error) from error
            return None

    async def _is_idle(self, turn: Turn, live: Sequence[messages.Message]) -> bool:
        """Whether the agent has nothing to do although the turn has no end: it ended with the agent's server."""
        row = await self._row(turn)
        if row is None:
            raise HarnessFailed(f"harness request failed: session {turn.session_id} was restarted or deleted")
        activity = row.get("activity")
        if not live or not activity or activity["state"] != "idle":
            return False
        return bool(activity["since"] >= turn.began_at)

    async def _settle(self, turn: Turn, reply: messages.Message) -> None:
        error = messages.error_of(reply["info"]) if turn.said.complaint else None
        warning = f"{turn.said.complaint}: {error}" if error else None
        await self._history.settle(turn.session_id, turn.target.harness_session_id, turn.seq, reply, warning)

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


def unfinished(turn: Turn) -> dict[str, Any]:
    """The answer as far as its events told it."""
    message = pending_message(turn.session_id, turn.target.harness_session_id, turn.gathered.parts)
    if turn.gathered.error:
        message["info"]["error"] = {"name": "AgentError", "data": {"message": turn.gathered.error}}
    message["info"]["id"] = f"{messages.LOCAL}{uuid.uuid4().hex}"
    return message


def _since(live: Sequence[dict[str, Any]], before: Collection[str]) -> list[dict[str, Any]]:
    """What the harness tells after the last of the answers that were known `before`."""
    for place in range(len(live), 0, -1):
        if live[place - 1]["info"].get("id") in before:
            return list(live[place:])
    return list(live)


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

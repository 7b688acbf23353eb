"""One turn with an agent: from the message to the stored answer, whatever breaks on the way."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from backend.domain import messages, sessions
from backend.services.agent_client import AgentClient, HarnessRefused, NoMessage, NotDelivered, Reply, Target
from backend.services.errors import HarnessFailed, TookTooLong
from backend.services.frames import Frames, failure
from backend.services.harness_client import HarnessClient, HarnessUnreachable
from backend.services.history import History, pending_message
from backend.store import sessions as session_store
from backend.store.database import Database, Row

VERDICT_SECONDS: Final = 3.0
"""How long the end of a sandbox may take to be noted, before its not answering is taken for one."""
PROBE_SECONDS: Final = 0.1
RECOVER_OVER: Final = 3.0
"""How long the answer of a turn that is over may take to be told."""
ARRIVAL_SECONDS: Final = 10.0
"""How long a message whose call broke off may take to show among what the agent was told, before it counts as lost."""
RECOVER_FIRST, RECOVER_LAST = 0.25, 5.0
"""Seconds between two looks at whether a turn that is not followed any more is over: the first, and the longest."""


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


class Exchange:
    """Has turns with agents. `reap` ends a session whose sandbox does not answer (services.sessions)."""

    def __init__(
        self,
        database: Database,
        client: AgentClient,
        harness: HarnessClient,
        history: History,
        reap: Callable[[Row, str, str], Awaitable[bool]],
        seconds: float,
    ) -> None:
        self._database = database
        self._client = client
        self._harness = harness
        self._history = history
        self._reap = reap
        self._seconds = seconds

    async def converse(self, turn: Turn, outcome: asyncio.Future[Reply | None]) -> None:
        """The whole turn as one call of the harness. Raises HarnessFailed, TookTooLong, HarnessRefused."""
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
            await self.recover(turn)
            return
        await self._settle(turn, reply.message)
        if not outcome.done():
            outcome.set_result(reply)

    async def prompt(self, turn: Turn, outcome: asyncio.Future[Reply | None], frames: Frames) -> None:
        """The turn as events: they are listened to first, so that none is missed. Raises as `converse`."""
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
            if refused.unknown_session or await self._is_gone(turn):
                gone = await self._gone(turn, refused)
                frames.put(failure(told) | {"detail": str(gone)})
                raise gone from refused
            frames.put(failure(told) | {"detail": str(refused)})
            raise
        except HarnessUnreachable as error:
            broken = await self._broken(turn, error)
            frames.put(failure(told) | {"detail": str(broken or error)})
            if broken is None or not outcome.done():
                raise broken or HarnessFailed(f"harness request failed: {error}") from error
            frames.close()
            await self.recover(turn)
        else:
            await self.recover(turn, over=True)
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

    async def recover(self, turn: Turn, *, over: bool = False) -> None:
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

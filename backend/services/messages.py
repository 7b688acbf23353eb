"""What users can do with sessions at work: say something, watch, read, interrupt (LAP REST 3.4, 3.6-3.9)."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import quote

from backend.domain import messages, sessions
from backend.domain.agents import supports_tui
from backend.services.agent_client import IN_THREAD, AgentClient, HarnessRefused, pieces
from backend.services.errors import (
    Conflict,
    Ended,
    HarnessFailed,
    TookTooLong,
    Unavailable,
    session_not_found,
)
from backend.services.events import EventFeed, FeedClosed, Filter
from backend.services.exchange import Said
from backend.services.frames import Frames, failure
from backend.services.harness_client import HarnessClient, HarnessUnreachable
from backend.services.history import History, pending_message
from backend.services.http1 import Answer
from backend.services.leases import Leases
from backend.services.sessions import SessionsService
from backend.services.turns import Turns, not_ready, provisioned
from backend.settings import Settings
from backend.store import messages as store
from backend.store import sessions as session_store
from backend.store.database import Database, Row
from backend.store.secrets import Cipher

logger = logging.getLogger(__name__)

READY_SECONDS: Final = 60.0
"""How long `stream` and `opencode` wait for a session to be ready."""
TURN_STREAM_SECONDS: Final = 600.0
WATCH_SECONDS: Final = 1_800.0
REPLAY_SECONDS: Final = 120.0
"""How long a restart waits for the agent to have read what was said before."""
LOG_SECONDS: Final = 5.0
MAX_WATCHERS: Final = 64
"""Streams on one session at the same time."""
HELD_BYTES: Final = 256 * 1024 * 1024
"""Attachments of sessions that are not ready yet, all together."""
LOST_ATTACHMENTS: Final = "the agent is told again what was said before, but without the attachments"
TURN_PATHS: Final = ("message", "prompt_async")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Passage:
    """An answer passed through: read `body` once, which may raise HarnessUnreachable; then close `held`."""

    status: int
    content_type: str
    body: AsyncIterator[bytes]
    held: AsyncExitStack


@dataclass(frozen=True, slots=True)
class Call:
    """A call to be passed through. `path` is decoded and has no leading slash, `query` is as it came."""

    method: str
    path: str
    query: str
    body: bytes | None
    content_type: str | None


class MessagesService:
    """Sessions at work."""

    def __init__(
        self,
        database: Database,
        cipher: Cipher,
        harness: HarnessClient,
        sessions: SessionsService,
        feed: EventFeed,
        leases: Leases,
        settings: Settings,
    ) -> None:
        self._database = database
        self._leases = leases
        self._sessions = sessions
        self._feed = feed
        self._client = AgentClient()
        self._history = History(database)
        self._turns = Turns(
            database,
            cipher,
            self._client,
            harness,
            self._history,
            sessions.reap,
            leases,
            base_url=settings.lap_base_url,
            seconds=settings.message_timeout_seconds,
        )
        self._watchers: Counter[str] = Counter()
        self._held: dict[str, Sequence[Mapping[str, Any]]] = {}
        self._closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sessions.when_ready(self._begin)

    def close(self) -> None:
        """End all streams, and let nobody wait for an answer any more: the platform ends."""
        if not self._closing.done():
            self._closing.set_result(None)

    async def aclose(self) -> None:
        """Leave all turns to the harnesses."""
        self.close()
        await self._turns.aclose()
        self._client.close()

    def hold(self, session_id: str, text: str, images: Sequence[Mapping[str, Any]]) -> bool:
        """Keep a new session's first message with its attachments until it is ready; False when there is no room."""
        parts = [*([{"type": "text", "text": text}] if text else []), *images]
        if self._held_bytes() > HELD_BYTES:  # of sessions that did not come up nobody may ever ask
            self._held = {held: kept for held, kept in self._held.items() if self._sessions.runs(held)}
        if self._held_bytes() > HELD_BYTES:
            return False
        self._held[session_id] = parts
        return True

    def _held_bytes(self) -> int:
        return sum(len(part["source"]["data"]) for kept in self._held.values() for part in kept if "source" in part)

    async def send(self, session_id: str, said: Said, *, wait: bool = True) -> bytes | None:
        """Say something and wait for the answer, as the harness gives it; None for a harness with a terminal instead.

        Raises NotFound unless the session is ready, Conflict, HarnessFailed, TookTooLong, Unavailable.
        """
        if self._turns.busy(session_id):  # who must wait is told at once what the turn itself would find out
            await self._talking(session_id)
        reply = await self._unless_closing(self._turns.say(session_id, said, wait=wait))
        return reply.raw if reply else None

    async def send_streaming(self, session_id: str, said: Said, *, wait: bool = True) -> AsyncIterator[bytes]:
        """Say something; the answer as server-sent events. Raises NotFound, Conflict, before the first."""
        row = await self._talking(session_id)
        if not provisioned(row):
            raise Conflict(f"session {session_id} is not fully provisioned")
        frames = Frames()
        if supports_tui(row["harness_id"]):
            frames.put(failure(messages.TUI_MESSAGE))
            frames.close()
        else:
            if not wait:
                await self._turns.refuse_if_elsewhere(session_id)
            self._turns.say(session_id, said, wait=wait, frames=frames)
        return self._turn_frames(frames)

    async def events(self, session_id: str) -> AsyncIterator[bytes]:
        """What a ready session does, until its turn ends. Raises NotFound, Conflict, Unavailable, before the first."""
        row = await self._sessions.get(session_id)
        if row["status"] != sessions.READY:
            raise Conflict(f"session not ready, status={row['status']}")
        if not provisioned(row):
            raise Unavailable("session missing sandbox_url or harness_session_id")
        return self._watch(row, _frame({"type": "ready"}), TURN_STREAM_SECONDS, wrapped=True, follow=False)

    async def stream(self, session_id: str, *, follow: bool) -> AsyncIterator[bytes]:
        """The same as the harness tells it, also of a session that is not ready yet.

        Raises NotFound, Ended, TookTooLong, before the first.
        """
        row = await self._provisioned(session_id)
        return self._watch(row, _frame({"type": "stream.opened"}), WATCH_SECONDS, wrapped=False, follow=follow)

    async def messages(self, session_id: str) -> list[dict[str, Any]]:
        """All that was said, oldest first: what the harness tells, after what is kept of earlier sandboxes.

        Raises NotFound, HarnessFailed when nothing is kept and the harness tells nothing.
        """
        row = await self._sessions.get(session_id)
        kept = await self._history.of(session_id)
        if not provisioned(row) or supports_tui(row["harness_id"]):
            return kept
        target = self._turns.target(row)
        try:
            live = [shown for message in await self._client.messages(target) if (shown := messages.shown(message))]
        except HarnessUnreachable as error:
            if not kept:
                raise HarnessFailed(f"harness request failed: {error}") from error
            live = []
        if live:
            kept = _merged(kept, live, target.harness_session_id)
        gathered = self._turns.gathered(session_id)
        if gathered and gathered[1] and kept and kept[-1]["info"].get("role") == "user":
            kept.append(pending_message(session_id, *gathered))
        return kept

    async def log(self, session_id: str) -> list[dict[str, Any]]:
        """What happened in the session, one line each; empty for one that does not exist."""
        row = await self._row(session_id)
        if row is None:
            return []
        said = await self._history.of(session_id)
        if provisioned(row) and not supports_tui(row["harness_id"]):
            target = self._turns.target(row)
            with suppress(HarnessUnreachable):
                live = await self._client.messages(target, LOG_SECONDS)
                shown = [visible for message in live if (visible := messages.shown(message))]
                said = _merged(said, shown, target.harness_session_id) if shown else said
        return messages.log_entries(row, said)

    async def abort(self, session_id: str) -> None:
        """End the turn that runs. Raises NotFound unless the session is ready, HarnessFailed."""
        row = await self._talking(session_id)
        if not provisioned(row):
            raise not_ready(session_id)
        try:
            await self._turns.abort(session_id, self._turns.target(row))
        except (HarnessUnreachable, HarnessRefused) as error:
            raise HarnessFailed(f"harness request failed: {error}") from error

    async def restart(self, session_id: str, by: str | None = None) -> Row:
        """A new sandbox for a settled session, which is told what was said before.

        Raises as SessionsService.restart.
        """
        row = await self._sessions.get(session_id)
        terminal = supports_tui(row["harness_id"])
        if provisioned(row) and not terminal:
            await self._turns.snapshot(row)
        had_attachments = any(
            part.get("omitted") for message in await self._history.of(session_id) for part in message["parts"]
        )
        await self._sessions.restart(session_id, by)
        if had_attachments:
            await self._turns.complain(session_id, LOST_ATTACHMENTS)
        if not terminal and not await self._turns.opened(session_id, REPLAY_SECONDS):
            logger.info("session %s: its agent is still reading what was said before", session_id)
        return await self._sessions.get(session_id)

    async def full_response(self, session_id: str) -> Mapping[str, Any] | None:
        """The whole latest reply, where the row's is cut short."""
        async with self._database.read() as tx:
            return await store.full_response(tx, session_id)

    async def resume(self, of: Collection[str] | None = None) -> None:
        """Go on with what another platform process left: its first messages, and the answers it did not hear.

        In all sessions that this one runs, or in those `of` them only.
        """
        async with self._database.read() as tx:
            waiting = {row["session_id"] for row in await store.open_turns(tx)}
        for session_id in waiting if of is None else waiting.intersection(of):
            if self._sessions.runs(session_id):
                self._begin(session_id)

    async def resume_left(self) -> None:
        """Hear the end of turns that a lost process had in sessions which this one runs."""
        for session_id in await self._leases.left_turns() if self._leases.shared else ():
            if self._sessions.runs(session_id) and not self._turns.busy(session_id):
                self._turns.begin(session_id, lambda _session_id: None)

    async def passage(self, session_id: str, call: Call) -> Passage:
        """Pass a call through to the harness; one that says something is a turn like any other.

        Raises NotFound, Ended, TookTooLong, Conflict, HarnessFailed.
        """
        row = await self._provisioned(session_id)
        target = self._turns.target(row)
        if call.method == "POST" and not supports_tui(row["harness_id"]):
            for name in TURN_PATHS:
                if call.path.strip("/") == f"session/{target.harness_session_id}/{name}":
                    return await self._turn_passage(session_id, call.body or b"", asynchronous=name != "message")
        path = f"/{quote(call.path, safe='/:@!$&()*+,;=~-._')}" + (f"?{call.query}" if call.query else "")
        stack = AsyncExitStack()
        try:
            answer = await stack.enter_async_context(
                self._client.forward(target.url, target.token, call.method, path, call.body, call.content_type)
            )
        except HarnessUnreachable as error:
            raise HarnessFailed(f"harness request failed: {error}") from error
        if answer.status == 404 and call.method == "GET" and _is_message_list(call.path):
            await stack.aclose()
            history = await self._history.of(session_id)
            return _whole_passage(200, json.dumps(history, ensure_ascii=False).encode())
        content_type = answer.headers.get("content-type", "application/octet-stream")
        return Passage(answer.status, content_type, self._passed(session_id, answer), stack)

    async def _turn_passage(self, session_id: str, raw: bytes, *, asynchronous: bool) -> Passage:
        try:
            body = await asyncio.to_thread(json.loads, raw) if len(raw) > IN_THREAD else json.loads(raw)
        except (ValueError, RecursionError):
            body = None
        parts = body.get("parts") if isinstance(body, dict) else None
        if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
            return _whole_passage(400, b'{"error":"parts must be a list of parts"}')
        said = Said(parts, extra={name: value for name, value in body.items() if name != "parts"})
        frames = None
        if asynchronous:
            frames = Frames()
            frames.close()  # nobody reads them
        try:
            reply = await self._unless_closing(self._turns.say(session_id, said, frames=frames))
        except HarnessRefused as refused:
            return _whole_passage(refused.status, refused.body)
        return _whole_passage(200 if reply else 204, reply.raw if reply else b"")

    async def _passed(self, session_id: str, answer: Answer) -> AsyncIterator[bytes]:
        body = pieces(answer)
        until = _now() + WATCH_SECONDS
        with self._watching(session_id):
            try:
                while (piece := await self._unless_closing(anext(body, None), until)) is not None:
                    yield piece
            except (Unavailable, TimeoutError) as error:
                raise HarnessUnreachable(str(error) or f"it went on for {WATCH_SECONDS:g} s") from None

    def _begin(self, session_id: str) -> None:
        held = self._held.pop(session_id, None)
        self._turns.begin(session_id, lambda _session_id: held)

    async def _row(self, session_id: str) -> Row | None:
        async with self._database.read() as tx:
            return await session_store.get(tx, session_id)

    async def _talking(self, session_id: str) -> Row:
        """The row of a ready session. Raises NotFound."""
        row = await self._row(session_id)
        if row is None or row["status"] != sessions.READY:
            raise not_ready(session_id)
        return row

    async def _provisioned(self, session_id: str) -> Row:
        """The row of a session once it is ready. Raises NotFound, Ended, TookTooLong."""
        subscription = await self._feed.subscribe(None, Filter(session_id=session_id))
        deadline = _now() + READY_SECONDS
        while True:
            row = await self._row(session_id)
            if row is None:
                raise session_not_found(session_id)
            if row["status"] in sessions.ENDED:
                raise Ended(f"session {session_id} is {row['status']}")
            if provisioned(row):
                return row
            if (left := deadline - _now()) <= 0:
                raise TookTooLong(f"session {session_id} not ready within {READY_SECONDS:.0f}s")
            try:
                await subscription.next(left)
            except FeedClosed:
                raise _closing() from None

    async def _turn_frames(self, frames: Frames) -> AsyncIterator[bytes]:
        yield _frame({"type": "ready"})
        until = _now() + TURN_STREAM_SECONDS
        try:
            while (waiting := await self._unless_closing(frames.next(), until)) is not None:
                yield waiting
        except TimeoutError:
            yield _frame(failure("stream timeout"))
        except Unavailable:
            yield _frame(failure("event stream interrupted"))
        finally:
            frames.close()

    async def _watch(
        self, row: Row, first: bytes, seconds: float, *, wrapped: bool, follow: bool
    ) -> AsyncIterator[bytes]:
        told = "harness event stream failed"
        opened = False
        until = _now() + seconds
        try:
            with self._watching(row["id"]):
                async with self._client.events(self._turns.target(row)) as events:
                    yield first
                    opened, told = True, "event stream interrupted"
                    while (event := await self._unless_closing(anext(events, None), until)) is not None:
                        yield _frame({"type": "harness_event", "event": event} if wrapped else event)
                        if messages.is_idle(event) and not follow:
                            if wrapped:
                                yield _frame({"type": "done"})
                            return
        except TimeoutError:
            told = "stream timeout"
        except (HarnessUnreachable, Unavailable, Conflict) as error:
            logger.info("session %s: a stream ended: %s", row["id"], error)
        if wrapped:
            yield (b"" if opened else first) + _frame(failure(told))

    @contextmanager
    def _watching(self, session_id: str) -> Iterator[None]:
        if self._watchers[session_id] >= MAX_WATCHERS:
            raise Conflict(f"session {session_id} has {MAX_WATCHERS} streams already")
        self._watchers[session_id] += 1
        try:
            yield
        finally:
            self._watchers[session_id] -= 1
            if not self._watchers[session_id]:
                del self._watchers[session_id]

    async def _unless_closing(self, work: Awaitable[T], until: float | None = None) -> T:
        """The result of `work`; Unavailable when the platform ends before it, TimeoutError at `until`.

        A turn's future is left alone: the turn goes on in any case.
        """
        doing = asyncio.ensure_future(work)
        try:
            timeout = None if until is None else max(until - _now(), 0.0)
            both: set[asyncio.Future[Any]] = {doing, self._closing}
            await asyncio.wait(both, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if doing.cancelled() or (self._closing.done() and not doing.done()):
                raise _closing()
            if not doing.done():
                raise TimeoutError
            return doing.result()
        finally:
            if doing is not work and not doing.done():
                doing.cancel()
                # To its end, also when we are cancelled again and again: what it reads from is closed next.
                while not doing.done():
                    with suppress(asyncio.CancelledError):
                        await asyncio.wait([doing])
                if not doing.cancelled():
                    doing.exception()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _closing() -> Unavailable:
    return Unavailable("the platform is ending; the agent goes on: read the session's messages once it is back")


def _merged(
    kept: Sequence[dict[str, Any]], live: Sequence[dict[str, Any]], harness_session_id: str
) -> list[dict[str, Any]]:
    """What is kept from before the first message that the harness tells, then all that it tells."""
    told = {message["info"].get("id") for message in live}
    texts = {messages.text_of(message["parts"]) for message in live if message["info"].get("role") == "user"}
    begun = messages.created_ms(live[0]["info"]) or 0

    def before(message: Mapping[str, Any]) -> bool:
        info = message["info"]
        local = info.get("sessionID") == harness_session_id and str(info.get("id")).startswith(messages.LOCAL)
        if local and messages.text_of(message["parts"]) in texts:
            return False  # the harness tells it under another id
        return info.get("id") not in told and (messages.created_ms(info) or 0) < begun

    return [message for message in kept if before(message)] + list(live)


def _is_message_list(path: str) -> bool:
    words = path.split("/")
    return len(words) == 3 and words[0] == "session" and words[2] == "message"


def _whole_passage(status: int, body: bytes) -> Passage:
    async def once() -> AsyncIterator[bytes]:
        yield body

    return Passage(status, "application/json", once(), AsyncExitStack())


def _frame(frame: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % json.dumps(frame, ensure_ascii=False, separators=(",", ":")).encode()

"""The kept history of sessions, brought up to date with what harnesses tell (LAP REST 3.9)."""

import time
import uuid
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy.exc import IntegrityError

from backend.domain import clock, messages, sessions
from backend.store import messages as store
from backend.store import sessions as session_store
from backend.store.database import Database, Row, Transaction

AT_A_TIME: Final = 100
"""Messages stored in one transaction: others want to write too."""


class History:
    """Reads and writes what was said in sessions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, session_id: str, *, without: str | None = None) -> list[dict[str, Any]]:
        """What is kept, oldest first, as users see it; `without` leaves out one harness session, and what was not said
        yet.
        """
        async with self._database.read() as tx:
            return store.as_messages(await store.of(tx, session_id, without_sandbox=without))

    async def answers_before(self, session_id: str, harness_session_id: str, seq: int | None) -> set[str]:
        """The ids of the answers kept of one harness session before the user's message `seq`."""
        if seq is None:
            return set()
        async with self._database.read() as tx:
            return await store.answers_before(tx, session_id, harness_session_id, seq)

    async def sync(self, session_id: str, harness_session_id: str, live: Sequence[messages.Message]) -> None:
        """Keep what the harness tells that is not kept yet. What it tells no more stays."""
        async with self._database.read() as tx:
            rows = await store.known(tx, session_id, harness_session_id)
        known = {row["message_id"]: row for row in rows}
        # The platform stores what a user says before it knows the id that the harness will give it.
        local: dict[str, deque[int]] = defaultdict(deque)
        for row in rows:
            if row["message_id"].startswith(messages.LOCAL):
                local[messages.text_of(row["parts"])].append(row["seq"])
        changes: list[tuple[int | None, dict[str, Any]]] = []
        for message in live:
            stored = known.get(_id(message))
            if stored is not None and stored["state"] != store.PENDING:
                continue
            visible = messages.shown(message)
            if visible is None:
                continue
            smaller = messages.kept(visible)
            seq = stored["seq"] if stored else None
            if seq is None and smaller["info"].get("role") == "user":
                waiting = local[messages.text_of(smaller["parts"])]
                seq = waiting.popleft() if waiting else None
            changes.append((seq, smaller))
        for start in range(0, len(changes), AT_A_TIME):
            async with self._database.begin() as tx:
                await session_store.hold(tx, session_id)
                for seq, message in changes[start : start + AT_A_TIME]:
                    await self._store(tx, session_id, harness_session_id, seq, message)
                await store.trim(tx, session_id)

    async def _store(
        self, tx: Transaction, session_id: str, harness_session_id: str, seq: int | None, message: dict[str, Any]
    ) -> None:
        info = message["info"] | {"sessionID": harness_session_id}
        message = {**message, "info": info}
        at_ms = messages.created_ms(info) or now_ms()
        is_user = info.get("role") == "user"
        if seq is None:
            seq = await store.find(tx, session_id, _id(message))  # it may have been stored meanwhile
        if seq is None:
            if await session_store.get(tx, session_id) is None:
                return  # deleted with its agent meanwhile
            state = store.DONE if is_user else _state(message)
            await store.add(tx, session_id, harness_session_id, message, state=state, at_ms=at_ms)
        elif is_user:
            await store.change(tx, seq, message=message, message_id=_id(message), at_ms=at_ms)
        else:
            await store.finish(tx, seq, message=message, state=_state(message))

    async def settle(
        self,
        session_id: str,
        harness_session_id: str,
        seq: int | None,
        reply: messages.Message,
        warning: str | None = None,
    ) -> None:
        """Keep the answer to the user's message `seq`, and show it as the session's `response`, with a warning."""
        message = messages.kept(reply)
        message["info"] = {**message["info"], "id": _id(reply), "role": "assistant", "sessionID": harness_session_id}
        try:
            await self._settle(session_id, harness_session_id, seq, reply, message, warning, stored=False)
        except IntegrityError:  # kept meanwhile, or the session is gone
            await self._settle(session_id, harness_session_id, seq, reply, message, warning, stored=True)

    async def _settle(
        self,
        session_id: str,
        harness_session_id: str,
        seq: int | None,
        reply: messages.Message,
        message: dict[str, Any],
        warning: str | None,
        *,
        stored: bool,
    ) -> None:
        response = messages.response(reply)
        short = messages.short(response)
        values: dict[str, Any] = {
            "response": short,
            "full_response": response if short.get("truncated") else None,
            "last_seen_at": clock.now(),
        }

        async def keep(tx: Transaction) -> None:
            await session_store.hold(tx, session_id)
            if stored or warning is not None:
                row = await session_store.get(tx, session_id)
                if row is None:  # deleted with its agent meanwhile
                    return
                if warning is not None:
                    values["warnings"] = _with(row["warnings"], warning)
            # As few statements as can be: who said something waits for them.
            known = await store.find(tx, session_id, message["info"]["id"]) if stored else None
            if known is None:
                at_ms = messages.created_ms(message["info"]) or now_ms()
                await store.add(tx, session_id, harness_session_id, message, state=store.DONE, at_ms=at_ms)
            else:
                await store.change(tx, known, message=message, state=store.DONE)
            if seq is not None:
                await store.change(tx, seq, state=store.DONE)
            await session_store.transition(
                tx,
                session_id,
                expected={"harness_session_id": harness_session_id},
                values=values,
                event_type="session.updated",
            )

        await self._database.write(keep)

    async def keep_pending(self, session_id: str, harness_session_id: str, parts: Sequence[Mapping[str, Any]]) -> None:
        """Keep what came of an answer that will not be finished."""
        pending = messages.kept(pending_message(session_id, harness_session_id, parts))
        async with self._database.begin() as tx:
            row = await session_store.get(tx, session_id)
            if row is None:
                return
            old = await store.find(tx, session_id, _id(pending))
            if old is not None:  # of an earlier turn: it keeps its place under another id
                await store.change(tx, old, message_id=f"{messages.LOCAL}{uuid.uuid4().hex}")
            await store.add(tx, session_id, harness_session_id, pending, state=store.FAILED, at_ms=now_ms())


async def warn(tx: Transaction, row: Row, warning: str) -> None:
    """Tell in the session's row what its user should know, while the session works."""
    await session_store.transition(
        tx,
        row["id"],
        expected={"status": sessions.READY, "creating_since": row["creating_since"]},
        values={"warnings": _with(row["warnings"], warning)},
        event_type="session.updated",
    )


def user_message(harness_session_id: str | None, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a user says, as it is kept until the harness tells what it calls it."""
    info = {
        "id": f"{messages.LOCAL}{uuid.uuid4().hex}",
        "sessionID": harness_session_id,
        "role": "user",
        "time": {"created": now_ms()},
    }
    return messages.kept({"info": info, "parts": list(parts)})


def pending_message(session_id: str, harness_session_id: str, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An answer so far (LAP REST 3.9)."""
    info = {
        "id": f"{messages.PENDING}{session_id}",
        "sessionID": harness_session_id,
        "role": "assistant",
        "time": {"created": now_ms()},
    }
    return {"info": info, "parts": list(parts)}


def now_ms() -> int:
    """The present moment in ms since 1970."""
    return time.time_ns() // 1_000_000


def _state(message: messages.Message) -> str:
    info = message["info"]
    told = info.get("time")
    done = info.get("error") or (isinstance(told, dict) and told.get("completed"))
    return store.DONE if done else store.PENDING


def _id(message: messages.Message) -> str:
    given = message["info"].get("id")
    if isinstance(given, str) and 0 < len(given) <= 200:
        return given
    # Told again it gets the same one.
    return str(uuid.uuid5(uuid.NAMESPACE_OID, repr((message["info"].get("time"), message["parts"]))[:100_000]))


def _with(warnings: Sequence[str], warning: str) -> list[str]:
    return [*warnings, warning[: messages.WARNING_TEXT]][-messages.MAX_WARNINGS :]

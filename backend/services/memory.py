"""What agents remember: listed, written, and recalled for a new session (LAP REST 7.1)."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.domain import clock
from backend.domain import memory as rules
from backend.services.errors import Conflict, NotFound, agent_not_found
from backend.store import agents, memories, sessions
from backend.store.database import Database, Row, Transaction


@dataclass(frozen=True, slots=True)
class Recalled:
    """What a new session is told: the block before its prompt, "" for nothing, and the memories in it."""

    block: str
    memory_ids: tuple[str, ...]


async def recall(tx: Transaction, agent: Row) -> Recalled:
    """The memories for a new session of `agent`. They count as used only once the session is ready."""
    pinned, ranked = await memories.for_session(
        tx, agent["id"], pinned_limit=rules.MAX_PINNED, ranked_limit=agent["preload_memory_limit"]
    )
    return Recalled(rules.block(pinned, ranked), tuple(row["id"] for row in (*pinned, *ranked)))


class MemoryService:
    """Use cases on memories. Takes values that are checked already, as the request models do it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        agent_id: str,
        *,
        limit: int,
        offset: int,
        search: str,
        tag: str,
        include_disabled: bool,
        counted: bool = False,
    ) -> list[Row]:
        """See memories.page. Looking is no use; what a search finds is, when `counted`: then an agent asks itself.

        Raises NotFound for an unknown agent.
        """
        async with self._database.read() as tx:
            if not await agents.known(tx, agent_id):
                raise agent_not_found(agent_id)
            found = await memories.page(
                tx, agent_id, limit=limit, offset=offset, search=search, tag=tag, include_disabled=include_disabled
            )
        if counted and search and found:
            async with self._database.begin() as tx:
                await memories.note_use(tx, [row["id"] for row in found], clock.now())
        return found

    async def create(self, agent_id: str, values: Mapping[str, Any]) -> Row:
        """Store a new memory; `values` has `text`, and what is not its default. Raises NotFound, Conflict."""
        now = clock.now()
        row = {
            **_NEW_MEMORY,
            **values,
            "tags": list(dict.fromkeys(values.get("tags", ()))),
            "id": str(uuid.uuid4()),
            "agent_id": agent_id,
            "created_at": now,
            "updated_at": now,
        }
        async with self._database.begin() as tx:
            if not await agents.known(tx, agent_id):
                raise agent_not_found(agent_id)
            if await memories.count(tx, agent_id) >= rules.MAX_PER_AGENT:
                raise Conflict(f"agent '{agent_id}' has {rules.MAX_PER_AGENT} memories: delete some, then try again")
            return await memories.add(tx, row)

    async def change(self, agent_id: str, memory_id: str, values: Mapping[str, Any]) -> Row:
        """Replace the given fields; others stay. Raises NotFound."""
        values = dict(values)
        if "tags" in values:
            values["tags"] = list(dict.fromkeys(values["tags"]))
        async with self._database.begin() as tx:
            stored = await memories.get(tx, agent_id, memory_id)
            if stored is None:
                raise _not_found(memory_id)
            changed = {name: value for name, value in values.items() if value != stored[name]}
            if not changed:
                return stored
            return await memories.change(tx, agent_id, memory_id, {**changed, "updated_at": clock.now()}) or stored

    async def delete(self, agent_id: str, memory_id: str) -> None:
        """Forget a memory. Raises NotFound."""
        async with self._database.begin() as tx:
            if not await memories.remove(tx, agent_id, memory_id):
                raise _not_found(memory_id)

    async def agent_of(self, session_id: str) -> str:
        """The agent whose memories a session shares. Raises NotFound."""
        async with self._database.read() as tx:
            row = await sessions.get(tx, session_id)
        if row is None:
            raise NotFound(f"session '{session_id}' not found")  # quoted here, as LAP REST 1.2 says
        agent_id: str = row["agent_id"]
        return agent_id


_NEW_MEMORY: Mapping[str, Any] = {
    "type": rules.DEFAULT_TYPE,
    "priority": 0,
    "pinned": False,
    "disabled": False,
    "times_applied": 0,
    "last_applied_at": None,
    "source": "ui",
    "source_user_id": None,
    "source_session_id": None,
    "source_thread_ts": None,
}


def _not_found(memory_id: str) -> NotFound:
    return NotFound(f"memory '{memory_id}' not found")

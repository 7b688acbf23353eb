"""A database of its own for each test, with an agent in it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backend.store import agents
from backend.store.database import Database
from tests.rows import agent_row


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """Opened, migrated, holding one agent `a1`."""
    database = await Database.open(tmp_path / "platform.db")
    async with database.begin() as tx:
        await agents.add(tx, agent_row("a1", name="First"))
    yield database
    await database.close()

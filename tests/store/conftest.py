"""A database of its own for each test, of either kind, with an agent in it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from backend.store import agents
from backend.store.database import Database
from tests.postgres import on_both
from tests.rows import agent_row

Opener = Callable[[], Awaitable[Database]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Whatever needs a database runs on both kinds."""
    if "database_kind" in metafunc.fixturenames:
        metafunc.parametrize(*on_both.args)


@pytest.fixture
async def another(location: Path | str) -> AsyncIterator[Opener]:
    """Opens the same database once more, as another process would."""
    async with AsyncExitStack() as stack:

        async def opened() -> Database:
            database = await Database.open(location)
            stack.push_async_callback(database.close)
            return database

        yield opened


@pytest.fixture
async def database(another: Opener) -> Database:
    """Opened, migrated, holding one agent `a1`."""
    database = await another()
    async with database.begin() as tx:
        await agents.add(tx, agent_row("a1", name="First"))
    return database

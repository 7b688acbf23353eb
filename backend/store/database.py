"""The database connection: reads that never wait, and one write transaction at a time.

    async with database.read() as tx: ...
    async with database.begin() as tx: ...   # committed at the end, rolled back on any exception

SQLite in WAL mode. What is special to it stands in `_engine`; tables and queries are plain SQL, so that PostgreSQL
can take its place.
"""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import Connection, CursorResult, Executable, event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from backend.store import migrate

if TYPE_CHECKING:
    from backend.store.events import Event

Row = Mapping[str, Any]
T = TypeVar("T")

LOCK_TIMEOUT: Final = 10.0
"""Seconds to wait for the database when another process holds its write lock."""
READERS: Final = 4

_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    f"PRAGMA busy_timeout = {int(LOCK_TIMEOUT * 1000)}",
    "PRAGMA foreign_keys = ON",
)


class Transaction:
    """One open transaction. `events` collects what was appended to the event log within it."""

    __slots__ = ("_connection", "events")

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self.events: list[Event] = []

    async def execute(
        self, statement: Executable, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[Any]:
        """Run one statement."""
        return await _whole(self._connection.execute(statement, parameters))

    async def row(self, statement: Executable) -> Row | None:
        """The only row of a query, or None."""
        row = (await self.execute(statement)).one_or_none()
        return None if row is None else row._asdict()

    async def rows(self, statement: Executable) -> list[Row]:
        """All rows of a query."""
        return [row._asdict() for row in await self.execute(statement)]

    async def scalar(self, statement: Executable) -> Any:
        """The first column of the first row of a query, or None."""
        return (await self.execute(statement)).scalar()


class Database:
    """An open database, migrated to the present tables."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        # In one process writers queue here, in order, instead of sleeping on SQLite's lock.
        self._writer = asyncio.Lock()
        self._observers: list[Callable[[Sequence[Event]], None]] = []

    @classmethod
    async def open(cls, path: Path) -> "Database":
        """Open the SQLite file at `path`, made and migrated when needed.

        Raises one of StoreError when it cannot be used.
        """
        await asyncio.to_thread(prepare, path)
        return cls(_engine(path))

    def on_commit(self, observer: Callable[[Sequence["Event"]], None]) -> None:
        """Call `observer` with the events of each committed transaction, in commit order. It must not raise."""
        self._observers.append(observer)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Transaction]:
        """A write transaction. It sees and blocks all other writes until its end."""
        async with self._writer, self._engine.connect() as connection:
            await connection.execution_options(writes=True)
            await _whole(connection.begin().start())
            transaction = Transaction(connection)
            yield transaction
            await _whole(self._commit(connection, transaction))

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """For queries only. Each statement sees the newest committed state."""
        async with self._engine.connect() as connection:
            yield Transaction(connection)

    async def _commit(self, connection: AsyncConnection, transaction: Transaction) -> None:
        await connection.commit()
        if transaction.events:
            for observer in self._observers:
                observer(transaction.events)

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


async def _whole(work: Awaitable[T]) -> T:
    """The result of `work`, which goes on to its end also when the caller is cancelled.

    A statement cut off in the middle would leave its connection, and with it the write lock, to nobody.
    """
    doing = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        while not doing.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([doing])
        if not doing.cancelled():
            doing.exception()  # not "never retrieved": nobody is there any more to be told
        raise


def prepare(path: Path) -> None:
    """Make and migrate the file at `path` where needed. Raises one of StoreError when it cannot be used."""
    path.touch(mode=0o600, exist_ok=True)
    migrate.upgrade(path)


def _engine(path: Path) -> AsyncEngine:
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=str(path)),
        pool_size=READERS + 1,
        max_overflow=0,
        pool_timeout=LOCK_TIMEOUT,
        hide_parameters=True,  # an error message must not repeat stored values
        json_serializer=_json,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are ours, see `begin`
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(pragma)
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that starts with a read and then writes can fail at once when another process wrote meanwhile;
        # taking the write lock first waits for its turn. Reads need no transaction at all.
        if connection.get_execution_options().get("writes"):
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


StoreError = (sqlite3.Error, OSError, migrate.SchemaError)
"""Why a database file cannot be used; SchemaError: a newer version of the platform wrote it."""

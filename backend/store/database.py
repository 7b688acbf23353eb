"""The database connection: reads that never wait, and one write transaction at a time.

    async with database.read() as tx: ...
    async with database.begin() as tx: ...   # committed at the end, rolled back on any exception

SQLite in WAL mode. Statements run in threads, one turn of a thread each: reads in a few, writes in one of their own.
Those that run all the time are made once and take parameters: to make them, and to look up what SQLAlchemy has compiled
them to, takes longer than SQLite does.
What is special to SQLite stands in `_engine`; tables and queries are plain SQL, so that PostgreSQL can take its place.
"""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import Connection, CursorResult, Engine, Executable, create_engine, event
from sqlalchemy.engine import URL

from backend.store import migrate

if TYPE_CHECKING:
    from backend.store.events import Event

Row = Mapping[str, Any]
Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]
T = TypeVar("T")
Work = Callable[[Connection], T]

LOCK_TIMEOUT: Final = 10.0
"""Seconds to wait for the database when another process holds its write lock."""
READERS: Final = 2
"""More would only wait for each other: what they do with the rows, one Python thread does at a time."""

_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    f"PRAGMA busy_timeout = {int(LOCK_TIMEOUT * 1000)}",
    "PRAGMA foreign_keys = ON",
)


class Transaction:
    """One open transaction. `events` collects what was appended to the event log within it."""

    __slots__ = ("_run", "events")

    def __init__(self, run: Callable[[Work[Any]], Awaitable[Any]]) -> None:
        self._run = run
        self.events: list[Event] = []

    async def execute(self, statement: Executable, parameters: Parameters | None = None) -> CursorResult[Any]:
        """Run a statement that gives no rows; `rowcount` of the result tells how many it changed."""
        result: CursorResult[Any] = await self._run(lambda connection: connection.execute(statement, parameters))
        return result

    async def row(self, statement: Executable, parameters: Parameters | None = None) -> Row | None:
        """The only row of a query, or None."""

        def work(connection: Connection) -> Row | None:
            row = connection.execute(statement, parameters).one_or_none()
            return None if row is None else row._asdict()

        row: Row | None = await self._run(work)
        return row

    async def rows(self, statement: Executable, parameters: Parameters | None = None) -> list[Row]:
        """All rows of a query."""
        rows: list[Row] = await self._run(
            lambda connection: [row._asdict() for row in connection.execute(statement, parameters).all()],
        )
        return rows

    async def made(
        self, statement: Executable, parameters: Parameters, make: Callable[[tuple[Any, ...]], T]
    ) -> list[T]:
        """What `make` makes of each row of a query; it is called in a thread."""
        made: list[T] = await self._run(
            lambda connection: [make(tuple(row)) for row in connection.execute(statement, parameters).all()],
        )
        return made

    async def scalar(self, statement: Executable, parameters: Parameters | None = None) -> Any:
        """The first column of the first row of a query, or None."""
        return await self._run(lambda connection: connection.execute(statement, parameters).scalar())


class Database:
    """An open database, migrated to the present tables."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # In one process writers queue here, in order, instead of sleeping on SQLite's lock.
        self._writer = asyncio.Lock()
        self._reading = ThreadPoolExecutor(READERS, "reads")
        self._writing = ThreadPoolExecutor(1, "writes")
        self._written: Connection | None = None
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
        async with self._writer:
            transaction = Transaction(self._write)
            try:
                await self._write(_begin)
                yield transaction
                await _whole(self._commit(transaction))
            except BaseException:
                await self._write(Connection.rollback)
                raise

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """For queries only. Each statement sees the newest committed state."""
        yield Transaction(self._read)

    async def _read(self, work: Work[T]) -> T:
        def done() -> T:
            with self._engine.connect() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._reading, done)

    async def _write(self, work: Work[T]) -> T:
        def done() -> T:
            if self._written is None:
                self._written = self._engine.connect()
            return work(self._written)

        return await _whole(asyncio.get_running_loop().run_in_executor(self._writing, done))

    async def _commit(self, transaction: Transaction) -> None:
        await self._write(Connection.commit)
        if transaction.events:
            for observer in self._observers:
                observer(transaction.events)

    async def close(self) -> None:
        """Close all connections, once what runs is done."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._reading.shutdown()
        self._writing.shutdown()
        if self._written is not None:
            self._written.close()
        self._engine.dispose()


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


def _begin(connection: Connection) -> None:
    # A transaction that starts with a read and then writes can fail at once when another process wrote meanwhile;
    # taking the write lock first waits for its turn. Reads need no transaction at all.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _engine(path: Path) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        pool_size=READERS + 1,
        max_overflow=0,
        pool_timeout=LOCK_TIMEOUT,
        hide_parameters=True,  # an error message must not repeat stored values
        json_serializer=_json,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions are ours, see `begin`
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(pragma)
        cursor.close()

    return engine


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


StoreError = (sqlite3.Error, OSError, migrate.SchemaError)
"""Why a database file cannot be used; SchemaError: a newer version of the platform wrote it."""

"""The database connection: reads that never wait, and write transactions.

    async with database.read() as tx: ...
    async with database.begin() as tx: ...   # committed at the end, rolled back on any exception
    await database.write(lambda tx: ...)     # the same for what waits for nothing but the database, and faster

SQLite in WAL mode, or PostgreSQL: the same tables and queries. Statements run in threads, one turn of a thread each.
Those that run all the time are made once and take parameters: to make them, and to look up what SQLAlchemy has compiled
them to, takes longer than SQLite does.

What a write transaction has decided on stays so until its end. On SQLite there is one at a time. On PostgreSQL that
would have every process wait for the slowest, also for one that hangs, so there are several, and each locks what it
decides on: what it changes, and what it gets by id (`Transaction.held`). Each statement sees what was committed before
it. So that nobody waits in a circle, rows are locked in the order agent, skill, session, what belongs to a session;
the event log comes last (`events.store`). Nothing but the numbers of events waits for all others.
"""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import (
    Connection,
    CursorResult,
    Engine,
    Executable,
    Select,
    Table,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from backend.store import events, migrate
from backend.store.errors import SchemaError, StoreAway
from backend.store.events import Event
from backend.store.follower import Follower

Row = Mapping[str, Any]
Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]
T = TypeVar("T")
Work = Callable[[Connection], T]
Location = Path | str
"""An SQLite file, or the URL of a PostgreSQL database."""

LOCK_TIMEOUT: Final = 10.0
"""Seconds to wait for the database when another process holds its write lock."""
READERS: Final = 2
"""More would only wait for each other: what they do with the rows, one Python thread does at a time."""
LOOK_SECONDS: Final = 0.5
"""How often a file is looked at for what other processes have written."""
CATCH_UP: Final = 200
"""Events of other processes that are read at once."""

_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    f"PRAGMA busy_timeout = {int(LOCK_TIMEOUT * 1000)}",
    "PRAGMA foreign_keys = ON",
)


class Transaction:
    """One open transaction. `events` collects what is to be appended to the event log at its end."""

    __slots__ = ("_locks", "_run", "events")

    def __init__(self, run: Callable[[Work[Any]], Awaitable[Any]], *, locks: bool = False) -> None:
        self._run = run
        self._locks = locks
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

    async def held(self, query: Select[Any], of: Table, parameters: Parameters | None = None) -> Row | None:
        """The same; in a write transaction nobody else can change that row `of` a table before its end."""
        # FOR NO KEY UPDATE: others may still add rows that refer to it.
        return await self.row(query.with_for_update(key_share=True, of=of) if self._locks else query, parameters)

    async def hold(self, query: Select[Any], of: Table) -> None:
        """Only the second half of that."""
        if self._locks:
            await self.held(query, of)

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

    async def call(self, word: str) -> None:
        """Have all processes hear a word once this is committed (`Database.on_call`), where there is a server."""
        if self._locks:
            await self.execute(select(func.pg_notify(events.CHANNEL, word)))

    async def scalar(self, statement: Executable, parameters: Parameters | None = None) -> Any:
        """The first column of the first row of a query, or None."""
        return await self._run(lambda connection: connection.execute(statement, parameters).scalar())


class Database:
    """An open database, migrated to the present tables."""

    def __init__(self, engine: Engine, *, readers: int = READERS, writers: int = 1) -> None:
        self._engine = engine
        self._is_server = engine.dialect.name == "postgresql"
        # Writers queue here, in order, instead of sleeping on SQLite's lock.
        self._writers = asyncio.Semaphore(writers)
        self._reading = ThreadPoolExecutor(readers, "reads")
        self._writing = ThreadPoolExecutor(writers, "writes")
        self._observers: list[Callable[[Sequence[Event]], None]] = []
        self._own_observers: list[Callable[[Sequence[Event]], None]] = []
        self._callees: list[Callable[[str], None]] = []
        self._follower: Follower | None = None

    @classmethod
    async def open(cls, location: Location, *, shared: bool = False) -> "Database":
        """Open a database, made and migrated when needed. `shared`: others may write to the file, too.

        Raises one of StoreError when it cannot be used.
        """
        await asyncio.to_thread(prepare, location)
        if isinstance(location, Path):
            database = cls(_sqlite(location))
            if not shared:
                return database
        else:
            from backend.store import postgres

            database = cls(postgres.engine(location, _json), readers=postgres.READERS, writers=postgres.WRITERS)
        try:
            async with database.read() as tx:
                newest = await events.newest(tx)
        except BaseException:
            await database.close()
            raise
        heard = (newest, database._events_after, database._tell)
        if isinstance(location, Path):
            database._follower = Follower(*heard, LOOK_SECONDS)
        else:
            database._follower = postgres.Listener(location, *heard, database._called)
        database._follower.start()
        return database

    def on_commit(self, observer: Callable[[Sequence[Event]], None]) -> None:
        """Call `observer` with all events from now on, once and in order, soon after their commit. It must not raise.

        On PostgreSQL, and of a shared file, also with those of other processes.
        """
        self._observers.append(observer)

    def on_own_commit(self, observer: Callable[[Sequence[Event]], None]) -> None:
        """The same, with those of this process only."""
        self._own_observers.append(observer)

    def on_call(self, callee: Callable[[str], None]) -> None:
        """Call `callee` with each word of any process (`Transaction.call`). One may be lost. It must not raise."""
        self._callees.append(callee)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Transaction]:
        """A write transaction: what it gets by id or changes, nobody else changes until its end."""
        async with self._writers:
            opened: list[Connection] = []  # by a thread, so that it is known also when we are cancelled meanwhile
            try:
                await _whole(self._in_writing_thread(lambda: opened.append(self._begun())))
                transaction = Transaction(
                    lambda work: _whole(self._in_writing_thread(lambda: work(opened[0]))), locks=self._is_server
                )
                yield transaction
                await _whole(self._commit(opened[0], transaction))
            except BaseException:
                await _whole(self._in_writing_thread(lambda: _roll_back(opened)))
                raise

    async def write(self, work: Callable[[Transaction], Coroutine[Any, Any, T]]) -> T:
        """A write transaction in one turn of the thread, in which all of `work` runs: it awaits only the database."""

        def done() -> tuple[T, list[Event]]:
            connection = self._begun()

            async def here(work: Work[Any]) -> Any:
                return work(connection)

            try:
                transaction = Transaction(here, locks=self._is_server)
                result = _at_once(work(transaction))
                return result, _end(connection, transaction)
            except BaseException:
                _roll_back([connection])
                raise

        async def told() -> T:
            result, stored = await self._in_writing_thread(done)
            self._told(stored)
            return result

        async with self._writers:
            return await _whole(told())

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Transaction]:
        """For queries only. Each statement sees the newest committed state."""
        yield Transaction(self._read)

    async def _read(self, work: Work[T]) -> T:
        def done() -> T:
            with self._engine.connect() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._reading, done)

    def _in_writing_thread(self, work: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._writing, work)

    def _begun(self) -> Connection:
        """A connection in a transaction, for who is in a thread."""
        connection = self._engine.connect()
        try:
            # On SQLite a transaction that starts with a read and then writes can fail at once when another process
            # wrote meanwhile; taking the write lock first waits for its turn. Reads need no transaction at all.
            connection.exec_driver_sql("BEGIN" if self._is_server else "BEGIN IMMEDIATE")
        except BaseException:
            _roll_back([connection])
            raise
        return connection

    async def _commit(self, connection: Connection, transaction: Transaction) -> None:
        self._told(await self._in_writing_thread(lambda: _end(connection, transaction)))

    def _told(self, stored: Sequence[Event]) -> None:
        for observer in self._own_observers if stored else ():
            observer(stored)
        if stored and self._follower is not None:
            self._follower.committed(stored)
        elif stored:
            self._tell(stored)

    def _tell(self, stored: Sequence[Event]) -> None:
        for observer in self._observers:
            observer(stored)

    def _called(self, word: str) -> None:
        for callee in self._callees:
            callee(word)

    async def _events_after(self, position: int) -> list[Event]:
        async with self.read() as tx:
            return await events.read(tx, after=position, limit=CATCH_UP)

    async def close(self) -> None:
        """Close all connections, once what runs is done."""
        if self._follower is not None:
            await self._follower.aclose()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._reading.shutdown()
        self._writing.shutdown()
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


def _at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never has to wait."""
    try:
        work.send(None)
    except StopIteration as finished:
        result: T = finished.value
        return result
    work.close()
    raise RuntimeError("a transaction waited for something else than the database")


def _end(connection: Connection, transaction: Transaction) -> list[Event]:
    """Commit with all events; these, with their numbers."""
    stored = events.store(connection, transaction.events) if transaction.events else []
    connection.commit()
    connection.close()
    return stored


def _roll_back(opened: Sequence[Connection]) -> None:
    for connection in opened:
        with suppress(StoreAway):  # then there is nothing left to roll back
            connection.close()


def prepare(location: Location) -> None:
    """Make and migrate a database where needed. Raises one of StoreError when it cannot be used."""
    if isinstance(location, Path):
        location.touch(mode=0o600, exist_ok=True)
        migrate.upgrade(location)
        return
    from backend.store import postgres

    engine = postgres.engine(location, _json)
    try:
        migrate.upgrade_server(engine)
    except DBAPIError as error:
        raise SchemaError(f"its tables cannot be made or read: {error.args[0]}") from error
    finally:
        engine.dispose()


def _sqlite(path: Path) -> Engine:
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


StoreError = (sqlite3.Error, OSError, SchemaError, StoreAway)
"""Why a database cannot be used; SchemaError: not as it is, StoreAway: not at present."""

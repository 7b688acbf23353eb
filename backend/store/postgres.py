"""PostgreSQL: how it is connected to, what its errors come to, and how all processes on it hear every event.

Imported only where it is used: psycopg takes its time.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import psycopg
from psycopg.adapt import AdaptersMap
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.json import set_json_dumps
from psycopg.types.string import StrDumperUnknown
from sqlalchemy import Engine, ExceptionContext, create_engine, event
from sqlalchemy.exc import DBAPIError

from backend.store.errors import SchemaError, StoreAway
from backend.store.events import CHANNEL, Event
from backend.store.follower import Follower

logger = logging.getLogger(__name__)

READERS: Final = 4
WRITERS: Final = 4
"""Most of the time they wait for the network, and writers for each other's rows."""
CONNECT_SECONDS: Final = 10
STATEMENT_SECONDS: Final = 30
LOCK_SECONDS: Final = 10
HUNG_SECONDS: Final = 60
"""How long a transaction may do nothing before the server ends it: what it has locked, others wait for."""
LOOK_SECONDS: Final = 5.0
"""How often the log is looked at when nothing is heard: a notification may be lost with its connection."""
BACK_OFF: Final = (0.1, 15.0)
"""Seconds between attempts to listen, at first and at most."""


def connect(url: str, adapters: AdaptersMap) -> psycopg.Connection:
    """A connection that begins no transactions by itself. Raises StoreAway, and SchemaError for a wrong encoding."""
    try:
        connection = psycopg.connect(**_parameters(url), context=adapters)
    except psycopg.Error as error:
        raise _away(url, error) from None
    if (encoding := connection.info.parameter_status("server_encoding")) != "UTF8":
        connection.close()
        raise SchemaError(f"its encoding is {encoding}: create the database anew with ENCODING 'UTF8'")
    return connection


def engine(url: str, json_text: Callable[[object], str]) -> Engine:
    """Connections for statements. They raise StoreAway for what is the server's, and repeat no stored values."""
    adapters = AdaptersMap(psycopg.adapters)
    adapters.register_dumper(str, _TextDumper)
    set_json_dumps(json_text, adapters)
    made = create_engine(
        "postgresql+psycopg://",
        creator=lambda: connect(url, adapters),
        pool_size=READERS + WRITERS,
        max_overflow=0,
        pool_timeout=LOCK_SECONDS,
        pool_pre_ping=True,
        hide_parameters=True,
        use_native_hstore=False,
    )

    @event.listens_for(made, "handle_error")
    def tell(context: ExceptionContext) -> None:
        error = context.original_exception
        if context.is_pre_ping:
            return  # another connection is taken
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            raise _away(url, error) from None
        if isinstance(error, psycopg.Error) and isinstance(context.sqlalchemy_exception, DBAPIError):
            # The details of the server's message quote whole rows.
            error.args = (error.diag.message_primary,)
            context.sqlalchemy_exception.args = (f"{type(error).__name__}: {error.diag.message_primary}",)

    return made


def name(url: str) -> str:
    """The database in words, without its password."""
    told = conninfo_to_dict(url)
    place = f"{told.get('host', 'localhost')}:{told.get('port', '5432')}"
    return f"{told.get('dbname', told.get('user', ''))} at {place}"


class Listener(Follower):
    """One that is told when to look."""

    def __init__(
        self,
        url: str,
        position: int,
        read: Callable[[int], Awaitable[list[Event]]],
        tell: Callable[[Sequence[Event]], None],
        called: Callable[[str], None],
    ) -> None:
        """`called` gets words that come between the events."""
        super().__init__(position, read, tell, LOOK_SECONDS)
        self._url = url
        self._called = called

    def start(self) -> None:
        super().start()
        self._tasks.append(asyncio.create_task(self._listen(), name="event log"))

    async def _listen(self) -> None:
        seconds, failed = BACK_OFF[0], False
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(**_parameters(self._url)) as connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    if failed:
                        logger.info("events of other processes are heard at once again")
                    seconds, failed = BACK_OFF[0], False
                    self._behind.set()  # what was committed while nobody listened
                    async for notice in connection.notifies():
                        if not notice.payload.isdecimal():
                            self._called(notice.payload)
                        elif int(notice.payload) > self._position:
                            self._behind.set()
            except (psycopg.Error, OSError) as error:
                if not failed:
                    logger.warning("events of other processes are late for now: %s", _away(self._url, error))
                failed = True
            await asyncio.sleep(seconds * random.uniform(0.5, 1))
            seconds = min(seconds * 2, BACK_OFF[1])


class _TextDumper(StrDumperUnknown):
    """PostgreSQL has no NUL in texts; what reads files and terminals may meet one."""

    def dump(self, obj: str) -> Any:
        return super().dump(obj.replace("\0", "\N{REPLACEMENT CHARACTER}"))


def _parameters(url: str) -> dict[str, Any]:
    """What to connect with; the URL's own parameters win."""
    given = conninfo_to_dict(url)
    limits = {
        "statement_timeout": STATEMENT_SECONDS,
        "lock_timeout": LOCK_SECONDS,
        "idle_in_transaction_session_timeout": HUNG_SECONDS,
    }
    options = [f"-c {setting}={seconds}s" for setting, seconds in limits.items()]
    return {
        "application_name": "lapconsole",
        "connect_timeout": CONNECT_SECONDS,
        # A server that is cut off is given up after some 30 s.
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
        **given,
        "client_encoding": "UTF8",
        "options": " ".join([*options, str(given.get("options", ""))]),
        "autocommit": True,
    }


def _away(url: str, error: Exception) -> StoreAway:
    primary = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    # What libpq asks is answered by who knows where its question comes from.
    reason = primary or " ".join(line.strip() for line in str(error).splitlines() if not line.endswith("?"))
    return StoreAway(f"the database {name(url)}: {reason}")

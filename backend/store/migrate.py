"""Brings a database to the present tables. Alembic is imported only when there is something to do."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backend.store.errors import SchemaError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

HEAD: Final = "0011"
"""The newest revision in `migrations/versions`."""

_LOCK: Final = 0x6C61706D
"""Held on PostgreSQL while migrating: of several processes that start at once, one does it."""
_LOCK_SECONDS: Final = 300


def upgrade(path: Path) -> None:
    """Migrate the SQLite file at `path`; runs in a thread. Raises SchemaError, sqlite3.Error."""
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if known else None
    if not _is_old(row[0] if row else None, "choose another --data-dir"):
        return
    from sqlalchemy import create_engine
    from sqlalchemy.engine import URL
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    engine = create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool)
    try:
        with engine.begin() as connection:
            _run(connection)
    except DBAPIError as error:
        raise error.orig if isinstance(error.orig, sqlite3.Error) else error from error
    finally:
        engine.dispose()


def upgrade_server(engine: "Engine") -> None:
    """Migrate a PostgreSQL database; runs in a thread. Raises SchemaError, StoreAway, DBAPIError."""
    with engine.connect() as connection:
        if not _is_old_server(connection):
            return
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{_LOCK_SECONDS}s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        if _is_old_server(connection):  # another process may have been faster
            _run(connection)
            _order_as_sqlite(connection)
        connection.commit()


def _is_old(revision: str | None, otherwise: str) -> bool:
    if revision is not None and revision > HEAD:
        raise SchemaError(
            f"it belongs to a newer version of the platform (revision {revision}, this version knows {HEAD}); "
            f"update the platform, or {otherwise}"
        )
    return revision != HEAD


def _is_old_server(connection: "Connection") -> bool:
    known = connection.exec_driver_sql("SELECT to_regclass('alembic_version')").scalar()
    revision = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() if known else None
    return _is_old(revision, "choose another database")


def _run(connection: "Connection") -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    # Alembic treats '%' in options as interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _order_as_sqlite(connection: "Connection") -> None:
    """Have all texts compared and sorted by their code points, whatever the language of the database is."""
    columns = connection.exec_driver_sql(
        "SELECT format('ALTER TABLE %I ', table_name), string_agg(format("
        "'ALTER COLUMN %I TYPE text COLLATE \"C\"', column_name), ', ') FROM information_schema.columns "
        "WHERE table_schema = current_schema() AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C' "
        "AND table_name IN (SELECT tablename FROM pg_tables WHERE schemaname = current_schema()) GROUP BY table_name",
        execution_options={"no_parameters": True},
    ).all()
    for table, changes in columns:
        connection.exec_driver_sql(table + changes, execution_options={"no_parameters": True})

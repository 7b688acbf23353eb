"""Brings a database file to the present tables. Alembic is imported only when there is something to do."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

HEAD: Final = "0009"
"""The newest revision in `migrations/versions`."""


class SchemaError(Exception):
    """The database was written by a newer version of the platform."""


def upgrade(path: Path) -> None:
    """Migrate the SQLite file at `path`; runs in a thread. Raises SchemaError, sqlite3.Error."""
    revision = _revision(path)
    if revision == HEAD:
        return
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine
    from sqlalchemy.engine import URL
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    if revision is not None and revision > HEAD:
        raise SchemaError(
            f"it belongs to a newer version of the platform (revision {revision}, this version knows {HEAD}); "
            "update the platform, or choose another --data-dir"
        )
    config = Config()
    # Alembic treats '%' in options as interpolation.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    engine = create_engine(URL.create("sqlite", database=str(path)), poolclass=NullPool)
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except DBAPIError as error:
        raise error.orig if isinstance(error.orig, sqlite3.Error) else error from error
    finally:
        engine.dispose()


def _revision(path: Path) -> str | None:
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if known else None
    return row[0] if row else None

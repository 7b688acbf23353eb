"""What SQLite and PostgreSQL say in different words, or SQLAlchemy has twice for the same words."""

from typing import Any

from sqlalchemy import JSON, Text, cast
from sqlalchemy.dialects.sqlite import Insert
from sqlalchemy.dialects.sqlite.dml import OnConflictDoNothing, OnConflictDoUpdate
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType

insert = Insert
"""An insertion that may have ON CONFLICT. PostgreSQL's own comes with 30 ms of imports."""


@compiles(OnConflictDoUpdate, "postgresql")
def _on_conflict(clause: Any, compiler: Any, **options: Any) -> str:
    clause.constraint_target = None  # what PostgreSQL could name here, and SQLite could not
    text: str = compiler.visit_on_conflict_do_update(clause, **options)
    return text


@compiles(OnConflictDoNothing, "postgresql")
def _on_conflict_nothing(clause: Any, compiler: Any, **options: Any) -> str:
    clause.constraint_target = None
    text: str = compiler.visit_on_conflict_do_nothing(clause, **options)
    return text


class as_stored(FunctionElement[Any]):
    """A column as the database has it: JSON as its text, which psycopg would read by itself."""

    type = NullType()
    inherit_cache = True


@compiles(as_stored)
def _column(element: as_stored, compiler: SQLCompiler, **options: Any) -> str:
    return compiler.process(element.clauses, **options)


@compiles(as_stored, "postgresql")
def _text(element: as_stored, compiler: SQLCompiler, **options: Any) -> str:
    [column] = element.clauses
    return compiler.process(cast(column, Text) if isinstance(column.type, JSON) else column, **options)

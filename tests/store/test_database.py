"""Transactions, migrations and what is refused at opening."""

import asyncio
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError

from backend.store import agents, events, migrate, sessions
from backend.store.database import Database, StoreError, Transaction
from backend.store.events import Event
from backend.store.tables import metadata
from tests.rows import agent_row, session_row
from tests.store.conftest import Opener
from tests.waiting import until


def test_migrations_make_exactly_the_tables(tmp_path: Path) -> None:
    path = tmp_path / "platform.db"
    migrate.upgrade(path)
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": metadata}
        )
        assert compare_metadata(context, metadata) == []
        made = _schema(path)
    engine.dispose()
    assert made == _schema_of_metadata(tmp_path / "direct.db")


def test_head_is_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_heads() == [migrate.HEAD]


async def test_a_database_of_the_first_version_is_migrated_with_its_contents(tmp_path: Path) -> None:
    path = tmp_path / "platform.db"
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        moment = "2026-05-01T00:00:00.000Z"
        connection.execute(
            text(
                "INSERT INTO agent (id, model, harness_id, branch, mcp_servers, env_vars, allow_out, deny_out, "
                "created_at, search_text, sandbox_files, sandbox_contents) "
                "VALUES ('a1', 'm', 'codex', 'main', '[]', '{}', '[]', '[]', :at, 'a1', '[]', '[]')"
            ),
            {"at": moment},
        )
        connection.execute(
            text(
                "INSERT INTO session (id, agent_id, status, created_at, creating_since) "
                "VALUES ('s1', 'a1', 'dead', :at, :at)"
            ),
            {"at": moment},
        )
    engine.dispose()
    database = await Database.open(path)
    async with database.read() as tx:
        agent, session = await agents.get(tx, "a1"), await sessions.get(tx, "s1")
    await database.close()
    assert agent is not None
    assert session is not None
    assert agent["recording"] is False
    assert (session["terminal"], session["attached"], session["recording"]) == (None, [], False)


async def test_opens_again_with_its_contents_and_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "with %20 and spaces.db"
    first = await Database.open(path)
    async with first.begin() as tx:
        await agents.add(tx, agent_row("a1"))
    await first.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second = await Database.open(path)
    async with second.read() as tx:
        assert await agents.get(tx, "a1") is not None
    await second.close()


def test_postgresql_costs_nothing_where_it_is_not_used(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom backend.store.database import Database\n"
        "database = asyncio.run(Database.open(Path(sys.argv[1])))\n"
        "print([name for name in sys.modules if 'psycopg' in name or 'dialects.postgresql' in name])"
    )
    command = [sys.executable, "-c", program, tmp_path / "platform.db"]
    migrate.upgrade(tmp_path / "platform.db")  # or Alembic is loaded, which knows all dialects
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


async def test_refuses_a_newer_database(tmp_path: Path) -> None:
    path = tmp_path / "platform.db"
    migrate.upgrade(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(migrate.SchemaError, match=r"revision 9999.*update the platform"):
        await Database.open(path)


@pytest.mark.parametrize("kind", ["text", "directory", "missing"])
async def test_refuses_what_is_no_database(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "platform.db"
    if kind == "text":
        path.write_text("this is not a database, and long enough not to be taken for a fresh one" * 10)
    elif kind == "directory":
        path.mkdir()
    else:
        path = tmp_path / "nowhere" / "platform.db"
    with pytest.raises(StoreError):
        await Database.open(path)


async def test_an_exception_rolls_back_change_and_event(database: Database) -> None:
    heard: list[Sequence[Event]] = []
    database.on_commit(heard.append)
    with pytest.raises(RuntimeError):
        async with database.begin() as tx:
            await agents.add(tx, agent_row("a2"))
            raise RuntimeError
    async with database.read() as tx:
        assert await agents.get(tx, "a2") is None
        assert await events.newest(tx) == 1
    assert heard == []


async def test_observers_hear_events_after_the_commit_in_order(database: Database) -> None:
    heard: list[int] = []
    database.on_commit(lambda committed: heard.extend(event.seq for event in committed))

    async def add(number: int) -> None:
        async with database.begin() as tx:
            await sessions.add(tx, session_row(f"s{number}"))

    await asyncio.gather(*(add(number) for number in range(20)))
    await until(lambda: len(heard) >= 20, "all are heard")
    assert heard == list(range(2, 22))


async def test_a_write_in_one_turn_is_whole_or_not_at_all(database: Database) -> None:
    heard: list[str] = []
    database.on_commit(lambda committed: heard.extend(event.type for event in committed))

    async def add(tx: Transaction) -> str:
        await agents.add(tx, agent_row("a2"))
        return "added"

    async def add_and_fail(tx: Transaction) -> None:
        await agents.add(tx, agent_row("a3"))
        raise RuntimeError

    async def add_and_wait(tx: Transaction) -> None:
        await agents.add(tx, agent_row("a3"))
        await asyncio.sleep(0)

    assert await database.write(add) == "added"
    for wrong in (add_and_fail, add_and_wait):
        with pytest.raises(RuntimeError):
            await database.write(wrong)
    async with database.read() as tx:
        assert [await agents.get(tx, name) is not None for name in ("a2", "a3")] == [True, False]
    await until(lambda: heard, "it is told")
    assert heard == ["agent.created"]


async def test_reads_go_on_while_a_write_is_open(database: Database) -> None:
    async with database.begin() as tx:
        await agents.add(tx, agent_row("a2"))
        async with asyncio.timeout(5), database.read() as reading:
            assert await agents.get(reading, "a2") is None


async def test_a_cancelled_write_leaves_no_lock(database: Database) -> None:
    inside = asyncio.Event()

    async def write_for_ever() -> None:
        async with database.begin() as tx:
            await agents.add(tx, agent_row("a2"))
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write_for_ever())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5), database.begin() as tx:
        assert await agents.get(tx, "a2") is None


async def test_waits_for_another_process(database: Database, another: Opener) -> None:
    other = await another()

    async def change() -> None:
        async with database.begin() as tx:
            await agents.change(tx, "a1", {"name": "Second"})

    async with other.begin() as tx:
        assert await agents.get(tx, "a1")
        task = asyncio.create_task(change())
        done, _ = await asyncio.wait({task}, timeout=0.05)
        assert not done
        await agents.change(tx, "a1", {"model": "other"})
    async with asyncio.timeout(5):
        await task
    async with other.read() as tx:
        row = await agents.get(tx, "a1")
    assert row is not None
    assert (row["name"], row["model"]) == ("Second", "other")


async def test_a_session_needs_its_agent_and_goes_with_it(database: Database) -> None:
    with pytest.raises(IntegrityError) as caught:
        async with database.begin() as tx:
            await sessions.add(tx, session_row("s1", agent_id="nobody", title="a secret title"))
    assert "a secret title" not in str(caught.value)
    async with database.begin() as tx:
        await sessions.add(tx, session_row("s1"))
        assert await agents.remove(tx, "a1")
        assert await sessions.get(tx, "s1") is None
        assert not await agents.remove(tx, "a1")


def _schema(path: Path) -> set[tuple[str, str, int, str | None, int]]:
    with closing(sqlite3.connect(path)) as connection:
        tables = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'index')")
            if not name.startswith(("sqlite_", "alembic_"))
        ]
        return {
            (table, *column[1:])
            for table in tables
            for column in connection.execute(f"SELECT * FROM pragma_table_info('{table}')")
        } | {(name, "exists", 0, None, 0) for name in tables}


def _schema_of_metadata(path: Path) -> set[tuple[str, str, int, str | None, int]]:
    engine = create_engine(f"sqlite:///{path}")
    metadata.create_all(engine)
    engine.dispose()
    return _schema(path)


async def test_a_writer_that_is_cancelled_leaves_no_lock(database: Database) -> None:
    heard: list[events.Event] = []
    database.on_commit(heard.extend)

    async def write() -> None:
        async with database.begin() as tx:
            await events.append(tx, "agent.updated", {"agent": {}}, agent_id="a1")

    for steps in range(60):  # cut off at every step of a transaction in turn
        task = asyncio.create_task(write())
        for _ in range(steps % 30):
            await asyncio.sleep(0 if steps < 30 else 0.0002)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(2):
            await write()
    async with database.read() as tx:
        stored = await events.read(tx, after=0, limit=1000, types=["agent.updated"])
    await until(lambda: len(heard) >= len(stored), "all are heard")
    assert [event.seq for event in heard] == [event.seq for event in stored]


async def test_what_others_write_to_a_shared_file_is_heard(tmp_path: Path) -> None:
    path = tmp_path / "platform.db"
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(2):
            database = await Database.open(path, shared=True)
            stack.push_async_callback(database.close)
            opened.append(database)
        heard: list[list[int]] = [[], []]
        for database, seqs in zip(opened, heard, strict=True):
            database.on_commit(lambda stored, seqs=seqs: seqs.extend(event.seq for event in stored))
        own: list[int] = []
        opened[0].on_own_commit(lambda stored: own.extend(event.seq for event in stored))
        for number in range(6):
            async with opened[number % 2].begin() as tx:
                await events.append(tx, "agent.created", {"n": number}, agent_id="a1")
        await until(lambda: [len(each) for each in heard] == [6, 6], "all is heard by both")
        assert heard[0] == heard[1] == sorted(heard[0])
        assert own == heard[0][::2]

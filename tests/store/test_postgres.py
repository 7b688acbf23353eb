"""Several processes on one PostgreSQL: who sees what, and what happens when connections break."""

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DataError, IntegrityError

from backend.store import agents, events, leases, memories, migrate, postgres, sessions, skills, warm_tasks
from backend.store.database import Database, prepare
from backend.store.errors import SchemaError, StoreAway
from backend.store.events import Event
from backend.store.tables import metadata
from tests.postgres import Server
from tests.rows import agent_row, memory_row, session_row, skill_row
from tests.waiting import until

pytestmark = pytest.mark.xdist_group("postgres")

NOW, LATER = "2026-05-01T00:00:00.000Z", "2026-05-01T00:01:00.000Z"


@pytest.fixture
async def two(postgres_url: str) -> AsyncIterator[tuple[Database, Database]]:
    """One database with an agent `a1`, opened by two."""
    first = await Database.open(postgres_url)
    async with first.begin() as tx:
        await agents.add(tx, agent_row("a1"))
    second = await Database.open(postgres_url)
    yield first, second
    await asyncio.gather(first.close(), second.close())


def admin(url: str, statement: str) -> list[Any]:
    """A statement past the platform."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def cut_off(url: str, which: str) -> int:
    """Ends connections of the platform as an operator or a restart would; how many."""
    ended = admin(
        url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        f"AND application_name = 'lapconsole' AND {which}",
    )
    return len(ended)


def heard_by(database: Database) -> list[Event]:
    heard: list[Event] = []
    database.on_commit(heard.extend)
    return heard


async def append(database: Database, session_id: str | None = None) -> None:
    async with database.begin() as tx:
        await events.append(tx, "agent.updated", {"agent": {}}, agent_id="a1", session_id=session_id)


class TestEvents:
    async def test_everybody_hears_everything_once_and_in_order(self, two: tuple[Database, Database]) -> None:
        heard = [heard_by(each) for each in two]
        await asyncio.gather(*(append(two[number % 2], str(number)) for number in range(60)))
        async with two[0].read() as tx:
            stored = await events.read(tx, after=1, limit=1000)
        assert len(stored) == 60
        await until(lambda: [len(each) for each in heard] >= [60, 60], "both have heard all")
        assert heard == [stored, stored]

    async def test_a_number_that_is_seen_is_the_last_of_those_below(self, two: tuple[Database, Database]) -> None:
        async def look() -> None:
            while not done:
                async with two[0].read() as tx:
                    row = await tx.row(text("SELECT max(seq) AS newest, count(*) AS number FROM event"))
                assert row is not None
                assert row["newest"] == row["number"]

        async def write(database: Database) -> None:
            async with database.begin() as tx:
                await events.append(tx, "agent.updated", {"agent": {}}, agent_id="a1")
                await asyncio.sleep(random.uniform(0, 0.01))
                await events.append(tx, "agent.updated", {"agent": {}}, agent_id="a1")

        done = False
        looking = asyncio.create_task(look())
        await asyncio.gather(*(write(two[number % 2]) for number in range(40)))
        done = True
        await looking

    async def test_the_listener_comes_back_and_catches_up(
        self, two: tuple[Database, Database], postgres_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        heard = heard_by(two[1])
        await append(two[0])
        await until(lambda: len(heard) == 1, "the first is heard")
        assert cut_off(postgres_url, "query LIKE 'LISTEN%'") == 2
        await append(two[0])
        await until(lambda: len(heard) == 2, "the second is heard")
        await until(lambda: len(admin(postgres_url, LISTENERS)) == 2, "both listen again")
        await append(two[0])
        await until(lambda: len(heard) == 3, "the third is heard")
        assert [event.seq for event in heard] == [2, 3, 4]
        assert any("events of other processes are late" in record.message for record in caplog.records)

    async def test_what_was_rolled_back_is_no_event(self, two: tuple[Database, Database]) -> None:
        heard = heard_by(two[1])
        with pytest.raises(RuntimeError):
            async with two[0].begin() as tx:
                await events.append(tx, "agent.updated", {"agent": {}}, agent_id="a1")
                raise RuntimeError
        await append(two[0])
        await until(lambda: heard, "an event is heard")
        assert [event.seq for event in heard] == [2]

    async def test_a_missing_number_holds_nobody_up(self, two: tuple[Database, Database], postgres_url: str) -> None:
        heard = [heard_by(each) for each in two]
        admin(postgres_url, "SELECT nextval('event_seq_seq')")
        await append(two[0])
        await until(lambda: all(heard), "both have heard it")
        assert [[event.seq for event in each] for each in heard] == [[3], [3]]


LISTENERS = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%' "
    "AND application_name = 'lapconsole'"
)


class TestDecisions:
    async def test_no_claim_is_made_twice(self, two: tuple[Database, Database]) -> None:
        async with two[0].begin() as tx:
            for number in range(12):
                row = {"id": f"t{number}", "agent_id": "a1", "status": "warm", "task_arn": f"w-{number}"}
                await warm_tasks.add(
                    tx, {**row, "fingerprint": "f", "token": "enc", "created_at": NOW, "ready_at": NOW}
                )

        async def claim(database: Database) -> list[str]:
            claimed = []
            while True:
                async with database.begin() as tx:
                    row = await warm_tasks.claim(tx, "a1", "f")
                if row is None:
                    return claimed
                claimed.append(row["id"])

        claimed = await asyncio.gather(*(claim(two[number % 2]) for number in range(8)))
        assert sorted(itertools.chain(*claimed)) == sorted(f"t{number}" for number in range(12))

    async def test_claims_do_not_wait_for_each_other(self, two: tuple[Database, Database]) -> None:
        async with two[0].begin() as tx:
            for name in ("t1", "t2"):
                row = {"id": name, "agent_id": "a1", "status": "warm", "task_arn": name, "fingerprint": "f"}
                await warm_tasks.add(tx, {**row, "token": "enc", "created_at": NOW, "ready_at": NOW})
        async with asyncio.timeout(5), two[0].begin() as one, two[1].begin() as other:
            claimed = [await warm_tasks.claim(tx, "a1", "f") for tx in (one, other, one)]
        assert [row and row["id"] for row in claimed] == ["t1", "t2", None]

    async def test_one_takes_a_lease(self, two: tuple[Database, Database]) -> None:
        async def take(number: int) -> bool:
            async with two[number % 2].begin() as tx:
                return await leases.take(tx, "duty", f"p{number}", now=NOW, until=LATER)

        assert sum(await asyncio.gather(*map(take, range(16)))) == 1

    async def test_writers_of_different_things_do_not_wait(self, two: tuple[Database, Database]) -> None:
        async with two[0].begin() as tx:
            await agents.add(tx, agent_row("a2"))
        async with asyncio.timeout(5), two[0].begin() as tx:
            assert await agents.get(tx, "a1")
            await agents.change(tx, "a1", {"name": "x"})
            async with two[1].begin() as other:
                await agents.change(other, "a2", {"name": "y"})

    async def test_an_agent_that_is_decided_on_stays(self, two: tuple[Database, Database]) -> None:
        async def remove() -> list[Any]:
            async with two[1].begin() as tx:
                assert await agents.known(tx, "a1")
                return await sessions.active(tx, "a1")

        async with two[0].begin() as tx:
            assert await agents.get(tx, "a1")
            removing = asyncio.create_task(remove())
            await asyncio.wait({removing}, timeout=0.05)
            await sessions.add(tx, session_row("s1"))
        assert [row["id"] for row in await removing] == ["s1"]

    async def test_no_version_of_a_skill_is_lost(self, two: tuple[Database, Database]) -> None:
        async with two[0].begin() as tx:
            await skills.add(tx, skill_row("k1", content="0"))

        async def change(number: int) -> None:
            async with two[number % 2].begin() as tx:
                stored = await skills.get(tx, "k1")
                assert stored is not None
                await skills.add_version(
                    *(tx, "k1"), content=stored["content"], changed_by_session_id=None, at=NOW, keep=100
                )
                await skills.change(tx, "k1", {"content": str(int(stored["content"]) + 1)})

        await asyncio.gather(*map(change, range(12)))
        async with two[0].read() as tx:
            kept = await skills.versions(tx, "k1", limit=100)
        assert [row["content"] for row in kept] == [str(number) for number in range(11, -1, -1)]

    async def test_uses_of_the_same_memories_at_once(self, two: tuple[Database, Database]) -> None:
        names = [f"m{number}" for number in range(20)]
        async with two[0].begin() as tx:
            for name in names:
                await memories.add(tx, memory_row(name))

        async def use(number: int) -> None:
            async with two[number % 2].begin() as tx:
                await memories.note_use(tx, random.sample(names, len(names)), NOW)

        async with asyncio.timeout(10):
            await asyncio.gather(*map(use, range(16)))
        async with two[0].read() as tx:
            row = await memories.get(tx, "a1", "m7")
        assert row is not None
        assert row["times_applied"] == 16


class TestBrokenConnections:
    async def test_nothing_is_half_written(self, two: tuple[Database, Database], postgres_url: str) -> None:
        with pytest.raises(StoreAway, match="terminating connection") as caught:
            async with two[0].begin() as tx:
                await agents.add(tx, agent_row("a2"))
                assert cut_off(postgres_url, "state = 'idle in transaction'") == 1
                await agents.add(tx, agent_row("a3"))
        assert "a2" not in str(caught.value)
        async with two[0].begin() as tx:
            assert not await agents.known(tx, "a2")
            await agents.add(tx, agent_row("a4"))
        async with two[1].read() as tx:
            assert await agents.known(tx, "a4")

    async def test_a_commit_that_is_cut_off(self, two: tuple[Database, Database], postgres_url: str) -> None:
        with pytest.raises(StoreAway):
            async with two[0].begin() as tx:
                await agents.add(tx, agent_row("a2"))
                cut_off(postgres_url, "state = 'idle in transaction'")
        async with two[0].read() as tx:
            assert not await agents.known(tx, "a2")
            assert await events.newest(tx) == 1

    async def test_idle_connections_are_replaced_unseen(
        self, two: tuple[Database, Database], postgres_url: str
    ) -> None:
        for _ in range(2):
            assert cut_off(postgres_url, "query NOT LIKE 'LISTEN%'")
            async with two[0].read() as tx:
                assert await agents.known(tx, "a1")
            async with two[0].begin() as tx:
                assert await agents.known(tx, "a1")

    async def test_a_write_in_one_turn(self, two: tuple[Database, Database], postgres_url: str) -> None:
        async def work(tx: Any) -> None:
            await agents.add(tx, agent_row("a2"))
            cut_off(postgres_url, "state = 'idle in transaction'")
            await agents.add(tx, agent_row("a3"))

        with pytest.raises(StoreAway):
            await two[0].write(work)

        async def add(tx: Any) -> str:
            await agents.add(tx, agent_row("a2"))
            return "done"

        assert await two[0].write(add) == "done"

    async def test_a_lock_is_not_waited_for_for_ever(
        self, two: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch, postgres_url: str
    ) -> None:
        monkeypatch.setattr(postgres, "LOCK_SECONDS", 0.05)
        third = await Database.open(postgres_url)
        async with two[0].begin() as tx:
            assert await agents.get(tx, "a1")
            with pytest.raises(StoreAway, match="lock timeout"):
                async with third.begin() as other:
                    await agents.get(other, "a1")
        await third.close()

    async def test_no_server(self, tmp_path: Path) -> None:
        url = f"postgresql://user:s3cret@/db?host={tmp_path}&port=5439"
        with pytest.raises(StoreAway, match=f"the database db at {tmp_path}:5439: .*No such file") as caught:
            await Database.open(url)
        assert "s3cret" not in str(caught.value)


class TestValues:
    async def test_errors_repeat_no_values(self, two: tuple[Database, Database]) -> None:
        with pytest.raises(IntegrityError, match="violates check constraint") as caught:
            async with two[0].begin() as tx:
                await sessions.add(tx, session_row("s1", status="sleeping", title="a secret title"))
        assert "a secret title" not in f"{caught.value} {caught.value.orig}"
        with pytest.raises(DataError):
            async with two[0].begin() as tx:
                await sessions.add(tx, session_row("s1", viewers=2**40))

    async def test_nul_characters(self, two: tuple[Database, Database]) -> None:
        async with two[0].begin() as tx:
            await sessions.add(tx, session_row("s1", title="a\0b", terminal={"title": "a\0b"}))
            row = await sessions.get(tx, "s1")
            assert row is not None
            assert (row["title"], row["terminal"]) == ("a\ufffdb", {"title": "a\0b"})
            assert await agents.page(tx, limit=1, offset=0, sort="name", descending=False, search="\0") == ([], 0)
        async with two[0].read() as tx:
            [event] = await events.read(tx, after=1, limit=2)
        assert json.loads(event.json())["session"]["terminal"] == {"title": "a\0b"}

    async def test_large_numbers(self, two: tuple[Database, Database], postgres_url: str) -> None:
        heard = heard_by(two[1])
        admin(postgres_url, "SELECT setval('event_seq_seq', 3000000000)")
        async with two[0].begin() as tx:
            await sessions.add(tx, session_row("s1", idle_timeout_ms=31_536_000_000))
        async with two[0].read() as tx:
            assert [event.seq for event in await events.read(tx, after=10**17, limit=1)] == []
            assert [event.seq for event in await events.read(tx, after=2_999_999_999, limit=1)] == [3_000_000_001]
        await until(lambda: [event.seq for event in heard] == [3_000_000_001], "it is heard")


class TestMigrations:
    def test_they_make_exactly_the_tables(self, postgres_server: Server) -> None:
        with postgres_server.database() as migrated, postgres_server.database(empty=True) as direct:
            engine, other = _engine(migrated), _engine(direct)
            with engine.connect() as connection:
                context = MigrationContext.configure(connection, opts={"compare_type": True})
                assert compare_metadata(context, metadata) == []
            metadata.create_all(other)
            engine.dispose()
            other.dispose()
            assert admin(migrated, COLUMNS) == admin(direct, COLUMNS)
            other_order = "SELECT 1 FROM information_schema.columns WHERE data_type = 'text' AND collation_name IS NULL"
            assert admin(migrated, f"{other_order} AND table_schema = 'public'") == []

    async def test_of_many_that_start_one_migrates(self, postgres_server: Server) -> None:
        with postgres_server.database(empty=True) as url:
            await asyncio.gather(*(asyncio.to_thread(prepare, url) for _ in range(4)))
            assert admin(url, "SELECT version_num FROM alembic_version") == [(migrate.HEAD,)]

    async def test_the_first_version_is_migrated_with_its_contents(self, postgres_server: Server) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
        with postgres_server.database(empty=True) as url:
            engine = _engine(url)
            with engine.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "0001")
            engine.dispose()
            admin(
                url,
                "INSERT INTO agent (id, model, harness_id, branch, mcp_servers, env_vars, allow_out, deny_out, "
                "created_at, search_text, sandbox_files, sandbox_contents) "
                f"VALUES ('a1', 'm', 'codex', 'main', '[]', '{{}}', '[]', '[]', '{NOW}', 'a1', '[]', '[]')",
            )
            database = await Database.open(url)
            async with database.read() as tx:
                row = await agents.get(tx, "a1")
            await database.close()
        assert row is not None
        assert (row["recording"], row["env_var_hosts"], row["preload_memory_limit"]) == (False, {}, 10)

    async def test_refuses_a_newer_database(self, postgres_url: str) -> None:
        admin(postgres_url, "UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(SchemaError, match=r"revision 9999.*update the platform, or choose another database"):
            await Database.open(postgres_url)

    async def test_refuses_another_encoding(self, postgres_server: Server) -> None:
        with postgres_server.database(empty=True) as url:
            [[name]] = admin(url, "SELECT current_database()")
            postgres_server.run(f"DROP DATABASE {name}")
            postgres_server.run(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
            with pytest.raises(SchemaError, match="its encoding is LATIN1"):
                await Database.open(url)

    async def test_a_user_who_may_make_no_tables(self, postgres_server: Server) -> None:
        with postgres_server.database(empty=True) as url:
            admin(url, "DROP SCHEMA public")
            with pytest.raises(SchemaError, match=r"tables cannot be made or read: .*no schema"):
                await Database.open(url)


COLUMNS = (
    "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns "
    "WHERE table_schema = 'public' AND table_name != 'alembic_version' ORDER BY table_name, column_name"
)


def _engine(url: str) -> Any:
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))

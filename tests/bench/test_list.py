"""How fast the platform answers with ten thousand sessions in its table, how much memory that takes, and how soon.

The limits are for two cores of which the load generator takes one; the figures are printed in any case.
"""

import asyncio
import contextlib
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, insert

from backend.domain import clock
from backend.settings import Settings
from backend.store import tables
from backend.store.database import prepare
from backend.store.secrets import Cipher
from tests.e2e.programs import API, Platform
from tests.rows import agent_row, session_row

pytestmark = pytest.mark.bench

AGENTS, SESSIONS, READY = 20, 10_000, 25
ROUNDS, CONNECTIONS, SECONDS, STARTS, CREATIONS = 300, 16, 4.0, 5, 60
LIST_MS, LIST_RATE, ONE_MS, CREATE_MS, RSS_MB, START_SECONDS = 5.0, 400, 2.0, 5.0, 190, 1.0


def fill(settings: Settings, sessions: int = SESSIONS) -> None:
    """Make a database of agents and sessions, as full as such rows are after some use; all have ended."""
    prepare(settings.database_path)
    cipher = Cipher(settings.encryption_key_value)
    now = datetime.now(UTC)
    agents = [agent_row(f"a{i}", name=f"agent {i}", prompt="Be kind. " * 50) for i in range(AGENTS)]
    for agent in agents:
        agent |= {"harness_id": "claude-code", "search_text": agent["name"], "sandbox_contents": []}
    engine = create_engine(f"sqlite:///{settings.database_path}")
    with engine.begin() as connection:
        connection.execute(insert(tables.agent), agents)
        for number in range(sessions):
            connection.execute(insert(tables.session), _session(cipher, number, now - timedelta(minutes=number)))
    engine.dispose()


def _session(cipher: Cipher, number: int, at: datetime) -> dict[str, Any]:
    moment = clock.text(at)
    session_id = f"00000000-0000-4000-8000-{number:012x}"
    return session_row(
        session_id,
        f"a{number % AGENTS}",
        status="dead",
        phase="ready",
        sandbox_url=f"http://127.0.0.1:{20_000 + number}",
        harness_session_id="tty",
        tty_token=cipher.encrypt(f"token of {number}"),
        title=f"Fix the tests of part {number}",
        failure_reason="idle timeout",
        activity={"state": "idle", "since": moment, "reason": "turn_finished", "message": "All tests pass. " * 4},
        terminal={"title": "✳ Tests", "bell_at": moment, "notification": None, "progress": None, "agent_state": None},
        isolation={"pid_namespace": True, "limits": {"memory_mb": 2048}, "reason": None},
        response={"info": {"id": f"msg_{number}"}, "parts": [{"type": "text", "text": "It was the clock. " * 10}]},
        log_tail="a line of the log\n" * 1_000,
        created_at=moment,
        creating_since=moment,
        ready_at=moment,
        last_seen_at=moment,
        stopped_at=moment,
    )


def revive(settings: Settings) -> None:
    """Let the newest sessions be ready, in the table only: nothing looks after them until the reconciler's tick."""
    with contextlib.closing(sqlite3.connect(settings.database_path)) as connection, connection:
        newest = f"SELECT id FROM session ORDER BY created_at DESC LIMIT {READY}"
        connection.execute(
            f"UPDATE session SET status = 'ready', failure_reason = NULL, stopped_at = NULL WHERE id IN ({newest})"
        )


class Line:
    """One kept connection, as light as can be: the load must not take the time of what is measured."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        self._reader, self._writer = reader, writer
        self._head = f"HTTP/1.1\r\nHost: platform\r\nAuthorization: Bearer {key}\r\n"

    async def ask(self, path: str, method: str = "GET") -> bytes:
        self._writer.write(f"{method} {path} {self._head}Content-Length: 0\r\n\r\n".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        return await self._reader.readexactly(length)


@contextlib.asynccontextmanager
async def line(platform: Platform) -> AsyncIterator[Line]:
    url = httpx.URL(platform.url)
    reader, writer = await asyncio.open_connection(url.host, url.port, limit=1 << 20)
    try:
        yield Line(reader, writer, platform.key)
    finally:
        writer.close()


async def median_ms(platform: Platform, path: str, method: str = "GET", rounds: int = ROUNDS) -> float:
    taken = []
    async with line(platform) as connection:
        for _ in range(rounds):
            started = time.perf_counter()
            await connection.ask(path, method)
            taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken[rounds // 10 :])


async def rate(platform: Platform, path: str) -> float:
    """Answers a second over all connections."""
    answered = 0
    loop = asyncio.get_running_loop()
    end = loop.time() + SECONDS

    async def one() -> None:
        nonlocal answered
        async with line(platform) as connection:
            while loop.time() < end:
                await connection.ask(path)
                answered += 1

    started = loop.time()
    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return answered / (loop.time() - started)


def memory_mb(pid: int, what: str = "VmHWM") -> float:
    """The most memory a process ever had in RAM."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{what}:")[1].split()[0]) / 1024


async def start_seconds(platform: Platform) -> float:
    """From the start of the process until it has answered a list."""
    started = time.perf_counter()
    await platform.start()
    async with line(platform) as connection:
        await connection.ask(f"{API}/sessions")
    return time.perf_counter() - started


async def test_with_many_sessions(tmp_path: Path) -> None:
    """Lists, single sessions and creations are answered within their limits, however many rows there are."""
    settings = Settings.load(data_dir=tmp_path).with_keys()
    fill(settings)
    platform = Platform(
        settings.data_dir,
        {
            "RECONCILE_INTERVAL_SECONDS": "3600",
            "LAP_HARNESS_COMMAND_CLAUDE_CODE": "sleep 1000",
            # Compiled once, as what is installed is, wherever the tests run.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(tmp_path / "compiled"),
        },
    )
    starts = []
    for _ in range(STARTS + 1):
        starts.append(await start_seconds(platform))
        assert await platform.end() == 0
    del starts[0]  # which compiled
    await platform.start()
    try:
        revive(settings)
        newest = (await platform.http.get(f"{API}/sessions", params={"limit": 1})).json()[0]
        one = f"{API}/sessions/{newest['id']}"
        listing = f"{API}/sessions?limit=50"
        listed, got = await median_ms(platform, listing), await median_ms(platform, one)
        deep = await median_ms(platform, f"{API}/sessions?limit=50&status=ready")
        list_rate, one_rate = await rate(platform, listing), await rate(platform, one)
        memory = memory_mb(platform.pid)
        agent = await platform.create_agent()
        created = []
        async with line(platform) as connection:
            for _ in range(CREATIONS):
                started = time.perf_counter()
                body = await connection.ask(f"{API}/agents/{agent['id']}/session", "POST")
                created.append((time.perf_counter() - started) * 1000)
                session = httpx.Response(200, content=body).json()
                await platform.settled(session["id"])
                await platform.http.delete(f"{API}/sessions/{session['id']}")
        creation = statistics.median(created)
        print(
            f"\nwith {SESSIONS} sessions: list of 50 {listed:.2f} ms (limit {LIST_MS:g}) and {list_rate:.0f}/s (limit "
            f"{LIST_RATE}), of the ready ones {deep:.2f} ms; one {got:.2f} ms (limit {ONE_MS:g}) and {one_rate:.0f}/s; "
            f"create answered {creation:.2f} ms (limit {CREATE_MS:g}), worst {max(created):.1f} ms; at most "
            f"{memory:.0f} MB (limit {RSS_MB}); ready to serve {statistics.median(starts):.2f} s after the "
            f"start (limit {START_SECONDS:g}), worst {max(starts):.2f} s"
        )
    finally:
        with contextlib.closing(sqlite3.connect(settings.database_path)) as connection, connection:
            connection.execute("UPDATE session SET status = 'dead' WHERE id LIKE '00000000-%'")
        await platform.close()
    assert listed <= LIST_MS
    assert list_rate >= LIST_RATE
    assert got <= ONE_MS
    assert creation <= CREATE_MS
    assert memory <= RSS_MB
    assert statistics.median(starts) <= START_SECONDS

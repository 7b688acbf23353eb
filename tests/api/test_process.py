"""`python -m backend` as a process: start, announcement, lock, end."""

import asyncio
import json
import os
import re
import signal
import stat
import subprocess
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend.store import migrate

Start = Callable[..., Awaitable[Process]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts platforms; ends those that still run."""
    started: list[Process] = []
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LAP_", "MASTER_"))}

    async def start(*arguments: str, **variables: str) -> Process:
        command = (sys.executable, "-m", "backend", "--port", "0", "--data-dir", str(tmp_path / "data"), *arguments)
        process = await asyncio.create_subprocess_exec(*command, stderr=PIPE, env={**environment, **variables})
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def address(process: Process) -> str:
    """Where a platform says it listens."""
    assert process.stderr is not None
    async with asyncio.timeout(20):
        line = (await process.stderr.readline()).decode()
    found = re.search(r"listening on (http://\S+)$", line.strip())
    assert found, line
    return found[1]


async def refused(process: Process) -> str:
    """What a platform says that does not start."""
    async with asyncio.timeout(20):
        _, output = await process.communicate()
    assert process.returncode == 1
    text = output.decode()
    assert "Traceback" not in text
    return text


def announcement(tmp_path: Path) -> dict[str, Any]:
    """platform.json."""
    told: dict[str, Any] = json.loads((tmp_path / "data" / "platform.json").read_text())
    return told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_life(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    process = await start()
    url = await address(process)
    told = announcement(tmp_path)
    assert (told["pid"], told["url"]) == (process.pid, url)
    assert told["started_at"].endswith("Z")
    data = tmp_path / "data"
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in data.iterdir() if path.is_file())
    key = (data / "master.key").read_text().strip()
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
        assert (await client.get("/healthz")).json()["ok"] is True
        assert (await client.get("/api/v1/managed_agents/agents")).status_code == 200
        async with client.stream("GET", "/api/v1/events") as stream:
            assert stream.status_code == 200
            process.send_signal(number)
            async with asyncio.timeout(3):
                assert await process.wait() == 0
    assert not (data / "platform.json").exists()


async def test_one_platform_for_a_data_directory(start: Start) -> None:
    first = await start()
    url = await address(first)
    message = await refused(await start())
    assert url in message
    assert f"pid {first.pid}" in message
    assert "another --data-dir" in message


async def test_what_a_killed_platform_left_is_no_obstacle(start: Start, tmp_path: Path) -> None:
    first = await start()
    await address(first)
    first.kill()
    await first.wait()
    second = await start()
    await address(second)
    assert announcement(tmp_path)["pid"] == second.pid


async def test_a_port_in_use(start: Start, tmp_path: Path) -> None:
    url = await address(await start())
    port = url.rpartition(":")[2]
    message = await refused(await start("--port", port, "--data-dir", str(tmp_path / "other")))
    assert f"port {port}" in message
    assert "in use" in message


async def test_reasons_not_to_start(start: Start, tmp_path: Path) -> None:
    message = await refused(await start("--port", "x", MASTER_KEY="s3cret", LAP_SANDBOX_PIDS="y"))
    assert message.splitlines()[0] == "Invalid settings:"
    assert len(message.splitlines()) == 4
    assert "s3cret" not in message

    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in await refused(await start("--data-dir", str(tmp_path / "file")))

    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    (data / "platform.db").write_bytes(b"no database" * 1000)
    key = "A" * 43 + "="
    assert "cannot use the database" in await refused(await start(ENCRYPTION_KEY=key))


def test_a_start_on_a_current_database_needs_no_alembic(tmp_path: Path) -> None:
    path = tmp_path / "platform.db"
    migrate.upgrade(path)
    code = (
        "import pathlib, sys; from backend.store import migrate; migrate.upgrade(pathlib.Path(sys.argv[1])); "
        "sys.exit('alembic' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=20)

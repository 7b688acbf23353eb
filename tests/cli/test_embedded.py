"""Finding, starting and ending the embedded platform, against a stand-in for it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lapconsole import embedded
from lapconsole.connection import ConnectionFailed, EmbeddedConnection
from tests.cli.commands import SECONDS, until


@pytest.fixture
def data(tmp_path: Path, standin: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", standin)
    monkeypatch.delenv("MASTER_KEY", raising=False)
    return tmp_path / "data"


@pytest.fixture
async def connection(data: Path) -> AsyncIterator[EmbeddedConnection]:
    connection = EmbeddedConnection(embedded.EmbeddedPlatform(data))
    yield connection
    await connection.close()


def running(data: Path) -> embedded.Running:
    found = embedded.find(data)
    assert found is not None
    return found


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def test_it_is_started_and_ended(connection: EmbeddedConnection, data: Path) -> None:
    address = await connection.resolve()
    found = running(data)
    assert address == (found.url, "key-of-the-folder", "embedded")
    assert found.started_at == datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
    assert os.getsid(found.pid) == found.pid
    assert (await connection.resolve()) == address and running(data).pid == found.pid
    await connection.close()
    assert gone(found.pid) and embedded.find(data) is None
    assert "stand-in starts" in (data / "platform.log").read_text()
    assert (data / "platform.log").stat().st_mode & 0o777 == 0o600


async def test_one_that_runs_is_joined_and_left_alone(connection: EmbeddedConnection, data: Path) -> None:
    process, found = await embedded.start(data, port=0)
    try:
        assert (await connection.resolve()).base_url == found.url
        await connection.close()
        assert process.poll() is None
        assert await embedded.stop(found, data, SECONDS) and process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait()


async def test_one_that_died_is_started_again_on_its_port(
    connection: EmbeddedConnection, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:  # the usual one may be wanted by a test beside this
        monkeypatch.setattr(connection._platform, "_port", free.getsockname()[1])
    address = await connection.resolve()
    first = running(data)
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: embedded.find(data) is None, "the death")
    assert (await connection.resolve()).base_url == address.base_url
    assert running(data).pid != first.pid


async def test_a_taken_port_is_left_to_its_owner(
    connection: EmbeddedConnection, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setattr(connection._platform, "_port", other.getsockname()[1])
        address = await connection.resolve()
        assert not address.base_url.endswith(f":{other.getsockname()[1]}")


async def test_a_platform_that_refuses_says_why(
    connection: EmbeddedConnection, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.mkdir()
    (data / "platform.log").write_text("an old line\n")
    monkeypatch.setenv("STANDIN", "refuse")
    with pytest.raises(ConnectionFailed) as failure:
        await connection.resolve()
    text = str(failure.value)
    assert "it ended with exit code 1" in text and "cannot listen:  [31maddress in use\n" in text
    assert "an old line" not in text and str(data / "platform.log") in text


async def test_a_platform_that_never_listens_is_ended(
    connection: EmbeddedConnection, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "mute")
    monkeypatch.setattr(embedded, "START_SECONDS", 0.3)
    spawned: list[subprocess.Popen[bytes]] = []
    spawn = embedded._spawn
    monkeypatch.setattr(embedded, "_spawn", lambda *rest: spawned.append((made := spawn(*rest))[0]) or made)
    with pytest.raises(ConnectionFailed, match="it did not answer within"):
        await connection.resolve()
    assert spawned[0].poll() is not None


async def test_a_platform_that_will_not_end_is_killed(
    connection: EmbeddedConnection, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN", "stubborn")
    monkeypatch.setattr(embedded, "CHILD_STOP_SECONDS", 0.1)
    await connection.resolve()
    pid = running(data).pid
    assert not await embedded.stop(running(data), data, 0.1)
    await connection.close()
    assert gone(pid)


async def test_the_shells_variables_for_other_platforms_do_not_reach_it(
    connection: EmbeddedConnection, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DATABASE_URL", "PORT", "HOST", "LAP_BASE_URL", "LITELLM_API_BASE"):
        monkeypatch.setenv(name, "elsewhere")
    await connection.resolve()
    seen = json.loads((data / "environment.json").read_text())
    assert not {"DATABASE_URL", "PORT", "HOST", "LAP_BASE_URL"} & set(seen) and "LITELLM_API_BASE" in seen


async def test_the_key_is_the_one_the_platform_takes(
    connection: EmbeddedConnection, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await connection.resolve()
    monkeypatch.setenv("MASTER_KEY", "meant-for-another-platform")
    assert (await connection.resolve()).key == "key-of-the-folder"
    await connection.close()
    monkeypatch.setenv("MASTER_KEY", "given-key")
    assert (await connection.resolve()).key == "given-key"
    monkeypatch.delenv("MASTER_KEY")
    (data / "master.key").unlink()
    with pytest.raises(ConnectionFailed, match="set MASTER_KEY"):
        await connection.resolve()


@pytest.mark.parametrize(
    "record",
    ["", "{", "[]", "{}", '{"pid": 1, "url": "http://127.0.0.1:1"}', '{"pid": "x", "url": "http://127.0.0.1:1"}',
     '{"pid": true, "url": "http://127.0.0.1:1"}', '{"pid": 999999999, "url": "http://127.0.0.1:1"}',
     '{"pid": 2, "url": 5}'],
)  # fmt: skip
def test_a_record_that_means_nothing_is_none(tmp_path: Path, record: str) -> None:
    (tmp_path / "platform.json").write_text(record)
    assert embedded.find(tmp_path) is None


def test_another_program_under_the_recorded_number_is_not_taken_for_it(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    waits = "import sys; sys.stdin.read()"
    strangers = (
        [sys.executable, "-c", waits],
        [sys.executable, "-c", waits, "-m", "backend", "--data-dir", str(other)],
    )
    for stranger in strangers:
        with subprocess.Popen(stranger, stdin=subprocess.PIPE) as process:
            (tmp_path / "platform.json").write_text(json.dumps({"pid": process.pid, "url": "http://127.0.0.1:1"}))
            assert embedded.find(tmp_path) is None

"""The embedded platform: finds the one running on a data folder, or runs `python -m backend` as a child process.

The platform itself is only ever reached as a process and over HTTP. What it leaves in its data folder is read here:
`platform.json` (pid, url, started_at while it listens), `master.key`, and `platform.log` of the ones started here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from lapconsole.client import urls
from lapconsole.client.errors import ClientError, PlatformError
from lapconsole.client.models import safe_text
from lapconsole.connection import ConnectionFailed
from lapconsole.settings import SettingsError, is_key, read_json

DEFAULT_PORT = 3000
START_SECONDS = 20.0
CHILD_STOP_SECONDS = 3.0
_POLL_SECONDS = 0.05
_ENDING_SECONDS = 10.0
_ANSWER_SECONDS = 3.0
_MAXIMUM_LOG_BYTES = 10_000_000
_LOG_TAIL_LINES = 12

# What a shell may hold for other programs, or for a platform elsewhere: the embedded one lives on its data folder and
# on this machine's loopback, whatever they say. (`lapconsole up` runs a platform as configured and passes them on.)
_NOT_FOR_EMBEDDED = ("DATABASE_URL", "HOST", "BIND_HOST", "PORT", "LAP_BASE_URL")


@dataclass(frozen=True, slots=True)
class Running:
    """A platform process that is alive. `started_at` is None where the record does not tell."""

    pid: int
    url: str
    started_at: datetime | None

    def uptime(self) -> float | None:
        """Seconds since it began to listen."""
        return None if self.started_at is None else max(0.0, (datetime.now(UTC) - self.started_at).total_seconds())


def find(data_dir: Path) -> Running | None:
    """Return the platform running on this data folder, or None. A record left by a crash counts as none."""
    try:
        record = read_json(data_dir / "platform.json")
        pid, url = record.get("pid"), urls.base_address(str(record.get("url")))
    except (SettingsError, ClientError):
        return None
    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 1 or not _is_platform(pid, data_dir):
        return None
    try:
        started_at = datetime.fromisoformat(str(record.get("started_at"))).astimezone(UTC)
    except (ValueError, OverflowError):
        started_at = None
    return Running(pid, url, started_at)


async def healthy(url: str) -> bool:
    """Tell whether a platform on this machine answers its health check."""
    return await asyncio.to_thread(_answers, url)


async def key_of(running: Running, data_dir: Path) -> str:
    """Return the running platform's master key: the data folder's, or MASTER_KEY where that one is refused.

    Raises ConnectionFailed when there is neither.
    """
    saved = _saved_key(data_dir)
    given = os.environ.get("MASTER_KEY", "").strip()
    keys = [key for key in dict.fromkeys((saved, given)) if key and is_key(key)]
    if not keys:
        raise ConnectionFailed(
            f"the platform at {running.url} runs with a key that is not in {data_dir}: set MASTER_KEY to it"
        )
    for key in keys[:-1]:
        if not await _refused(running.url, key):
            return key
    return keys[-1]


def command(data_dir: Path, *, host: str | None = None, port: int | None = None) -> list[str]:
    """Return the command line that runs a platform; what is None is left to the platform's own settings."""
    # -P: a folder called "backend" where the command is typed must not be taken for the platform.
    arguments = [sys.executable, "-P", "-m", "backend", "--data-dir", str(data_dir)]
    if host is not None:
        arguments += ["--host", host]
    if port is not None:
        arguments += ["--port", str(port)]
    return arguments


async def start(
    data_dir: Path, *, host: str | None = None, port: int | None = None, env: Mapping[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], Running]:
    """Start a platform in a session of its own, its output in `platform.log`, and wait until it answers.

    Raises ConnectionFailed with the last lines of its log; no process is left then.
    """
    process, log_start = _spawn(command(data_dir, host=host, port=port), data_dir, env)
    try:
        running = await _listening(process, data_dir)
    except BaseException:
        await asyncio.to_thread(_end, process)
        raise
    if running is None:
        why = _why_not(process)
        await asyncio.to_thread(_end, process)
        log = _log_path(data_dir)
        raise ConnectionFailed(f"the platform did not start: {why}\n{_tail(log, log_start)}Its log: {log}")
    return process, running


async def stop(running: Running, data_dir: Path, timeout: float) -> bool:
    """Ask a platform that is not our child to end; False when it still runs after `timeout` seconds."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while _is_platform(running.pid, data_dir):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


class EmbeddedPlatform:
    """The console's own platform: one that already runs on the data folder is joined and later left alone.

    Its own child is started again after a crash. One that was ended on purpose stays ended, and one that was joined is
    never replaced: it was started with settings that are not known here.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._child: subprocess.Popen[bytes] | None = None
        self._joined_at: float | None = None
        self._port = DEFAULT_PORT
        self._starting = asyncio.Lock()

    async def ensure(self) -> tuple[str, str]:
        """Return (url, key) of a platform that runs now, started if need be. Raises ConnectionFailed."""
        async with self._starting:
            running = find(self.data_dir)
            if running is not None:
                if self._child is not None and self._child.pid == running.pid:
                    self._joined_at = None
                elif self._joined_at is None:
                    self._joined_at = time.monotonic()
            # One that goes right after it was joined was about to end: the last console's, say.
            elif self._joined_at is not None and time.monotonic() - self._joined_at > _ENDING_SECONDS:
                raise ConnectionFailed("the platform has ended; start one with `lapconsole up --detach`")
            elif self._child is not None and self._child.poll() == 0:
                raise ConnectionFailed("the platform was ended; quit and start `lapconsole` again to have one")
            else:
                running, self._joined_at = await self._start(), None
        self._port = urlsplit(running.url).port or DEFAULT_PORT
        return running.url, await key_of(running, self.data_dir)

    def parting(self) -> str:
        """What becomes of the platform when the console goes."""
        running = find(self.data_dir)
        if running is None:
            return "No platform runs; sessions that are up go on. `lapconsole` or `lapconsole up` starts one."
        if self._child is not None and self._child.pid == running.pid:
            return (
                "The platform ends with the console; sessions that are up go on. "
                "`lapconsole up --detach` has one that stays."
            )
        return f"The platform at {running.url} (pid {running.pid}) goes on; `lapconsole down` ends it."

    async def stop(self) -> None:
        """End the platform if it is our child. Its sessions go on."""
        child, self._child = self._child, None
        if child is not None:
            await asyncio.to_thread(_end, child)

    async def _start(self) -> Running:
        await self.stop()
        env = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_EMBEDDED}
        try:
            # The same port again after a crash, so that addresses people noted down go on working.
            port = self._port if _is_free(self._port) else 0
            self._child, running = await start(self.data_dir, host="127.0.0.1", port=port, env=env)
        except ConnectionFailed as error:
            # Two consoles may start at once: the data folder's lock lets one platform through, the other console joins.
            winner = find(self.data_dir)
            if winner is not None:
                return winner
            if not port or "in use" not in str(error):
                raise
            # Somebody took the port since we looked, as the platform's last words say: any other will do.
            self._child, running = await start(self.data_dir, host="127.0.0.1", port=0, env=env)
        return running


def _spawn(arguments: list[str], data_dir: Path, env: Mapping[str, str] | None) -> tuple[subprocess.Popen[bytes], int]:
    """Start the process; returns it and where in the log its own lines begin. Raises ConnectionFailed."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _open_log(_log_path(data_dir)) as log:
            log_start = log.tell()
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                cwd=data_dir,
                start_new_session=True,
            )
            return process, log_start
    except OSError as error:
        raise ConnectionFailed(f"cannot start the platform in {data_dir}: {error.strerror or error}") from None


async def _listening(process: subprocess.Popen[bytes], data_dir: Path) -> Running | None:
    """Wait until the process has recorded its address and answers there; None if it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        running = find(data_dir)
        if running is not None and running.pid == process.pid and await healthy(running.url):
            return running
        await asyncio.sleep(_POLL_SECONDS)
    return None


def _why_not(process: subprocess.Popen[bytes]) -> str:
    code = process.poll()
    if code is None:
        return f"it did not answer within {START_SECONDS:.0f} s"
    return f"it ended with exit code {code}" if code >= 0 else f"it was ended by signal {-code}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End and reap a child: SIGTERM, then SIGKILL."""
    process.terminate()
    try:
        process.wait(CHILD_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _is_platform(pid: int, data_dir: Path) -> bool:
    """Tell whether the process is a platform on this data folder: after a crash the number may be another program's."""
    try:
        arguments = _arguments(pid)
    except (OSError, subprocess.SubprocessError):
        return False
    pairs = list(pairwise(arguments))
    folders = [value for option, value in pairs if option == "--data-dir"]
    return ("-m", "backend") in pairs and all(_same_folder(Path(folder), data_dir) for folder in folders)


def _arguments(pid: int) -> list[str]:
    """Return the command line of a process; [] for a zombie. Raises OSError or SubprocessError when there is none."""
    if Path("/proc/self").exists():
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "surrogateescape").split("\0")[:-1]
    # Elsewhere (macOS) only `ps` tells; a folder with spaces in its name is cut there, and then not recognised.
    listing = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, timeout=5, check=True)
    return listing.stdout.decode("utf-8", "surrogateescape").split()


def _same_folder(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As a server does it: a port whose old connections still linger counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _answers(url: str) -> bool:
    import http.client  # not before the console's first frame

    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", urls.HEALTH)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _saved_key(data_dir: Path) -> str | None:
    try:
        with (data_dir / "master.key").open("rb") as file:
            return file.read(2048).decode("ascii", "replace").strip()
    except OSError:
        return None


async def _refused(url: str, key: str) -> bool:
    from lapconsole.client.platform import Platform

    platform = Platform(url, key)
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await platform.sessions(limit=1)
    except PlatformError as error:
        return error.key_refused
    except (ClientError, TimeoutError):
        return False
    finally:
        await platform.aclose()
    return False


def _log_path(data_dir: Path) -> Path:
    return data_dir / "platform.log"


def _open_log(path: Path) -> BinaryIO:
    """Open the log to be appended to, private to the user; a long one is put aside first, one generation is kept."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > _MAXIMUM_LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
    file = open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))  # noqa: SIM115
    file.seek(0, os.SEEK_END)
    return file


def _tail(path: Path, start: int) -> str:
    """Return the last lines written to the log since `start`, indented, each with its line break."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start, end - 8192))
            lines = safe_text(file.read(8192).decode("utf-8", "replace")).splitlines()
    except OSError:
        return ""
    return "".join(f"  {line.rstrip()[:500]}\n" for line in lines[-_LOG_TAIL_LINES:] if line.strip())

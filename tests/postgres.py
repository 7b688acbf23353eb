"""A PostgreSQL server for the tests: one of their own, or the one that LAP_TEST_DATABASE_URL names.

What it names is a database whose user may create others; each test gets one of its own, which goes after it.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psycopg
import pytest

from backend.settings import Settings
from backend.store.database import prepare

START_SECONDS: Final = 60
SUPERUSER: Final = "lap"
SETTINGS: Final = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
}

on_both = pytest.mark.parametrize(
    "database_kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.xdist_group("postgres"))]
)
"""For tests whose database is that of the fixture `location`. One worker runs those on PostgreSQL, on one server."""


def placed(settings: Settings, location: Path | str) -> Settings:
    """The same settings with that database."""
    url = location if isinstance(location, str) else f"sqlite:///{location}"
    return settings.model_copy(update={"database_url": url})


class Server:
    """Makes databases as copies of an empty one with all tables."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._template = f"lap_{uuid.uuid4().hex}"
        # In a language, which sorts otherwise than SQLite does unless it is told.
        self.run(
            f"CREATE DATABASE {self._template} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C' "
            "LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
        )
        prepare(self.url(self._template))

    def url(self, name: str) -> str:
        """The URL of one database."""
        return urlsplit(self._url)._replace(path=f"/{name}").geturl()

    def run(self, statement: str) -> None:
        """One statement of who may do everything."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(statement.encode())

    @contextmanager
    def database(self, *, empty: bool = False) -> Iterator[str]:
        """The URL of a new database."""
        name = f"lap_{uuid.uuid4().hex}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {'template0' if empty else self._template}")
        try:
            yield self.url(name)
        finally:
            self.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def close(self) -> None:
        """Leave nothing."""
        self.run(f"DROP DATABASE {self._template} WITH (FORCE)")


@contextmanager
def server() -> Iterator[Server]:
    """The server of this test run; skips where there is none."""
    if given := os.environ.get("LAP_TEST_DATABASE_URL"):
        made = Server(given)
        try:
            yield made
        finally:
            made.close()
        return
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (package postgresql), and LAP_TEST_DATABASE_URL names no server")
    # Not in pytest's directory, where no other user may look; a socket's path must be short, too.
    folder = Path(tempfile.mkdtemp(prefix="lap-pg-"))
    try:
        with _running(programs, folder) as url:
            yield Server(url)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(programs: Path, folder: Path) -> Iterator[str]:
    data = folder / "data"
    # As root it refuses to run.
    user = "nobody" if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"],
        user=user,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=START_SECONDS,
    )
    options = [f"--{name}={value}" for name, value in {**SETTINGS, "unix_socket_directories": folder}.items()]
    # Should the tests be killed, it goes with them.
    guard = ["setpriv", "--pdeathsig", "QUIT"] if shutil.which("setpriv") else []
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [*guard, programs / "postgres", "-D", data, *options],
            user=user,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            url = f"postgresql://{SUPERUSER}@/postgres?host={folder}"
            _await(url, process, folder / "log")
            yield url
        finally:
            process.send_signal(signal.SIGQUIT)  # at once: nothing is worth keeping
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL does not start: {log.read_text(errors='replace')}") from None
        time.sleep(0.02)


def _programs() -> Path | None:
    """The folder of the server's programs, which Debian leaves off the PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if pg_config := shutil.which("pg_config"):
        told = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False, timeout=10)
        folders.append(Path(told.stdout.strip()))
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)

"""What all tests share: the switch for the benchmarks, and the databases."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.postgres import Server

# How long an example takes says more of the other tests that run at the same time than of itself.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-bench", action="store_true", help="run the benchmarks and print their tables")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--run-bench"):
        return
    skip = pytest.mark.skip(reason="a benchmark: run with --run-bench")
    for item in items:
        if "bench" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator["Server"]:
    """Started when the first test asks for it."""
    from tests import postgres

    with postgres.server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: "Server") -> Iterator[str]:
    """A database with all tables, and nothing in them."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, to copy: migrating anew would take most of the time of most tests."""
    from backend.store.database import prepare

    path = tmp_path_factory.mktemp("template") / "platform.db"
    prepare(path)
    return path


@pytest.fixture
def database_kind() -> str:
    """Where tests do not say otherwise, see `postgres.on_both`; LAP_TEST_DATABASE=postgres tries all of them on it."""
    return os.environ.get("LAP_TEST_DATABASE", "sqlite")


@pytest.fixture
def location(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """An empty database of that kind: its file, or its URL."""
    if database_kind == "postgres":
        url: str = request.getfixturevalue("postgres_url")
        return url
    path = tmp_path / "store.db"
    shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
    return path

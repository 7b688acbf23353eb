"""A real platform and a real git repository for the end-to-end tests."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.programs import Platform, make_repository


@pytest.fixture
async def platform(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Platform]:
    """A running platform; `@pytest.mark.parametrize("platform", [env], indirect=True)` adds environment variables."""
    started = Platform(tmp_path / "data", getattr(request, "param", None))
    await started.start()
    yield started
    await started.close()


@pytest.fixture
async def repository(tmp_path: Path) -> Path:
    """A git repository with a file on `main` and another branch `other`."""
    folder = tmp_path / "origin"
    await asyncio.to_thread(make_repository, folder)
    return folder

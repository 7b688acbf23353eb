"""A real platform and a real git repository for the end-to-end tests."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.programs import API, Platform


@pytest.fixture
async def platform(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Platform]:
    """A running platform; `@pytest.mark.parametrize("platform", [env], indirect=True)` adds environment variables."""
    started = Platform(tmp_path / "data", getattr(request, "param", None))
    await started.start()
    yield started
    if not started.running:
        await started.start()
    sessions = (await started.http.get(f"{API}/sessions", params={"limit": 200})).json()
    for session in sessions:
        await started.http.delete(f"{API}/sessions/{session['id']}")
    assert await started.end() == 0, started.log()


@pytest.fixture
async def repository(tmp_path: Path) -> Path:
    """A git repository with a file on `main` and another branch `other`."""
    folder = tmp_path / "origin"

    def make() -> None:
        def git(*arguments: str) -> None:
            identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
            subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)

        folder.mkdir()
        git("init", "--quiet", "--initial-branch", "main")
        (folder / "hello.txt").write_text("hello from the repository\n")
        git("add", ".")
        git("commit", "--quiet", "--message", "First")
        git("checkout", "--quiet", "-b", "other")
        (folder / "other.txt").write_text("another branch\n")
        git("add", ".")
        git("commit", "--quiet", "--message", "Second")
        git("checkout", "--quiet", "main")

    await asyncio.to_thread(make)
    return folder

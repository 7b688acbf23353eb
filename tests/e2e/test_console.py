"""The newcomer's tour through the real console: agent, session, terminal, detach, quit, come back, delete."""

import sqlite3
from pathlib import Path

import pytest

from tests.e2e.console import console
from tests.e2e.programs import SHELL, processes_of
from tests.waiting import until

pytestmark = pytest.mark.e2e

ENTER, ESCAPE, TAB, DOWN, SAVE, DETACH = "\r", "\x1b", "\t", "\x1b[B", "\x13", "\x1d"
COMMAND = {"LAP_HARNESS_COMMAND_CLAUDE_CODE": SHELL}


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50)])
async def test_tour(tmp_path: Path, repository: Path, columns: int, lines: int) -> None:
    async with console(tmp_path, columns=columns, lines=lines, env=COMMAND) as shown:
        await shown.shows("No agents yet", "live")
        await shown.press("2", "n")
        await shown.shows("New agent", "Repository")
        await shown.press("tourist", TAB, TAB, "test/model", TAB, str(repository), SAVE)
        await shown.shows("Agent tourist is made")
        await shown.press("c")
        await shown.shows("New session")
        await shown.press(SAVE)
        # The new session's own page: each phase as it passes.
        await shown.shows("tourist", "cloning_repo", "● ready after")
        await shown.press("a")
        await shown.shows("Ctrl+]", "bash-")
        await shown.press("cat hello.txt; mark=here\r")
        await shown.shows("hello from the repository")
        await shown.press(DETACH, "d")
        await shown.shows("harness_listening")
        await shown.press("q")
        await shown.ends()

    # The platform of this console has ended with it; the session has not.
    sandboxes = list((tmp_path / "data" / "sandboxes").iterdir())
    assert len(sandboxes) == 1
    assert processes_of(sandboxes[0])

    async with console(tmp_path, columns=columns, lines=lines, env=COMMAND) as shown:
        await shown.shows("tourist", "● ready")
        await shown.press("A")
        await shown.shows("hello from the repository", "● driving")
        await shown.press("echo [$mark]\r")
        await shown.shows("[here]")
        await shown.press(DETACH, "d")
        await shown.shows("Sessions(all)[1]")
        await shown.press("D")
        await shown.shows("Delete")
        await shown.press("y")
        await until(lambda: not processes_of(sandboxes[0]) and not sandboxes[0].exists(), "nothing is left")
        await shown.shows("dead")
        await shown.press("q")
        await shown.ends()
    with sqlite3.connect(tmp_path / "data" / "platform.db") as database:
        assert database.execute("SELECT status FROM session").fetchall() == [("dead",)]

"""Two real consoles on one agent's terminal: one drives, the other watches, and they change places."""

from pathlib import Path

import pytest

from tests.e2e.console import console
from tests.e2e.programs import Platform

pytestmark = pytest.mark.e2e

COMMAND = "\x1d"  # Ctrl+]


async def test_driving_watching_and_looking_back(platform: Platform, tmp_path: Path) -> None:
    await platform.ready(await platform.create_agent())
    reach = ("--platform", platform.url)
    env = {"LAP_MASTER_KEY": platform.key}
    async with (
        console(tmp_path / "one", *reach, columns=120, lines=35, env=env) as one,
        console(tmp_path / "two", *reach, columns=80, lines=24, env=env) as two,
    ):
        await one.shows("tester", "● live")
        await one.press("a")
        await one.shows("○ watching", "Ctrl+] t lets you type", "bash-")
        await one.press("x")
        await one.shows("nothing typed: Ctrl+] t lets you type")
        await one.press(COMMAND, "t")
        await one.shows("● driving")
        await one.press("stty size; seq 1 2000; echo https://example.org/$((1 + 1))\r")
        await one.shows("https://example.org/2")

        await two.shows("tester", "● live")
        await two.press("a")
        await two.shows("https://example.org/2", "○ watching", "Ctrl+] t takes over")
        await two.press("x")
        await two.shows("nothing typed: Ctrl+] t takes over")
        # The scrollback is there, though all of it was written before.
        await two.press(COMMAND, "/", *"1234\r")
        await two.shows("1234\n", "1/1")
        await two.press("q", COMMAND, "t")
        await two.shows("80x23  ● driving")
        await one.shows("○ watching", "┈┈ 80x23 of ")

        await two.press("stty size\r")
        await two.shows("23 80")
        await one.shows("stty size   ", "23 80   ")
        await two.press(COMMAND, "d", "q")
        await one.shows("nobody drives")
        await one.press(COMMAND, "t")
        await one.shows("120x34  ● driving")
        await one.press("stty size\r")
        await one.shows("34 120")
        await one.press(COMMAND, "d", "q")

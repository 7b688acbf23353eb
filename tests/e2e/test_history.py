"""Looking back with the real harness: all of the lines that it keeps, each once, however much was skipped meanwhile."""

import contextlib
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lapconsole.screens.attach import AttachScreen
from lapconsole.terminal import attachment
from tests.harness.conftest import TOKEN, RunningHarness, bash
from tests.screens.attaching import Attached, ready_session
from tests.screens.scene import ScriptedPlatform, console
from tests.waiting import until

pytestmark = pytest.mark.e2e

KEPT = 10_000
_PRINT = r"import sys; a, b = map(int, sys.argv[1:]); print('\n'.join('%06d' % n + ' text' * 14 for n in range(a, b)))"


def printing(first: int, end: int) -> str:
    """A command that prints a line of 76 characters for each of these numbers."""
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(_PRINT)} {first} {end}"


PRINTED = f"{printing(0, 20_000)}; printf 'end\\033]0;printed\\007'"


@contextlib.asynccontextmanager
async def attached(tmp_path: Path, script: str, *, title: str = "") -> AsyncIterator[Attached]:
    """A console on a harness that runs `script`, driving; it attaches once the script has given itself this title."""
    harness = RunningHarness(tmp_path / "sandbox")
    await harness.start()
    try:
        await harness.ready(command=bash(f"stty -echo; {script}; read -r _"))
        await harness.until(lambda state: state["terminal"]["title"] == title)
        platform = ScriptedPlatform(session=ready_session(tty_token=TOKEN))
        platform.base_url = f"http://{harness.address}"
        app = console(platform=platform)
        async with app.run_test(size=(100, 31)) as pilot:
            app.open_terminal(ready_session().id, own=True)
            await until(lambda: isinstance(app.screen, AttachScreen), "the screen")
            it = Attached(pilot, harness, platform, app.screen)  # type: ignore[arg-type]
            await until(lambda: it.screen._attachment is not None, "the first size")
            await it.until_line("driving")
            yield it
    finally:
        await harness.stop()


def numbers(it: Attached) -> list[int]:
    """Those of the lines that can be looked back at, in their order; a line that was wrapped counts once."""
    assert it.view.review is not None
    document = it.view.review.document
    texts = (document.lines[index].text for index in range(len(document)))
    return [int(text[:6]) for text in texts if text[:6].isdecimal()]


async def looks_back(it: Attached, expected: range) -> None:
    """Goes to the top, and has exactly these lines above it and on the screen."""
    await it.command("s")
    try:
        await until(lambda: numbers(it) == list(expected), "each line once")
    except AssertionError:
        found = numbers(it)
        raise AssertionError(f"{len(found)} lines, {found[:3]} to {found[-3:]}, expected {expected}") from None
    await it.pilot.press("g")
    assert f"{expected[0]:06}" in it.view.render_line(0).text
    await it.pilot.press("q")


async def test_what_was_printed_before_the_console_came(tmp_path: Path) -> None:
    async with attached(tmp_path, PRINTED, title="printed") as it:
        await it.until_shown("end")
        # The screen has 30 lines, the last of them with `end`; what the console's harness keeps above it are KEPT.
        await looks_back(it, range(20_000 - 29 - KEPT, 20_000))


async def test_what_was_printed_while_it_watched(tmp_path: Path) -> None:
    """A megabyte and a half at once: some of it is skipped, and fetched for who looks back."""
    async with attached(tmp_path, f"read -r _; {printing(0, 20_000)}; printf end") as it:
        await it.pilot.press("enter")
        await it.until_shown("end")
        await looks_back(it, range(20_000 - 29 - KEPT, 20_000))


async def test_what_comes_after_a_look_back_is_in_the_next_one(tmp_path: Path) -> None:
    script = f"{printing(0, 3_000)}; read -r _; {printing(3_000, 3_100)}; read -r _; {printing(3_100, 9_000)}"
    async with attached(tmp_path, f"{script}; printf end") as it:
        await it.until_shown("002999")
        await looks_back(it, range(3_000))
        await it.pilot.press("enter")
        await it.until_shown("003099")
        await looks_back(it, range(3_100))
        await it.pilot.press("enter")
        await it.until_shown("end")
        await looks_back(it, range(9_000))


@pytest.mark.parametrize("sizes", [[(70, 31)], [(100, 11), (100, 31)], [(140, 41), (60, 9), (100, 31)]])
async def test_sizes_that_change(tmp_path: Path, sizes: list[tuple[int, int]]) -> None:
    """Also while it prints, when what waits to be shown is dropped for a repaint."""
    script = f"{printing(0, 2_500)}; read -r _; {printing(2_500, 4_500)}; printf end"
    async with attached(tmp_path, script) as it:
        await it.until_shown("002499")
        for size in sizes:
            await it.pilot.resize_terminal(*size)
            await until(lambda size=size: it.view.emulator.columns == size[0], "the size")  # type: ignore[misc]
        await looks_back(it, range(2_500))
        await it.pilot.press("enter")
        for size in sizes * 2:
            await it.pilot.resize_terminal(size[0] - 5, size[1])
            await it.pilot.resize_terminal(*size)
        await it.until_shown("end")
        await until(lambda: it.view.emulator.columns == sizes[-1][0], "the last size")
        await looks_back(it, range(4_500))


async def test_over_a_thin_link_the_newest_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachment, "QUICK_SECONDS", -1)
    async with attached(tmp_path, PRINTED, title="printed") as it:
        await it.until_shown("end")
        assert it.view.emulator.scrollback_lines < 100
        await it.command("s")
        newest = range(20_000 - 29 - attachment.FIRST_SCROLLBACK, 20_000)
        await until(lambda: numbers(it) == list(newest), "the newest")
        await it.pilot.press("pageup")
        assert not it.screen._attachment._asked  # type: ignore[union-attr]
        await it.pilot.press("g")
        await until(lambda: numbers(it) == list(range(20_000 - 29 - KEPT, 20_000)), "all of them")
        assert f"{newest[0]:06}" in it.view.render_line(0).text


async def test_an_erased_scrollback_is_erased_here_too(tmp_path: Path) -> None:
    erase = r"printf '\033[H\033[2J\033[3J'"
    script = f"{printing(0, 500)}; read -r _; {printing(500, 20_000)}; {erase}; printf end"
    async with attached(tmp_path, script) as it:
        await it.until_shown("000499")
        await until(lambda: it.view.emulator.scrollback_lines > 400, "the scrollback")
        await it.pilot.press("enter")
        await it.until_shown("end")
        await it.command("s")
        await until(lambda: numbers(it) == [], "nothing")

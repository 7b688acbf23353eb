"""Real programs in the console's terminal, at three sizes: they show what they should, and everybody sees the same."""

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from backend.harness import screen as picture
from lapconsole.terminal.emulator import Emulator, Style
from tests.e2e.console import Console, console
from tests.e2e.programs import API, Platform, Seat, seated
from tests.e2e.slow_link import slow_link
from tests.loopback_model import LoopbackModel
from tests.waiting import until

pytestmark = pytest.mark.e2e

SIZES = [(80, 24), (120, 35), (200, 50)]
COMMAND = "\x1d"  # Ctrl+]
ESCAPE, ENTER = "\x1b", "\r"
F5, F10 = "\x1b[15~", "\x1b[21~"
SAMPLE = "".join(f"line {number}: the quick brown fox\n" for number in range(1, 400))


@dataclass
class Program:
    """What to type into a shell, and what must be seen after it."""

    start: str
    shows: tuple[str, ...]
    steps: tuple[tuple[str, tuple[str, ...]], ...] = ()
    leave: tuple[str, ...] = ()
    full_screen: bool = True
    env: dict[str, str] = field(default_factory=dict)


PROGRAMS = {
    "bash": Program(
        r"printf '\033[1mbold\033[0m \033[3;4mslanted\033[0m \033[7mturned\033[0m \033[9mstruck\033[0m"
        r" \033[38;2;10;200;30mgreen\033[0m \033[48;2;90;0;90mon it\033[0m \033[38;5;208morange\033[0m \033[31mred"
        r"\033[0m wide \346\227\245\346\234\254 end\n'",
        ("bold slanted turned struck green on it orange red wide 日本 end\n",),
        full_screen=False,
    ),
    "vim": Program(
        "vim -N -u NONE -i NONE -n sample.txt",
        ('"sample.txt" 399L',),
        (
            (":set number | highlight LineNr ctermfg=3 cterm=bold\r", ("  1 line 1: the quick",)),
            ("ihello ", ("  1 hello line 1: the quick", "-- INSERT --")),
            (ESCAPE, ("not -- INSERT --",)),
            ("yyP", ("  2 hello line 1: the quick",)),
            ("G", ("400 line 399: the quick",)),
        ),
        (":q!\r",),
    ),
    "less": Program(
        "less sample.txt",
        ("line 1: the quick",),
        (("/line 237\r", ("line 237:",)), ("G", ("line 399:", "(END)"))),
        ("q",),
    ),
    "htop": Program("htop -d 40", ("PID", "F10Quit", "htop"), ((F5, ("F5List",)),), (F10,)),
    "tmux": Program(
        "tmux -L lap-$$ -f /dev/null new -s inner",
        ("[inner]",),
        (('\x02"', ("─" * 40,)), ("echo in-the-$((1 + 1))-pane\r", ("in-the-2-pane",))),
        ("tmux kill-server\r",),
    ),
    "mc": Program("mc -u -d", ("1Help", "10Quit", "sample.txt"), (), (F10, "\r")),
}


def needs(*names: str) -> None:
    """Skips what cannot be run on this machine."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def cells_of(emulator: Emulator) -> dict[str, Any]:
    """A screen as the screen endpoint tells it, but for the title, which repaints and programs set on their own."""
    return {**json.loads(picture.cells(emulator, 0)), "title": ""}


async def text_of(platform: Platform, session: dict[str, Any]) -> str:
    return (await platform.http.get(f"{API}/sessions/{session['id']}/screen")).text


async def until_shown(platform: Platform, session: dict[str, Any], texts: tuple[str, ...], seconds: float = 20) -> None:
    """Waits until the screen endpoint's text has all of these, and none that begins with `not `."""
    shown = ""

    async def there() -> bool:
        nonlocal shown
        shown = await text_of(platform, session) + "\n"
        return all((text.removeprefix("not ") in shown) != text.startswith("not ") for text in texts)

    try:
        await until(there, f"{texts} on the screen", seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{shown}") from None


async def all_see_the_same(platform: Platform, session: dict[str, Any], early: Seat, shown: Console | None) -> None:
    """Text, attributes and cursor: on the harness, for who has watched all along, who comes now, and in the console."""
    seen: list[Any] = []
    async with seated(session) as late:

        async def same() -> bool:
            response = await platform.http.get(f"{API}/sessions/{session['id']}/screen", params={"format": "cells"})
            told = {**response.json(), "title": ""}
            seen[:] = [told, cells_of(early.emulator), cells_of(late.emulator)]
            if not seen[0] == seen[1] == seen[2]:
                return False
            seen[:] = [] if shown is None else differences(late.emulator, shown)
            return not seen

        try:
            await until(same, "all see the same", 10)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{seen!r:.3000}") from None


def differences(emulator: Emulator, shown: Console) -> list[str]:
    """Where the console shows the terminal otherwise than it is.

    True colours and attributes must be as they are. Colours of the palette are the theme's in the console: each must
    be shown as one and the same. The cell of the cursor is drawn by the console.
    """
    found: list[str] = []
    known: dict[Any, Any] = {}
    for y in range(emulator.lines):
        mine, theirs = _cells(emulator, y), _cells(shown.emulator, y)
        for x, ((char, style), (other, drawn)) in enumerate(zip(mine, theirs, strict=True)):
            if (x, y) == emulator.cursor and emulator.cursor_visible:
                continue
            if (char or " ") != (other or " "):
                found.append(f"{x},{y}: {other!r} for {char!r}")
            elif _attributes(style) != _attributes(drawn):
                found.append(f"{x},{y} {char!r}: {drawn} for {style}")
            elif not style.dim:
                for color, as_drawn, which in ((style.fg, drawn.fg, "fg"), (style.bg, drawn.bg, "bg")):
                    expected = color if isinstance(color, tuple) else known.setdefault((which, color), as_drawn)
                    if as_drawn != expected and not (which == "fg" and char.strip() == ""):
                        found.append(f"{x},{y} {char!r} {which}: {as_drawn} for {color}")
    return found


def _cells(emulator: Emulator, y: int) -> list[tuple[str, Style]]:
    row = emulator.screen.rows[y]
    return list(zip(row.chars, row.styles, strict=True))


def _attributes(style: Style) -> tuple[bool, ...]:
    return style.bold, style.italic, bool(style.underline), style.reverse, style.strike


@asynccontextmanager
async def driven(
    platform: Platform, session: dict[str, Any], folder: Path, columns: int, lines: int
) -> AsyncIterator[tuple[Console, Seat]]:
    """A console that drives the session's terminal, and somebody who watches it."""
    reach = ("--platform", platform.url)
    env = {"LAP_MASTER_KEY": platform.key}
    async with console(folder, *reach, columns=columns, lines=lines, env=env) as shown:
        await shown.shows("● live", "ready")
        await shown.press("A")
        await shown.shows(f"{columns}x{lines - 1}", "driving")
        async with seated(session) as watcher:
            yield shown, watcher


async def use(program: Program, shown: Console, watcher: Seat, platform: Platform, session: dict[str, Any]) -> None:
    """Go through a program's steps; at its end everybody sees the same."""
    await shown.press(program.start + ENTER)
    await until_shown(platform, session, program.shows)
    for keys, texts in program.steps:
        await shown.press(keys)
        await until_shown(platform, session, texts)
    await all_see_the_same(platform, session, watcher, shown)
    assert watcher.emulator.alternate == program.full_screen
    for keys in program.leave:
        await shown.press(keys)
    await until(lambda: not watcher.emulator.alternate, f"{program.start} has ended")


@pytest.mark.parametrize(("columns", "lines"), SIZES)
async def test_programs_of_every_day(platform: Platform, tmp_path: Path, columns: int, lines: int) -> None:
    session = await platform.ready(await platform.create_agent())
    (platform.sandbox(session) / "home" / "sample.txt").write_text(SAMPLE)
    async with driven(platform, session, tmp_path / "console", columns, lines) as (shown, watcher):
        for name, program in PROGRAMS.items():
            if shutil.which(name) is None:
                continue  # CI installs them all
            await shown.press(f"clear; echo now-$((1 + 1))-{name}\r")
            await until_shown(platform, session, (f"now-2-{name}\n",))
            await use(program, shown, watcher, platform, session)
        await shown.press(COMMAND, "d")
        await shown.shows("● live")


OPENCODE = {
    "autoupdate": False,
    "share": "disabled",
    "model": "loopback/loopback-1",
    "small_model": "loopback/loopback-1",
    "enabled_providers": ["loopback"],
    "permission": {"*": "allow"},
}
# What to type into each agent, and what must be seen then; the first waits until it has started.
AGENTS = {
    "claude": ("claude-code", ("Claude Code", "❯"), ("● echo: hello", "❯")),
    "codex": ("codex", ("OpenAI Codex", "› "), ("• echo: hello", "› ")),
    "opencode": ("claude-code", ("Ask anything", "ctrl+p"), ("echo: hello", "ctrl+p")),
}


@pytest.mark.parametrize("name", AGENTS)
async def test_agents(name: str, tmp_path: Path) -> None:
    """Started at one size, talked to at a second, and looked at by all at a third."""
    needs(name)
    harness_id, started, answered = AGENTS[name]
    async with LoopbackModel() as model:
        env = {"LITELLM_API_BASE": model.url, "LITELLM_API_KEY": "sk-loopback-0123456789abcdef"}
        more: dict[str, str] = {}
        if name == "opencode":
            env["LAP_HARNESS_COMMAND_CLAUDE_CODE"] = "opencode"
            provider = {
                "npm": "@ai-sdk/openai-compatible",
                "options": {"baseURL": "{env:LITELLM_API_BASE}/v1", "apiKey": "{env:LITELLM_API_KEY}"},
                "models": {"loopback-1": {"limit": {"context": 100_000, "output": 8_000}}},
            }
            more["OPENCODE_CONFIG_CONTENT"] = json.dumps({**OPENCODE, "provider": {"loopback": provider}})
            more["OPENCODE_DISABLE_MODELS_FETCH"] = "1"
        else:
            env["LAP_HARNESS_COMMAND_CLAUDE_CODE"] = ""
        platform = Platform(tmp_path / "data", env)
        await platform.start()
        try:
            agent = await platform.create_agent(harness_id=harness_id, model="loopback-1")
            session = await platform.ready(agent, env_vars=more)
            await talk(platform, session, tmp_path / "console", started, answered)
        finally:
            await platform.close()


async def talk(
    platform: Platform, session: dict[str, Any], folder: Path, started: tuple[str, ...], answered: tuple[str, ...]
) -> None:
    async with seated(session, *SIZES[2], drive=True):
        await until_shown(platform, session, started, 60)
    for (columns, lines), keys in ((SIZES[0], ("hello", ENTER)), (SIZES[1], ())):
        async with driven(platform, session, folder, columns, lines) as (shown, watcher):
            for key in keys:
                await shown.press(key)
                await until_shown(platform, session, ("hello",))
            await until_shown(platform, session, answered, 60)
            assert (watcher.emulator.columns, watcher.emulator.lines) == (columns, lines - 1)
            await all_see_the_same(platform, session, watcher, shown)
            await shown.press(COMMAND, "d", "q")
            await shown.ends()


async def test_keys_are_answered_over_a_thin_link_in_a_flood(platform: Platform, tmp_path: Path) -> None:
    """15 KB a second between console and platform: what a flood leaves in buffers is no more than a moment of it."""
    session = await platform.ready(await platform.create_agent())
    async with slow_link(int(platform.url.rpartition(":")[2])) as address:
        env = {"LAP_MASTER_KEY": platform.key}
        async with console(tmp_path / "console", "--platform", address, columns=120, lines=35, env=env) as shown:
            await shown.shows("● live", "ready")
            await shown.press("A")
            await shown.shows("driving", "bash-")
            await shown.press("yes\r")
            await shown.shows("y\n" * 20, "skipped ahead")
            began = monotonic()
            await shown.press("\x03")
            await shown.shows("^C")
            assert monotonic() - began < 3  # 0.2 to 0.7 where nothing else runs; buffers alone hold 4 seconds
            await until_shown(platform, session, ("^C",))
            await shown.press("echo it-$((1 + 1))-works\r")
            await shown.shows("it-2-works")

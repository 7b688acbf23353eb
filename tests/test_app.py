"""The app: paints first, mends its link, survives bad settings, and lets an agent's terminal have every key."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.screen import Screen

from lapconsole.app import LapConsole
from lapconsole.connection import Address, ConnectionFailed
from lapconsole.live.model import LinkState
from lapconsole.screens.sessions import SessionsScreen
from lapconsole.settings import Settings, settings_path
from tests.screens.scene import NoConnection, console


@pytest.fixture(autouse=True)
def _own_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


async def until(condition: Callable[[], object], pilot: Pilot[None]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await pilot.pause()
            await asyncio.sleep(0)


def run_python(code: str, **env: str) -> list[str]:
    """The words a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**{key: value for key, value in os.environ.items() if key != "SSH_CONNECTION"}, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.split()


FIRST_FRAME = """
import sys
from textual.app import App
from lapconsole.app import LapConsole
from lapconsole.connection import Address, FixedConnection

seen = []
display = App._display
def watched(app, screen, renderable):
    display(app, screen, renderable)
    if not seen:
        seen.extend(sorted({name.partition(".")[0] for name in sys.modules}))
        frame = "".join(strip.text for strip in screen._compositor.render_strips())
        assert "Sessions(all) " in frame, frame
        app.exit()
App._display = watched
LapConsole(FixedConnection(Address("http://127.0.0.1:9", "key", "lab"))).run(headless=True, size=(120, 35))
print(*seen)
"""


def test_nothing_of_the_network_is_imported_before_the_first_frame() -> None:
    modules = run_python(FIRST_FRAME)
    assert "textual" in modules
    assert not {"httpx", "httpcore", "h11", "websockets", "kubernetes", "pyte", "pydantic", "backend"} & set(modules)


def test_over_ssh_there_is_no_animation_and_fewer_frames() -> None:
    code = (
        "import lapconsole.app; from textual import constants as c;"
        "print(c.TEXTUAL_ANIMATIONS, c.SMOOTH_SCROLL, c.MAX_FPS)"
    )
    assert run_python(code) == ["full", "True", "60"]
    assert run_python(code, SSH_CONNECTION="10.0.0.1 1 10.0.0.2 22") == ["none", "False", "15"]
    assert run_python(code, SSH_CONNECTION="x", TEXTUAL_FPS="30") == ["none", "False", "30"]


async def test_no_color_leaves_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = console()
    async with app.run_test(size=(80, 24)):
        for strip in app.screen._compositor.render_strips():
            for segment in strip.apply_filter(app._filters[-1], app.screen.background_colors[1]):
                colour = segment.style.color if segment.style else None
                if colour is not None and colour.triplet is not None:
                    assert len(set(colour.triplet)) == 1


class Moving(NoConnection):
    """Fails first, then gives one address after the other."""

    def __init__(self, *addresses: str) -> None:
        super().__init__()
        self.left = list(addresses)

    async def resolve(self) -> Address:
        self.asked += 1
        if self.asked == 1:
            raise ConnectionFailed("the port is taken; choose another with --port")
        return Address(self.left.pop(0) if len(self.left) > 1 else self.left[0], "key", "embedded")


async def test_the_link_mends_itself_and_follows_the_platform_to_a_new_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lapconsole.follow.FIRST_RETRY_SECONDS", 0.01)
    connection = Moving("http://127.0.0.1:9", "http://127.0.0.1:10")
    app = LapConsole(connection, settings=Settings())
    reasons: list[str | None] = []
    app.model.observe(lambda changes: reasons.append(app.model.link.reason))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: app.platform is not None and app.platform.base_url.endswith(":10"), pilot)
        assert "the port is taken; choose another with --port" in reasons
        assert app.model.link.state is LinkState.CONNECTING
        await pilot.press("2", "1", "question_mark", "escape", "ctrl+q")
    assert not app.is_running


class Terminal(Screen[None]):
    """Stands for an agent's terminal, which keeps every key."""

    keeps_keys = True

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []

    def on_key(self, event: Any) -> None:
        self.keys.append(event.key)
        event.stop()


async def test_an_agents_terminal_gets_every_key() -> None:
    app = console()
    async with app.run_test(size=(80, 24)) as pilot:
        terminal = Terminal()
        await app.push_screen(terminal)
        pressed = ["ctrl+q", "ctrl+p", "q", "1", "2", "t", "question_mark", "exclamation_mark", "escape"]
        await pilot.press(*pressed)
        assert terminal.keys == pressed
        assert app.screen is terminal


async def test_bad_settings_are_told_and_do_not_stop_the_start() -> None:
    path = settings_path()
    path.parent.mkdir(parents=True)
    path.write_text("{ not json")
    app = LapConsole(NoConnection())
    async with app.run_test(size=(80, 24)):
        assert isinstance(app.screen, SessionsScreen)
        assert str(path) in app.problems[0].why


async def test_a_persons_own_keys_and_theme(tmp_path: Path) -> None:
    path = settings_path()
    (path.parent / "themes").mkdir(parents=True)
    (path.parent / "themes" / "mine.toml").write_text('[colors]\nprimary = "#ff0000"\n')
    (path.parent / "themes" / "broken.toml").write_text('[colors]\nprimary = "no"\n')
    path.write_text(
        json.dumps(
            {
                "preferences": {
                    "theme": "mine",
                    "keys": {"app.help": "f1", "app.agents": "1", "nope": "x", "app.quit": 7},
                }
            }
        )
    )
    app = LapConsole(NoConnection())
    async with app.run_test(size=(80, 24)) as pilot:
        assert app.theme == "mine"
        await until(lambda: [problem.what for problem in app.problems].count("Read the keys") == 3, pilot)
        await pilot.press("f1")
        assert type(app.screen).__name__ == "HelpScreen"
        await pilot.press("escape", "t")
        assert any("broken.toml" in problem.why for problem in app.problems)
        await pilot.press("home", "enter")
        assert app.theme == "colour-blind"
        assert json.loads(path.read_text())["preferences"]["theme"] == "colour-blind"
        await pilot.press("t", "down", "escape")
        assert app.theme == "colour-blind"


async def test_a_theme_that_is_gone_gives_the_default() -> None:
    app = console(preferences={"theme": "vanished"})
    async with app.run_test(size=(80, 24)):
        assert app.theme == "dark"
        assert 'there is no theme "vanished"' in app.problems[0].why


async def test_switching_the_theme_recolours_what_is_on_the_screen() -> None:
    app = console()
    async with app.run_test(size=(80, 24)) as pilot:
        before = app.screen.table.render_line(3)
        await pilot.press("t", "end", "up", "enter")
        assert app.theme == "light"
        await until(lambda: app.screen.table.render_line(3) != before, pilot)

"""The wall of screens: what it shows at which size, attaching from it, lost links, and that it leaves nothing open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot

from lapconsole.app import LapConsole
from lapconsole.client.models import Activity, Session
from lapconsole.screens.attach import AttachScreen
from lapconsole.screens.sessions import SessionsScreen
from lapconsole.screens.wall import Tile, WallScreen, shape
from lapconsole.terminal import attachment
from lapconsole.terminal.attachment import Phase
from tests.screens.attaching import TOKEN, Harness
from tests.screens.scene import DOCS, PAYMENTS, REVIEWER, ScriptedPlatform, console, session
from tests.waiting import until

SIZES = {"80x24": (80, 24), "120x35": (120, 35), "200x50": (200, 50)}
DOING = (
    Activity("waiting_for_input", None, "permission", "Bash: touch zzz"),
    Activity("working"),
    Activity("idle", None, "started"),
    Activity("idle", None, "turn_finished"),
    Activity("idle", None, "error", "API Error: 400"),
    None,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attachment, "FIRST_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(attachment, "LAST_RETRY_SECONDS", 0.05)


def rows(count: int) -> list[Session]:
    made = [
        session(number, (PAYMENTS, REVIEWER)[number % 2], title=f"Task {number}", activity=DOING[(number - 1) % 6])
        for number in range(1, count + 1)
    ]
    return [*made, session(90, DOCS), session(91, PAYMENTS, "dead"), session(92, PAYMENTS, "creating")]


class Platform(ScriptedPlatform):
    """Answers every session with its terminal at one address; all share one screen."""

    def __init__(self, of: list[Session], port: int) -> None:
        super().__init__()
        self.base_url = f"http://127.0.0.1:{port}"
        self.of = {one.id: replace(one, tty_token=TOKEN, tty_url="/tty") for one in of}

    async def session(self, session_id: str) -> Session:
        return self.of[session_id]


def wall_of(app: Any) -> WallScreen:
    assert isinstance(app.screen, WallScreen)
    return app.screen


def watched(harness: Harness) -> int:
    """How many connections are open."""
    return sum(connection.state.name == "OPEN" for connection in harness.connections)


async def live(wall: WallScreen, harness: Harness) -> None:
    def seen(tile: Tile) -> bool:
        return tile.state.phase is Phase.LIVE and any("keep 2" in row for row in tile.glimpse.emulator.text())

    await until(lambda: bool(wall.tiles) and all(seen(tile) for tile in wall.shown), "every screen")
    await until(lambda: watched(harness) == len(wall.shown), "the connections")


@asynccontextmanager
async def running(*, two_way: bool = True) -> AsyncIterator[Harness]:
    harness = Harness(two_way=two_way)
    harness.emulator.feed("\r\n".join(f"keep {n} " + "·" * n for n in range(30)) + "\x1b[27;3H")
    await harness.start()
    try:
        yield harness
    finally:
        await harness.stop()


@asynccontextmanager
async def wall(
    count: int, size: tuple[int, int], harness: Harness
) -> AsyncIterator[tuple[LapConsole, Pilot[None], WallScreen]]:
    of = rows(count)
    app = console(rows=of, platform=Platform(of, harness.port))
    async with app.run_test(size=size) as pilot:
        await pilot.press("w")
        await until(lambda: isinstance(app.screen, WallScreen), "the wall")
        yield app, pilot, wall_of(app)


def caption(tile: Tile) -> str:
    return tile.caption.render_line(0).text.rstrip()


@pytest.mark.parametrize(
    ("count", "size", "grid"),
    [
        (1, (80, 22), (1, 1)),
        (2, (80, 22), (2, 1)),
        (9, (80, 22), (2, 2)),
        (9, (120, 33), (3, 3)),
        (5, (200, 48), (3, 2)),
        (9, (200, 48), (3, 3)),
        (9, (20, 5), (1, 1)),
    ],
)
def test_the_grid_fits_the_size(count: int, size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert shape(count, *size) == grid


async def test_shows_what_is_ready_around_its_cursor_and_only_watches() -> None:
    async with running() as harness, wall(3, (80, 24), harness) as (_, pilot, screen):
        await live(screen, harness)
        assert [caption(tile).split(" · ")[0] for tile in screen.tiles] == [
            "▌1 code-reviewer",  # faults first: it needs us
            " 2 payments-api",
            " 3 code-reviewer",
        ]
        assert "▲ asks: " in caption(screen.tiles[0])
        assert "working" in caption(screen.tiles[1])
        glimpse = screen.tiles[0].glimpse
        await until(lambda: "keep 29" in glimpse.render_line(glimpse.size.height - 1).text, "the part below the cursor")
        assert {message["type"] for message in harness.told} <= {"hello", "seen"}
        hellos = [message for message in harness.told if message["type"] == "hello"]
        assert {(message["mode"], message["scrollback"]) for message in hellos} == {("watch", 0)}
        await pilot.press("x")
        assert not harness.keys


async def test_leaving_closes_what_it_opened() -> None:
    async with running() as harness, wall(9, (80, 24), harness) as (app, pilot, screen):
        await live(screen, harness)
        assert watched(harness) == 4
        await pilot.press("escape")
        await until(lambda: isinstance(app.screen, SessionsScreen), "the list")
        await until(lambda: watched(harness) == 0, "all closed")


async def test_attaching_pauses_the_wall_and_coming_back_goes_on() -> None:
    async with running() as harness, wall(4, (80, 24), harness) as (app, pilot, screen):
        await live(screen, harness)
        await pilot.press("down", "right", "up", "up", "enter")
        await until(lambda: isinstance(app.screen, AttachScreen), "attached")
        assert app.screen._session_id == screen.tiles[1].session.id  # type: ignore[attr-defined]
        await until(lambda: watched(harness) == 1, "only the one attached")
        await pilot.press("ctrl+right_square_bracket", "d")
        await until(lambda: app.screen is screen, "the wall again")
        await live(screen, harness)
        await pilot.press("3")
        await until(lambda: isinstance(app.screen, AttachScreen), "attached by its number")
        assert app.screen._session_id == screen.tiles[2].session.id  # type: ignore[attr-defined]


async def test_a_lost_link_says_so_and_comes_back() -> None:
    async with running() as harness, wall(2, (120, 35), harness) as (_, _pilot, screen):
        await live(screen, harness)
        await harness.stop()
        await until(lambda: "link lost: " in caption(screen.tiles[0]), "the loss")
        await harness.start()
        await live(screen, harness)
        assert "link lost" not in caption(screen.tiles[0])


async def test_it_follows_who_ends_and_who_comes() -> None:
    async with running() as harness, wall(2, (120, 35), harness) as (app, pilot, screen):
        await live(screen, harness)
        (first, second), again = screen.tiles, screen.tiles[0].session
        await pilot.press("right")
        third = session(3, REVIEWER, title="Task 3")
        app.platform.of[third.id] = replace(third, tty_token=TOKEN, tty_url="/tty")  # type: ignore[union-attr]
        app.model.update_sessions([replace(first.session, status="dead"), third])
        app.model.flush()
        await until(lambda: [tile.session.id for tile in screen.tiles] == [second.session.id, third.id], "the change")
        await live(screen, harness)
        assert caption(second).startswith("▌1 ")
        # One that is restarted keeps its place.
        app.model.update_sessions([replace(second.session, status="creating")])
        app.model.flush()
        assert screen.tiles[0] is second
        app.model.update_sessions([replace(tile.session, status="failed") for tile in screen.tiles])
        app.model.flush()
        await until(lambda: not screen.tiles and watched(harness) == 0, "all have gone")
        await pilot.press("enter", "1", "down")
        assert screen.query_one("#none").display
        app.model.update_sessions([again])
        app.model.flush()
        await live(screen, harness)
        assert not screen.query_one("#none").display


async def test_an_original_platform_is_not_touched() -> None:
    async with running(two_way=False) as harness, wall(1, (80, 24), harness) as (_, _pilot, screen):
        await until(lambda: "cannot be watched" in caption(screen.tiles[0]), "why there is nothing")
        assert not harness.sizes


async def test_without_a_terminal_there_is_no_wall() -> None:
    app = console(rows=[session(90, DOCS), session(91, PAYMENTS, "dead")])
    async with app.run_test() as pilot:
        await pilot.press("w")
        await pilot.pause()
        assert isinstance(app.screen, SessionsScreen)


async def test_taking_over_from_the_list() -> None:
    async with running() as harness:
        harness.alice = "drive"
        of = rows(1)[:1]
        app = console(rows=of, platform=Platform(of, harness.port))
        async with app.run_test() as pilot:
            await pilot.press("A")
            await until(lambda: harness.driver is not None, "we drive")
            assert harness.alice == "watch"


@pytest.mark.parametrize("size", SIZES)
def test_how_it_looks(size: str, snap_compare: Any) -> None:
    of = rows(9)
    harness = Harness(two_way=True)
    harness.emulator.feed("\r\n".join(f"keep {n} \x1b[3{n % 8}m" + "─" * n for n in range(30)) + "\x1b[0m\x1b[27;3H")
    app = console(rows=of)

    async def prepare(pilot: Pilot[None]) -> None:
        await harness.start()
        app.platform = Platform(of, harness.port)  # type: ignore[assignment]
        async with asyncio.timeout(10):
            while not app.connection.asked:  # type: ignore[attr-defined]
                await pilot.pause()
        await pilot.press("w")
        await until(lambda: isinstance(app.screen, WallScreen), "the wall")
        await live(wall_of(app), harness)
        await pilot.press("right")
        await pilot.pause(0.3)
        harness.admit_no_more()

    assert snap_compare(app, terminal_size=SIZES[size], run_before=prepare)

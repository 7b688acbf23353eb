"""How every screen looks at the three sizes the console is made for. The clock stands still, no cursor blinks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

from lapconsole.app import LapConsole
from lapconsole.client.errors import Unsupported
from lapconsole.client.models import PHASES, Activity, Attached, Event, EventPage, Progress, Session, Terminal
from lapconsole.live.model import Link, LinkState
from lapconsole.screens.replay import ReplayScreen
from lapconsole.screens.session import SessionScreen
from lapconsole.widgets.parts import plain
from tests.screens.scene import NOW, ScriptedPlatform, ago, console, sessions

SIZES = {"80x24": (80, 24), "120x35": (120, 35), "200x50": (200, 50)}
LOG = "\n".join(
    [
        "Cloning into 'payments-api'...",
        "Receiving objects: 100% (8412/8412), 11.20 MiB | 9.14 MiB/s, done.",
        *(f"Resolved package {number} of 60 from the index, and took its wheel" for number in range(1, 61)),
        "claude-code started in /home/agent/payments-api",
    ]
)
SECONDS = (0.1, 0.2, 0.8, 0.0, 1.1, 0.1, 4.2, 2.1, 0.7, 0.0)
DOING = (
    Activity("working", ago(130)),
    Activity("waiting_for_input", ago(30), "permission", "Bash: pytest -x tests/ledger"),
    Activity("idle", ago(500), "started"),
    Activity("idle", ago(45), "turn_finished"),
    Activity("idle", ago(200), "error", "API Error: 400 prompt is too long"),
    Activity("waiting_for_input", ago(8000), "question", "tea or coffee (Yes · No)"),
    Activity("idle", ago(60), "exited", "exit code 1"),
    Activity("idle", ago(61), "crashed", "signal 9 (SIGKILL)"),
    Activity("idle", ago(62), "interrupted"),
    Activity("unknown", ago(63), "started"),
    Activity("waiting_for_input", ago(64)),
)
STALE = Link(LinkState.STALE, ago(42), "connection refused", 3, NOW + timedelta(seconds=4))


def bring_up(of: Session) -> EventPage:
    at, rows = of.creating_since, []
    for phase, seconds in zip(PHASES[: of.furthest], SECONDS, strict=False):
        if phase != "injecting_files":
            rows.append(Event("session.phase", at=at, session_id=of.id, session=replace(of, phase=phase)))
        at = at + timedelta(seconds=seconds) if at else None
    return EventPage(tuple(rows), None)


def of_session(number: int) -> LapConsole:
    return console(platform=ScriptedPlatform(sandbox_logs=LOG, event_log=bring_up(sessions()[number])))


def with_agents_that_tell() -> LapConsole:
    """Each ready session at the top of the list in another state."""
    rows, states = sessions(), iter(DOING)
    for place, row in enumerate(rows):
        if row.status == "ready" and (doing := next(states, None)):
            rows[place] = replace(
                row,
                attached=(Attached("alice@host", "drive", ago(90)), Attached("bob@host", "watch", ago(20))),
                terminal=Terminal("✳ ledger", ago(30), None, Progress("normal", 40)),
                activity=doing,
            )
    return console(rows=rows)


async def all_read(pilot: Pilot[None]) -> None:
    """Log and event log have come, and are drawn."""

    def read() -> bool:
        screen = pilot.app.screen
        return (
            isinstance(screen, SessionScreen) and bool(screen.log_view.text) and ":" in plain(screen.timeline.lines[0])
        )

    async with asyncio.timeout(10):
        while not read():
            await pilot.pause()
    await pilot.pause()


async def refused_form(pilot: Pilot[None]) -> None:
    screen = pilot.app.screen
    screen.query_one("#repo_url", Input).value = "example.org/project"
    screen.query_one("#env_vars", TextArea).text = "API_KEY=very-secret\nPORT=80"
    await pilot.press("ctrl+s")


async def failed_calls(pilot: Pilot[None]) -> None:
    app = pilot.app
    assert isinstance(app, LapConsole)
    app._note("Stop payments-api", "cannot reach http://10.2.0.4:3000: connection refused", "It reconnects by itself.")
    app._note("Delete docs-writer", "agent '0a9e' not found", "It may be gone already; the list shows what there is.")
    await pilot.press("exclamation_mark")


CAST = "\n".join(
    [
        '{"version": 3, "term": {"cols": 72, "rows": 18}}',
        r'[0.5, "o", "\u001b[1;36m✻ claude-code\u001b[0m  payments-api\r\n\r\n"]',
        *(
            rf'[1, "o", "\u001b[32m✓\u001b[0m ledger test {number} \u001b[2mpassed\u001b[0m\r\n"]'
            for number in range(1, 61)
        ),
        r'[90, "m", "recording ended: 64 MB reached"]',
    ]
)


def recorded() -> LapConsole:
    row = replace(sessions()[5], recording=True)
    return console(rows=[row], platform=ScriptedPlatform(recording=CAST.encode(), sandbox_logs=LOG))


async def replayed(pilot: Pilot[None]) -> None:
    """Held still in the middle."""
    await pilot.press("p")
    async with asyncio.timeout(10):
        while not (isinstance(pilot.app.screen, ReplayScreen) and pilot.app.screen.view.player):
            await pilot.pause()
        await pilot.press("space", "home", "shift+right", "plus")
        view = pilot.app.screen.view
        while view.player is None or view.player.behind or view.emulator is not view.player.emulator:
            await pilot.pause()


async def nothing_recorded(pilot: Pilot[None]) -> None:
    app = pilot.app
    assert isinstance(app, LapConsole) and app.platform is not None
    app.platform.script["recording"] = Unsupported("nothing of this session is recorded")  # type: ignore[attr-defined]
    await pilot.press("p")
    async with asyncio.timeout(10):
        while not app.screen.query_one("#notice").display:
            await pilot.pause()


Then = Callable[[Pilot[None]], Awaitable[None]]
SCENES: dict[str, tuple[Callable[[], LapConsole], list[str], Then | None]] = {
    "sessions": (console, [], None),
    "sessions_telling": (with_agents_that_tell, ["down"], None),
    "session_telling": (with_agents_that_tell, ["down", "enter", "f"], None),
    "sessions_stale": (lambda: console(link=STALE, label="prod-eu"), ["down"], None),
    "sessions_filter": (console, ["slash", *"codex"], None),
    "sessions_empty": (lambda: console(agents=(), rows=[]), [], None),
    "sessions_of_agent": (console, ["2", "l"], None),
    "agents": (console, ["2", "end"], None),
    "session_failed": (lambda: of_session(0), ["enter"], all_read),
    "session_creating": (lambda: of_session(1), ["down", "enter"], all_read),
    "session_ready": (lambda: of_session(5), ["down", "down", "down", "enter"], all_read),
    "session_fields": (lambda: of_session(5), ["down", "down", "down", "enter", "f"], all_read),
    "new_agent": (console, ["2", "n"], refused_form),
    "new_session": (console, ["n"], None),
    "confirm": (console, ["down", "down", "down", "x"], None),
    "confirm_typed": (lambda: console(label="prod-eu"), ["2", "end", "d"], None),
    "help": (console, ["question_mark"], None),
    "errors": (console, [], failed_calls),
    "theme_picker": (console, ["t"], None),
    "replay": (recorded, ["enter"], replayed),
    "replay_nothing": (recorded, ["enter"], nothing_recorded),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scene", SCENES)
def test_screen(scene: str, size: str, snap_compare: Any) -> None:
    make, keys, then = SCENES[scene]

    app = make()

    async def prepare(pilot: Pilot[None]) -> None:
        async with asyncio.timeout(10):
            while not app.connection.asked:  # the last thing a start does
                await pilot.pause()
        await pilot.press(*keys)
        if then is not None:
            await then(pilot)
        await pilot.pause()

    assert snap_compare(app, terminal_size=SIZES[size], run_before=prepare)


@pytest.mark.parametrize("theme", ["light", "high-contrast", "terminal", "colour-blind"])
def test_theme(theme: str, snap_compare: Any) -> None:
    assert snap_compare(console(preferences={"theme": theme}), terminal_size=SIZES["120x35"])

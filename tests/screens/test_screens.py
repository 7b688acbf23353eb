"""What each screen does with keys, with news, and while the platform is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from textual.pilot import Pilot

from lapconsole.app import LapConsole
from lapconsole.client.errors import PlatformError, Unreachable, Unsupported
from lapconsole.client.models import Activity, Event, EventPage
from lapconsole.live.model import Link, LinkState
from lapconsole.screens.agents import AgentsScreen
from lapconsole.screens.confirm import Confirm
from lapconsole.screens.help import HelpScreen
from lapconsole.screens.problems import ProblemsScreen
from lapconsole.screens.session import SessionScreen
from lapconsole.screens.sessions import SessionsScreen
from lapconsole.widgets.hint_line import HintLine
from lapconsole.widgets.parts import plain
from lapconsole.widgets.sheet import Sheet
from lapconsole.widgets.status_line import StatusLine
from tests.screens.scene import (
    DOCS,
    NOW,
    PAYMENTS,
    ScriptedPlatform,
    ago,
    console,
    session,
    sessions,
)

SIZE = (120, 35)


async def until(condition: Callable[[], object], pilot: Pilot[None]) -> None:
    """Let the app work until the condition holds."""
    async with asyncio.timeout(5):
        while not condition():
            await pilot.pause()
            await asyncio.sleep(0)


def sheet(app: LapConsole, name: str) -> str:
    return "\n".join(plain(line) for line in app.screen.query_one(f"#{name}", Sheet).lines)


def top_line(app: LapConsole) -> str:
    return app.screen.query_one(StatusLine).render_line(0).text


def hints(app: LapConsole) -> str:
    return app.screen.query_one(HintLine).render_line(0).text


# -- lists


async def test_the_pane_beside_the_list_follows_the_cursor() -> None:
    app = console()
    async with app.run_test(size=SIZE) as pilot:
        assert "failed in cloning_repo" in sheet(app, "detail")
        assert "releases/next not found" in " ".join(sheet(app, "detail").split())
        await pilot.press("end")
        assert "idle for 24 h" in sheet(app, "detail")
        await pilot.press("v")
        await until(lambda: not app.screen.query_one("#detail").display, pilot)
        await until(lambda: "more column" not in hints(app), pilot)


async def test_the_rail_names_what_needs_a_look() -> None:
    app = console()
    async with app.run_test(size=(200, 50)):
        rail = sheet(app, "rail")
        assert "✗ docs-writer" in rail
        assert "▲ nightly-upgrade" in rail
        assert "in installing_deps for too long" in rail


async def test_what_is_folded_is_said() -> None:
    app = console()
    async with app.run_test(size=(80, 24)) as pilot:
        assert "+2 columns" in hints(app)
        await pilot.resize_terminal(120, 35)
        await until(lambda: "v shows 4 more columns" in hints(app), pilot)


async def test_becoming_overdue_shows_without_any_event() -> None:
    app = console(rows=[session(1, PAYMENTS), session(2, PAYMENTS, "creating", age=110)])
    async with app.run_test(size=SIZE) as pilot:
        assert "1 creating" in top_line(app)
        app.clock.now += timedelta(seconds=15)
        app._tick()
        await pilot.pause()
        assert "1 too long" in top_line(app)
        assert "▲ creating" in app.screen.table.render_line(2).text


async def test_agents_and_back_keep_their_place() -> None:
    app = console()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("down", "down")
        chosen = app.screen.table.cursor_id
        await pilot.press("2")
        assert isinstance(app.screen, AgentsScreen)
        await pilot.press("down", "down", "down")
        assert "payments-api" in sheet(app, "detail")
        assert "ghp_secret" not in sheet(app, "detail")
        assert "GITHUB_TOKEN     ********" in sheet(app, "detail")
        await pilot.press("l")
        assert isinstance(app.screen, SessionsScreen)
        assert "Sessions(payments-api)[15]" in app.screen.table.render_line(0).text
        await pilot.press("escape")
        assert isinstance(app.screen, AgentsScreen)
        await pilot.press("1")
        assert app.screen.table.cursor_id == chosen
        await pilot.press("escape")
        assert isinstance(app.screen, SessionsScreen)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"agents": (), "rows": [], "link": Link(LinkState.CONNECTING, NOW)}, "Connecting to embedded …"),
        (
            {"agents": (), "rows": [], "link": Link(LinkState.CONNECTING, NOW, "401", key_refused=True)},
            "The platform refuses the key.",
        ),
        ({"agents": (), "rows": []}, "Press 2, then n, to make the first one."),
        ({"rows": []}, "Press n to start one."),
    ],
)
async def test_an_empty_list_says_why_and_what_to_press(fields: dict[str, Any], words: str) -> None:
    app = console(**fields)
    async with app.run_test(size=(80, 24)):
        table = app.screen.table
        assert words in "\n".join(table.render_line(y).text for y in range(20))


# -- one session


def phase_events(of: Any, *phases: str) -> EventPage:
    start = of.creating_since
    rows = tuple(
        Event(
            "session.phase", at=start + timedelta(seconds=2 * step), session_id=of.id, session=replace(of, phase=phase)
        )
        for step, phase in enumerate(phases)
    )
    return EventPage(rows, None)


async def test_a_session_shows_phases_with_durations_log_and_fields() -> None:
    made = session(1, PAYMENTS, "creating", age=10, phase="cloning_repo", phase_detail="Receiving objects: 41%")
    platform = ScriptedPlatform(
        sandbox_logs="Cloning into 'payments-api'\nReceiving objects",
        event_log=phase_events(made, "creating_sandbox", "pod_pending", "waiting_harness", "cloning_repo"),
    )
    app = console(rows=[made], platform=platform)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("enter")
        assert isinstance(app.screen, SessionScreen)
        await until(lambda: "03:07:13" in sheet(app, "timeline"), pilot)
        assert "✓ 03:07:13    2.0s  pod_pending" in sheet(app, "timeline")
        assert "◐ 03:07:17    4.0s  cloning_repo" in sheet(app, "timeline")
        await until(lambda: app.screen.log_view.text, pilot)
        assert app.screen.log_view.text == ["Cloning into 'payments-api'", "Receiving objects"]
        assert made.id in sheet(app, "fields")
        await pilot.press("escape")
        assert isinstance(app.screen, SessionsScreen)


async def test_a_failed_session_tells_cause_and_next_step_first() -> None:
    app = console(rows=[sessions()[0]])
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("enter")
        summary = sheet(app, "summary")
        assert "✗ failed" in summary
        assert "releases/next not found" in " ".join(summary.split())
        assert "r restart it" in summary
        assert app.screen.query_one("#log").has_focus


async def test_news_of_a_session_reach_its_screen_and_its_end_too() -> None:
    made = session(1, PAYMENTS, "creating", age=10, phase="pod_pending")
    app = console(rows=[made])
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("enter")
        app.model.update_sessions([replace(made, phase="cloning_repo", furthest=7)])
        app.model.flush()
        assert "7/10 cloning_repo" in sheet(app, "summary")
        app.model.update_sessions([replace(made, status="ready", phase="ready", ready_at=NOW)])
        app.model.flush()
        assert "● ready after 10s" in sheet(app, "timeline")
        app.model.apply(Event("session.deleted", session_id=made.id))
        app.model.flush()
        assert "the last that was known of it" in sheet(app, "summary")
        await pilot.press("l", "i", "f", "tab", "escape")


async def test_a_platform_without_an_event_log_still_shows_what_was_seen() -> None:
    made = session(1, PAYMENTS, "creating", age=10, phase="pod_pending")
    app = console(
        rows=[made], platform=ScriptedPlatform(event_log=Unsupported("none"), sandbox_logs=Unreachable("a", "refused"))
    )
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("enter")
        await until(lambda: "cannot be read" in app.screen.log_view.title, pilot)
        assert "pod_pending" in sheet(app, "timeline")


async def test_narrow_terminals_show_one_pane_at_a_time() -> None:
    app = console()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("end", "enter")
        for key, pane in (("l", "log"), ("f", "fields"), ("i", "timeline"), ("tab", "log")):
            await pilot.press(key)
            await pilot.pause()
            shown = [name for name in ("timeline", "log", "fields") if app.screen.query_one(f"#{name}").size.height]
            assert shown == [pane]


async def test_searching_the_log() -> None:
    app = console(platform=ScriptedPlatform(sandbox_logs="one\ntwo needle\nthree\n"))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("enter", "l")
        await until(lambda: app.screen.log_view.text, pilot)
        await pilot.press("slash", *"needle", "enter")
        assert "match 1 of 1" in app.screen.log_view.title


# -- asking first


@pytest.mark.parametrize(("key", "method"), [("r", "restart_session"), ("x", "stop_session"), ("D", "delete_session")])
async def test_nothing_is_ended_without_a_yes(key: str, method: str) -> None:
    platform = ScriptedPlatform()
    ready = session(1, PAYMENTS)
    app = console(rows=[ready], platform=platform)
    async with app.run_test(size=(80, 24)) as pilot:
        for refusal in ("enter", "n", "escape"):
            await pilot.press(key)
            assert isinstance(app.screen, Confirm)
            await pilot.press(refusal)
            assert isinstance(app.screen, SessionsScreen)
        assert not platform.called(method)
        await pilot.press(key, "y")
        await until(lambda: platform.called(method), pilot)
        assert platform.called(method) == [(ready.id,)]


async def test_in_production_deleting_what_runs_needs_its_name() -> None:
    platform = ScriptedPlatform()
    app = console(rows=[session(1, PAYMENTS)], platform=platform, label="prod-eu")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("D", "y", "enter")
        assert isinstance(app.screen, Confirm)
        await pilot.press("escape", "D", "enter")
        assert isinstance(app.screen, SessionsScreen)
        await pilot.press("D", *"payments-api", "enter")
        await until(lambda: platform.called("delete_session"), pilot)


async def test_deleting_an_agent_with_running_sessions_needs_its_name() -> None:
    platform = ScriptedPlatform()
    app = console(platform=platform)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("2", "down", "d", "y")
        await until(lambda: platform.called("delete_agent"), pilot)
        assert platform.called("delete_agent") == [(DOCS.id,)]  # its only session has failed
        await pilot.press("end", "d")
        assert isinstance(app.screen, Confirm)
        await pilot.press("y", "enter")
        assert isinstance(app.screen, Confirm)


@pytest.mark.parametrize(
    ("row", "key", "words"),
    [
        (session(1, PAYMENTS, "creating"), "r", "still coming up"),
        (session(1, PAYMENTS, "creating"), "a", "Not ready yet: waiting_harness"),
        (session(1, PAYMENTS, "failed"), "a", "It is failed; press r"),
        (session(1, PAYMENTS, "dead"), "x", "It is dead already"),
    ],
)
async def test_what_cannot_be_done_says_why(row: Any, key: str, words: str) -> None:
    app = console(rows=[row])
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await pilot.press(key)
        assert words in " ".join(toast.message for toast in app._notifications)
        assert isinstance(app.screen, SessionsScreen)


@pytest.mark.parametrize(
    ("error", "why", "advice"),
    [
        (Unreachable("http://x", "connection refused"), "connection refused", "reconnects by itself"),
        (PlatformError(404, "NOT_FOUND", "session 1 not found"), "not found", "gone already"),
        (PlatformError(409, "CONFLICT", "is creating"), "is creating", "Wait"),
        (PlatformError(401, "UNAUTHORIZED", "unauthorized"), "unauthorized", "another key"),
        (PlatformError(500, "INTERNAL", "internal error"), "internal error", "page and log"),
    ],
)
async def test_failures_are_told_and_kept(error: Exception, why: str, advice: str) -> None:
    app = console(rows=[session(1, PAYMENTS)], platform=ScriptedPlatform(stop_session=error))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("x", "y")
        await until(lambda: app.problems, pilot)
        assert why in app.problems[0].why
        assert advice in app.problems[0].advice
        await pilot.pause()
        assert "! 1" in top_line(app)
        await pilot.press("exclamation_mark")
        assert isinstance(app.screen, ProblemsScreen)
        assert "Stop payments-api" in "\n".join(plain(line) for line in app.screen.sheet.lines)
        await pilot.press("c", "escape")
        assert not app.problems


async def test_without_a_platform_every_key_answers_and_quit_quits() -> None:
    stale = Link(LinkState.STALE, ago(42), "connection refused", 3, NOW + timedelta(seconds=4))
    app = console(link=stale)
    app.platform = None
    async with app.run_test(size=(120, 35)) as pilot:
        assert "stale 42s: connection refused, retry in 4s" in top_line(app)
        await pilot.press("down", "enter", "f", "l", "escape", "2", "1", "x", "r", "D", "escape", "s", "S", "z")
        await pilot.press("question_mark")
        assert isinstance(app.screen, HelpScreen)
        await pilot.press("escape", "down", "down", "down", "x", "y")
        await until(lambda: len(app.problems) > 1, pilot)
        assert [problem.why for problem in app.problems] == ["connection refused", "there is no connection yet"]
        app.clock.now += timedelta(seconds=3)
        app._tick()
        assert "stale 45s" in top_line(app)
        await pilot.press("q")
    assert not app.is_running


async def test_help_lists_the_keys_in_force() -> None:
    app = console(preferences={"keys": {"sessions.stop": "f8"}})
    async with app.run_test(size=(120, 60)) as pilot:
        await pilot.press("question_mark")
        text = "\n".join(plain(line) for line in app.screen.query_one(Sheet).lines)
        assert "f8" in text
        assert "sessions.stop  (yours)" in text
        assert "ctrl+]" in text


async def test_the_palette_offers_the_actions_of_the_screen() -> None:
    app = console()
    async with app.run_test(size=(80, 24)) as pilot:
        found = {command.title for command in app.get_system_commands(app.screen)}
        assert {"New session", "Attach to its terminal, watching, or chat with it", "Choose a theme"} <= found
        await pilot.press("ctrl+p")
        await pilot.press(*"agents", "enter")
        await until(lambda: isinstance(app.screen, AgentsScreen), pilot)


async def test_an_agent_that_waits_counts_as_a_fault_until_it_goes_on() -> None:
    app = console()
    asking = Activity("waiting_for_input", ago(30), "permission", "Bash: rm x")
    failed, working = Activity("idle", ago(5), "exited", "exit code 1"), Activity("working", ago(130))
    row = next(row for row in sessions() if row.title == "Flaky ledger test")
    async with app.run_test(size=(200, 50)) as pilot:
        app.model.apply(Event("session.updated", session=replace(row, activity=asking)))
        await until(lambda: "1 needs you · 1 failed · " in top_line(app), pilot)
        await pilot.press("full_stop")
        assert isinstance(app.screen, SessionsScreen)
        assert app.screen.table.view[0] == row.id
        await until(lambda: "asks: Bash: rm x" in sheet(app, "rail"), pilot)
        app.model.apply(Event("session.updated", session=replace(row, activity=failed)))
        await until(lambda: "exited 1" in sheet(app, "rail"), pilot)
        assert "1 needs you" in top_line(app)
        app.model.apply(Event("session.updated", session=replace(row, activity=working)))
        await until(lambda: "needs you" not in top_line(app), pilot)

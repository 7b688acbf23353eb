"""The forms: checked before sending, the platform's words at the field, secrets masked, nothing lost by accident."""

from __future__ import annotations

from typing import Any

import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input, Select, Static, TextArea

from lapconsole.app import LapConsole
from lapconsole.client.errors import PlatformError, Problem, Unreachable
from lapconsole.screens.agents import AgentsScreen
from lapconsole.screens.confirm import Confirm
from lapconsole.screens.form import Field, Form
from lapconsole.screens.session import SessionScreen
from lapconsole.screens.sessions import SessionsScreen
from lapconsole.widgets.variables_area import VariablesArea
from tests.screens.scene import AGENTS, REVIEWER, ScriptedPlatform, agent, console, session
from tests.screens.test_screens import until

SIZE = (100, 40)


def problems(app: LapConsole) -> dict[str, str]:
    return {field.key: field.problem for field in app.screen.query(Field) if field.problem}


def general_problem(app: LapConsole) -> str:
    line = app.screen.query_one("#form-problem", Static)
    return str(line.content) if line.display else ""


async def filled(app: LapConsole, pilot: Pilot[None], **values: str) -> None:
    for name, value in values.items():
        control = app.screen.query_one(f"#{name}")
        if isinstance(control, TextArea):
            control.text = value
        else:
            assert isinstance(control, Input | Select)
            control.value = value
    await pilot.pause()


async def test_an_agent_is_made_with_what_was_typed() -> None:
    made = agent(9, "fresh")
    platform = ScriptedPlatform(create_agent=made)
    app = console(platform=platform)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("2", "n", *"fresh", "tab", "tab", *"openai/gpt-5.4")
        await filled(app, pilot, repo_url="git@github.com:acme/fresh.git", env_vars="export A=1\n# no\nB='two words'\n")
        await pilot.press("ctrl+s")
        await until(lambda: isinstance(app.screen, AgentsScreen), pilot)
        assert platform.called("create_agent") == [
            (
                {
                    "name": "fresh",
                    "harness_id": "claude-code",
                    "model": "openai/gpt-5.4",
                    "repo_url": "git@github.com:acme/fresh.git",
                    "env_vars": {"A": "1", "B": "two words"},
                },
            )
        ]
        assert app.screen.table.cursor_id == made.id


@pytest.mark.parametrize(("chosen", "sent"), [("on", {"recording": True}), ("off", {})])
async def test_an_agent_may_be_recorded(chosen: str, sent: dict[str, bool]) -> None:
    platform = ScriptedPlatform(create_agent=agent(9, "fresh"))
    app = console(platform=platform)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("2", "n")
        await filled(app, pilot, model="m", recording=chosen)
        await pilot.press("ctrl+s")
        await until(lambda: platform.called("create_agent"), pilot)
        assert platform.called("create_agent") == [({"harness_id": "claude-code", "model": "m", **sent},)]


@pytest.mark.parametrize(
    ("chosen", "sent"), [("agent", {}), ("on", {"recording": True}), ("off", {"recording": False})]
)
async def test_a_session_may_be_recorded_or_not_whatever_its_agent_says(chosen: str, sent: dict[str, bool]) -> None:
    platform = ScriptedPlatform(create_session=session(9, REVIEWER))
    app = console(platform=platform)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("n")
        await filled(app, pilot, recording=chosen)
        await pilot.press("ctrl+s")
        await until(lambda: platform.called("create_session"), pilot)
        assert platform.called("create_session")[0][1] == sent


async def test_what_is_wrong_is_said_before_anything_is_sent() -> None:
    platform = ScriptedPlatform()
    app = console(platform=platform)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("2", "n")
        await filled(app, pilot, repo_url="ext::sh -c id", branch="-x", env_vars="PORT=1")
        await pilot.press("ctrl+s")
        assert set(problems(app)) == {"model", "repo_url", "branch", "env_vars"}
        assert problems(app)["env_vars"] == "PORT: set by the platform itself"
        assert app.focused is app.screen.query_one("#model")
        await filled(app, pilot, repo_url="", branch="", env_vars="")
        await pilot.press("m", "ctrl+s")
        await until(lambda: platform.calls, pilot)


@pytest.mark.parametrize(
    ("error", "at", "general"),
    [
        (
            PlatformError(
                400,
                "INVALID",
                "x",
                (
                    Problem("env_vars.A", "invalid env var name", ""),
                    Problem("model", "too long", ""),
                    Problem("x", "y", ""),
                ),
            ),
            {"env_vars": "A: invalid env var name", "model": "too long"},
            "x: y",
        ),
        (
            PlatformError(400, "", "env_vars cannot override reserved keys: PORT"),
            {"env_vars": "env_vars cannot override reserved keys: PORT"},
            "",
        ),
        (PlatformError(500, "", "internal error"), {}, "internal error (500 Internal Server Error)"),
        (Unreachable("http://x", "connection refused"), {}, "cannot reach http://x: connection refused."),
    ],
)
async def test_a_refusal_is_shown_where_it_belongs(error: Exception, at: dict[str, str], general: str) -> None:
    app = console(platform=ScriptedPlatform(create_agent=error))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("2", "n")
        await filled(app, pilot, model="m", prompt="keep this")
        await pilot.press("ctrl+s")
        await until(lambda: problems(app) or general_problem(app), pilot)
        assert problems(app) == at
        assert general_problem(app).startswith(general)
        assert app.screen.query_one("#prompt", TextArea).text == "keep this"


async def test_a_session_is_started_and_shown() -> None:
    started = session(77, REVIEWER, "creating", title="Look at it")
    platform = ScriptedPlatform(create_session=started)
    app = console(platform=platform)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("2", "c", *"Look at it", "tab", *"please", "ctrl+s")
        await until(lambda: isinstance(app.screen, SessionScreen), pilot)
        assert platform.called("create_session") == [(REVIEWER.id, {"title": "Look at it", "initial_prompt": "please"})]
        assert app.screen.session.id == started.id


async def test_a_new_session_without_agents_says_how_to_get_one() -> None:
    app = console(agents=(), rows=[])
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("n")
        assert isinstance(app.screen, SessionsScreen)
        assert "press 2, then n" in " ".join(toast.message for toast in app._notifications)


async def test_leaving_asks_only_when_something_was_typed() -> None:
    app = console()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("n", "escape")
        assert isinstance(app.screen, SessionsScreen)
        await pilot.press("n", "x", "escape")
        assert isinstance(app.screen, Confirm)
        await pilot.press("n")
        assert isinstance(app.screen, Form)
        await pilot.press("escape", "y")
        assert isinstance(app.screen, SessionsScreen)
        await pilot.press("n", "x", "ctrl+q")
    assert not app.is_running


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("KEY=hunter2", "KEY=*******"),
        ("KEY=a=b", "KEY=***"),
        ("KEY=日本", "KEY=****"),
        ("KEY", "KEY"),
        ("-----BEGIN PRIVATE KEY-----", "*" * 27),
        ("# a note", "# a note"),
    ],
)
async def test_values_are_masked_unless_asked_for(text: str, shown: str) -> None:
    app = console()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("n")
        await filled(app, pilot, env_vars=text)
        area = app.screen.query_one(VariablesArea)
        assert area.get_line(0).plain == shown
        assert shown in "".join(area.render_line(0).text)
        await pilot.press("ctrl+r")
        assert area.get_line(0).plain == text


async def test_one_send_at_a_time() -> None:
    platform = ScriptedPlatform(create_agent=Unreachable("a", "b"))
    app = console(platform=platform, agents=AGENTS)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("2", "n")
        await filled(app, pilot, model="m")
        form: Any = app.screen
        form.action_send()
        form.action_send()
        await until(lambda: general_problem(app), pilot)
        assert len(platform.called("create_agent")) == 1


async def test_what_is_typed_ahead_goes_to_the_field_it_was_meant_for() -> None:
    """A slow line delivers many keys at once: none is waited for here."""
    platform = ScriptedPlatform(create_agent=agent(9, "demo"))
    app = console(platform=platform)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("2", "n")
        for key in ("d", "e", "m", "o", "tab", "tab", "m", "tab", "slash", "x", "ctrl+s"):
            app.post_message(events.Key(key, {"slash": "/"}.get(key, key if len(key) == 1 else None)))
        await until(lambda: platform.calls, pilot)
        ((values,),) = platform.called("create_agent")
        assert values == {"name": "demo", "harness_id": "claude-code", "model": "m", "repo_url": "/x"}

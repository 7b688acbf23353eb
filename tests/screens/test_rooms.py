"""Memory, skills, the warm pool and an agent's page: what keys do, what news does, what is asked and what is sent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

from lapconsole.app import LapConsole
from lapconsole.client.errors import PlatformError, Unreachable, Unsupported
from lapconsole.client.models import Event
from lapconsole.live.model import Link, LinkState
from lapconsole.screens.agent import AgentScreen
from lapconsole.screens.agents import AgentsScreen
from lapconsole.screens.confirm import Confirm
from lapconsole.screens.edit_agent import EditAgentScreen, fields_of, sent_variables, shown_variables
from lapconsole.screens.editor import EditorFailed, editor_command
from lapconsole.screens.memory import MemoryScreen
from lapconsole.screens.memory_form import MemoryForm
from lapconsole.screens.pool import PoolScreen
from lapconsole.screens.sessions import SessionsScreen
from lapconsole.screens.skill import SkillScreen, changed_lines
from lapconsole.screens.skill_actions import SkillForm, attachment
from lapconsole.screens.skills import SkillsScreen
from lapconsole.widgets.parts import plain
from lapconsole.widgets.sheet import Sheet
from tests.screens.rooms import FLAKY, MEMORIES, OFF, RELEASE, UNUSED, VERSIONS, WITH_SKILLS, in_rooms, memory
from tests.screens.scene import NOW, PAYMENTS, REVIEWER, ScriptedPlatform
from tests.screens.test_forms import problems
from tests.screens.test_screens import until

SIZE = (120, 35)


def scripted(app: LapConsole) -> Any:
    assert isinstance(app.platform, ScriptedPlatform)
    return app.platform


def shown(app: LapConsole) -> list[str]:
    """The ids in the list, in order."""
    return list(app.screen.table.view)  # type: ignore[attr-defined]


def words(app: LapConsole, name: str) -> str:
    return "\n".join(plain(line) for line in app.screen.query_one(f"#{name}", Sheet).lines)


async def in_memory(app: LapConsole, pilot: Pilot[None]) -> MemoryScreen:
    await pilot.press("2", "end", "m")
    await until(lambda: isinstance(app.screen, MemoryScreen) and app.screen.known, pilot)
    assert isinstance(app.screen, MemoryScreen)
    return app.screen


# -- memory


async def test_memories_stand_in_the_order_they_are_told_and_are_read_once() -> None:
    app = in_rooms()
    async with app.run_test(size=SIZE) as pilot:
        await in_memory(app, pilot)
        order = [MEMORIES[place].id for place in (1, 0, 2, 3, 4, 5)]
        assert shown(app) == order
        assert "new sessions are told, as it is pinned" in words(app, "detail")
        await pilot.press("end", "up")
        assert "not told: over the first 2 that are" in words(app, "detail")
        await pilot.press("o")
        assert shown(app) == order[:-1]
        assert scripted(app).called("memories") == [(PAYMENTS.id,)]  # neither filters nor moving ask again


async def test_search_and_tags_narrow_the_list_without_asking_the_platform() -> None:
    app = in_rooms()
    async with app.run_test(size=SIZE) as pilot:
        await in_memory(app, pilot)
        await pilot.press("slash", *"ledger", "enter")
        assert shown(app) == [MEMORIES[2].id]
        await pilot.press("escape", "f", *"db", "enter")
        await until(lambda: isinstance(app.screen, MemoryScreen), pilot)
        assert shown(app) == [MEMORIES[1].id, MEMORIES[5].id]
        assert "#db" in app.screen.table.render_line(0).text  # type: ignore[attr-defined]
        await pilot.press("escape")
        assert len(shown(app)) == 6
        assert len(scripted(app).called("memories")) == 1


@pytest.mark.parametrize(("key", "sent"), [("p", {"pinned": False}), ("x", {"disabled": True})])
async def test_pin_and_disable_send_only_that(key: str, sent: dict[str, bool]) -> None:
    first = MEMORIES[1]
    app = in_rooms(update_memory=replace(first, **sent))
    async with app.run_test(size=SIZE) as pilot:
        await in_memory(app, pilot)
        await pilot.press(key)
        await until(lambda: scripted(app).called("update_memory"), pilot)
        assert scripted(app).called("update_memory") == [(PAYMENTS.id, first.id, sent)]
        await until(lambda: app.screen.collection.entities[first.id] == replace(first, **sent), pilot)  # type: ignore[attr-defined]


async def test_an_edit_sends_what_was_changed_and_a_bad_one_is_not_sent() -> None:
    first = MEMORIES[1]
    app = in_rooms(update_memory=replace(first, priority=10))
    async with app.run_test(size=SIZE) as pilot:
        await in_memory(app, pilot)
        await pilot.press("enter")
        assert isinstance(app.screen, MemoryForm)
        app.screen.query_one("#priority", Input).value = "high"
        await pilot.press("ctrl+s")
        assert problems(app) == {"priority": "a whole number, such as 10 or -1"}
        app.screen.query_one("#priority", Input).value = "10"
        await until(lambda: not problems(app), pilot)  # it goes as soon as it is put right
        await pilot.press("ctrl+s")
        await until(lambda: isinstance(app.screen, MemoryScreen), pilot)
        assert scripted(app).called("update_memory") == [(PAYMENTS.id, first.id, {"priority": 10})]


async def test_a_new_memory_and_a_deleted_one() -> None:
    made = memory(9, "Use UTC.", tags=("time",))
    app = in_rooms(create_memory=made, delete_memory=PlatformError(404, "NOT_FOUND", "gone"))
    async with app.run_test(size=SIZE) as pilot:
        await in_memory(app, pilot)
        await pilot.press("n", *"Use UTC.", "tab", *"time, time,")
        await pilot.press("ctrl+s")
        await until(lambda: made.id in shown(app), pilot)
        assert scripted(app).called("create_memory") == [(PAYMENTS.id, {"text": "Use UTC.", "tags": ["time"]})]
        await pilot.press("d", "n")
        assert not scripted(app).called("delete_memory")
        await pilot.press("d", "y")  # somebody else was quicker, and that is as good
        await until(lambda: made.id not in shown(app), pilot)


async def test_memories_follow_the_feed() -> None:
    app = in_rooms()
    async with app.run_test(size=SIZE) as pilot:
        await in_memory(app, pilot)
        fresh = {"id": "m1", "agent_id": PAYMENTS.id, "text": "new", "type": "convention", "source": "agent"}
        for kind, agent_id, here in (
            ("memory.created", REVIEWER.id, False),
            ("memory.created", PAYMENTS.id, True),
            ("memory.deleted", PAYMENTS.id, False),
        ):
            app.model.apply(Event(kind, agent_id=agent_id, data={"memory": fresh}))
            await pilot.pause()
            assert ("m1" in shown(app)) is here


@pytest.mark.parametrize(("state", "readings"), [(LinkState.LIVE, 2), (LinkState.POLLING, 1)])
async def test_after_a_broken_link_it_is_read_again_only_where_that_counts_no_use(
    state: LinkState, readings: int
) -> None:
    app = in_rooms(link=Link(state, NOW))
    async with app.run_test(size=SIZE) as pilot:
        screen = await in_memory(app, pilot)
        app.model.set_link(Link(LinkState.STALE, NOW, "connection refused", 1))
        app.model.flush()
        await until(lambda: "as of 03:07:21Z: the link is broken" in screen.notice(), pilot)
        app.model.set_link(Link(state, NOW))
        app.model.flush()
        await until(lambda: len(scripted(app).called("memories")) == readings, pilot)
        await until(lambda: bool(screen.notice()) is (readings == 1), pilot)
        await pilot.press("r")
        await until(lambda: not screen.notice(), pilot)


# -- skills


async def test_a_skill_is_attached_to_a_chosen_agent_after_asking() -> None:
    after = replace(WITH_SKILLS[1], attached_skill_ids=(RELEASE.id, UNUSED.id))
    app = in_rooms(attach_skill=after)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("3")
        await until(lambda: isinstance(app.screen, SkillsScreen) and app.screen.known, pilot)
        await pilot.press("a", *"codex", "enter")
        await until(lambda: isinstance(app.screen, Confirm), pilot)
        await pilot.press("enter")
        assert not scripted(app).called("attach_skill")
        await pilot.press("a", *"codex", "enter")
        await until(lambda: isinstance(app.screen, Confirm), pilot)
        await pilot.press("y")
        await until(lambda: app.model.agents[REVIEWER.id] == after, pilot)
        assert scripted(app).called("attach_skill") == [(REVIEWER.id, UNUSED.id)]


def test_how_an_agent_has_a_skill() -> None:
    payments, reviewer = WITH_SKILLS[:2]
    assert attachment(payments, RELEASE) == attachment(payments, FLAKY) == "attached"
    assert attachment(reviewer, RELEASE) == "older"
    assert attachment(reviewer, FLAKY) == ""
    without_end = replace(reviewer, prompt=f"x\n<!-- skill:{RELEASE.id} -->\n{RELEASE.content}\n\n<!-- skill:b -->\ny")
    assert attachment(without_end, RELEASE) == "attached"


async def test_a_block_without_an_end_mark_is_warned_of() -> None:
    app = in_rooms()
    app.model.update_agents([replace(WITH_SKILLS[0], prompt=f"<!-- skill:{RELEASE.id} -->\n{RELEASE.content}\nmine")])
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("2", "end", "K")
        await until(lambda: isinstance(app.screen, SkillsScreen) and app.screen.known, pilot)
        await pilot.press("end", "x")
        assert isinstance(app.screen, Confirm)
        assert any("no end mark" in str(line.render()) for line in app.screen.query(".effect"))


async def test_versions_their_differences_and_bringing_one_back() -> None:
    app = in_rooms(update_skill=replace(RELEASE, content=VERSIONS[0].content))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("3")
        await until(lambda: isinstance(app.screen, SkillsScreen) and app.screen.known, pilot)
        await pilot.press("end", "enter")
        await until(lambda: isinstance(app.screen, SkillScreen) and "2 former" in words(app, "summary"), pilot)
        assert "   - API" in words(app, "text")
        await pilot.press("left")
        assert "+ 2. Group by area, breaking changes first." in words(app, "text")
        await pilot.press("f")
        assert "- 2." not in words(app, "text")
        await pilot.press("left", "left", "left", "right", "R", "y")
        await until(lambda: scripted(app).called("update_skill"), pilot)
        assert scripted(app).called("update_skill") == [(RELEASE.id, {"content": VERSIONS[0].content})]


async def test_a_platform_without_versions_says_so() -> None:
    app = in_rooms(skill_versions=Unsupported("this platform does not show former versions"))
    async with app.run_test(size=SIZE) as pilot:
        app.open_skill(RELEASE.id)
        await pilot.pause()
        await until(lambda: "does not show former versions" in words(app, "summary"), pilot)
        assert "# Release notes" in words(app, "text")


def test_differences() -> None:
    assert changed_lines("a\n", "a")[0][1].startswith("Nothing")
    assert ("- ", "a", "bad") in changed_lines("a", "b") and ("+ ", "b", "good") in changed_lines("a", "b")
    assert "not compared" in changed_lines("a\n" * 4000, "b")[0][1]


async def test_a_skill_that_was_changed_sends_only_that() -> None:
    app = in_rooms(update_skill=RELEASE)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("3")
        await until(lambda: isinstance(app.screen, SkillsScreen) and app.screen.known, pilot)
        await pilot.press("end", "e")
        assert isinstance(app.screen, SkillForm)
        app.screen.query_one("#description", Input).value = ""
        await pilot.press("ctrl+s")
        await until(lambda: scripted(app).called("update_skill"), pilot)
        assert scripted(app).called("update_skill") == [(RELEASE.id, {"description": None})]


# -- the warm pool


async def test_the_pool_says_why_it_is_off() -> None:
    app = in_rooms(pool=OFF)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("4")
        await until(lambda: isinstance(app.screen, PoolScreen) and app.screen.known, pilot)
        assert "WARM_POOL_SIZE is 0" in words(app, "facts")
        await pilot.press("u", "F")
        assert not scripted(app).called("top_up_pool") and isinstance(app.screen, PoolScreen)


async def test_the_pool_tells_what_fails_and_is_filled_and_flushed() -> None:
    app = in_rooms(top_up_pool=1, flush_pool=2)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("4")
        await until(lambda: isinstance(app.screen, PoolScreen) and app.screen.known, pilot)
        assert "2 of 4 warm" in words(app, "facts")
        assert "docs-writer failed 3 times, again in 3m00s" in words(app, "facts")
        await pilot.press("u")
        await until(lambda: scripted(app).called("top_up_pool"), pilot)
        await pilot.press("x", "y")
        await until(lambda: scripted(app).called("flush_pool"), pilot)
        assert scripted(app).called("flush_pool") == [(PAYMENTS.id,)]
        await pilot.press("enter")
        assert isinstance(app.screen, AgentScreen)


@pytest.mark.parametrize("mode", ["3", "4"])
@pytest.mark.parametrize("error", [Unsupported("this platform has none"), Unreachable("http://x", "timed out")])
async def test_a_room_that_cannot_be_read_says_why_and_keeps_working(mode: str, error: Exception) -> None:
    app = in_rooms(skills=error, pool=error)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press(mode)
        await until(lambda: app.screen.known, pilot)  # type: ignore[attr-defined]
        told = (*app.screen.table.empty, app.screen.notice())  # type: ignore[attr-defined]
        assert any("this platform has none" in line.lower() or "timed out" in line for line in told)
        await pilot.press("n", "escape", "e", "a", "x", "d", "u", "F", "enter", "r", "1")
        assert isinstance(app.screen, SessionsScreen)


# -- one agent


async def test_everything_of_an_agent_is_one_key_away() -> None:
    app = in_rooms()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("2", "end", "enter")
        assert isinstance(app.screen, AgentScreen)
        await until(lambda: "write-release-notes" in words(app, "fields"), pilot)
        assert "ghp_secret" not in words(app, "fields")
        for key, screen in (("l", SessionsScreen), ("m", MemoryScreen), ("K", SkillsScreen), ("e", EditAgentScreen)):
            await pilot.press(key)
            await until(lambda screen=screen: isinstance(app.screen, screen), pilot)
            await pilot.press("escape")
            await until(lambda: isinstance(app.screen, AgentScreen), pilot)
        app.model.remove_agents([PAYMENTS.id])
        await until(lambda: "was deleted" in words(app, "fields"), pilot)
        await pilot.press("e", "d", "c")
        assert isinstance(app.screen, AgentScreen)
        await pilot.press("2")
        assert isinstance(app.screen, AgentsScreen)


async def test_an_edit_of_an_agent_keeps_what_is_masked_and_sends_only_what_changed() -> None:
    stored = replace(WITH_SKILLS[0], env_vars={"A": "********", "B": "********", "AGENT_REQUIREMENTS": "x"})
    app = in_rooms(update_agent=stored)
    app.model.update_agents([stored])
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("2", "end", "e")
        area = app.screen.query_one("#env_vars", TextArea)
        assert area.text == "A=********\nB=********"  # what the platform put there itself is not sent back
        area.text = "A=********\nNEW=********"
        await pilot.press("ctrl+s")
        assert "NEW: ******** stands for a stored value" in problems(app)["env_vars"]
        area.text = "A=********\nNEW=1"
        app.screen.query_one("#allow_out", Input).value = "*.example.com, 10.0.0.1"
        await pilot.press("ctrl+s")
        await until(lambda: scripted(app).called("update_agent"), pilot)
        assert scripted(app).called("update_agent") == [
            (PAYMENTS.id, {"env_vars": {"A": "********", "NEW": "1"}, "allow_out": ["*.example.com", "10.0.0.1"]})
        ]


def test_platforms_that_tell_values_are_sent_them_again() -> None:
    told = replace(PAYMENTS, env_vars={"A": "one\ntwo", "PORT": "80"})
    assert shown_variables(told) == {"A": "********"}
    assert sent_variables(told, {"A": "********", "B": "2"}) == {"A": "one\ntwo", "B": "2"}
    assert fields_of(told)["env_vars"] == {"A": "********"}


async def test_what_somebody_else_changed_meanwhile_is_not_overwritten_unasked() -> None:
    app = in_rooms(update_agent=WITH_SKILLS[0])
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("2", "end", "e")
        app.screen.query_one("#model", Input).value = "mine"
        app.model.update_agents([replace(WITH_SKILLS[0], model="theirs")])
        await pilot.press("ctrl+s")
        await until(lambda: app.screen.query_one("#form-problem").display, pilot)
        assert not scripted(app).called("update_agent")
        await pilot.press("ctrl+s")
        await until(lambda: scripted(app).called("update_agent"), pilot)


# -- the editor


@pytest.mark.parametrize(
    ("environment", "command"),
    [
        ({"VISUAL": "sh -c x", "EDITOR": "cat"}, ["sh", "-c", "x"]),
        ({"VISUAL": " ", "EDITOR": "cat"}, ["cat"]),
        ({"EDITOR": "no-such-editor"}, None),
        ({"EDITOR": "'"}, None),
    ],
)
def test_which_editor(environment: dict[str, str], command: list[str] | None) -> None:
    if command is None:
        with pytest.raises(EditorFailed):
            editor_command(environment)
    else:
        assert editor_command(environment) == command


async def test_without_a_terminal_to_lend_the_editor_is_refused_and_the_text_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDITOR", "false")
    app = in_rooms()
    async with app.run_test(size=SIZE) as pilot:
        await in_memory(app, pilot)
        await pilot.press("e", "ctrl+o")
        for work in [work for work in app.workers if work.group == "editor"]:
            await work.wait()
        assert app.screen.query_one("#text", TextArea).text == MEMORIES[1].text


# -- the console round them


async def test_a_broken_link_is_in_the_error_list_once_for_each_cause() -> None:
    app = in_rooms()
    async with app.run_test(size=SIZE) as pilot:
        for reason, attempt in (("connection refused", 1), ("connection refused", 2), ("the key was refused", 3)):
            app.model.set_link(Link(LinkState.STALE, NOW, reason, attempt, key_refused=attempt == 3))
            app.model.flush()
        assert [problem.why for problem in app.problems] == ["connection refused", "the key was refused"]
        assert "right key" in app.problems[-1].advice
        app.model.set_link(Link(LinkState.LIVE, NOW))
        app.model.flush()
        app.model.set_link(Link(LinkState.STALE, NOW, "connection refused", 1))
        app.model.flush()
        assert len(app.problems) == 3
        await pilot.pause()


async def test_without_colour_nothing_is_coloured_and_the_cursor_is_in_reverse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = in_rooms()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("2", "3")
        await until(lambda: isinstance(app.screen, SkillsScreen) and app.screen.known, pilot)
        styles = [
            segment.style for strip in app.screen._compositor.render_strips() for segment in strip if segment.style
        ]
        assert all(one.color is None or one.color.is_default for one in styles)
        assert all(one.bgcolor is None or one.bgcolor.is_default for one in styles)
        assert any(one.reverse for one in styles)

"""The console: screens over one live model, a line of truth on top, and a link that mends itself."""

from __future__ import annotations

from lapconsole import early  # isort: skip

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App, SystemCommand
from textual.binding import BindingType
from textual.screen import Screen

from lapconsole import keys, themes
from lapconsole.live.model import Changes, LiveModel
from lapconsole.screens.base import ConsoleScreen
from lapconsole.screens.problems import Problem
from lapconsole.screens.sessions import SessionsScreen
from lapconsole.screens.triage import Triage
from lapconsole.settings import Settings, SettingsError, config_dir, load, set_preference
from lapconsole.terminal import garbage
from lapconsole.widgets.words import glyphs_for

if TYPE_CHECKING:
    from lapconsole.client.nodes import PlatformProblem
    from lapconsole.client.platform import Platform
    from lapconsole.connection import Connection
    from lapconsole.screens.operations import Operations
    from lapconsole.widgets.parts import Parts

early.imported()

KEPT_PROBLEMS = 200
STATE_SECONDS = 10
TOAST_CHARACTERS = 120
# Which keys can be reached on which screen, by its class: most are not imported before they are opened.
_REACH = {
    "SessionsScreen": "Sessions",
    "AgentsScreen": "Agents",
    "SessionScreen": "One session",
    "AgentScreen": "One agent",
    "MemoryScreen": "Memory",
    "SkillsScreen": "Skills",
    "SkillScreen": "One skill",
    "PoolScreen": "Warm pool",
    "DiagnoseScreen": "Diagnose",
    "DiagnosisScreen": "All diagnoses",
    "EgressScreen": "Egress",
    "NodesScreen": "Nodes",
    "NodeScreen": "One node",
    "WallScreen": "Wall",
    "ChatScreen": "Chat",
}


def utc_now() -> datetime:
    """The clock of a console that is not under test."""
    return datetime.now(UTC)


def _agents_screen() -> Screen[None]:
    from lapconsole.screens.agents import AgentsScreen

    return AgentsScreen()


def _skills_screen() -> Screen[None]:
    from lapconsole.screens.skills import SkillsScreen

    return SkillsScreen()


def _pool_screen() -> Screen[None]:
    from lapconsole.screens.pool import PoolScreen

    return PoolScreen()


def _diagnosis_screen() -> Screen[None]:
    from lapconsole.screens.diagnosis import DiagnosisScreen

    return DiagnosisScreen()


def _egress_screen() -> Screen[None]:
    from lapconsole.screens.egress import EgressScreen

    return EgressScreen()


def _nodes_screen() -> Screen[None]:
    from lapconsole.screens.nodes import NodesScreen

    return NodesScreen()


class LapConsole(App[None]):
    """Paints first and connects then. Whatever happens to the link, every screen and every key keeps working."""

    TITLE = "lapconsole"
    BINDINGS: ClassVar[list[BindingType]] = keys.bindings("app")
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-normal"), (170, "-wide")]  # noqa: RUF012 (the toolkit's own form)
    MODES: ClassVar[dict[str, Any]] = {
        "sessions": SessionsScreen,
        "agents": _agents_screen,
        "skills": _skills_screen,
        "pool": _pool_screen,
        "diagnosis": _diagnosis_screen,
        "egress": _egress_screen,
        "nodes": _nodes_screen,
    }
    DEFAULT_MODE = "sessions"

    def __init__(
        self,
        connection: Connection,
        *,
        settings: Settings | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """`settings` are read from the user's file when not given."""
        super().__init__()
        self.connection = connection
        self.label = connection.label
        self.clock = clock
        self.glyphs = glyphs_for()
        self.model = LiveModel()
        self.triage = Triage(self.model, clock)
        self.platform: Platform | None = None
        self.problems: list[Problem] = []
        self.walls: Parts = ()  # how the sandboxes are shut in, for the line on top
        self.amiss: tuple[PlatformProblem, ...] = ()  # what does not work on the platform
        self._state_age = 0
        self._told_link: set[str] = set()
        if self.no_color:
            from lapconsole.widgets.colour_free import ColourFree

            self._filters = [ColourFree(self)]
        self.preferences = preferences = self._preferences(settings)
        overrides = preferences.get("keys")
        self.keymap = keys.Keymap(overrides if isinstance(overrides, dict) else None)
        self.set_keymap(self.keymap.overrides)
        self._start_theme(preferences.get("theme"))
        self.model.observe(self._observed)

    def _preferences(self, settings: Settings | None) -> dict[str, Any]:
        try:
            return (settings or load()).preferences
        except SettingsError as error:
            self._note("Read the settings", str(error), "The console runs with its defaults.")
            return {}

    def _start_theme(self, wanted: object) -> None:
        """Use the theme a person chose, else the default. No other is read before the first frame."""
        name = wanted if isinstance(wanted, str) else themes.DEFAULT
        for candidate in (name, themes.DEFAULT):
            self.themes = themes.load(*self._theme_folders, only=candidate)
            self._note_bad_themes()
            if candidate in self.themes.by_name:
                self.register_theme(self.themes.by_name[candidate])
                # Set before anything watches: the style sheet is worked out once, with this theme.
                self.set_reactive(App.theme, candidate)
                return
            if not self.themes.problems:
                self._note("Use a theme", f'there is no theme "{candidate}"', "The console starts without it.")

    def _note_bad_themes(self) -> None:
        told = {problem.why for problem in self.problems}
        for message in self.themes.problems:
            if message not in told:
                self._note("Read a theme", message, "It is left out until the file is mended.")

    @property
    def _theme_folders(self) -> tuple[Path | None, ...]:
        return themes.bundled_folder(), config_dir() / "themes"

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return themes.VARIABLES

    # -- life

    def on_mount(self) -> None:
        self.set_interval(1.0, self._tick)
        # Called when the first frame has been painted: nothing of the network is imported before it.
        self.call_after_refresh(self._painted)

    def _painted(self) -> None:
        for message in self.keymap.problems:
            self._note("Read the keys", message, "The default is kept.")
        if self.problems:
            self.notify(
                f"{self.problems[-1].why}\nPress {self.keymap.first('app.problems')} for the list.",
                title="Settings need a look",
                severity="warning",
                timeout=8,
                markup=False,
            )
            self._draw_frames()
        from lapconsole.follow import Follower

        follower = Follower(self.connection, self.model, self.clock, partial(setattr, self, "platform"))
        self.run_worker(follower.run(), group="follow", exit_on_error=False)
        self.run_worker(garbage.collect_when_calm(), group="garbage", exit_on_error=False)

    def _observed(self, changes: Changes) -> None:
        self.triage.changed(changes.sessions)
        if changes.link:
            self._note_link()
            if self.model.link.current:
                self._state_age = STATE_SECONDS  # with the next tick

    def _note_link(self) -> None:
        """Keep each loss of the link in the error list, once for each cause it is given."""
        link = self.model.link
        if link.current:
            self._told_link.clear()
        elif link.reason and link.reason not in self._told_link:
            self._told_link.add(link.reason)
            advice = "The console tries again by itself."
            if link.key_refused:
                advice += " If this goes on: quit, and start with the right key."
            self._note(f"Link to {self.label}", link.reason, advice)

    def _tick(self) -> None:
        self._state_age += 1
        if self._state_age >= STATE_SECONDS and self.model.link.current and self.platform is not None:
            self._state_age = 0
            self.run_worker(self._read_state(self.platform), group="state", exclusive=True, exit_on_error=False)
        for screen in self._in_sight():
            screen.tick()
            screen.draw_frame()

    async def _read_state(self, platform: Platform) -> None:
        """What the platform says of itself: how sandboxes are shut in, and what does not work."""
        from lapconsole.client.errors import ClientError
        from lapconsole.widgets.isolation import brief_parts

        try:
            self.walls = brief_parts(await platform.walls())
            problems = await platform.problems()
        except ClientError:  # the line on top tells of a broken link
            return
        self._note_amiss(problems)
        self._draw_frames()

    def _note_amiss(self, problems: tuple[PlatformProblem, ...]) -> None:
        """Keep each problem of the platform in the error list, with when it was over."""
        present, now = {problem.key for problem in problems}, self.clock()
        gone = {(problem.what, problem.since) for problem in self.amiss if problem.key not in present}
        for place, noted in enumerate(self.problems):
            if (noted.what, noted.at) in gone:
                self.problems[place] = noted._replace(advice=f"It was over at {now:%H:%M:%S}Z.")
        known = {problem.key for problem in self.amiss}
        for problem in problems:
            if problem.key not in known:
                self._note(problem.what, problem.message, "", problem.since)
        self.amiss = problems

    def _draw_frames(self) -> None:
        for screen in self._in_sight():
            screen.draw_frame()

    def _in_sight(self) -> list[ConsoleScreen]:
        """Our screens that can be seen, also through a dialog; none at the very start and end."""
        stack = self.screen_stack if self.is_running else ()
        return [screen for screen in stack if isinstance(screen, ConsoleScreen) and screen.is_current]

    @property
    def operations(self) -> Operations:
        """What can be done to sessions and agents."""
        from lapconsole.screens.operations import Operations

        return Operations(self)

    # -- what went wrong

    def _note(self, what: str, why: str, advice: str, at: datetime | None = None) -> None:
        self.problems.append(Problem(at or self.clock(), what, why, advice))
        del self.problems[:-KEPT_PROBLEMS]

    def report(self, what: str, why: str, advice: str = "") -> None:
        """Tell of a failure in a toast, and keep it in the error list."""
        self._note(what, why, advice)
        # A toast must not cover what a person does next; the list has the whole of it.
        brief = why if len(why) <= TOAST_CHARACTERS else f"{why[: TOAST_CHARACTERS - 1]}…"
        self.notify(f"{brief}\n{advice}".strip(), title=f"{what}: failed", severity="error", timeout=8, markup=False)
        self.call_next(self._draw_frames)

    # -- going places

    def open_session(self, session_id: str, *, own: bool = False) -> None:
        """Show one session; `own` where it was made here just now."""
        from lapconsole.screens.session import SessionScreen

        self.push_screen(SessionScreen(session_id, own=own))

    def open_diagnosis(self, session_id: str) -> None:
        """Show what is wrong with a session, and why."""
        from lapconsole.screens.diagnose import DiagnoseScreen

        self.push_screen(DiagnoseScreen(session_id))

    def open_egress(self, session_id: str) -> None:
        """Show what leaves a session's sandbox."""
        from lapconsole.screens.egress import EgressScreen

        self.push_screen(EgressScreen(session_id))

    def open_node(self, name: str) -> None:
        """Show one node and its sandboxes; "" is none, which is said."""
        from lapconsole.screens.nodes import NodeScreen

        if name:
            self.push_screen(NodeScreen(name))
        else:
            self.notify("It is not known which node it is on.", severity="warning")

    def open_agent(self, agent_id: str) -> None:
        """Show everything of an agent."""
        from lapconsole.screens.agent import AgentScreen

        self.push_screen(AgentScreen(agent_id))

    def open_sessions_of(self, agent_id: str) -> None:
        """Show an agent's sessions."""
        self.push_screen(SessionsScreen(agent_id))

    def open_memory(self, agent_id: str) -> None:
        """Show what an agent remembers."""
        from lapconsole.screens.memory import MemoryScreen

        self.push_screen(MemoryScreen(agent_id))

    def open_skills_of(self, agent_id: str) -> None:
        """Show the library of skills, and which an agent has."""
        from lapconsole.screens.skills import SkillsScreen

        self.push_screen(SkillsScreen(agent_id))

    def open_skill(self, skill_id: str) -> None:
        """Show one skill with its versions."""
        from lapconsole.screens.skill import SkillScreen

        self.push_screen(SkillScreen(skill_id))

    def show_agent(self, agent_id: str) -> None:
        """Put the cursor on an agent, where the list of agents is in sight."""
        from lapconsole.screens.agents import AgentsScreen

        if isinstance(self.screen, AgentsScreen):
            self.model.flush()
            self.screen.table.move_to(agent_id)

    def open_terminal(self, session_id: str, *, take_over: bool = False, own: bool = False) -> None:
        """Attach to a session's terminal; see AttachScreen for who drives."""
        from lapconsole.screens.attach import AttachScreen

        self.push_screen(AttachScreen(session_id, take_over=take_over, own=own))

    def open_chat(self, session_id: str) -> None:
        """Talk to a session that works by messages."""
        from lapconsole.screens.chat import ChatScreen

        self.push_screen(ChatScreen(session_id))

    def open_replay(self, session_id: str) -> None:
        """Play the recording of a session's terminal."""
        from lapconsole.screens.replay import ReplayScreen

        self.push_screen(ReplayScreen(session_id))

    async def action_view(self, mode: str) -> None:
        if self.current_mode == mode:
            # From a page opened above the list: back to the list itself.
            while len(self.screen_stack) > 1:
                await self.pop_screen()
        else:
            await self.switch_mode(mode)

    def action_help(self) -> None:
        from lapconsole.screens.help import HelpScreen

        self.push_screen(HelpScreen(self._scopes()))

    def action_problems(self) -> None:
        from lapconsole.screens.problems import ProblemsScreen

        self.push_screen(ProblemsScreen())

    def action_theme(self) -> None:
        from lapconsole.screens.theme_picker import ThemePicker

        self.themes = themes.load(*self._theme_folders)
        self._note_bad_themes()
        for theme in self.themes.by_name.values():
            self.register_theme(theme)
        self.push_screen(ThemePicker())

    def keep_theme(self) -> None:
        """Have the next console start with this theme."""
        try:
            set_preference("theme", self.theme)
        except SettingsError as error:
            self.report("Keep the theme", str(error), "It stays for now, but not for the next start.")

    def _scopes(self) -> tuple[str, ...]:
        """The scopes of actions in reach on this screen."""
        reach = _REACH.get(type(self.screen).__name__)
        return keys.REACH[reach] if reach else ("app",)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        scopes = self._scopes()
        for action in keys.ACTIONS:
            if action.scope in scopes and action.scope not in ("table", "sheet", "log") and not action.fixed:
                key = self.keymap.first(action.id)
                yield SystemCommand(action.words, f"{key}  {action.id}", self._runner(action.action, screen))

    def _runner(self, action: str, screen: Screen[Any]) -> Callable[[], None]:
        def run() -> None:
            self.call_later(self.run_action, action, screen)

        return run

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        # An agent's terminal gets every key, also those the console holds with priority elsewhere.
        return not getattr(self.screen, "keeps_keys", False)

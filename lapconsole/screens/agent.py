"""One agent: everything it is made of, what it is told, and its sessions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from textual import work
from textual.containers import Horizontal
from textual.widget import Widget

from lapconsole import keys
from lapconsole.client.errors import ClientError
from lapconsole.client.models import Agent
from lapconsole.live.model import Changes
from lapconsole.screens.base import ConsoleScreen
from lapconsole.widgets.activity import activity_parts
from lapconsole.widgets.fields import agent_fields, heading, text_lines
from lapconsole.widgets.parts import Look, Parts
from lapconsole.widgets.phase_bar import status_parts
from lapconsole.widgets.sheet import Sheet

if TYPE_CHECKING:
    from lapconsole.app import LapConsole

SHOWN_SESSIONS = 8
PANES = ("fields", "prompt")


def sessions_lines(console: LapConsole, agent_id: str, look: Look, key: str) -> list[Parts]:
    """The agent's sessions, those that need a look first."""
    model = console.model
    ids = model.sessions_of(agent_id)
    if not ids:
        return []
    lines = heading(f"Sessions [{len(ids)}]")
    for session in sorted((model.sessions[id] for id in ids), key=console.triage.key)[:SHOWN_SESSIONS]:
        title = f"  {session.title or session.title_preview or session.id[:8]}"
        lines.append((*status_parts(session, look), (title, "plain"), ("  ", "plain"), *activity_parts(session, look)))
    if len(ids) > SHOWN_SESSIONS:
        lines.append(((f"and {len(ids) - SHOWN_SESSIONS} more: {key} shows all", "muted"),))
    return lines


class AgentScreen(ConsoleScreen):
    """Facts and sessions on the left; from 110 columns on, the prompt beside them."""

    DEFAULT_CSS = """
    AgentScreen {
        #fields { width: 1fr; height: 1fr; padding: 0 1; }
        #prompt { width: 1fr; height: 1fr; padding: 0 1; border-left: vkey $panel; }
        &.-narrow #prompt { display: none; }
        &.-normal #fields { width: 56; }
        &.-wide #fields { width: 84; }
    }
    """
    AUTO_FOCUS = "#fields"
    BINDINGS = keys.bindings("agent")
    HINTS = (
        "agent.sessions",
        "agent.memory",
        "agent.skills",
        "agent.edit",
        "agent.session",
        "agent.delete",
        "agent.back",
        "app.help",
        "app.quit",
        "agent.next",
        "app.problems",
    )

    def __init__(self, agent_id: str) -> None:
        super().__init__()
        self._agent = Agent(agent_id)  # the last version known, also after it is gone
        self._gone = False
        self._skill_names: dict[str, str] = {}

    @property
    def agent(self) -> Agent:
        """The agent as last known."""
        return self._agent

    @property
    def crumb(self) -> str:
        return f"Agents {self.console.glyphs.dot} {self._agent.label}{' (gone)' if self._gone else ''}"

    def body(self) -> Iterable[Widget]:
        glyphs = self.console.glyphs
        self.fields = Sheet(self._field_lines, title="Agent", glyphs=glyphs, id="fields")
        self.prompt = Sheet(self._prompt_lines, title="Prompt", glyphs=glyphs, id="prompt")
        yield Horizontal(self.fields, self.prompt)

    def on_mount(self) -> None:
        self._take_over()

    # -- news

    def model_changed(self, changes: Changes) -> None:
        if self._agent.id in changes.agents or changes.sessions:
            self._take_over()

    def tick(self) -> None:
        self._draw()

    def _take_over(self) -> None:
        agent = self.console.model.agents.get(self._agent.id)
        self._gone = agent is None
        if agent is not None:
            unknown = not set(agent.attached_skill_ids) <= self._skill_names.keys() and agent != self._agent
            self._agent = agent
            if unknown:
                self._read_names()
        self._draw()

    def _read_names(self) -> None:
        if self._agent.attached_skill_ids:
            self._names()

    @work(group="names", exclusive=True, exit_on_error=False)
    async def _names(self) -> None:
        """What the attached skills are called; without an answer their ids have to do."""
        platform = self.console.platform
        if platform is None:
            return
        try:
            self._skill_names = {skill.id: skill.name for skill in await platform.skills()}
        except ClientError:
            return
        self._draw()

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    def _draw(self) -> None:
        if self.is_mounted:
            for sheet in (self.fields, self.prompt):
                if sheet.display:
                    sheet.draw()

    # -- what is drawn

    def _field_lines(self, width: int) -> Sequence[Parts]:
        agent, look = self._agent, self.look
        lines: list[Parts] = []
        if self._gone:
            lines.append((("This agent was deleted; what is shown is the last that was known of it.", "warn"),))
        lines += agent_fields(agent, look, width, skills=self._skill_names, prompt=False)
        lines += sessions_lines(self.console, agent.id, look, self.console.keymap.first("agent.sessions"))
        if self.has_class("-narrow"):
            lines += [*heading("Prompt"), *self._prompt_lines(width)]
        return lines

    def _prompt_lines(self, width: int) -> Sequence[Parts]:
        if not self._agent.prompt:
            return [(("It has no prompt.", "muted"),)]
        return text_lines(self._agent.prompt, width, limit=2000)

    def hints(self) -> tuple[Sequence[str], str]:
        return self.HINTS, ""

    # -- actions

    def action_next_pane(self) -> None:
        if self.prompt.display:
            (self.fields if self.prompt.has_focus else self.prompt).focus()

    def action_session(self) -> None:
        if not self._gone:
            self.console.operations.new_session(self._agent.id)

    def action_sessions(self) -> None:
        self.console.open_sessions_of(self._agent.id)

    def action_memory(self) -> None:
        self.console.open_memory(self._agent.id)

    def action_skills(self) -> None:
        self.console.open_skills_of(self._agent.id)

    def action_edit(self) -> None:
        self.console.operations.edit_agent(None if self._gone else self._agent)

    def action_delete(self) -> None:
        self.console.operations.delete_agent(None if self._gone else self._agent)

    def action_back(self) -> None:
        self.dismiss(None)

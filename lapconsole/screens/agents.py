"""The agents: blueprints, how many sessions each has, and in what state."""

from __future__ import annotations

from collections.abc import Sequence

from lapconsole import keys
from lapconsole.client.models import Agent
from lapconsole.live.model import Changes, LinkState
from lapconsole.live.views import agents_view
from lapconsole.screens.agent import sessions_lines
from lapconsole.screens.lists import ListScreen
from lapconsole.widgets.columns import Column
from lapconsole.widgets.fields import agent_fields
from lapconsole.widgets.parts import Look, Part, Parts
from lapconsole.widgets.table import Table
from lapconsole.widgets.words import age


def _age(agent: Agent, look: Look) -> Parts:
    if agent.created_at is None:
        return ((look.glyphs.dash, "muted"),)
    return ((age((look.now - agent.created_at).total_seconds()), "plain"),)


class AgentsScreen(ListScreen):
    """All agents."""

    BINDINGS = keys.bindings("agents", "list")
    HINTS = (
        "table.open",
        "agents.sessions",
        "agents.session",
        "agents.new",
        "agents.memory",
        "agents.skills",
        "agents.edit",
        "agents.delete",
        "list.filter",
        "app.sessions",
        "app.skills",
        "app.pool",
        "app.help",
        "app.quit",
        "table.sort",
        "list.detail",
        "app.theme",
        "app.problems",
    )

    @property
    def crumb(self) -> str:
        return "Agents"

    def make_table(self) -> Table[Agent]:
        model = self.console.model
        columns: tuple[Column[Agent], ...] = (
            Column("name", "AGENT", lambda agent, look: ((agent.label, "strong"),), 14, sort="name", grow=1, most=32),
            Column("sessions", "SESSIONS", self._sessions, 14, grow=1, most=22),
            Column(
                "harness",
                "HARNESS",
                lambda agent, look: ((agent.harness_id, "plain"),),
                16,
                sort="harness",
                fold=3,
            ),
            Column(
                "model",
                "MODEL",
                lambda agent, look: ((agent.model or "", "muted"),),
                12,
                sort="model",
                grow=3,
                most=32,
                fold=4,
            ),
            Column("repository", "REPOSITORY", self._repository, 14, grow=3, most=60, fold=5),
            Column("age", "AGE", _age, 4, sort="created", descending=True, right=True, live=True, fold=1),
        )
        return Table(
            columns,
            agents_view(model),
            model.agents,
            model.version,
            title="Agents",
            clock=self.console.clock,
            glyphs=self.console.glyphs,
            id="list",
        )

    def _sessions(self, agent: Agent, look: Look) -> Parts:
        counts = self.console.model.agent_counts(agent.id)
        parts: list[Part] = []
        for status, glyph, tone in (
            ("failed", look.glyphs.failed, "bad"),
            ("creating", look.glyphs.creating, "busy"),
            ("ready", look.glyphs.ready, "good"),
            ("dead", look.glyphs.dead, "muted"),
        ):
            if counts.get(status):
                parts += [(f"{glyph} {counts[status]}", tone), ("  ", "plain")]
        return tuple(parts) or (("none", "muted"),)

    @staticmethod
    def _repository(agent: Agent, look: Look) -> Parts:
        return (
            ((agent.repo_url.removesuffix(".git").rpartition("//")[2], "muted"),)
            if agent.repo_url
            else (("", "muted"),)
        )

    @property
    def agent(self) -> Agent | None:
        """The agent under the cursor."""
        current = self.table.current
        return current if isinstance(current, Agent) else None

    def changed_ids(self, changes: Changes) -> frozenset[str]:
        return changes.agents

    def detail_lines(self, width: int) -> Sequence[Parts]:
        agent = self.agent
        if agent is None:
            return [(("Nothing is selected.", "muted"),)]
        look = self.look
        lines = agent_fields(agent, look, width)
        return lines + sessions_lines(self.console, agent.id, look, self.console.keymap.first("agents.sessions"))

    def empty_words(self) -> tuple[str, ...]:
        console = self.console
        if console.model.link.state is LinkState.CONNECTING:
            return (
                f"Connecting to {console.label} …",
                console.model.link.reason or "Agents appear here as soon as it answers.",
            )
        return (
            "No agents yet.",
            "An agent is a blueprint: a harness, a model, a repository.",
            f"Press {console.keymap.first('agents.new')} to make the first one.",
        )

    # -- actions

    def on_table_opened(self, event: Table.Opened) -> None:
        self.console.open_agent(event.row_id)

    def action_session(self) -> None:
        if self.agent is None:
            self.notify("Make an agent first; a session is started from one.", severity="warning")
        else:
            self.console.operations.new_session(self.agent.id)

    def action_new(self) -> None:
        self.console.operations.new_agent()

    def action_sessions(self) -> None:
        if self.agent is not None:
            self.console.open_sessions_of(self.agent.id)

    def action_memory(self) -> None:
        if self.agent is not None:
            self.console.open_memory(self.agent.id)

    def action_skills(self) -> None:
        if self.agent is not None:
            self.console.open_skills_of(self.agent.id)

    def action_edit(self) -> None:
        self.console.operations.edit_agent(self.agent)

    def action_delete(self) -> None:
        self.console.operations.delete_agent(self.agent)

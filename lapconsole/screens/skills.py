"""The library of skills, and which agents have which."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from lapconsole import keys
from lapconsole.client.models import Agent, Event, Skill
from lapconsole.client.platform import Platform
from lapconsole.live.model import Changes
from lapconsole.live.views import Key, View
from lapconsole.screens.room import RoomScreen
from lapconsole.screens.skill_actions import SkillActions, SkillForm, attachment
from lapconsole.widgets.columns import Column
from lapconsole.widgets.fields import field_lines, heading, moment, text_lines
from lapconsole.widgets.parts import Look, Parts
from lapconsole.widgets.table import Table
from lapconsole.widgets.words import age, plural

SHOWN_LINES = 200


def _words(skill: Skill) -> str:
    return " ".join((skill.name, skill.description, skill.content))


def _age(skill: Skill, look: Look) -> Parts:
    if skill.created_at is None:
        return ((look.glyphs.dash, "muted"),)
    return ((age((look.now - skill.created_at).total_seconds()), "plain"),)


class SkillsScreen(RoomScreen[Skill]):
    """All skills; with an agent, which of them it has."""

    BINDINGS = keys.bindings("skills", "room", "list")
    HINTS = (
        "table.open",
        "skills.new",
        "skills.edit",
        "skills.attach",
        "skills.detach",
        "list.filter",
        "skills.delete",
        "app.help",
        "app.quit",
        "app.sessions",
        "app.agents",
        "app.pool",
        "room.reload",
        "table.sort",
        "list.detail",
        "app.problems",
    )

    def __init__(self, agent_id: str | None = None) -> None:
        super().__init__()
        self._agent_id = agent_id

    @property
    def agent(self) -> Agent | None:
        """The agent whose skills these are; None for the library."""
        return self.console.model.agents.get(self._agent_id or "")

    @property
    def crumb(self) -> str:
        if self._agent_id is None:
            return "Skills"
        dot = f" {self.console.glyphs.dot} "
        return f"Agents{dot}{self.agent.label if self.agent else 'gone'}{dot}Skills"

    @property
    def skill(self) -> Skill | None:
        """The skill under the cursor."""
        current = self.table.current
        return current if isinstance(current, Skill) else None

    async def read(self, platform: Platform) -> Iterable[Skill]:
        return [skill for skill in await platform.skills() if skill.id]

    def heard(self, event: Event) -> None:
        # Events tell which skill it is, but not its text.
        if event.type.startswith("skill."):
            self.load()

    def model_changed(self, changes: Changes) -> None:
        super().model_changed(changes)
        if changes.agents and self.is_mounted:
            self.table.notify_style_update()  # who has a skill is drawn in its row
            self.table.refresh()

    # -- what is shown

    def make_table(self) -> Table[Skill]:
        sorts: dict[str, Callable[[Skill], Key]] = {
            "name": lambda skill: skill.name.casefold(),
            "agents": lambda skill: float(len(self._users(skill))),
            "size": lambda skill: float(len(skill.content)),
            "created": lambda skill: skill.created_at.timestamp() if skill.created_at else 0.0,
        }
        view: View[Skill] = View(self.collection.entities, sorts, _words, sort="name", descending=False)
        has = (
            Column("agents", "AGENTS", self._count, 8, sort="agents", descending=True)
            if self._agent_id is None
            else Column("agents", "ATTACHED", self._has, 10, sort="agents", descending=True)
        )
        columns: tuple[Column[Skill], ...] = (
            Column("name", "SKILL", lambda skill, look: ((skill.name, "strong"),), 20, sort="name", grow=2, most=40),
            has,
            Column(
                "description",
                "WHEN TO USE IT",
                lambda skill, look: ((skill.description, "muted"),),
                20,
                grow=4,
                fold=3,
            ),
            Column(
                "size",
                "SIZE",
                lambda skill, look: ((_size(skill), "plain"),),
                6,
                sort="size",
                descending=True,
                right=True,
                fold=2,
            ),
            Column("age", "AGE", _age, 4, sort="created", descending=True, right=True, live=True, fold=1),
        )
        table = self.table_of(columns, view, "Skills")
        table.scope = "library" if self._agent_id is None else self.agent.label if self.agent else "gone"
        return table

    def _users(self, skill: Skill) -> list[Agent]:
        """The agents that have a skill; with one agent in view, that one or none."""
        agents = self.console.model.agents.values() if self._agent_id is None else filter(None, [self.agent])
        return [agent for agent in agents if skill.id in agent.attached_skill_ids]

    def _count(self, skill: Skill, look: Look) -> Parts:
        users = self._users(skill)
        older = any(attachment(agent, skill) == "older" for agent in users)
        if not users:
            return (("none", "muted"),)
        return ((f"{len(users)}", "good"), (" older" if older else "", "warn"))

    def _has(self, skill: Skill, look: Look) -> Parts:
        state = attachment(self.agent, skill) if self.agent else ""
        if state == "older":
            return ((f"{look.glyphs.stuck} older", "warn"),)
        return ((f"{look.glyphs.done} attached", "good"),) if state else (("", "muted"),)

    def detail_lines(self, width: int) -> Sequence[Parts]:
        skill = self.skill
        if skill is None:
            return [(("Nothing is selected.", "muted"),)]
        look = self.look
        lines = field_lines(
            (
                ("name", skill.name),
                ("when to use it", skill.description),
                ("size", plural(len(skill.content), "character")),
                ("created", moment(skill.created_at, look.now)),
                ("id", skill.id),
            ),
            width,
        )
        lines += heading("Agents that have it")
        users = sorted(
            (agent for agent in self.console.model.agents.values() if skill.id in agent.attached_skill_ids),
            key=lambda agent: agent.label.casefold(),
        )
        for agent in users:
            older = attachment(agent, skill) == "older"
            note = "  with an older text: detach it, then attach it" if older else ""
            lines.append(((f"  {agent.label}", "plain"), (note, "warn")))
        if not users:
            lines.append((("  none", "muted"),))
        return [*lines, *heading("Text"), *text_lines(skill.content, width, limit=SHOWN_LINES)]

    def nothing_words(self) -> tuple[str, ...]:
        return (
            "No skills yet.",
            "A skill is a block of instructions that several agents can have.",
            f"Press {self._key('skills.new')} to write the first one.",
        )

    # -- actions

    @property
    def actions(self) -> SkillActions:
        """What can be done to a skill."""
        return SkillActions(self.console)

    def on_table_opened(self, event: Table.Opened) -> None:
        self.console.open_skill(event.row_id)

    def _take(self, skill: Skill) -> None:
        self.changed(self.collection.put(skill))
        self.table.move_to(skill.id)

    def action_new(self) -> None:
        self.app.push_screen(SkillForm(None, self._take))

    def action_edit(self) -> None:
        if self.skill is not None:
            self.app.push_screen(SkillForm(self.skill, self._take))

    def action_attach(self) -> None:
        self.actions.attach(self.skill, self._agent_id)

    def action_detach(self) -> None:
        self.actions.detach(self.skill, self._agent_id)

    def action_delete(self) -> None:
        skill = self.skill
        if skill is not None:
            self.actions.delete(skill, lambda: self.changed(self.collection.remove(skill.id)))


def _size(skill: Skill) -> str:
    size = len(skill.content)
    return f"{size / 1000:.1f}k" if size >= 1000 else str(size)

"""What can be done to a skill from the library and from its own page: attach, detach, change, delete."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from textual.widgets import Input, TextArea

from lapconsole.client.errors import PlatformError
from lapconsole.client.models import Agent, Skill
from lapconsole.client.platform import Platform
from lapconsole.screens.confirm import Confirm
from lapconsole.screens.form import Field, Form
from lapconsole.screens.pick import Pick
from lapconsole.widgets.words import plural

if TYPE_CHECKING:
    from lapconsole.app import LapConsole

NAME_LIMIT = 200
CONTENT_LIMIT = 100_000

Taken = Callable[[Skill], None]


def attached_text(agent: Agent, skill_id: str) -> str | None:
    """A skill's text as it stands in an agent's prompt; None when it is not attached."""
    _, begin, rest = (agent.prompt or "").partition(f"<!-- skill:{skill_id} -->")
    if not begin:
        return None
    # Some platforms write no end: the block goes on to the next one, or to the end.
    for mark in (f"<!-- /skill:{skill_id} -->", "<!-- skill:"):
        rest = rest.partition(mark)[0]
    return rest.strip()


def attachment(agent: Agent, skill: Skill) -> str:
    """How an agent has a skill: "" not at all, "attached", or "older" where its text was changed since."""
    text = attached_text(agent, skill.id)
    if text is None:
        return "attached" if skill.id in agent.attached_skill_ids else ""
    return "attached" if text == skill.content.strip() else "older"


class SkillActions:
    """The operations, each of which asks where something is lost or somebody else's sessions change."""

    def __init__(self, console: LapConsole) -> None:
        self._console = console

    def attach(self, skill: Skill | None, agent_id: str | None) -> None:
        """Attach a skill to an agent: the one given, else one that is chosen."""
        if skill is None:
            return
        if agent_id is not None:
            self._attach(skill, self._console.model.agents.get(agent_id))
            return
        agents = [agent for agent in self._agents() if skill.id not in agent.attached_skill_ids]
        self._pick(f"Attach {skill.name} to", agents, "Every agent has it.", lambda agent: self._attach(skill, agent))

    def detach(self, skill: Skill | None, agent_id: str | None) -> None:
        """Detach a skill from an agent: the one given, else one that is chosen."""
        if skill is None:
            return
        if agent_id is not None:
            self._detach(skill, self._console.model.agents.get(agent_id))
            return
        agents = [agent for agent in self._agents() if skill.id in agent.attached_skill_ids]
        self._pick(f"Detach {skill.name} from", agents, "No agent has it.", lambda agent: self._detach(skill, agent))

    def _agents(self) -> list[Agent]:
        return sorted(self._console.model.agents.values(), key=lambda agent: agent.label.casefold())

    def _pick(self, title: str, agents: list[Agent], none: str, then: Callable[[Agent], None]) -> None:
        if not agents:
            self._console.notify(none, severity="warning")
            return

        def chosen(agent_id: str | None) -> None:
            if agent_id is not None and (agent := self._console.model.agents.get(agent_id)) is not None:
                then(agent)

        self._console.push_screen(
            Pick(title, [(agent.id, f"{agent.label}  ({agent.harness_id})") for agent in agents]), chosen
        )

    def _attach(self, skill: Skill, agent: Agent | None) -> None:
        if agent is None:
            return
        if skill.id in agent.attached_skill_ids:
            older = attachment(agent, skill) == "older"
            words = " with an older text: detach it, then attach it again" if older else " already"
            self._console.notify(f"{agent.label} has it{words}.")
            return
        size = plural(len(skill.content.strip()), "character")
        effects = (
            f"Its text ({size}) is put at the end of {agent.label}'s prompt.",
            "New sessions get it there, and as a file in the harness's folder of skills.",
            "Running sessions stay as they are.",
        )

        async def call(platform: Platform) -> None:
            self._console.model.update_agents([await platform.attach_skill(agent.id, skill.id)])

        self._ask(f"Attach {skill.name} to {agent.label}?", effects, f"Attach {skill.name}", call)

    def _detach(self, skill: Skill, agent: Agent | None) -> None:
        if agent is None:
            return
        if skill.id not in agent.attached_skill_ids:
            self._console.notify(f"{agent.label} does not have it.", severity="warning")
            return
        effects = [
            f"Its text is taken out of {agent.label}'s prompt; the rest of the prompt stays.",
            "New sessions do not get it any more. Running ones stay as they are.",
        ]
        if f"<!-- /skill:{skill.id} -->" not in (agent.prompt or ""):
            effects.append("Its text has no end mark: what was written after it, up to the next skill, goes with it.")

        async def call(platform: Platform) -> None:
            self._console.model.update_agents([await platform.detach_skill(agent.id, skill.id)])

        self._ask(f"Detach {skill.name} from {agent.label}?", effects, f"Detach {skill.name}", call)

    def restore(self, skill: Skill, number: int, content: str, taken: Taken) -> None:
        """Make a former content the present one again."""

        async def call(platform: Platform) -> None:
            taken(await platform.update_skill(skill.id, {"content": content}))

        effects = (
            f"Version {number} becomes the text of the skill; the present one is kept as a version.",
            "Files in new sessions have it at once. Prompts keep what was attached until it is detached and attached.",
        )
        self._ask(f"Bring back version {number} of {skill.name}?", effects, f"Bring back version {number}", call)

    def delete(self, skill: Skill | None, gone: Callable[[], None]) -> None:
        """Remove a skill from the library."""
        if skill is None:
            return
        users = [agent.label for agent in self._agents() if skill.id in agent.attached_skill_ids]
        effects = ["The skill and its versions are removed from the library for good."]
        if users:
            names = ", ".join(users[:5]) + (f" and {len(users) - 5} more" if len(users) > 5 else "")
            effects.append(
                f"{names} keep its text in the prompt, but get no file of it any more. To end that, detach it."
            )

        async def call(platform: Platform) -> None:
            try:
                await platform.delete_skill(skill.id)
            except PlatformError as error:
                if error.status != 404:  # gone already is what was wanted
                    raise
            gone()

        self._ask(f"Delete the skill {skill.name}?", effects, f"Delete {skill.name}", call)

    def _ask(self, title: str, effects: Iterable[str], what: str, call: Callable[[Platform], Awaitable[None]]) -> None:
        def answered(yes: bool | None) -> None:
            if yes:
                self._console.operations.perform(what, call)

        self._console.push_screen(Confirm(title, list(effects), place=self._console.label), answered)


class SkillForm(Form):
    """A skill, new or to be changed; sends what was changed, and nothing else."""

    HINTS = ("form.send", "form.cancel", "form.editor", "app.quit_always")

    def __init__(self, skill: Skill | None, taken: Taken) -> None:
        super().__init__()
        self._new = skill is None
        self._skill = skill or Skill("", "")
        self._taken = taken
        self.TITLE_WORDS = "New skill" if skill is None else f"Skill {skill.name}"

    def fields(self) -> Iterable[Field]:
        skill = self._skill
        yield Field(
            "name",
            "Name",
            Input(skill.name, id="name", compact=True, max_length=NAME_LIMIT, placeholder="e.g. write-release-notes"),
            required=True,
        )
        yield Field(
            "description",
            "Description",
            Input(skill.description, id="description", compact=True, placeholder="When should an agent use it?"),
        )
        yield Field(
            "content",
            "Text",
            TextArea(
                skill.content,
                id="content",
                classes="long",
                compact=True,
                tab_behavior="focus",
                placeholder="What to do, step by step. Markdown; ctrl+o opens your own editor.",
            ),
            required=True,
        )

    def problems(self) -> dict[str, str]:
        content = self.text("content")
        found = {
            "name": "" if self.text("name") else "a name is needed, such as write-release-notes",
            "content": "" if content else "there are no instructions yet",
        }
        if len(content) > CONTENT_LIMIT:
            found["content"] = f"{len(content)} characters; at most {CONTENT_LIMIT} are kept"
        return {name: words for name, words in found.items() if words}

    def values(self) -> dict[str, Any]:
        skill = self._skill
        stored = {
            "name": skill.name.strip(),
            "description": skill.description.strip(),
            "content": skill.content.strip(),
        }
        values: dict[str, Any] = {name: self.text(name) for name in stored}
        changed = {name: value for name, value in values.items() if value != stored[name]}
        if changed.get("description") == "":
            changed["description"] = None
        return changed

    async def send(self, platform: Platform, values: dict[str, Any]) -> None:
        if self._new:
            skill = await platform.create_skill(values)
        elif values:
            skill = await platform.update_skill(self._skill.id, values)
        else:
            skill = self._skill
        self.dismiss(None)
        self._taken(skill)
        if not values:
            self.console.notify("Nothing was changed.", timeout=3)
        elif "content" in values and not self._new:
            self.console.notify("It is kept. Prompts have the old text until it is detached and attached again.")
        else:
            self.console.notify("It is kept.", timeout=3)

"""The form that changes an agent: sends what was changed, and nothing else (LAP REST 2.5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from textual.content import Content
from textual.widgets import Input, Select, Static, TextArea

from lapconsole import rules
from lapconsole.client.models import Agent
from lapconsole.client.platform import Platform
from lapconsole.screens.form import Field, Form
from lapconsole.widgets.fields import MASK
from lapconsole.widgets.variables_area import VariablesArea

MOST_PRELOADED = 50
_LISTS = ("allow_out", "deny_out", "mcp_servers")


def shown_variables(agent: Agent) -> dict[str, str]:
    """An agent's variables for a form: the names, and stars for what is stored.

    What the platform itself put there is left out: it is kept without being sent, and refused when it is.
    """
    return {key: MASK for key in agent.env_vars if key not in rules.RESERVED_KEYS}


def sent_variables(agent: Agent, typed: Mapping[str, str]) -> dict[str, str]:
    """The variables to send: stars keep what is stored. Platforms that tell the values must be sent them again."""
    return {key: agent.env_vars.get(key, value) if value == MASK else value for key, value in typed.items()}


def fields_of(agent: Agent) -> dict[str, Any]:
    """What the form can change, as the platform takes it."""
    return {
        "name": agent.name or "",
        "model": agent.model or "",
        "branch": agent.branch or "",
        "prompt": (agent.prompt or "").strip(),
        "env_vars": shown_variables(agent),
        **{name: list(getattr(agent, name)) for name in _LISTS},
        "recording": bool(agent.recording),
        "preload_memory_limit": agent.preload_memory_limit,
    }


def entries(text: str) -> list[str]:
    """The entries of a list separated by commas or blanks."""
    return text.replace(",", " ").split()


class EditAgentScreen(Form):
    """Prefilled with what the agent is. What cannot be changed is shown with the reason."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self._agent = agent
        self._before = fields_of(agent)
        self._overwrite = False
        self.TITLE_WORDS = f"Agent {agent.label}"

    def fields(self) -> Iterable[Field]:
        agent, before = self._agent, self._before
        fixed = [agent.harness_id, agent.repo_url or "no repository"]
        if agent.requirements:
            fixed.append(f"requirements: {', '.join(agent.requirements.split())}")
        yield Field(
            "fixed",
            "Stays",
            Static(Content(f"{'; '.join(fixed)}. For others, make a new agent."), id="fixed", classes="fixed"),
        )
        yield Field("name", "Name", Input(before["name"], id="name", compact=True, max_length=200))
        yield Field("model", "Model", Input(before["model"], id="model", compact=True, max_length=200), required=True)
        if agent.repo_url:
            yield Field("branch", "Branch", Input(before["branch"], id="branch", compact=True, max_length=250))
        yield Field(
            "prompt",
            "Prompt",
            TextArea(before["prompt"], id="prompt", compact=True, tab_behavior="focus"),
        )
        area = VariablesArea("env_vars")
        area.text = "\n".join(f"{key}={value}" for key, value in sorted(before["env_vars"].items()))
        yield Field("env_vars", "Variables", area)
        for name, label, words in (
            ("allow_out", "May reach", "hosts, e.g. *.example.com; none: all"),
            ("deny_out", "May not reach", "hosts, e.g. 10.0.0.0/8"),
            ("mcp_servers", "MCP servers", "addresses"),
        ):
            yield Field(name, label, Input(", ".join(before[name]), id=name, compact=True, placeholder=words))
        if before["preload_memory_limit"] is not None:
            number = str(before["preload_memory_limit"])
            yield Field(
                "preload_memory_limit",
                "Memories told",
                Input(number, id="preload_memory_limit", compact=True, max_length=2),
            )
        if agent.recording is not None:
            choices = [("off", "off"), ("on, what the terminal shows is kept", "on")]
            value = "on" if agent.recording else "off"
            yield Field(
                "recording", "Recording", Select(choices, allow_blank=False, value=value, id="recording", compact=True)
            )

    def on_mount(self) -> None:
        self.query_one("#name").focus()

    def problems(self) -> dict[str, str]:
        typed, wrong = rules.parse_variables(self.text("env_vars"))
        unknown = [key for key, value in typed.items() if value == MASK and key not in self._agent.env_vars]
        if not wrong and unknown:
            wrong = f"{unknown[0]}: {MASK} stands for a stored value, and there is none; write the value"
        found = {"model": "" if self.text("model") else "a model is needed", "env_vars": wrong}
        if self._has("branch"):
            found["branch"] = rules.branch_problem(self.text("branch"))
        if self._has("preload_memory_limit"):
            number = self.text("preload_memory_limit")
            fits = number.isascii() and number.isdigit() and int(number) <= MOST_PRELOADED
            found["preload_memory_limit"] = "" if fits else f"a number from 0 to {MOST_PRELOADED}"
        return {name: words for name, words in found.items() if words}

    def values(self) -> dict[str, Any]:
        now: dict[str, Any] = {name: self.text(name) for name in ("name", "model", "prompt")}
        if self._has("branch"):
            now["branch"] = self.text("branch") or "main"
        now["env_vars"] = rules.parse_variables(self.text("env_vars"))[0]
        now |= {name: entries(self.text(name)) for name in _LISTS}
        if self._has("preload_memory_limit"):
            now["preload_memory_limit"] = int(self.text("preload_memory_limit"))
        if self._has("recording"):
            now["recording"] = self.text("recording") == "on"
        return {name: value for name, value in now.items() if value != self._before[name]}

    def _has(self, name: str) -> bool:
        return bool(self.query(f"#{name}"))

    async def send(self, platform: Platform, values: dict[str, Any]) -> None:
        if not values:
            self.dismiss(None)
            self.console.notify("Nothing was changed.", timeout=3)
            return
        if elsewhere := self._changed_elsewhere(values):
            self._overwrite = True
            self._show({}, f"Changed elsewhere meanwhile: {', '.join(elsewhere)}. Send again to overwrite that.")
            return
        if "env_vars" in values:
            values["env_vars"] = sent_variables(self._agent, values["env_vars"])
        agent = await platform.update_agent(self._agent.id, values)
        self.console.model.update_agents([agent])
        self.dismiss(None)
        self.console.notify(f"Agent {agent.label} is changed. New sessions are started with it; running ones are not.")

    def _changed_elsewhere(self, values: Mapping[str, Any]) -> list[str]:
        """What was changed here and, since the form was opened, also by somebody else."""
        present = self.console.model.agents.get(self._agent.id)
        if present is None or self._overwrite:
            return []
        now = fields_of(present)
        return [name for name in values if now[name] != self._before[name]]

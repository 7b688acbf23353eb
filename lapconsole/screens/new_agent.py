"""The form of a new agent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from textual.widgets import Input, Select, TextArea

from lapconsole import rules
from lapconsole.client.platform import Platform
from lapconsole.screens.form import Field, Form
from lapconsole.widgets.variables_area import VariablesArea

_ABOUT = {
    "claude-code": "claude-code, with a terminal",
    "codex": "codex, with a terminal",
    "opencode": "opencode, by messages",
    "claude-agent-sdk": "claude-agent-sdk, by messages",
}


class NewAgentScreen(Form):
    """Everything an agent needs to boot a sandbox (seed 003)."""

    TITLE_WORDS = "New agent"

    def fields(self) -> Iterable[Field]:
        choices = [(_ABOUT[harness], harness) for harness in rules.HARNESSES]
        yield Field("name", "Name", Input(id="name", compact=True, placeholder="e.g. code-reviewer", max_length=200))
        yield Field(
            "harness_id",
            "Harness",
            Select(choices, allow_blank=False, value=rules.HARNESSES[0], id="harness_id", compact=True),
            required=True,
        )
        yield Field(
            "model",
            "Model",
            Input(id="model", compact=True, placeholder="e.g. anthropic/claude-opus-4-7", max_length=200),
            required=True,
        )
        yield Field(
            "repo_url",
            "Repository",
            Input(id="repo_url", compact=True, placeholder="e.g. https://github.com/you/project or /a/path"),
        )
        yield Field(
            "branch", "Branch", Input(id="branch", compact=True, placeholder="the default is main", max_length=250)
        )
        yield Field(
            "prompt",
            "Prompt",
            TextArea(
                id="prompt", compact=True, tab_behavior="focus", placeholder="What is it for, and how should it work?"
            ),
        )
        yield Field("env_vars", "Variables", VariablesArea("env_vars"))
        yield Field(
            "requirements",
            "Requirements",
            TextArea(
                id="requirements",
                compact=True,
                tab_behavior="focus",
                placeholder="Python packages, one a line, e.g. httpx>=0.28",
            ),
        )
        yield Field(
            "recording",
            "Recording",
            Select(
                [("off", "off"), ("on, what the terminal shows is kept", "on")],
                allow_blank=False,
                value="off",
                id="recording",
                compact=True,
            ),
        )

    def problems(self) -> dict[str, str]:
        found = {
            "model": "" if self.text("model") else "a model is needed, such as anthropic/claude-opus-4-7",
            "repo_url": rules.repository_problem(self.text("repo_url")),
            "branch": rules.branch_problem(self.text("branch")),
            "env_vars": rules.parse_variables(self.text("env_vars"))[1],
        }
        return {name: words for name, words in found.items() if words}

    def values(self) -> dict[str, Any]:
        values: dict[str, Any] = {
            name: self.text(name)
            for name in ("name", "harness_id", "model", "repo_url", "branch", "prompt", "requirements")
        }
        values["env_vars"] = rules.parse_variables(self.text("env_vars"))[0]
        values["recording"] = self.text("recording") == "on"
        return {name: value for name, value in values.items() if value}

    async def send(self, platform: Platform, values: dict[str, Any]) -> None:
        agent = await platform.create_agent(values)
        self.console.model.update_agents([agent])
        self.dismiss(None)
        self.console.notify(f"Agent {agent.label} is made. Press c to start a session of it.")
        self.console.show_agent(agent.id)

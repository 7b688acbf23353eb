"""The form of a new session."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from textual.widgets import Input, Select, TextArea

from lapconsole import rules
from lapconsole.client.platform import Platform
from lapconsole.screens.form import Field, Form
from lapconsole.widgets.variables_area import VariablesArea


class NewSessionScreen(Form):
    """What one session gets on top of its agent (LAP REST 3.1). All of it may stay empty."""

    TITLE_WORDS = "New session"

    def __init__(self, agent_id: str | None) -> None:
        super().__init__()
        self._agent_id = agent_id

    def fields(self) -> Iterable[Field]:
        agents = sorted(self.console.model.agents.values(), key=lambda agent: agent.label.casefold())
        choices = [(f"{agent.label}  ({agent.harness_id})", agent.id) for agent in agents]
        chosen = self._agent_id if self._agent_id in self.console.model.agents else agents[0].id
        yield Field(
            "agent_id",
            "Agent",
            Select(choices, allow_blank=False, value=chosen, id="agent_id", compact=True),
            required=True,
        )
        yield Field(
            "title", "Title", Input(id="title", compact=True, placeholder="What is this session for?", max_length=200)
        )
        yield Field(
            "initial_prompt",
            "First message",
            TextArea(
                id="initial_prompt",
                compact=True,
                tab_behavior="focus",
                placeholder="Sent when the agent is ready",
            ),
        )
        yield Field("env_vars", "Variables", VariablesArea("env_vars"))
        yield Field(
            "recording",
            "Recording",
            Select(
                [("as its agent says", "agent"), ("off", "off"), ("on, what the terminal shows is kept", "on")],
                allow_blank=False,
                value="agent",
                id="recording",
                compact=True,
            ),
        )

    def on_mount(self) -> None:
        self.query_one("#title").focus()

    def problems(self) -> dict[str, str]:
        problem = rules.parse_variables(self.text("env_vars"))[1]
        return {"env_vars": problem} if problem else {}

    def values(self) -> dict[str, Any]:
        values: dict[str, Any] = {name: self.text(name) for name in ("agent_id", "title", "initial_prompt")}
        values["env_vars"] = rules.parse_variables(self.text("env_vars"))[0]
        given = {name: value for name, value in values.items() if value}
        if (recording := self.text("recording")) != "agent":
            given["recording"] = recording == "on"
        return given

    async def send(self, platform: Platform, values: dict[str, Any]) -> None:
        session = await platform.create_session(values.pop("agent_id"), values)
        self.console.model.update_sessions([session])
        self.dismiss(None)
        self.console.open_session(session.id, own=True)

"""What the agent tells the user past the screen: title, bell, notification, progress, and its own state (OSC 7501)."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from backend.domain.terminal import AGENT_STATES, BODY_LIMIT, TITLE_LIMIT, WORD_LIMIT
from backend.harness.text import fit

if TYPE_CHECKING:
    from lapconsole.terminal.emulator import Notice

BELL_SECONDS = 1.0
"""Bells closer together are one."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known now; times are seconds since the epoch.

    notification: title, body, at. progress: state (none, normal, error, indeterminate, paused), value (0 to 100).
    agent_state: state (one of AGENT_STATES), app, kind, title, message, at; all texts, empty where not given.
    """

    title: str = ""
    bell_at: float | None = None
    notification: Mapping[str, Any] | None = None
    progress: Mapping[str, Any] | None = None
    agent_state: Mapping[str, Any] | None = None

    def without_activity(self) -> "Facts":
        """What is still true once the agent has ended."""
        return replace(self, progress=None, agent_state=None)


NO_FACTS = Facts()


def after(facts: Facts, notices: "Iterable[Notice]") -> tuple[Facts, bool]:
    """The facts after these notices, and whether the platform should hear of them at once."""
    now, urgent = time.time(), False
    for notice in notices:
        match notice.kind:
            case "title":
                facts = replace(facts, title=fit(notice.text, TITLE_LIMIT))
            case "bell":
                if facts.bell_at is None or now - facts.bell_at >= BELL_SECONDS:
                    facts = replace(facts, bell_at=now)
            case "progress":
                percent = notice.fields.get("percent", "0")
                facts = replace(facts, progress={"state": notice.fields.get("state"), "value": int(percent)})
            case "notification":
                title, body = fit(notice.fields.get("title", ""), TITLE_LIMIT), fit(notice.text, BODY_LIMIT)
                facts = replace(facts, notification={"title": title, "body": body, "at": now})
                urgent = True
            case "activity" if notice.fields["state"] in AGENT_STATES:
                state = _agent_state(notice)
                if facts.agent_state is None or state != {**facts.agent_state, "at": None}:
                    facts = replace(facts, agent_state={**state, "at": now})
                    urgent = True
    return facts, urgent


def _agent_state(notice: "Notice") -> dict[str, Any]:
    fields = notice.fields
    return {
        "state": fields["state"],
        "app": fit(fields.get("app", ""), WORD_LIMIT),
        "kind": fit(fields.get("kind", ""), WORD_LIMIT),
        "title": fit(fields.get("title", ""), TITLE_LIMIT),
        "message": fit(notice.text, BODY_LIMIT),
        "at": None,
    }

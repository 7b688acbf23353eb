"""A console with hand-made data: a frozen clock, a platform that follows a script, nothing on the network."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from lapconsole.app import LapConsole
from lapconsole.client.egress import Walls
from lapconsole.client.models import PHASES, Agent, Event, EventPage, Session
from lapconsole.connection import Address
from lapconsole.live.model import Link, LinkState
from lapconsole.settings import Settings
from lapconsole.widgets.words import UNICODE

NOW = datetime(2026, 3, 14, 3, 7, 21, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


class NoConnection:
    """A platform that never gets an address: the console stays as the test fills it."""

    def __init__(self, label: str = "embedded") -> None:
        self.label = label
        self.asked = 0

    async def resolve(self) -> Address:
        self.asked += 1
        await asyncio.Event().wait()
        raise AssertionError

    async def close(self) -> None:
        return None


class ScriptedPlatform:
    """Answers calls from a script, by method name: a value to return, or an error to raise. Keeps what was called."""

    def __init__(self, **script: Any) -> None:
        self.script: dict[str, Any] = {
            "sandbox_logs": "",
            "event_log": EventPage((), None),
            "walls": Walls(),
            "problems": (),
            **script,
        }
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            answer = self.script.get(name)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    def called(self, name: str) -> list[tuple[Any, ...]]:
        return [args for called, args, _ in self.calls if called == name]


def agent(number: int, name: str, harness: str = "claude-code", **fields: Any) -> Agent:
    values: dict[str, Any] = {
        "id": f"0a9e0000-0000-4000-8000-{number:012d}",
        "name": name,
        "harness_id": harness,
        "supports_tui": harness in ("claude-code", "codex"),
        "model": "anthropic/claude-opus-4-7",
        "repo_url": f"https://github.com/acme/{name}.git",
        "branch": "main",
        "created_at": ago(86400 * number),
    }
    return Agent(**{**values, **fields})


def session(number: int, of: Agent, status: str = "ready", **fields: Any) -> Session:
    created = fields.pop("age", 60.0 * number)
    phase = fields.get("phase", "ready" if status in ("ready", "dead") else "waiting_harness")
    values: dict[str, Any] = {
        "id": f"5e550000-0000-4000-8000-{number:012d}",
        "agent_id": of.id,
        "agent_name": of.name,
        "harness_id": of.harness_id,
        "supports_tui": of.supports_tui,
        "status": status,
        "phase": phase,
        "created_at": ago(created),
        "creating_since": ago(created),
        "ready_at": ago(created - 9.4) if status in ("ready", "dead") else None,
        "last_seen_at": ago(created / 5) if status == "ready" else None,
        "stopped_at": ago(created / 2) if status in ("failed", "dead") else None,
        "furthest": PHASES.index(phase) + 1,
        "idle_timeout_ms": 86400000,
        "task_arn": f"lap-{number:04x}",
    }
    return Session(**{**values, **fields})


PAYMENTS = agent(
    1,
    "payments-api",
    prompt="You keep the payments service healthy.\nTests first, small changes.",
    env_vars={"GITHUB_TOKEN": "ghp_secret", "STRIPE_KEY": "sk_secret"},
)
REVIEWER = agent(2, "code-reviewer", "codex", model="openai/gpt-5.4-codex")
DOCS = agent(3, "docs-writer", "opencode", repo_url="https://github.com/acme/handbook.git")
NIGHTLY = agent(4, "nightly-upgrade", "claude-agent-sdk", requirements="httpx>=0.28\npydantic")
AGENTS = (PAYMENTS, REVIEWER, DOCS, NIGHTLY)

CLONE_FAILED = (
    "Cloning https://github.com/acme/handbook.git at branch 'releases/next' failed: fatal: Remote branch "
    "releases/next not found in upstream origin. Check the agent's branch, then restart the session."
)


def sessions() -> list[Session]:
    made = [
        session(1, DOCS, "failed", age=214, phase="cloning_repo", failure_reason=CLONE_FAILED, title="Release notes"),
        session(
            2, NIGHTLY, "creating", age=171, phase="installing_deps", phase_detail="uv pip install: 41 of 96 packages"
        ),
        session(3, PAYMENTS, "creating", age=4, phase="pod_running", title="Refund rounding bug"),
        session(4, PAYMENTS, "ready", age=1260, title="Idempotency keys", viewers=2),
        session(5, PAYMENTS, "ready", age=4100, title="Flaky ledger test"),
        session(6, REVIEWER, "ready", age=66, title="PR 4211: retries"),
        session(7, REVIEWER, "ready", age=7300, title="PR 4198: 日本語の説明を直す"),
        session(8, NIGHTLY, "dead", age=30000, failure_reason="stopped"),
        session(9, REVIEWER, "dead", age=200000, failure_reason="idle for 24 h"),
    ]
    return made + [
        session(number, (PAYMENTS, REVIEWER)[number % 2], age=9000.0 + 400 * number) for number in range(20, 44)
    ]


def console(
    *,
    agents: tuple[Agent, ...] = AGENTS,
    rows: list[Session] | None = None,
    link: Link | None = None,
    platform: Any = None,
    label: str = "embedded",
    preferences: dict[str, Any] | None = None,
) -> LapConsole:
    """A console filled with data, its link live unless told otherwise."""
    app = LapConsole(NoConnection(label), settings=Settings(preferences=preferences or {}), clock=Clock())
    app.glyphs = UNICODE
    app.model.update_agents(agents)
    rows = sessions() if rows is None else rows
    for row in rows:  # as the feed brings them, so that times of phases stand still, too
        app.model.apply(Event("session.phase", at=row.creating_since, session=row))
    app.model.set_link(link or Link(LinkState.LIVE, ago(600)))
    app.model.flush()
    app.platform = platform if platform is not None else ScriptedPlatform()
    return app

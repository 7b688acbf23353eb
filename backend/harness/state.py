"""What the harness tells the platform: one versioned state, and its watchers."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from backend.harness.notices import NO_FACTS, Facts

NOTIFY_SECONDS = 0.1
"""Watchers get at most one frame in this time."""
URGENT_SECONDS = 0.02
"""The same for changes that somebody waits for."""
TOUCH_SECONDS = 5.0
"""Input and output alone change the version at most once in this time."""

Setup = Literal["waiting", "running", "done", "failed"]


@dataclass(slots=True)
class Agent:
    """The agent's process; `exit_code` and `signal` tell how the last one ended (one of them is None)."""

    running: bool = False
    pid: int | None = None
    exit_code: int | None = None
    signal: int | None = None


class State:
    """The state behind `GET /state` and `GET /watch`. Lives on the event loop's thread."""

    def __init__(self) -> None:
        self.version = 1
        self.phase: str | None = None
        self.phase_detail: str | None = None
        self.phases: list[dict[str, str | None]] = []
        """Every phase entered, in order: a watcher that comes late, or gets one frame for two, misses none."""
        self.setup: Setup = "waiting"
        self.failure: str | None = None
        self.session: str | None = None
        """What an API harness calls its session, once it has one."""
        self.agent = Agent()
        self.terminal = NO_FACTS
        self.activity: dict[str, Any] | None = None
        """As harness.activity tells it."""
        self.viewers = 0
        self.attached: list[dict[str, Any]] = []
        """Name, mode and since of each viewer."""
        self.columns = 100
        self.rows = 30
        self._last_input: float | None = None
        self._last_output: float | None = None
        self._touched_at = 0.0
        self._touch_timer: asyncio.TimerHandle | None = None
        self._notified_at = 0.0
        self._notify_timer: asyncio.TimerHandle | None = None
        self._watchers: set[Callable[[bytes], None]] = set()

    def update(self, *, urgent: bool = False, **changes: Any) -> None:
        """Sets attributes; if any of them really changed, the version grows and watchers hear of it, or soon."""
        changed = {name: value for name, value in changes.items() if getattr(self, name) != value}
        if not changed:
            return
        for name, value in changed.items():
            setattr(self, name, value)
        if changed.get("phase"):
            self.phases.append({"phase": self.phase, "detail": self.phase_detail, "at": iso(time.time())})
        self._changed(URGENT_SECONDS if urgent else NOTIFY_SECONDS)
        if "phase" in changed or "setup" in changed:
            self._notify()  # bring-up waits for these: no pacing

    def touch_input(self) -> None:
        """Notes that a viewer typed."""
        self._last_input = time.time()
        self._touch()

    def touch_output(self) -> None:
        """Notes that the agent wrote."""
        self._last_output = time.time()
        self._touch()

    def snapshot(self) -> dict[str, Any]:
        """The JSON of `GET /state`."""
        agent = self.agent
        return {
            "version": self.version,
            "phase": self.phase,
            "phase_detail": self.phase_detail,
            "phases": self.phases,
            "setup": self.setup,
            "failure": self.failure,
            "session": self.session,
            "agent": {
                "running": agent.running,
                "pid": agent.pid,
                "exit_code": agent.exit_code,
                "signal": agent.signal,
            },
            "title": self.terminal.title,
            "terminal": _facts(self.terminal),
            "activity": self.activity,
            "viewers": self.viewers,
            "attached": self.attached,
            "columns": self.columns,
            "rows": self.rows,
            "last_input_at": iso(self._last_input),
            "last_output_at": iso(self._last_output),
        }

    def frame(self) -> bytes:
        """The present state as one server-sent event."""
        return b"data: " + json.dumps(self.snapshot(), ensure_ascii=False).encode() + b"\n\n"

    def watch(self, watcher: Callable[[bytes], None]) -> Callable[[], None]:
        """Calls `watcher` with a frame at once and after every change; returns what ends that."""
        self._watchers.add(watcher)
        watcher(self.frame())
        return lambda: self._watchers.discard(watcher)

    def close(self) -> None:
        """Cancels the timers."""
        for timer in (self._touch_timer, self._notify_timer):
            if timer is not None:
                timer.cancel()

    def _touch(self) -> None:
        if self._touch_timer is None:
            loop = asyncio.get_running_loop()
            self._touch_timer = loop.call_at(max(loop.time(), self._touched_at + TOUCH_SECONDS), self._touched)

    def _touched(self) -> None:
        self._touch_timer = None
        self._touched_at = asyncio.get_running_loop().time()
        self._changed()

    def _changed(self, pace: float = NOTIFY_SECONDS) -> None:
        self.version += 1
        if not self._watchers:
            return
        loop = asyncio.get_running_loop()
        due = max(loop.time(), self._notified_at + pace)
        if self._notify_timer is not None:
            if self._notify_timer.when() <= due:
                return
            self._notify_timer.cancel()
        self._notify_timer = loop.call_at(due, self._notify)

    def _notify(self) -> None:
        if self._notify_timer is not None:
            self._notify_timer.cancel()
            self._notify_timer = None
        self._notified_at = asyncio.get_running_loop().time()
        frame = self.frame()
        for watcher in tuple(self._watchers):
            watcher(frame)


def _facts(facts: Facts) -> dict[str, Any]:
    """The JSON of what the agent has told."""
    notification, agent_state = (
        {**told, "at": iso(told["at"])} if told else None for told in (facts.notification, facts.agent_state)
    )
    return {
        "title": facts.title,
        "bell_at": iso(facts.bell_at),
        "notification": notification,
        "progress": facts.progress,
        "agent_state": agent_state,
    }


def iso(at: float | None) -> str | None:
    """Seconds since the epoch as ISO 8601 in UTC."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

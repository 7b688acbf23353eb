"""The agent's activity as the harness tells it: hands what comes in to the rules, and their answer to the watchers."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from backend.domain import activity, bus_activity
from backend.domain.activity import Hook, Known
from backend.domain.terminal import BODY_LIMIT
from backend.harness.processes import describe_exit
from backend.harness.state import State, iso
from backend.harness.text import fit

if TYPE_CHECKING:
    from lapconsole.terminal.emulator import Notice


HOOK_SECONDS = 60.0
"""Longest way of a hook's message that is believed."""


class Activity:
    """Keeps `State.activity`, which is None until an agent has been started. Lives on the event loop's thread.

    `mask` hides secrets in what agents say.
    """

    def __init__(self, state: State, mask: Callable[[str], str]) -> None:
        self._state = state
        self._mask = mask
        self._known: Known | None = None

    def started(self) -> None:
        """The agent's process has been started, perhaps anew."""
        self._tell(activity.started(time.time()))

    def ready(self) -> None:
        """The server of an API harness answers, and no turn is under way."""
        self._apply(activity.ready, time.time())

    def exited(self, exit_code: int | None, signal: int | None) -> None:
        """The agent's process has ended, with an exit code or by a signal."""
        words = describe_exit(-signal if signal is not None else exit_code or 0)
        self._apply(activity.ended, exit_code, signal, words, time.time())

    def typed(self) -> None:
        """A person has typed into the terminal."""
        self._apply(activity.typed, time.time())

    def notice(self, notice: "Notice") -> None:
        """What the agent's program wrote for its terminal, besides text."""
        now = time.time()
        match notice.kind:
            case "bell":
                self._apply(activity.hinted, None, now)
            case "notification":
                words = ": ".join(filter(None, (notice.fields.get("title", ""), notice.text)))
                self._apply(activity.hinted, words, now)
            case "activity":
                state, kind = notice.fields["state"], notice.fields.get("kind", "")
                self._apply(activity.terminal_said, state, kind, notice.text, now)

    def hook(self, hook: Hook) -> None:
        """A hook of the agent's program was called; when, is its own word."""
        now = time.time()
        self._apply(activity.hook_said, replace(hook, at=min(max(hook.at, now - HOOK_SECONDS), now)))

    def bus_event(self, event: Mapping[str, Any]) -> None:
        """An event of an API harness: `{"type", "properties"}`; whatever else it is, is ignored."""
        kind, properties = event.get("type"), event.get("properties")
        if isinstance(kind, str) and isinstance(properties, Mapping):
            self._apply(bus_activity.said, kind, properties, time.time())

    def _apply(self, rule: Callable[..., Known], *told: Any) -> None:
        if self._known is not None:
            self._tell(rule(self._known, *told))

    def _tell(self, known: Known) -> None:
        now = known.now
        if now.message is not None:
            now = replace(now, message=fit(self._mask(now.message), BODY_LIMIT) or None)
        before, self._known = self._known, replace(known, now=now)
        if before is not None and before.now == now:
            return
        told = {"state": now.state, "since": iso(now.since), "reason": now.reason, "message": now.message}
        self._state.update(activity=told, urgent=activity.urgent(told, self._state.activity))

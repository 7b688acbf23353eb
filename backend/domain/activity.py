"""What a session's agent is doing, and since when: the rules that make one answer of all that is told.

Who tells, lowest first; the highest that has told in this run of the agent decides what is so:

- `HINT`: a bell or a notification (OSC 9, OSC 777). Somebody is called, nothing says what for (the reason is None),
  and the call is answered once a person types. For programs that tell nothing else; a bell just after a key is none,
  as it answers the key.
- `HOOK`: the hooks of Claude Code and Codex, and Codex's `notify`. They come on a way of their own, so they can be
  late, and no hook tells of an interruption. Beside a better source they only add what it leaves out.
- `TERMINAL`: what Claude Code and Codex write to their terminal (OSC 7501), in the order in which it happens.
- `BUS`: the events of an API harness (domain.bus_activity).

Nothing ever follows from silence or from what the screen shows: a program that tells nothing is `unknown`. An agent
whose process has ended is `idle`, and the reason says how it ended.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Final

from backend.domain.terminal import AGENT_STATES, BODY_LIMIT, line, moment

WORKING: Final = "working"
WAITING: Final = "waiting_for_input"
IDLE: Final = "idle"
UNKNOWN: Final = "unknown"

STATES: Final = frozenset({WORKING, WAITING, IDLE, UNKNOWN})
REASONS: Final = frozenset(
    {"permission", "question", "turn_finished", "crashed", "exited", "error", "interrupted", "started"}
)

LATE_SECONDS: Final = 1.0
"""How long before the terminal tells of a turn the hook that begins it may have been called."""
ECHO_SECONDS: Final = 1.0
"""A bell so soon after a key answers it: shells ring when there is nothing to complete."""
QUESTION_TOOLS: Final = frozenset({"AskUserQuestion"})
_SHELL_SIGNAL, _LAST_SIGNAL = 128, 64
_REQUESTS_TO_END: Final = frozenset({1, 2, 15})
"""SIGHUP, SIGINT and SIGTERM: who ends by one of these was asked to."""
_OPENINGS: Final = {"approve ": "permission", "answer: ": "question"}
"""How Claude Code begins its words for what it waits for; the reason says as much."""


class Source(IntEnum):
    """Who has told, in this run of the agent."""

    NOBODY = 0
    HINT = 1
    HOOK = 2
    TERMINAL = 3
    BUS = 4


@dataclass(frozen=True, slots=True)
class Activity:
    """The answer. `since` is when it began, in seconds since the epoch, and not when it was last told."""

    state: str
    since: float
    reason: str | None = None
    message: str | None = None

    @property
    def busy(self) -> bool:
        """Whether a turn is under way, be it that it waits for a person."""
        return self.state in (WORKING, WAITING)


@dataclass(frozen=True, slots=True)
class Hook:
    """One call of a hook: the program's own name for the event, and when it was called.

    `kind` is how a conversation began, or of what kind a notification is. `tool` and `text` say what the event is
    about: a tool and what it is to do, or the words of a notification or an error.
    """

    event: str
    at: float
    conversation: str = ""
    kind: str = ""
    tool: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """All that is remembered of one run of the agent; `now` is what the outside sees."""

    now: Activity
    began: float = 0.0
    over: bool = False
    """Whether the agent's process has ended."""
    source: Source = Source.NOBODY
    busy_since: float = 0.0
    """When it last stopped being idle."""
    before: str | None = "started"
    """Why it was idle until then."""
    turn_at: float = -1.0
    """The newest sign that what it works on is a turn: programs also do small affairs of their own."""
    typed_at: float = -ECHO_SECONDS
    """When a person last typed."""
    conversation: str = ""
    """The one that the terminal's program leads. One that the agent starts in turn leads another."""
    hook_at: float = 0.0
    """When the newest hook was called."""
    request: Hook | None = None
    """The newest request for a permission, or question, that a hook has told of."""
    requests: tuple[tuple[str, str, str | None], ...] = ()
    """What waits for an answer on the bus, oldest first: id, reason and message."""
    parts: frozenset[str] = frozenset()
    """Conversations on the bus that are parts of another: its sub-agents."""
    statuses: bool = False
    """Whether the bus tells when a turn begins."""


def started(at: float) -> Known:
    """The agent's process has been started, and has told nothing yet."""
    return Known(Activity(UNKNOWN, at, "started"), began=at)


def ready(known: Known, at: float) -> Known:
    """An API harness has begun to serve."""
    return known if known.over else stop(replace(known, source=Source.BUS), "started", at)


def ended(known: Known, exit_code: int | None, signal: int | None, message: str, at: float) -> Known:
    """The agent's process has ended, with an exit code or by a signal, which a shell around it tells as 128 more."""
    number = signal or max((exit_code or 0) - _SHELL_SIGNAL, 0)
    crashed = 0 < number <= _LAST_SIGNAL and number not in _REQUESTS_TO_END
    return replace(known, now=Activity(IDLE, at, "crashed" if crashed else "exited", message), over=True)


def typed(known: Known, at: float) -> Known:
    """A person has typed: a call has been answered, and a turn that ends now may have been interrupted."""
    if known.over:
        return known
    known = replace(known, typed_at=at, turn_at=at if known.now.busy else known.turn_at)
    if known.source is Source.HINT:
        return change(replace(known, source=Source.NOBODY), UNKNOWN, None, None, at)
    return known


def hinted(known: Known, message: str | None, at: float) -> Known:
    """A notification, or a bell (None)."""
    if known.over or known.source > Source.HINT:
        return known
    if message is None and at - known.typed_at < ECHO_SECONDS:
        return known
    return change(replace(known, source=Source.HINT), WAITING, None, message or known.now.message, at)


def terminal_said(known: Known, state: str, kind: str, message: str, at: float) -> Known:
    """OSC 7501: one of AGENT_STATES; others are ignored."""
    if known.over or known.source > Source.TERMINAL or state not in AGENT_STATES:
        return known
    if state == "clear":  # The program leaves the terminal, perhaps to another one: what it told is void.
        return replace(started(at), now=Activity(UNKNOWN, at)) if known.source is Source.TERMINAL else known
    known = replace(known, source=Source.TERMINAL)
    if state == "working":
        return work(known, at, message)
    if state == "blocked":
        return _blocked(known, kind, message, at)
    if state in ("done", "error"):
        return stop(known, "turn_finished" if state == "done" else "error", at, message)
    if known.now.state == IDLE:  # Codex takes its "done" back as soon as a person types.
        return known
    if not known.now.busy:
        return stop(known, "started", at)
    interrupted = known.turn_at >= known.busy_since - LATE_SECONDS
    return stop(known, "interrupted" if interrupted else known.before, at)


def hook_said(known: Known, hook: Hook) -> Known:
    """A hook of the terminal's program was called."""
    if known.over or known.source > Source.TERMINAL or hook.at < known.began:
        return known
    if hook.conversation != known.conversation and known.conversation:
        return known
    if hook.event == "SessionEnd":  # Another conversation follows in the same program, or the program ends.
        return replace(known, conversation="")
    late = hook.at < known.hook_at
    known = replace(known, conversation=hook.conversation, hook_at=max(hook.at, known.hook_at))
    if known.source is Source.TERMINAL:
        return _added(known, hook)
    return known if late else _by_hooks(replace(known, source=Source.HOOK), hook)


def shown(told: Any) -> dict[str, Any] | None:
    """An activity as it is stored and shown, from what a harness tells; None when that is none.

    {"state", "since", "reason": one of REASONS | None, "message": str | None}
    """
    if not isinstance(told, Mapping):
        return None
    state, reason, since = told.get("state"), told.get("reason"), moment(told.get("since"))
    if not isinstance(state, str) or state not in STATES or since is None:
        return None
    return {
        "state": state,
        "since": since,
        "reason": reason if isinstance(reason, str) and reason in REASONS else None,
        "message": line(told.get("message"), BODY_LIMIT) or None,
    }


def urgent(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Whether two stored activities differ in more than the words for what is being worked on."""
    if one is None or other is None or one["state"] != WORKING:
        return one != other
    return {**one, "message": None} != {**other, "message": None}


def works(activity: Mapping[str, Any] | None) -> bool:
    """Whether a stored activity says that the agent is at work."""
    return activity is not None and activity["state"] == WORKING


# What the rules are made of, here and in domain.bus_activity.


def change(known: Known, state: str, reason: str | None, message: str | None, at: float) -> Known:
    """`now` as given. It began at `at`, unless it is so already and merely in other, or more, words.

    To be asked another thing is something new.
    """
    was = known.now
    message = message or None
    same = (was.state, was.reason) == (state, reason)
    if same and (state != WAITING or was.message is None or was.message == message):
        return replace(known, now=replace(was, message=message))
    return replace(known, now=Activity(state, at, reason, message))


def work(known: Known, at: float, message: str | None = None) -> Known:
    """It works."""
    if not known.now.busy:
        before = known.now.reason if known.now.state == IDLE else "started"
        known = replace(known, busy_since=at, before=before)
    return change(known, WORKING, None, message, at)


def wait(known: Known, reason: str | None, message: str | None, at: float) -> Known:
    """It waits for a person, in a turn."""
    if not known.now.busy:
        known = work(known, at)
    return change(replace(known, turn_at=at), WAITING, reason, message, at)


def stop(known: Known, reason: str | None, at: float, message: str | None = None) -> Known:
    """It is idle."""
    return change(replace(known, request=None, requests=()), IDLE, reason, message, at)


def _blocked(known: Known, kind: str, message: str, at: float) -> Known:
    """The terminal's program waits. What for, it says itself (Claude Code) or has told a hook (Codex)."""
    reason = kind if kind in ("permission", "question") else None
    for opening, meaning in _OPENINGS.items():
        if message.startswith(opening):
            message, reason = message.removeprefix(opening), reason or meaning
    request = known.request
    if request is not None and (known.now.state != WORKING or request.at >= known.now.since):
        message, reason = message or _words(request), reason or _why(request)
    if not message and (known.now.state, known.now.reason) == (WAITING, reason):
        message = known.now.message or ""
    return wait(known, reason, message, at)


def _added(known: Known, hook: Hook) -> Known:
    """With what a hook adds to what the terminal has told, or is about to tell."""
    now = known.now
    match hook.event:
        case "UserPromptSubmit":
            return replace(known, turn_at=max(known.turn_at, hook.at))
        case "SessionStart" if hook.kind != "compact" and hook.at >= known.busy_since:
            if now.busy:
                return replace(known, before="started")
            return replace(known, now=replace(now, reason="started", message=None))
        case "PermissionRequest":
            known = replace(known, request=hook)
            if now.state == WAITING and now.message is None and hook.at >= known.busy_since:
                return change(known, WAITING, now.reason or _why(hook), _words(hook), now.since)
    return known


def _by_hooks(known: Known, hook: Hook) -> Known:
    """The state by hooks alone."""
    at = hook.at
    match hook.event, hook.kind:
        case "SessionStart", kind if kind != "compact":
            return stop(known, "started", at)
        case "UserPromptSubmit", _:
            return work(known, at)
        case "PermissionRequest", _:
            return wait(known, _why(hook), _words(hook), at)
        case "Notification", "permission_prompt" if known.now.state != WAITING:
            return wait(known, "permission", hook.text, at)
        case "Notification", "elicitation_dialog" if known.now.state != WAITING:
            return wait(known, "question", hook.text, at)
        case "Notification", "idle_prompt" if known.now.busy:  # Nothing else tells that it was interrupted.
            return stop(known, "interrupted", at)
        case "PostToolUse" | "PostToolUseFailure", _ if known.now.state == WAITING:
            return work(known, at)
        case "Stop" | "agent-turn-complete", _:
            return stop(known, "turn_finished", at)
        case "StopFailure", _:
            return stop(known, "error", at, hook.text)
    return known


def _why(request: Hook) -> str:
    return "question" if request.tool in QUESTION_TOOLS else "permission"


def _words(request: Hook) -> str:
    if request.tool in QUESTION_TOOLS:
        return request.text
    return ": ".join(filter(None, (request.tool, request.text)))

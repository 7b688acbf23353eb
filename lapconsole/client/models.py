"""What a platform says about agents, sessions and events, as typed values.

Reading is tolerant: unknown keys are ignored, and a missing or wrongly typed value becomes the default, so that an
older, newer or foreign platform never breaks the console. Text is made safe to show: control characters, lone
surrogates and direction overrides never come through.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Generic, TypeVar

# Seed 000, in order of bring-up. Harness and platform report side by side, so a session may step back (LAP REST 4.2).
PHASES = (
    "creating_sandbox",
    "pod_pending",
    "pod_running",
    "injecting_files",
    "waiting_harness",
    "harness_ready",
    "cloning_repo",
    "installing_deps",
    "harness_listening",
    "ready",
)
_STEPS = {phase: step for step, phase in enumerate(PHASES, start=1)}

STATUSES = ("creating", "ready", "failed", "dead")
TERMINAL = frozenset({"failed", "dead"})

# Harnesses with a terminal, for platforms that do not send supports_tui (LAP REST 2.1).
_TUI_HARNESSES = frozenset({"claude-code", "codex", "hermes", "gemini"})

_ASKED = {"permission": "asks for a permission", "question": "asks a question"}
_RESTS = {
    "turn_finished": "your turn",
    "interrupted": "interrupted",
    "exited": "exited",
    "crashed": "crashed",
    "error": "error",
}
_EXIT_CODE = re.compile(r"exit code (\d+)")
# Reasons for an agent to be idle that call for a person.
_ENDINGS = frozenset({"crashed", "exited", "error"})

_SEVERITIES = {"high": 0, "med": 1}
_OF_THE_MACHINE = frozenset({"machine_busy", "node_oversubscribed", "node_pressure"})

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_BUT_LINES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

Json = Mapping[str, object]
T = TypeVar("T")


def step_of(phase: str | None) -> int:
    """Place of a phase in bring-up, 1..10; 0 for none or one we do not know."""
    return _STEPS.get(phase or "", 0)


def seconds_since(moment: datetime | None, now: datetime) -> float | None:
    """Seconds from `moment` to `now`, never negative (clocks differ); None without a moment."""
    return None if moment is None else max(0.0, (now - moment).total_seconds())


def safe_line(text: str) -> str:
    """The text as one line that cannot drive a terminal."""
    return text if text.isprintable() else _UNSAFE.sub(" ", text)


def safe_text(text: str) -> str:
    """The text with its line breaks and tabs, and nothing else that could drive a terminal."""
    return text if text.isprintable() else _UNSAFE_BUT_LINES.sub(" ", text.replace("\r\n", "\n"))


@dataclass(frozen=True, slots=True)
class SandboxFile:
    """A file put into an agent's sandboxes. `size` in bytes."""

    name: str
    sandbox_path: str
    content_type: str
    size: int

    @classmethod
    def from_json(cls, value: object) -> SandboxFile:
        """Read one entry of `sandbox_files`; the content itself is left out."""
        data = as_object(value)
        return cls(
            name=_line(data, "name") or "",
            sandbox_path=_line(data, "sandbox_path") or "",
            content_type=_line(data, "content_type") or "",
            size=_count(data, "size") or 0,
        )


@dataclass(frozen=True, slots=True)
class Agent:
    """A blueprint sessions are made from (seed 003). Values of `env_vars` may be masked by the platform."""

    id: str
    name: str | None = None
    model: str | None = None
    prompt: str | None = None
    harness_id: str = ""
    supports_tui: bool = False
    repo_url: str | None = None
    branch: str | None = None
    pfp_url: str | None = None
    requirements: str | None = None
    recording: bool | None = None
    preload_memory_limit: int | None = None
    harness_image: str | None = None
    mcp_servers: tuple[str, ...] = ()
    env_vars: Mapping[str, str] = field(default_factory=dict)
    attached_skill_ids: tuple[str, ...] = ()
    allow_out: tuple[str, ...] = ()
    deny_out: tuple[str, ...] = ()
    sandbox_files: tuple[SandboxFile, ...] = ()
    created_at: datetime | None = None
    session_count: int | None = None
    has_active_session: bool | None = None

    @classmethod
    def from_json(cls, value: object) -> Agent:
        """Read an ApiAgent; `id` is "" when there is none."""
        data = as_object(value)
        harness_id = _line(data, "harness_id") or ""
        supports_tui = _flag(data, "supports_tui")
        return cls(
            id=_line(data, "id") or "",
            name=_line(data, "name"),
            model=_line(data, "model"),
            prompt=_text(data, "prompt"),
            harness_id=harness_id,
            supports_tui=harness_id in _TUI_HARNESSES if supports_tui is None else supports_tui,
            repo_url=_line(data, "repo_url"),
            branch=_line(data, "branch"),
            pfp_url=_line(data, "pfp_url"),
            requirements=_text(data, "requirements"),
            recording=_flag(data, "recording"),
            preload_memory_limit=_count(data, "preload_memory_limit"),
            harness_image=_line(data, "harness_image"),
            mcp_servers=_lines(data, "mcp_servers"),
            env_vars={
                safe_line(key): safe_text(text)
                for key, text in as_object(data.get("env_vars")).items()
                if isinstance(text, str)
            },
            attached_skill_ids=_lines(data, "attached_skill_ids"),
            allow_out=_lines(data, "allow_out"),
            deny_out=_lines(data, "deny_out"),
            sandbox_files=tuple(SandboxFile.from_json(item) for item in as_list(data.get("sandbox_files"))),
            created_at=_moment(data, "created_at"),
            session_count=_count(data, "session_count"),
            has_active_session=_flag(data, "has_active_session"),
        )

    @property
    def label(self) -> str:
        """What to call it: the name, else the start of the id."""
        return self.name or self.id[:8]


@dataclass(frozen=True, slots=True)
class Notification:
    """What an agent asked its terminal to show to the user."""

    title: str = ""
    body: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an agent says it is: `state` normal, error, indeterminate, paused or none; `value` in percent."""

    state: str = ""
    value: int = 0


@dataclass(frozen=True, slots=True)
class AgentState:
    """What an agent says it is doing: `state` idle, working, blocked, done or error."""

    state: str = ""
    app: str = ""
    kind: str = ""
    title: str = ""
    message: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Terminal:
    """What a session's terminal has told, as far as it has."""

    title: str = ""
    bell_at: datetime | None = None
    notification: Notification | None = None
    progress: Progress | None = None
    agent_state: AgentState | None = None

    @classmethod
    def from_json(cls, value: object) -> Terminal | None:
        """Read a session's `terminal`; None when there is none."""
        if not isinstance(value, dict):
            return None
        notification, progress, state = (value.get(key) for key in ("notification", "progress", "agent_state"))
        return cls(
            title=_line(value, "title") or "",
            bell_at=_moment(value, "bell_at"),
            notification=_notification(notification) if isinstance(notification, dict) else None,
            progress=_progress(progress) if isinstance(progress, dict) else None,
            agent_state=_agent_state(state) if isinstance(state, dict) else None,
        )


@dataclass(frozen=True, slots=True)
class Activity:
    """What a session's agent is doing: `state` working, waiting_for_input, idle, unknown, or a newer word.

    `since` is when that began, `reason` why ("" for none), `message` what is asked, worked on, or was said.
    """

    state: str = ""
    since: datetime | None = None
    reason: str = ""
    message: str = ""

    @classmethod
    def from_json(cls, value: object) -> Activity | None:
        """Read a session's `activity`; None when there is none."""
        if not isinstance(value, dict):
            return None
        state, reason, message = (_line(value, key) or "" for key in ("state", "reason", "message"))
        return cls(state, _moment(value, "since"), reason, message)

    @property
    def needs_you(self) -> bool:
        """Whether it goes on only once a person has come."""
        return self.state == "waiting_for_input" or self.reason in _ENDINGS

    def words(self, elapsed: str = "") -> str:
        """`asks: Bash: touch zzz`, `your turn`, `working 2m`, `exited 1`; "" when nothing is told.

        `elapsed` is how long it has been so, as text.
        """
        if self.state == "waiting_for_input":
            asks = "asks" if self.reason in _ASKED else "calls you"
            return f"{asks}: {self.message}" if self.message else _ASKED.get(self.reason, asks)
        if self.state not in ("working", "idle"):
            return ""
        word = f"working {elapsed}".rstrip() if self.state == "working" else _RESTS.get(self.reason, "idle")
        if code := _EXIT_CODE.fullmatch(self.message):
            return f"{word} {code[1]}"
        return f"{word}: {self.message}" if self.message else word


@dataclass(frozen=True, slots=True)
class Attached:
    """Somebody at a session's terminal: `mode` is watch or drive."""

    name: str = ""
    mode: str = ""
    since: datetime | None = None

    @classmethod
    def from_json(cls, value: object) -> Attached:
        """Read one entry of `attached`."""
        data = as_object(value)
        return cls(_line(data, "name") or "", _line(data, "mode") or "", _moment(data, "since"))


@dataclass(frozen=True, slots=True)
class Issue:
    """One finding about a session (seed 000). `severity` is high, med or info; `evidence` are lines that show it."""

    code: str
    severity: str
    message: str
    recommended_action: str | None
    evidence: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, value: object) -> Issue:
        """Read one entry of `detected_issues`, `hints` or `issues`; a bare string is a message without a code."""
        if isinstance(value, str):
            return cls("", "", safe_line(value), None)
        data = as_object(value)
        return cls(
            code=_line(data, "code") or "",
            severity=_line(data, "severity") or "",
            message=_line(data, "message") or "",
            recommended_action=_line(data, "recommended_action"),
            evidence=_lines(data, "evidence"),
        )

    @property
    def of_the_machine(self) -> bool:
        """Whether every session on the machine has it, and nothing about this one is to be done."""
        return self.code in _OF_THE_MACHINE


def issues_from(values: Iterable[object]) -> tuple[Issue, ...]:
    """All entries that say something, the worst first."""
    found = [issue for issue in map(Issue.from_json, values) if issue.code or issue.message]
    return tuple(sorted(found, key=lambda issue: _SEVERITIES.get(issue.severity, 2)))


@dataclass(frozen=True, slots=True)
class Session:
    """A live sandbox of an agent (seed 001).

    `status` is one of STATUSES, "" when missing, or whatever a newer platform says. `furthest` is the highest step
    known to have been reached in the present bring-up, 0..10: a reading alone knows its own phase, `following` adds
    what came before.
    """

    id: str
    agent_id: str = ""
    agent_name: str | None = None
    harness_id: str = ""
    status: str = ""
    phase: str | None = None
    phase_detail: str | None = None
    failure_reason: str | None = None
    title: str | None = None
    title_preview: str | None = None
    response: str | None = None
    supports_tui: bool | None = None
    sandbox_url: str | None = None
    tty_url: str | None = None
    tty_token: str | None = field(default=None, repr=False)
    harness_session_id: str | None = None
    task_arn: str | None = None
    isolation: Json | None = None
    viewers: int | None = None
    recording: bool | None = None
    attached: tuple[Attached, ...] = ()
    terminal: Terminal | None = None
    activity: Activity | None = None
    issues: tuple[Issue, ...] = ()
    idle_timeout_ms: int | None = None
    created_at: datetime | None = None
    creating_since: datetime | None = None
    ready_at: datetime | None = None
    stopped_at: datetime | None = None
    last_seen_at: datetime | None = None
    furthest: int = 0

    @classmethod
    def from_json(cls, value: object) -> Session:
        """Read an ApiSession; `id` is "" when there is none."""
        data = as_object(value)
        status = _line(data, "status") or ""
        phase = _line(data, "phase")
        isolation = data.get("isolation")
        return cls(
            id=_line(data, "id") or "",
            agent_id=_line(data, "agent_id") or "",
            agent_name=_line(data, "agent_name"),
            harness_id=_line(data, "harness_id") or "",
            status="dead" if status == "stopped" else status,  # a legacy word (LAP REST 3.2)
            phase=phase,
            phase_detail=_line(data, "phase_detail"),
            failure_reason=_line(data, "failure_reason"),
            title=_line(data, "title"),
            title_preview=_line(data, "title_preview"),
            response=_reply(data.get("response")),
            supports_tui=_flag(data, "supports_tui"),
            sandbox_url=_line(data, "sandbox_url"),
            tty_url=_line(data, "tty_url"),
            tty_token=_line(data, "tty_token"),
            harness_session_id=_line(data, "harness_session_id"),
            task_arn=_line(data, "task_arn"),
            isolation=as_object(isolation) if isinstance(isolation, dict) else None,
            viewers=_count(data, "viewers"),
            recording=_flag(data, "recording"),
            attached=tuple(Attached.from_json(item) for item in as_list(data.get("attached"))),
            terminal=Terminal.from_json(data.get("terminal")),
            activity=Activity.from_json(data.get("activity")),
            issues=issues_from(as_list(data.get("issues"))),
            idle_timeout_ms=_count(data, "idle_timeout_ms"),
            created_at=_moment(data, "created_at"),
            creating_since=_moment(data, "creating_since"),
            ready_at=_moment(data, "ready_at"),
            stopped_at=_moment(data, "stopped_at"),
            last_seen_at=_moment(data, "last_seen_at"),
            furthest=len(PHASES) if status == "ready" else step_of(phase),
        )

    @property
    def label(self) -> str:
        """What to call it: its title, else its agent's name, else the start of the id."""
        return self.title or self.title_preview or self.agent_name or self.id[:8]

    @property
    def step(self) -> int:
        """Place of the present phase, 1..10; 0 when the platform reports none."""
        return len(PHASES) if self.status == "ready" else step_of(self.phase)

    @property
    def calls(self) -> bool:
        """Whether its agent goes on only once a person has come; one that failed to come up has none."""
        return self.status == "ready" and self.activity is not None and self.activity.needs_you

    @property
    def trouble(self) -> Issue | None:
        """The worst of what is wrong with it while it holds a sandbox, and is its own."""
        return next((issue for issue in self.issues if not issue.of_the_machine), None) if self.active else None

    @property
    def needs_you(self) -> bool:
        """Whether a person is needed: its agent calls for one, or something is wrong with the session."""
        return self.calls or self.trouble is not None

    @property
    def ended(self) -> bool:
        """Whether it has ended (only a restart brings it back)."""
        return self.status in TERMINAL

    @property
    def active(self) -> bool:
        """Whether it holds a sandbox."""
        return self.status in ("creating", "ready")

    @property
    def since(self) -> datetime | None:
        """When the present status, or the need for a person, began, as far as the platform tells."""
        if self.status == "creating":
            return self.creating_since or self.created_at
        if self.status == "ready":
            return self.activity.since if self.activity is not None and self.calls else self.ready_at
        return self.stopped_at

    def age(self, now: datetime) -> float | None:
        """Seconds since it was created."""
        return seconds_since(self.created_at, now)

    def status_age(self, now: datetime) -> float | None:
        """Seconds it has had its present status; None where the platform does not tell."""
        return seconds_since(self.since, now)

    def same_bring_up(self, previous: Session) -> bool:
        """Whether no restart lies between an earlier reading and this one."""
        if self.creating_since and previous.creating_since:
            return self.creating_since == previous.creating_since
        return self.status != "creating" or previous.status == "creating"

    def following(self, previous: Session) -> Session:
        """This reading, with the furthest step an earlier one of the same bring-up had reached."""
        if previous.furthest <= self.furthest or not self.same_bring_up(previous):
            return self
        return replace(self, furthest=previous.furthest)


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the event log, or a notice of the feed itself ("feed.opened", "feed.reset").

    `agent` or `session` is the entity as it was after the change. `data` is the whole event as sent.
    """

    type: str
    seq: int | None = None
    at: datetime | None = None
    agent_id: str | None = None
    session_id: str | None = None
    agent: Agent | None = None
    session: Session | None = None
    data: Json = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: object, *, type: str | None = None) -> Event:
        """Read an event object; `type` is the SSE event name where the object does not repeat it."""
        data = as_object(value)
        agent = Agent.from_json(data["agent"]) if isinstance(data.get("agent"), dict) else None
        session = Session.from_json(data["session"]) if isinstance(data.get("session"), dict) else None
        return cls(
            type=_line(data, "type") or safe_line(type or ""),
            seq=_count(data, "seq"),
            at=_moment(data, "at"),
            agent_id=_line(data, "agent_id"),
            session_id=_line(data, "session_id"),
            agent=agent if agent and agent.id else None,
            session=session if session and session.id else None,
            data=data,
        )


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a list. `total` counts all matches; `limit` and `offset` are those the platform really used."""

    rows: tuple[T, ...]
    total: int
    limit: int
    offset: int


@dataclass(frozen=True, slots=True)
class SessionList:
    """The sessions a platform lists, newest first. `complete` is false where it lists only the newest."""

    rows: tuple[Session, ...]
    complete: bool


@dataclass(frozen=True, slots=True)
class EventPage:
    """Part of the event log, oldest first. `next` is the `after` of the following page, None at the end."""

    rows: tuple[Event, ...]
    next: int | None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The answer of diagnose: its issues, hints that explain more, and everything as sent (seed 000, LAP REST 5.1)."""

    issues: tuple[Issue, ...]
    data: Json
    hints: tuple[Issue, ...] = ()

    @property
    def findings(self) -> tuple[Issue, ...]:
        """Issues and hints, the worst first."""
        return tuple(sorted((*self.issues, *self.hints), key=lambda issue: _SEVERITIES.get(issue.severity, 2)))

    @classmethod
    def from_json(cls, value: object) -> Diagnosis:
        """Read the answer of GET .../diagnose."""
        data = as_object(value)
        issues, hints = (issues_from(as_list(data.get(key))) for key in ("detected_issues", "hints"))
        return cls(issues, data, hints)


@dataclass(frozen=True, slots=True)
class Skill:
    """An entry of the skill library (LAP REST 7.2)."""

    id: str
    name: str
    description: str = ""
    content: str = field(default="", repr=False)
    created_at: datetime | None = None

    @classmethod
    def from_json(cls, value: object) -> Skill:
        """Read an ApiSkill; `name` is "" when there is none."""
        data = as_object(value)
        name, description = _line(data, "name") or "", _line(data, "description") or ""
        content, created_at = _text(data, "content") or "", _moment(data, "created_at")
        return cls(_line(data, "id") or "", name, description, content, created_at)


def agents_from(values: Iterable[object]) -> tuple[Agent, ...]:
    """All entries that have an id."""
    return tuple(agent for agent in map(Agent.from_json, values) if agent.id)


def sessions_from(values: Iterable[object]) -> tuple[Session, ...]:
    """All entries that have an id."""
    return tuple(session for session in map(Session.from_json, values) if session.id)


def as_object(value: object) -> dict[str, object]:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[object]:
    """The value if it is a JSON array, else an empty one."""
    return value if isinstance(value, list) else []


def as_count(value: object) -> int | None:
    """The value if it is a non-negative integer."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _line(data: Json, key: str) -> str | None:
    value = data.get(key)
    return safe_line(value) if isinstance(value, str) else None


def _text(data: Json, key: str) -> str | None:
    value = data.get(key)
    return safe_text(value) if isinstance(value, str) else None


def _lines(data: Json, key: str) -> tuple[str, ...]:
    return tuple(safe_line(item) for item in as_list(data.get(key)) if isinstance(item, str))


def _flag(data: Json, key: str) -> bool | None:
    value = data.get(key)
    return value if isinstance(value, bool) else None


def _count(data: Json, key: str) -> int | None:
    return as_count(data.get(key))


def _moment(data: Json, key: str) -> datetime | None:
    return moment_of(data.get(key))


def moment_of(value: object) -> datetime | None:
    """An ISO 8601 time as UTC, None for anything else; one without a zone is taken for UTC."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _notification(data: Json) -> Notification:
    return Notification(_line(data, "title") or "", _line(data, "body") or "", _moment(data, "at"))


def _progress(data: Json) -> Progress:
    return Progress(_line(data, "state") or "", min(_count(data, "value") or 0, 100))


def _agent_state(data: Json) -> AgentState:
    app, kind, title, message = (_line(data, key) or "" for key in ("app", "kind", "title", "message"))
    return AgentState(_line(data, "state") or "", app, kind, title, message, _moment(data, "at"))


def _reply(value: object) -> str | None:
    """The text of `{"parts": [{"type": "text", "text": ...}]}`."""
    if not isinstance(value, dict):
        return None
    texts = (as_object(part).get("text") for part in as_list(value.get("parts")))
    return safe_text("".join(text for text in texts if isinstance(text, str)))

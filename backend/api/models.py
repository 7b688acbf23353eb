"""Shapes of requests and responses. Response models only document: routes build their JSON from rows directly."""

import base64
import binascii
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from backend.api.bodies import Body
from backend.domain import memory, messages, skills
from backend.domain.agents import DEFAULT_BRANCH, DEFAULT_HARNESS
from backend.domain.files import DEFAULT_CONTENT_TYPE
from backend.domain.phases import DETAIL_LIMIT
from backend.domain.sessions import INITIAL_PROMPT_LIMIT, TITLE_LIMIT


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("nul_character", "must not contain a NUL character")
    return text


def _on_one_line(text: str) -> str:
    if not memory.is_line(text):
        raise PydanticCustomError("not_a_line", "must be one line without control characters")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "must not be blank")
    return text


Line = Annotated[str, Field(max_length=2048), AfterValidator(_without_nul)]
Long = Annotated[str, AfterValidator(_without_nul)]
"""Bounded by the size of the body only."""
NotEmpty = Annotated[Line, Field(min_length=1)]
Lines = Annotated[list[Line], Field(max_length=1000, default_factory=list)]


class SandboxFileSpec(Body):
    """A file written into every sandbox of an agent; `content` is base64 (seed 003)."""

    name: NotEmpty
    sandbox_path: NotEmpty
    content: Annotated[str, Field(min_length=1)]
    content_type: Line = DEFAULT_CONTENT_TYPE
    size: Annotated[int, Field(ge=0, le=2**53)] = 0


class AgentFields(Body):
    """What both creating and changing an agent take. A field that is present must not be null."""

    name: Line = ""
    prompt: Long = ""
    branch: Line = DEFAULT_BRANCH
    pfp_url: Long = ""
    mcp_servers: Lines
    allow_out: Lines
    deny_out: Lines
    env_var_hosts: Annotated[dict[str, Annotated[list[NotEmpty], Field(max_length=100)]], Field(default_factory=dict)]
    """The only hosts that may get a credential, by its name; one that is not named may go to any allowed host."""
    env_var_plain: Lines
    """Names in `env_vars` that are no credentials: the agent sees their values."""
    sandbox_files: Annotated[list[SandboxFileSpec], Field(default_factory=list)]
    env_vars: Annotated[dict[str, str], Field(default_factory=dict)]
    recording: bool = False
    """Record the terminals of new sessions."""
    preload_memory_limit: Annotated[int, Field(ge=0, le=memory.MAX_PRELOAD)] = memory.DEFAULT_PRELOAD
    """How many memories new sessions are told besides the pinned ones."""


class AgentCreate(AgentFields):
    """LAP REST 2.1."""

    model: NotEmpty
    harness_id: Line = DEFAULT_HARNESS
    repo_url: Line = ""
    requirements: Long = ""
    skill_ids: Lines


class AgentPatch(AgentFields):
    """LAP REST 2.5: fields that are absent stay as they are."""

    model: NotEmpty = ""
    harness_image: Line = ""


def _base64(content: str) -> str:
    if not messages.attachment_fits(content):
        raise PydanticCustomError("too_large", f"attachment exceeds {messages.ATTACHMENT_BYTES} bytes")
    try:
        base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError):
        raise PydanticCustomError("not_base64", "must be base64") from None
    return content


def _typed(part: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(part.get("type"), str):
        raise PydanticCustomError("no_type", "a part must have a type")
    if part["type"] == "text" and not isinstance(part.get("text"), str):
        raise PydanticCustomError("no_text", "a part of type text must have a text")
    return part


class Attachment(Body):
    """An image that goes with a message; `base64` is its content, at most 5 MiB of it."""

    name: Annotated[Line, Field(max_length=255)] = ""
    mime_type: Literal["image/png", "image/jpeg", "image/gif", "image/webp"]
    base64: Annotated[str, Field(min_length=1), AfterValidator(_base64)]

    def part(self) -> dict[str, Any]:
        """As the harness takes it."""
        return messages.image(self.mime_type, self.base64)


Attachments = Annotated[list[Attachment], Field(max_length=messages.MAX_ATTACHMENTS, default_factory=list)]
MessagePart = Annotated[dict[str, Any], AfterValidator(_typed)]


class SessionCreate(Body):
    """LAP REST 3.1."""

    title: Annotated[Line, Field(max_length=TITLE_LIMIT)] = ""
    initial_prompt: Annotated[Long, Field(max_length=INITIAL_PROMPT_LIMIT)] = ""
    initial_attachments: Attachments
    env_vars: Annotated[dict[str, str], Field(default_factory=dict)]
    recording: bool = False
    """Record this session's terminal, or not; absent: as its agent says."""
    skill_ids: Annotated[list[NotEmpty], Field(max_length=skills.MAX_PER_SESSION, default_factory=list)]
    """Skills of the library for this session only."""


class MessageCreate(Body):
    """LAP REST 3.7: `attachments` go with `text`; without them `parts`, if there are any, are said instead of it."""

    text: Long = ""
    parts: Annotated[list[MessagePart], Field(max_length=messages.MAX_PARTS, default_factory=list)]
    attachments: Attachments
    if_busy: Literal["wait", "refuse"] = "wait"
    """What to do while another message is being answered."""


class PhaseReport(Body):
    """LAP REST 3.10."""

    phase: Literal["cloning_repo", "installing_deps", "harness_listening"]
    detail: Annotated[str, Field(max_length=DETAIL_LIMIT)] | None = None


Word = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=memory.WORD_LIMIT),
    AfterValidator(_on_one_line),
]
Priority = Annotated[int, Field(ge=-memory.MAX_PRIORITY, le=memory.MAX_PRIORITY)]


class MemoryFields(Body):
    """What both creating and changing a memory take."""

    tags: Annotated[list[Word], Field(max_length=memory.MAX_TAGS, default_factory=list)]
    type: Word = memory.DEFAULT_TYPE
    priority: Priority = 0
    pinned: bool = False


class MemoryCreate(MemoryFields):
    """LAP REST 7.1. `type` is convention, constraint, reference, preference, or a word of your own."""

    text: Annotated[Long, Field(min_length=1, max_length=memory.TEXT_LIMIT), AfterValidator(_not_blank)]
    source: Literal["agent", "slack", "ui"] = "ui"
    source_user_id: Line | None = None
    source_session_id: Line | None = None
    source_thread_ts: Line | None = None


class SessionMemoryCreate(MemoryCreate):
    """LAP REST 3.11."""

    source: Literal["agent", "slack", "ui"] = "agent"


class MemoryPatch(MemoryFields):
    """LAP REST 7.1: fields that are absent stay as they are."""

    text: Annotated[Long, Field(min_length=1, max_length=memory.TEXT_LIMIT), AfterValidator(_not_blank)] = ""
    disabled: bool = False


Content = Annotated[Long, Field(min_length=1, max_length=skills.CONTENT_LIMIT)]


class SkillCreate(Body):
    """LAP REST 7.2."""

    name: NotEmpty
    content: Content
    description: Line | None = None


class SkillPatch(Body):
    """LAP REST 7.2: fields that are absent stay as they are."""

    name: NotEmpty = ""
    content: Content = ""
    description: Line | None = None


class SkillAttach(Body):
    """LAP REST 7.2: either `skill_id`, or `content` with what goes with it."""

    skill_id: NotEmpty | None = None
    content: Content | None = None
    name: NotEmpty | None = None
    description: Line | None = None
    save_to_library: bool = False


class BindingCreate(Body):
    """LAP REST 7.6."""

    install_id: NotEmpty


class TokenRequest(Body):
    """What an agent's tokens are to be good for."""

    scope: Annotated[
        list[Literal["memory", "automations", "skills", "issues", "artifacts"]], Field(min_length=1, max_length=20)
    ]


class RefreshRequest(Body):
    """LAP REST 1.1."""

    refresh_token: NotEmpty


class Answer(BaseModel):
    """Base of response models. They only document, so that nothing is built of them before somebody asks for that."""

    model_config = ConfigDict(defer_build=True)


class ApiAgent(Answer):
    """An agent (seed 003). Every value in `env_vars` is masked."""

    id: str
    name: str | None
    model: str
    prompt: str | None
    harness_id: str
    harness_image: str | None
    supports_tui: bool
    repo_url: str | None
    branch: str
    pfp_url: str | None
    requirements: str | None
    mcp_servers: list[str]
    env_vars: dict[str, Literal["********"]]
    attached_skill_ids: list[str]
    allow_out: list[str]
    deny_out: list[str]
    env_var_hosts: dict[str, list[str]]
    env_var_plain: list[str]
    sandbox_files: list[SandboxFileSpec]
    recording: bool
    preload_memory_limit: int
    created_at: str


class ListedFile(Answer):
    """A sandbox file without its content."""

    name: str
    sandbox_path: str
    content_type: str
    size: int


class ListedAgent(ApiAgent):
    """An agent in a list: with counts, without the contents of its files."""

    sandbox_files: list[ListedFile]  # type: ignore[assignment]
    session_count: int
    has_active_session: bool


class AgentPage(Answer):
    """One page of agents; `total` counts all that match, `limit` and `offset` are the effective ones."""

    data: list[ListedAgent]
    total: int
    limit: int
    offset: int


class Notification(Answer):
    """What the agent asked the terminal to show to its user (OSC 9, OSC 777)."""

    title: str
    body: str
    at: str | None


class Progress(Answer):
    """How far the agent says it is (OSC 9;4)."""

    state: Literal["none", "normal", "error", "indeterminate", "paused"]
    value: int


class AgentState(Answer):
    """What the agent says it is doing (OSC 7501)."""

    state: Literal["idle", "working", "blocked", "done", "error", "clear"]
    app: str
    kind: str
    title: str
    message: str
    at: str | None


class TerminalState(Answer):
    """What a session's terminal has told; times are the harness's."""

    title: str
    bell_at: str | None
    notification: Notification | None
    progress: Progress | None
    agent_state: AgentState | None


class Attached(Answer):
    """Who is attached to a session's terminal."""

    name: str
    mode: Literal["watch", "drive"]
    since: str | None


class Activity(Answer):
    """What a session's agent is doing; `since` is when that began, `message` what is asked, worked on or was said.

    An agent whose process has ended is idle, with the reason exited or crashed. A reason of null with the state
    waiting_for_input: its program only rang the bell, or sent a notification.
    """

    state: Literal["working", "waiting_for_input", "idle", "unknown"]
    since: str
    reason: (
        Literal["permission", "question", "turn_finished", "crashed", "exited", "error", "interrupted", "started"]
        | None
    )
    message: str | None


class Finding(Answer):
    """Something wrong with a session. `evidence` are lines that show it."""

    code: str
    severity: Literal["high", "med", "info"]
    message: str
    recommended_action: str
    evidence: list[str] | None = None


class Origin(Answer):
    """Where a session was asked for (LAP REST 3.2)."""

    integration_id: str
    external_session_id: str
    external_ref: str
    workspace_name: str
    url: str | None


class ApiSession(Answer):
    """A session (seed 001)."""

    id: str
    agent_id: str
    agent_name: str | None
    harness_id: str
    status: Literal["creating", "ready", "failed", "dead"]
    phase: str | None
    phase_detail: str | None
    sandbox_url: str | None
    tty_url: str | None
    tty_token: str | None
    response: dict[str, Any] | None
    created_at: str
    creating_since: str
    ready_at: str | None
    stopped_at: str | None
    last_seen_at: str | None
    idle_timeout_ms: int
    failure_reason: str | None
    harness_session_id: str | None
    supports_tui: bool
    task_arn: str | None
    title: str | None
    title_preview: str | None
    origin: Origin | None
    """Only where one session is asked for."""
    sandboxes: None
    isolation: dict[str, Any] | None
    viewers: int
    attached: list[Attached]
    terminal: TerminalState | None
    activity: Activity | None
    issues: list[Finding]
    recording: bool
    skill_ids: list[str]
    warnings: list[str]


class MessageReply(Answer):
    """The agent's answer, as its harness gives it; `info.error` tells that the agent failed or was interrupted."""

    info: dict[str, Any]
    parts: list[dict[str, Any]]


class TerminalInstead(Answer):
    """What a session answers whose harness has a terminal."""

    text: str


class SpokenMessage(MessageReply):
    """What the user or the agent said; `info` has `id`, `sessionID`, `role` and `time`."""


class LogEntry(Answer):
    """One thing that happened in a session."""

    id: str
    kind: Literal["created", "user", "thinking", "tool", "response", "assistant", "recovered", "ended"]
    at: str
    title: str
    detail: str = ""
    meta: str = ""
    status: str = ""


class Aborted(Answer):
    """The agent was told to stop."""

    ok: bool


class Cursor(Answer):
    """Where the cursor is, counted from 0, and whether it is shown."""

    x: int
    y: int
    visible: bool


class ScreenCells(Answer):
    """A screen as runs of cells, row by row; of a run's attributes only those that are set."""

    columns: int
    rows: int
    cursor: Cursor
    title: str
    alternate: bool
    lines: list[list[dict[str, Any]]]


class CreatedSession(ApiSession):
    """A session just created; its `warnings` also name what was asked for and is not done."""


class EndedSession(Answer):
    """Answer to a deletion or a stop: `deleted`, or `dead` when it was that already or was stopped."""

    id: str
    status: Literal["deleted", "dead"]


class MendedSession(Answer):
    """What was put back around a session's sandbox, in one line."""

    id: str
    did: str


class PhaseNoted(Answer):
    """Answer to a report of a phase; not noted when the session is not being created any more."""

    ok: bool


class LoggedEvent(Answer):
    """One event of the log; it also has `agent`, `session`, `memory` or `skill`, as it was right after the change.

    Where somebody asked for it, `by` says who.
    """

    seq: int
    at: str
    type: str
    agent_id: str | None
    session_id: str | None


class EventPage(Answer):
    """A stretch of the event log; `next` is the `after` of the following one, null at the end."""

    data: list[LoggedEvent]
    next: int | None


class ApiSkill(Answer):
    """A reusable block of instructions."""

    id: str
    name: str
    description: str | None
    content: str
    created_at: str


class SkillList(Answer):
    """All skills, newest first."""

    data: list[ApiSkill]


class SkillVersion(Answer):
    """A content that a skill had before; `created_at` is when it was replaced."""

    skill_id: str
    version_number: int
    content: str
    changed_by_session_id: str | None
    created_at: str


class SkillVersionList(Answer):
    """Former contents of a skill, the last replaced one first."""

    data: list[SkillVersion]


class DetachedSkill(Answer):
    """The agent without the skill."""

    agent: ApiAgent


class AttachedSkill(DetachedSkill):
    """The agent with the skill; `skill` is absent when it is not in the library."""

    skill: ApiSkill = None  # type: ignore[assignment]


class ApiMemory(Answer):
    """What an agent remembers; `times_applied` counts the sessions that were told."""

    id: str
    agent_id: str
    text: str
    tags: list[str]
    type: str
    priority: int
    pinned: bool
    disabled: bool
    times_applied: int
    last_applied_at: str | None
    source: Literal["agent", "slack", "ui"]
    source_user_id: str | None
    source_session_id: str | None
    source_thread_ts: str | None
    created_at: str
    updated_at: str


class Welcome(Answer):
    """What answers here, and where the rest is."""

    name: str
    about: str
    version: str
    api: str
    authorization: str
    documentation: str
    health: str


class VaultState(Answer):
    """Whether sandboxes hold stubs instead of credentials; `down`: they should, and no session starts meanwhile."""

    state: Literal["on", "off", "down"]
    reason: str | None


class Isolation(Answer):
    """How sandboxes are shut in."""

    filesystem: bool
    """Whether they see their own files only."""
    network: Literal["vault", "none", "open"]
    reason: str | None


class Health(Answer):
    """The platform answers."""

    ok: bool
    version: str
    started_at: str
    vault: VaultState
    isolation: Isolation | None
    """Of new sandboxes; null where they are not on this machine."""


class Readiness(Answer):
    """Whether the platform can do its work. `problems` names the parts that do not work, which it can do without."""

    ok: bool
    problems: list[str]


class PlatformProblem(Answer):
    """Something that does not work: `part` is sandboxes, vault or worker."""

    part: str
    message: str
    since: str


class PlatformProblems(Answer):
    """What keeps the platform from its work at present."""

    data: list[PlatformProblem]


class PoolCounts(Answer):
    """Sandboxes of the warm pool; `claimed` are those that active sessions run in."""

    provisioning: int
    warm: int
    claimed: int
    dead: int


class PoolOfAgent(PoolCounts):
    """One agent's part of the pool."""

    agent_id: str
    agent_name: str | None
    oldest_warm_at: str | None


class FailingPool(Answer):
    """An agent whose sandboxes keep failing, and when the next is tried."""

    agent_id: str
    failures: int
    reason: str
    retry_at: str


class PoolStats(Answer):
    """The warm pool and its settings."""

    configured_size: int
    max_provisioning: int
    ttl_minutes: int
    recent_agent_hours: int
    counts: PoolCounts
    by_agent: list[PoolOfAgent]
    failing: list[FailingPool]


class PooledSandbox(Answer):
    """One sandbox of the pool; `expires_at` is when a warm one is replaced by a fresh one."""

    id: str
    agent_id: str
    agent_name: str | None
    status: Literal["provisioning", "warm", "dead"]
    sandbox: str
    failure_reason: str | None
    created_at: str
    ready_at: str | None
    expires_at: str | None


class PooledSandboxes(Answer):
    """Every sandbox of the pool, oldest first."""

    data: list[PooledSandbox]


class PoolPass(Answer):
    """What one pass over the pool did: sandboxes it began to make, removed, found broken, and could not see to."""

    provisioned: int
    recycled: int
    stale: int
    errors: int


class PoolFlushed(Answer):
    """How many sandboxes go."""

    flushed: int


class SessionCounts(Answer):
    """Sessions by status."""

    creating: int
    ready: int
    failed: int
    dead: int


class ActiveOfAgent(Answer):
    """One agent's active sessions."""

    agent_id: str
    agent_name: str | None
    creating: int
    ready: int


class SessionStats(Answer):
    """All sessions, and the active ones by agent."""

    counts: SessionCounts
    by_agent: list[ActiveOfAgent]


class AgentTotal(Answer):
    """All agents."""

    total: int


class Runtime(Answer):
    """How the platform runs; what only a cluster has is null."""

    namespace: str | None
    harness_image: str | None
    container_port: int | None
    reconcile_interval_seconds: int


class Worker(Answer):
    """A duty: which process did it last, when, and with what result."""

    name: str
    holder: str
    at: str
    last_result: dict[str, Any] | None


class AdminStats(Answer):
    """The platform in numbers."""

    warm_pool: PoolStats
    sessions: SessionStats
    agents: AgentTotal
    runtime: Runtime
    workers: list[Worker]


class SessionDiagnosis(Answer):
    """What is known of a session (seed 000, LAP REST 5.1). A part that could not be had says why in its `error`.

    `problems` is what keeps the platform from seeing sandboxes as they are, `last_inspection` what was known of the
    sandbox when the session ended.
    """

    session: dict[str, Any]
    agent: dict[str, Any] | None
    pod: dict[str, Any]
    sandbox_cr: dict[str, Any]
    service: dict[str, Any]
    pod_logs_tail: dict[str, Any]
    node: dict[str, Any]
    image_cache: dict[str, Any]
    warm_pool: dict[str, int]
    harness_probe: dict[str, Any] | None
    events: list[dict[str, Any]]
    harness: dict[str, Any] | None
    vault: dict[str, Any] | None
    problems: list[str]
    last_inspection: dict[str, Any] | None
    detected_issues: list[Finding]
    hints: list[Finding]
    notes: dict[str, str]


class DiagnosedSession(Answer):
    """What is wrong with one session of the fleet."""

    session_id: str
    agent_id: str
    agent_name: str | None
    status: str
    phase: str | None
    detected_issues: list[Finding]
    hints: list[Finding]


class FleetDiagnosis(Answer):
    """What is wrong with all sessions; `counts` says with how many each code is."""

    data: list[DiagnosedSession]
    counts: dict[str, int]
    checked_at: str
    elapsed_ms: int


class NodeSandbox(Answer):
    """A sandbox on a node, and the session that has it; a warm one has only its name."""

    name: str
    session_id: str | None
    agent_id: str | None = None
    agent_name: str | None = None
    status: str | None = None


class Resources(Answer):
    """Null is not known."""

    cpu_millicores: int | None
    memory_bytes: int | None


class Percents(Answer):
    """Of what a node has."""

    cpu: int | None
    memory: int | None


class Node(Answer):
    """A machine that sandboxes run on (`node` of LAP REST 5.1). One that could not be had says why in its `error`."""

    exists: bool
    name: str
    sandbox_count: int
    sandboxes: list[NodeSandbox]
    ready_status: str | None = None
    ready_reason: str | None = None
    internal_ip: str | None = None
    external_ip: str | None = None
    age_ms: int | None = None
    unschedulable: bool = False
    taints: list[dict[str, Any]] = []
    conditions: list[dict[str, Any]] = []
    capacity: Resources | None = None
    allocatable: Resources | None = None
    allocated_requests: Resources | None = None
    allocated_pct: Percents | None = None
    allocation_error: str | None = None
    pod_count: int | None = None
    load: dict[str, Any] | None = None
    error: str | None = None


class Nodes(Answer):
    """All nodes, by name, and what keeps the platform from seeing them as they are."""

    data: list[Node]
    problems: list[str]


class Fingerprint(Answer):
    """A stub, which credential it stands for, and the last characters of that."""

    stub: str
    credential: str | None
    real_tail: str


class Interception(Answer):
    """Something the vault has seen; `count` times since it was last told."""

    id: int
    timestamp: str
    session_id: str | None
    kind: Literal["swapped", "blocked", "missed"]
    method: str
    host: str
    port: int
    path: str
    rule: str
    count: int
    stubs_swapped: list[str]
    stubs_missed: list[str]
    real_value_fingerprint: list[Fingerprint]
    blocked: bool = False
    """Present only when it is true."""


class Install(Answer):
    """An integration in a workspace."""

    install_id: str
    workspace_id: str
    workspace_name: str


class ApiBinding(Answer):
    """Which install an agent works for."""

    binding_id: str
    install_id: str
    workspace_name: str
    enabled: bool


class Integration(Answer):
    """An integration; `enabled` says that it is set up on this platform."""

    id: str
    display_name: str
    icon: str
    docs_url: str
    enabled: bool
    has_manifest: bool
    installs: list[Install]
    binding: ApiBinding | None


class Integrations(Answer):
    """All integrations (LAP REST 7.6)."""

    providers: list[Integration]


class Unbound(Answer):
    """How many bindings there were."""

    deleted: int


class AccessToken(Answer):
    """A token to use; `expires_in` in seconds."""

    access_token: str
    expires_in: int
    token_type: Literal["Bearer"]


class AgentTokens(AccessToken):
    """Tokens for an agent."""

    refresh_token: str
    refresh_expires_in: int
    agent_id: str
    scope: list[str]


class Issue(Answer):
    """One thing wrong with a request."""

    path: list[str | int]
    message: str
    code: str


class ApiError(Answer):
    """Every refusal."""

    error: str
    code: Literal["UNAUTHORIZED", "NOT_FOUND", "INVALID", "CONFLICT", "INTERNAL", "UNAVAILABLE"]
    issues: list[Issue] = []

"""Shapes of requests and responses. Response models only document: routes build their JSON from rows directly."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from backend.api.bodies import Body
from backend.domain.agents import DEFAULT_BRANCH, DEFAULT_HARNESS
from backend.domain.files import DEFAULT_CONTENT_TYPE
from backend.domain.phases import DETAIL_LIMIT
from backend.domain.sessions import TITLE_LIMIT


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("nul_character", "must not contain a NUL character")
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
    sandbox_files: Annotated[list[SandboxFileSpec], Field(default_factory=list)]
    env_vars: Annotated[dict[str, str], Field(default_factory=dict)]


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


class SessionCreate(Body):
    """LAP REST 3.1."""

    title: Annotated[Line, Field(max_length=TITLE_LIMIT)] = ""
    initial_prompt: Long = ""
    env_vars: Annotated[dict[str, str], Field(default_factory=dict)]


class PhaseReport(Body):
    """LAP REST 3.10."""

    phase: Literal["cloning_repo", "installing_deps", "harness_listening"]
    detail: Annotated[str, Field(max_length=DETAIL_LIMIT)] | None = None


class ApiAgent(BaseModel):
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
    sandbox_files: list[SandboxFileSpec]
    created_at: str


class ListedFile(BaseModel):
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


class AgentPage(BaseModel):
    """One page of agents; `total` counts all that match, `limit` and `offset` are the effective ones."""

    data: list[ListedAgent]
    total: int
    limit: int
    offset: int


class ApiSession(BaseModel):
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
    origin: None
    sandboxes: None
    isolation: dict[str, Any] | None
    viewers: int


class CreatedSession(ApiSession):
    """A session just created; `warnings` names what was asked for and is not done."""

    warnings: list[str]


class EndedSession(BaseModel):
    """Answer to a deletion or a stop: `deleted`, or `dead` when it was that already or was stopped."""

    id: str
    status: Literal["deleted", "dead"]


class LoggedEvent(BaseModel):
    """One event of the log; it also has `agent` or `session`, as it was right after the change."""

    seq: int
    at: str
    type: str
    agent_id: str | None
    session_id: str | None


class EventPage(BaseModel):
    """A stretch of the event log; `next` is the `after` of the following one, null at the end."""

    data: list[LoggedEvent]
    next: int | None


class ApiSkill(BaseModel):
    """A reusable block of instructions."""

    id: str
    name: str
    description: str | None
    content: str
    created_at: str


class SkillList(BaseModel):
    """All skills, newest first."""

    data: list[ApiSkill]


class Health(BaseModel):
    """The platform answers."""

    ok: bool
    version: str
    started_at: str


class Issue(BaseModel):
    """One thing wrong with a request."""

    path: list[str | int]
    message: str
    code: str


class ApiError(BaseModel):
    """Every refusal."""

    error: str
    code: Literal["UNAUTHORIZED", "NOT_FOUND", "INVALID", "CONFLICT", "INTERNAL", "UNAVAILABLE"]
    issues: list[Issue] = []

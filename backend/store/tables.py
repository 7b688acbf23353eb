"""The tables (LAP REST 9, as far as the platform needs them so far).

Times are texts in the form of `backend.domain.clock`: they sort as moments and compare exactly, which the guarded
updates of sessions rely on. On PostgreSQL all texts are compared by code points, as SQLite does, see `migrate`.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
    true,
)

_NUMBER = BigInteger().with_variant(Integer, "sqlite")  # which has only one size, and counts up only what is so named

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

agent = Table(
    "agent",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text),
    Column("model", Text, nullable=False),
    Column("prompt", Text),
    Column("harness_id", Text, nullable=False),
    Column("harness_image", Text),
    Column("repo_url", Text),
    Column("branch", Text, nullable=False),
    Column("pfp_url", Text),
    Column("requirements", Text),
    Column("mcp_servers", JSON, nullable=False),
    Column("env_vars", JSON, nullable=False),  # {key: encrypted value}
    Column("allow_out", JSON, nullable=False),
    Column("deny_out", JSON, nullable=False),
    Column("env_var_hosts", JSON, nullable=False, server_default=text("'{}'")),  # {key: hosts that may get it}
    Column("env_var_plain", JSON, nullable=False, server_default=text("'[]'")),  # keys that are no credentials
    Column("recording", Boolean, nullable=False, server_default=false()),  # for new sessions
    Column("preload_memory_limit", Integer, nullable=False, server_default=text("10")),
    Column("created_at", Text, nullable=False),
    Column("search_text", Text, nullable=False),  # name, id and harness, case-folded: SQLite folds only ASCII itself
    Column("sandbox_files", JSON, nullable=False),  # without their contents, megabytes which most queries leave out
    Column("sandbox_contents", JSON, nullable=False),  # in the same order
    Index(None, "created_at", "id"),
)

session = Table(
    "session",
    metadata,
    Column("id", Text, primary_key=True),
    Column("agent_id", Text, ForeignKey("agent.id", ondelete="CASCADE"), nullable=False),
    Column("status", Text, nullable=False),
    Column("phase", Text),
    Column("phase_detail", Text),
    Column("task_arn", Text),  # the sandbox's name
    Column("owner", Text),  # the platform process that runs it, see services.leases
    Column("sandbox_url", Text),
    Column("harness_session_id", Text),
    Column("tty_token", Text),  # encrypted
    Column("failure_reason", Text),
    Column("log_tail", Text),  # the end of the sandbox's log, kept when the sandbox goes
    Column("last_inspection", JSON(none_as_null=True)),  # what was known of the sandbox then, see services.last_look
    Column("title", Text),
    Column("title_preview", Text),
    Column("has_own_env", Boolean, nullable=False, server_default=false()),  # env_vars of its own, which are not stored
    Column("viewers", Integer, nullable=False, server_default=text("0")),  # length of `attached`, when that is told
    Column("attached", JSON, nullable=False, server_default=text("'[]'")),  # domain.terminal.attached
    Column("terminal", JSON(none_as_null=True)),  # domain.terminal.terminal
    Column("activity", JSON(none_as_null=True)),  # domain.activity.shown
    Column("issues", JSON, nullable=False, server_default=text("'[]'")),  # domain.diagnosis findings, as last seen
    Column("recording", Boolean, nullable=False, server_default=false()),  # whether its terminal is recorded
    Column("skill_ids", JSON, nullable=False, server_default=text("'[]'")),  # those it has besides its agent's
    Column("idle_timeout_ms", _NUMBER, nullable=False, server_default=text("86400000")),
    Column("isolation", JSON(none_as_null=True)),
    Column("response", JSON(none_as_null=True)),  # at most domain.messages.SHORT_RESPONSE of it
    Column("full_response", JSON(none_as_null=True)),  # all of it, when it is longer
    Column("warnings", JSON, nullable=False, server_default=text("'[]'")),
    Column("created_at", Text, nullable=False),
    Column("creating_since", Text, nullable=False),
    Column("ready_at", Text),
    Column("last_seen_at", Text),
    Column("stopped_at", Text),
    CheckConstraint("status IN ('creating', 'ready', 'failed', 'dead')", name="status"),
    Index(None, "agent_id", "created_at"),
    Index(None, "agent_id", "status"),
    Index(None, "created_at", "id"),
    Index(None, "status", "creating_since"),
    Index(None, "task_arn"),
)

session_message = Table(  # what is said in sessions, see domain.messages
    "session_message",
    metadata,
    Column("seq", _NUMBER, primary_key=True, autoincrement=True),
    Column("session_id", Text, ForeignKey("session.id", ondelete="CASCADE"), nullable=False),
    Column("harness_session_id", Text),  # where it was said; null while it waits for the session to be ready
    Column("message_id", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),  # since 1970
    Column("info", JSON, nullable=False),
    Column("parts", JSON, nullable=False),
    Column("size", Integer, nullable=False),  # of `parts`, in characters
    CheckConstraint("state IN ('queued', 'sent', 'pending', 'done', 'failed')", name="state"),
    Index(None, "session_id", "message_id", unique=True),
    Index(None, "session_id", "at_ms", "seq"),
    sqlite_autoincrement=True,
)

event = Table(
    "event",
    metadata,
    Column("seq", _NUMBER, primary_key=True, autoincrement=True),
    Column("at", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("agent_id", Text),  # no foreign keys: the log outlives what it tells of
    Column("session_id", Text),
    Column("data", Text, nullable=False),  # a JSON object, kept as the text that goes over the wire
    Index(None, "session_id", "seq"),
    Index(None, "agent_id", "seq"),
    sqlite_autoincrement=True,  # a sequence number is never given twice, also after the log was pruned
)

memory = Table(
    "memory",
    metadata,
    Column("id", Text, primary_key=True),
    Column("agent_id", Text, ForeignKey("agent.id", ondelete="CASCADE"), nullable=False),
    Column("text", Text, nullable=False),
    Column("search_text", Text, nullable=False),  # `text`, case-folded
    Column("tags", JSON, nullable=False),
    Column("type", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("pinned", Boolean, nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("times_applied", Integer, nullable=False),
    Column("last_applied_at", Text),
    Column("source", Text, nullable=False),
    Column("source_user_id", Text),
    Column("source_session_id", Text),  # no foreign key: what was learnt outlives the session
    Column("source_thread_ts", Text),
    Column("created_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
    Index(None, "agent_id"),
)

memory_tag = Table(  # `tags` of memories, to search by
    "memory_tag",
    metadata,
    Column("memory_id", Text, ForeignKey("memory.id", ondelete="CASCADE"), primary_key=True),
    Column("tag", Text, primary_key=True),
)

skill = Table(
    "skill",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("content", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Index(None, "created_at", "id"),
)

skill_version = Table(  # contents that skills had before
    "skill_version",
    metadata,
    Column("skill_id", Text, ForeignKey("skill.id", ondelete="CASCADE"), primary_key=True),
    Column("version_number", Integer, primary_key=True),
    Column("content", Text, nullable=False),
    Column("changed_by_session_id", Text),
    Column("created_at", Text, nullable=False),  # when it was replaced
)

warm_task = Table(  # sandboxes that wait for a session; a claim takes the row away
    "warm_task",
    metadata,
    Column("id", Text, primary_key=True),
    Column("agent_id", Text, ForeignKey("agent.id", ondelete="CASCADE"), nullable=False),
    Column("status", Text, nullable=False),
    Column("task_arn", Text, nullable=False),  # the sandbox's name
    Column("fingerprint", Text, nullable=False),  # domain.warm_pool.fingerprint
    Column("token", Text, nullable=False),  # encrypted
    Column("sandbox_url", Text),
    Column("isolation", JSON(none_as_null=True)),
    Column("harness_session_id", Text),
    Column("failure_reason", Text),
    Column("created_at", Text, nullable=False),
    Column("ready_at", Text),
    CheckConstraint("status IN ('provisioning', 'warm', 'dead')", name="status"),
    Index(None, "agent_id", "status"),
)

worker_lease = Table(
    "worker_lease",
    metadata,
    Column("name", Text, primary_key=True),  # the duty
    Column("holder", Text, nullable=False),
    Column("expires_at", Text, nullable=False),
)

worker_heartbeat = Table(
    "worker_heartbeat",
    metadata,
    Column("name", Text, primary_key=True),  # the duty
    Column("holder", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("last_result", JSON(none_as_null=True)),
)

vault_grant = Table(  # what a sandbox holds in place of credentials; the row goes with the sandbox
    "vault_grant",
    metadata,
    Column("sandbox", Text, primary_key=True),
    Column("agent_id", Text, ForeignKey("agent.id", ondelete="CASCADE"), nullable=False),
    Column("sealed", Text, nullable=False),  # encrypted JSON, see services.vault.Grant
    Column("created_at", Text, nullable=False),
    Index(None, "agent_id"),
)

interception = Table(  # what the vault has seen; secrets are masked
    "interception",
    metadata,
    Column("id", _NUMBER, primary_key=True, autoincrement=True),
    Column("sandbox", Text, nullable=False),
    Column("agent_id", Text, ForeignKey("agent.id", ondelete="CASCADE"), nullable=False),
    Column("session_id", Text),  # null: of a sandbox that waited for a session
    Column("at", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("port", Integer, nullable=False),
    Column("path", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("stubs", JSON, nullable=False),
    Column("count", Integer, nullable=False),
    Index(None, "session_id", "id"),
    Index(None, "sandbox", "id"),
)

oauth_state = Table(  # authorizations under way; a callback takes the row away
    "oauth_state",
    metadata,
    Column("digest", Text, primary_key=True),  # SHA-256 of the state, which only the browser has
    Column("integration_id", Text, nullable=False),
    Column("redirect_uri", Text, nullable=False),
    Column("expires_at", Text, nullable=False),
)

integration_install = Table(
    "integration_install",
    metadata,
    Column("id", Text, primary_key=True),
    Column("integration_id", Text, nullable=False),
    Column("workspace_id", Text, nullable=False),
    Column("workspace_name", Text, nullable=False),
    Column("app_user_id", Text, nullable=False),  # the integration's own user there
    Column("access_token", Text, nullable=False),  # encrypted
    Column("refresh_token", Text),  # encrypted
    Column("expires_at", Text),  # of the access token; null: never
    Column("scope", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("updated_at", Text, nullable=False),
    UniqueConstraint("integration_id", "workspace_id"),
)

agent_integration_binding = Table(
    "agent_integration_binding",
    metadata,
    Column("id", Text, primary_key=True),
    Column("agent_id", Text, ForeignKey("agent.id", ondelete="CASCADE"), nullable=False),
    Column("integration_id", Text, nullable=False),
    Column("install_id", Text, ForeignKey("integration_install.id", ondelete="CASCADE"), nullable=False),
    Column("enabled", Boolean, nullable=False, server_default=true()),
    Column("created_at", Text, nullable=False),
    UniqueConstraint("agent_id", "integration_id"),
    Index(None, "install_id", "created_at"),
)

integration_session = Table(  # which session works on what was asked for elsewhere
    "integration_session",
    metadata,
    Column("external_session_id", Text, primary_key=True),
    Column("install_id", Text, ForeignKey("integration_install.id", ondelete="CASCADE"), nullable=False),
    Column("session_id", Text, ForeignKey("session.id", ondelete="CASCADE"), nullable=False, unique=True),
    Column("external_ref", Text, nullable=False),
    Column("issue_id", Text),
    Column("by_assignment", Boolean, nullable=False),  # opened by a plain webhook for the issue
    Column("stopped", Boolean, nullable=False, server_default=false()),  # from there: its end is no news
    Column("told", JSON, nullable=False),  # what was posted already, see integrations.linear.words
    Column("created_at", Text, nullable=False),
    Index(None, "install_id", "issue_id"),
)

integration_delivery = Table(  # webhooks; those done are kept for a while, so that none is carried out twice
    "integration_delivery",
    metadata,
    Column("seq", _NUMBER, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False),  # becomes the id of the session it opens, so that it opens no second one
    Column("install_id", Text, ForeignKey("integration_install.id", ondelete="CASCADE"), nullable=False),
    Column("delivery", Text, nullable=False, unique=True),  # the sender's id for it
    Column("body_digest", Text, nullable=False, unique=True),
    Column("event", JSON, nullable=False),  # integrations.linear.webhooks.Event; {} once it is done
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("due_at", Text, nullable=False),
    Column("received_at", Text, nullable=False),
    CheckConstraint("state IN ('waiting', 'saying', 'done', 'failed')", name="state"),
    Index(None, "state", "seq"),
    sqlite_autoincrement=True,
)

integration_post = Table(  # what is still to be posted there; the row goes with it
    "integration_post",
    metadata,
    Column("seq", _NUMBER, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False),  # told with it, so that it appears once
    Column("install_id", Text, ForeignKey("integration_install.id", ondelete="CASCADE"), nullable=False),
    Column("external_session_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("content", JSON, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("due_at", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    sqlite_autoincrement=True,
)

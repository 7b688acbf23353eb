"""Agents, sessions, the event log and skills."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "agent",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("prompt", sa.Text),
        sa.Column("harness_id", sa.Text, nullable=False),
        sa.Column("harness_image", sa.Text),
        sa.Column("repo_url", sa.Text),
        sa.Column("branch", sa.Text, nullable=False),
        sa.Column("pfp_url", sa.Text),
        sa.Column("requirements", sa.Text),
        sa.Column("mcp_servers", sa.JSON, nullable=False),
        sa.Column("env_vars", sa.JSON, nullable=False),
        sa.Column("allow_out", sa.JSON, nullable=False),
        sa.Column("deny_out", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("search_text", sa.Text, nullable=False),
        sa.Column("sandbox_files", sa.JSON, nullable=False),
        sa.Column("sandbox_contents", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_agent"),
    )
    op.create_index("ix_agent_created_at_id", "agent", ["created_at", "id"])

    op.create_table(
        "session",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("phase", sa.Text),
        sa.Column("phase_detail", sa.Text),
        sa.Column("task_arn", sa.Text),
        sa.Column("sandbox_url", sa.Text),
        sa.Column("harness_session_id", sa.Text),
        sa.Column("tty_token", sa.Text),
        sa.Column("failure_reason", sa.Text),
        sa.Column("log_tail", sa.Text),
        sa.Column("title", sa.Text),
        sa.Column("title_preview", sa.Text),
        sa.Column("has_own_env", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("viewers", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("idle_timeout_ms", sa.Integer, nullable=False, server_default=sa.text("86400000")),
        sa.Column("isolation", sa.JSON),
        sa.Column("response", sa.JSON),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("creating_since", sa.Text, nullable=False),
        sa.Column("ready_at", sa.Text),
        sa.Column("last_seen_at", sa.Text),
        sa.Column("stopped_at", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_session"),
        sa.ForeignKeyConstraint(["agent_id"], ["agent.id"], name="fk_session_agent_id", ondelete="CASCADE"),
        sa.CheckConstraint("status IN ('creating', 'ready', 'failed', 'dead')", name="ck_session_status"),
    )
    op.create_index("ix_session_agent_id_created_at", "session", ["agent_id", "created_at"])
    op.create_index("ix_session_agent_id_status", "session", ["agent_id", "status"])
    op.create_index("ix_session_created_at_id", "session", ["created_at", "id"])
    op.create_index("ix_session_status_creating_since", "session", ["status", "creating_since"])
    op.create_index("ix_session_task_arn", "session", ["task_arn"])

    op.create_table(
        "event",
        sa.Column("seq", sa.Integer, autoincrement=True, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("agent_id", sa.Text),
        sa.Column("session_id", sa.Text),
        sa.Column("data", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_event"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_event_session_id_seq", "event", ["session_id", "seq"])
    op.create_index("ix_event_agent_id_seq", "event", ["agent_id", "seq"])

    op.create_table(
        "skill",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_skill"),
    )
    op.create_index("ix_skill_created_at_id", "skill", ["created_at", "id"])


def downgrade() -> None:
    for table in ("skill", "event", "session", "agent"):
        op.drop_table(table)

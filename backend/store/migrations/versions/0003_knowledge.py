"""What agents remember, former contents of skills, and skills of single sessions."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("agent", sa.Column("preload_memory_limit", sa.Integer, nullable=False, server_default=sa.text("10")))
    op.add_column("session", sa.Column("skill_ids", sa.JSON, nullable=False, server_default=sa.text("'[]'")))

    op.create_table(
        "memory",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("search_text", sa.Text, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("pinned", sa.Boolean, nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("times_applied", sa.Integer, nullable=False),
        sa.Column("last_applied_at", sa.Text),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("source_user_id", sa.Text),
        sa.Column("source_session_id", sa.Text),
        sa.Column("source_thread_ts", sa.Text),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("updated_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_memory"),
        sa.ForeignKeyConstraint(["agent_id"], ["agent.id"], name="fk_memory_agent_id", ondelete="CASCADE"),
    )
    op.create_index("ix_memory_agent_id", "memory", ["agent_id"])

    op.create_table(
        "memory_tag",
        sa.Column("memory_id", sa.Text, nullable=False),
        sa.Column("tag", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("memory_id", "tag", name="pk_memory_tag"),
        sa.ForeignKeyConstraint(["memory_id"], ["memory.id"], name="fk_memory_tag_memory_id", ondelete="CASCADE"),
    )

    op.create_table(
        "skill_version",
        sa.Column("skill_id", sa.Text, nullable=False),
        sa.Column("version_number", sa.Integer, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("changed_by_session_id", sa.Text),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("skill_id", "version_number", name="pk_skill_version"),
        sa.ForeignKeyConstraint(["skill_id"], ["skill.id"], name="fk_skill_version_skill_id", ondelete="CASCADE"),
    )


def downgrade() -> None:
    for table in ("skill_version", "memory_tag", "memory"):
        op.drop_table(table)
    op.drop_column("session", "skill_ids")
    op.drop_column("agent", "preload_memory_limit")

"""The warm pool, leases on duties, and which platform process runs a session."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("session", sa.Column("owner", sa.Text))

    op.create_table(
        "warm_task",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("task_arn", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.Column("sandbox_url", sa.Text),
        sa.Column("isolation", sa.JSON),
        sa.Column("harness_session_id", sa.Text),
        sa.Column("failure_reason", sa.Text),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("ready_at", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_warm_task"),
        sa.ForeignKeyConstraint(["agent_id"], ["agent.id"], name="fk_warm_task_agent_id", ondelete="CASCADE"),
        sa.CheckConstraint("status IN ('provisioning', 'warm', 'dead')", name="ck_warm_task_status"),
    )
    op.create_index("ix_warm_task_agent_id_status", "warm_task", ["agent_id", "status"])

    op.create_table(
        "worker_lease",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_worker_lease"),
    )

    op.create_table(
        "worker_heartbeat",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("last_result", sa.JSON),
        sa.PrimaryKeyConstraint("name", name="pk_worker_heartbeat"),
    )


def downgrade() -> None:
    for table in ("worker_heartbeat", "worker_lease", "warm_task"):
        op.drop_table(table)
    op.drop_column("session", "owner")

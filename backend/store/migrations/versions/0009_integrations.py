"""Integrations: installs and their bindings, pending authorizations, what came in, and what is to go out."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "oauth_state",
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("integration_id", sa.Text, nullable=False),
        sa.Column("redirect_uri", sa.Text, nullable=False),
        sa.Column("expires_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_oauth_state"),
    )
    op.create_table(
        "integration_install",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("integration_id", sa.Text, nullable=False),
        sa.Column("workspace_id", sa.Text, nullable=False),
        sa.Column("workspace_name", sa.Text, nullable=False),
        sa.Column("app_user_id", sa.Text, nullable=False),
        sa.Column("access_token", sa.Text, nullable=False),
        sa.Column("refresh_token", sa.Text),
        sa.Column("expires_at", sa.Text),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("updated_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_integration_install"),
        sa.UniqueConstraint(
            "integration_id", "workspace_id", name="uq_integration_install_integration_id_workspace_id"
        ),
    )
    op.create_table(
        "agent_integration_binding",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("integration_id", sa.Text, nullable=False),
        sa.Column("install_id", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False, server_default=sa.true()),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_agent_integration_binding"),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agent.id"], name="fk_agent_integration_binding_agent_id_agent", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["install_id"],
            ["integration_install.id"],
            name="fk_agent_integration_binding_install_id_integration_install",
            ondelete="CASCADE",
        ),
        sa.UniqueConstraint("agent_id", "integration_id", name="uq_agent_integration_binding_agent_id_integration_id"),
    )
    op.create_index(
        "ix_agent_integration_binding_install_id_created_at", "agent_integration_binding", ["install_id", "created_at"]
    )
    op.create_table(
        "integration_session",
        sa.Column("external_session_id", sa.Text, nullable=False),
        sa.Column("install_id", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("external_ref", sa.Text, nullable=False),
        sa.Column("issue_id", sa.Text),
        sa.Column("by_assignment", sa.Boolean, nullable=False),
        sa.Column("stopped", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("told", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("external_session_id", name="pk_integration_session"),
        sa.ForeignKeyConstraint(
            ["install_id"],
            ["integration_install.id"],
            name="fk_integration_session_install_id_integration_install",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["session.id"], name="fk_integration_session_session_id_session", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("session_id", name="uq_integration_session_session_id"),
    )
    op.create_index("ix_integration_session_install_id_issue_id", "integration_session", ["install_id", "issue_id"])
    op.create_table(
        "integration_delivery",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("install_id", sa.Text, nullable=False),
        sa.Column("delivery", sa.Text, nullable=False),
        sa.Column("body_digest", sa.Text, nullable=False),
        sa.Column("event", sa.JSON, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("due_at", sa.Text, nullable=False),
        sa.Column("received_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_integration_delivery"),
        sa.ForeignKeyConstraint(
            ["install_id"],
            ["integration_install.id"],
            name="fk_integration_delivery_install_id_integration_install",
            ondelete="CASCADE",
        ),
        sa.CheckConstraint("state IN ('waiting', 'saying', 'done', 'failed')", name="ck_integration_delivery_state"),
        sa.UniqueConstraint("delivery", name="uq_integration_delivery_delivery"),
        sa.UniqueConstraint("body_digest", name="uq_integration_delivery_body_digest"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_integration_delivery_state_seq", "integration_delivery", ["state", "seq"])
    op.create_table(
        "integration_post",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("install_id", sa.Text, nullable=False),
        sa.Column("external_session_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("content", sa.JSON, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("due_at", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_integration_post"),
        sa.ForeignKeyConstraint(
            ["install_id"],
            ["integration_install.id"],
            name="fk_integration_post_install_id_integration_install",
            ondelete="CASCADE",
        ),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    for table in (
        "integration_post",
        "integration_delivery",
        "integration_session",
        "agent_integration_binding",
        "integration_install",
        "oauth_state",
    ):
        op.drop_table(table)

"""What the vault needs: hosts of credentials, stubs of sandboxes, and what was seen of their traffic."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("agent", sa.Column("env_var_hosts", sa.JSON, nullable=False, server_default=sa.text("'{}'")))
    op.add_column("agent", sa.Column("env_var_plain", sa.JSON, nullable=False, server_default=sa.text("'[]'")))

    op.create_table(
        "vault_grant",
        sa.Column("sandbox", sa.Text, nullable=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("sealed", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("sandbox", name="pk_vault_grant"),
        sa.ForeignKeyConstraint(["agent_id"], ["agent.id"], name="fk_vault_grant_agent_id_agent", ondelete="CASCADE"),
    )
    op.create_index("ix_vault_grant_agent_id", "vault_grant", ["agent_id"])

    op.create_table(
        "interception",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("sandbox", sa.Text, nullable=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("method", sa.Text, nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("port", sa.Integer, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("stubs", sa.JSON, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_interception"),
        sa.ForeignKeyConstraint(["agent_id"], ["agent.id"], name="fk_interception_agent_id_agent", ondelete="CASCADE"),
    )
    op.create_index("ix_interception_session_id_id", "interception", ["session_id", "id"])
    op.create_index("ix_interception_sandbox_id", "interception", ["sandbox", "id"])


def downgrade() -> None:
    for table in ("interception", "vault_grant"):
        op.drop_table(table)
    for column in ("env_var_plain", "env_var_hosts"):
        op.drop_column("agent", column)

"""What is said in sessions, the whole latest reply, and what a user should know of a session that works."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("session", sa.Column("full_response", sa.JSON))
    op.add_column("session", sa.Column("warnings", sa.JSON, nullable=False, server_default=sa.text("'[]'")))

    op.create_table(
        "session_message",
        sa.Column("seq", sa.Integer, nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("harness_session_id", sa.Text),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("info", sa.JSON, nullable=False),
        sa.Column("parts", sa.JSON, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_session_message"),
        sa.ForeignKeyConstraint(
            ["session_id"], ["session.id"], name="fk_session_message_session_id", ondelete="CASCADE"
        ),
        sa.CheckConstraint("state IN ('queued', 'sent', 'pending', 'done', 'failed')", name="ck_session_message_state"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_session_message_session_id_message_id", "session_message", ["session_id", "message_id"], unique=True
    )
    op.create_index("ix_session_message_session_id_at_ms_seq", "session_message", ["session_id", "at_ms", "seq"])


def downgrade() -> None:
    op.drop_table("session_message")
    for column in ("warnings", "full_response"):
        op.drop_column("session", column)

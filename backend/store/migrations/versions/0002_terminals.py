"""What a session's terminal shows, who is attached to it, and whether it is recorded."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("agent", sa.Column("recording", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("session", sa.Column("attached", sa.JSON, nullable=False, server_default=sa.text("'[]'")))
    op.add_column("session", sa.Column("terminal", sa.JSON))
    op.add_column("session", sa.Column("recording", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    for table, column in (
        ("session", "recording"),
        ("session", "terminal"),
        ("session", "attached"),
        ("agent", "recording"),
    ):
        op.drop_column(table, column)

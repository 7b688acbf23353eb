"""Numbers of 64 bits where 32 could be too few; those of SQLite have 64 anyway."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

SEQUENCES = (
    ("event", "seq"),
    ("session_message", "seq"),
    ("interception", "id"),
    ("integration_delivery", "seq"),
    ("integration_post", "seq"),
)


def upgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        return
    op.alter_column("session", "idle_timeout_ms", type_=sa.BigInteger)
    for table, column in SEQUENCES:
        op.alter_column(table, column, type_=sa.BigInteger)
        op.execute(f"ALTER SEQUENCE {table}_{column}_seq AS bigint")


def downgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        return
    op.alter_column("session", "idle_timeout_ms", type_=sa.Integer)
    for table, column in SEQUENCES:
        op.execute(f"ALTER SEQUENCE {table}_{column}_seq AS integer")
        op.alter_column(table, column, type_=sa.Integer)

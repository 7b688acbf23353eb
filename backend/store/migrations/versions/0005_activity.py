"""What a session's agent is doing."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("session", sa.Column("activity", sa.JSON))


def downgrade() -> None:
    op.drop_column("session", "activity")

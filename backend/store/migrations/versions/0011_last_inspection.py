"""What was known of a session's sandbox when the session failed or died."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("session", sa.Column("last_inspection", sa.JSON))


def downgrade() -> None:
    op.drop_column("session", "last_inspection")

"""Since when nothing of a tenant's has waited in a lane, so that its counter can be forgotten."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    used_at = sa.Column("used_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)
    op.add_column("queue_shares", used_at)


def downgrade() -> None:
    op.drop_column("queue_shares", "used_at")

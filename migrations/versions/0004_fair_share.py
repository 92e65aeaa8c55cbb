"""Fair shares of the queue: tenants with their weights, and what each has had."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "tenants",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("weight", sa.Double(), server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_tenants"),
    )
    op.create_table(
        "queue_shares",
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("virtual", sa.Double(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("model", "priority", "tenant", name="pk_queue_shares"),
    )


def downgrade() -> None:
    for table in ("queue_shares", "tenants"):
        op.drop_table(table)

"""How a job came in: its key, its door, its batch, its webhook; and what it is estimated to cost."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"


def columns() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("key_id", sa.Text()),
        sa.Column("background", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("stored", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("door", postgresql.JSON()),
        sa.Column("batch_id", sa.Text()),
        sa.Column("batch_line", sa.Integer()),
        sa.Column("webhook", postgresql.JSON()),
        sa.Column("cost", sa.Integer(), nullable=False, server_default="1"),
    )


def upgrade() -> None:
    for column in columns():
        op.add_column("jobs", column)
    batch = sa.text("batch_id IS NOT NULL")
    op.create_index("ix_jobs_batch", "jobs", ["batch_id", "batch_line"], unique=True, postgresql_where=batch)


def downgrade() -> None:
    op.drop_index("ix_jobs_batch", "jobs")
    for column in columns():
        op.drop_column("jobs", column.name)

"""Fair shares of the queue: tenants with their weights, and what each has had. Bells are counted, not remembered."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

QUEUED = sa.text("state = 'queued'")


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
    op.drop_index("ix_jobs_claim", "jobs")
    op.drop_index("ix_jobs_ring", "jobs")
    op.drop_column("jobs", "rung_at")
    op.drop_column("jobs", "rings")
    op.create_index("ix_jobs_turn", "jobs", ["model", "priority", "tenant", "number"], postgresql_where=QUEUED)
    # Who has jobs has a share: those who wait now are found by it, those who run come back by it.
    op.execute("INSERT INTO queue_shares (model, priority, tenant) SELECT DISTINCT model, priority, tenant FROM jobs")


def downgrade() -> None:
    op.drop_index("ix_jobs_turn", "jobs")
    op.add_column("jobs", sa.Column("rings", sa.Integer(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("rung_at", sa.DateTime(timezone=True)))
    op.create_index("ix_jobs_ring", "jobs", ["rung_at"], postgresql_where=QUEUED)
    op.create_index("ix_jobs_claim", "jobs", ["model", "priority", "number"], postgresql_where=QUEUED)
    for table in ("queue_shares", "tenants"):
        op.drop_table(table)

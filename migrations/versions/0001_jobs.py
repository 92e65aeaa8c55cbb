"""Jobs with their attempts, tokens and blobs; workers; API keys."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("digest", name="uq_api_keys_digest"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("request", postgresql.JSON(), nullable=False),
        sa.Column("metadata", postgresql.JSONB(), nullable=False),
        sa.Column("deadline", sa.DateTime(timezone=True)),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("losses", sa.Integer(), server_default="0", nullable=False),
        sa.Column("worker", sa.Text()),
        sa.Column("token_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("usage", postgresql.JSON()),
        sa.Column("finish_reason", sa.Text()),
        sa.Column("error", postgresql.JSON()),
        sa.Column("queued_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True)),
        sa.Column("prepared_at", sa.DateTime(timezone=True)),
        sa.Column("first_token_at", sa.DateTime(timezone=True)),
        sa.Column("done_at", sa.DateTime(timezone=True)),
        sa.Column("rung_at", sa.DateTime(timezone=True)),
        sa.Column("rings", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
    )
    op.create_index(
        "ix_jobs_claim", "jobs", ["model", "priority", "number"], postgresql_where=sa.text("state = 'queued'")
    )
    op.create_index(
        "ix_jobs_deadline",
        "jobs",
        ["deadline"],
        postgresql_where=sa.text("deadline IS NOT NULL AND state IN ('queued', 'in_progress')"),
    )
    op.create_index("ix_jobs_done", "jobs", ["done_at"], postgresql_where=sa.text("done_at IS NOT NULL"))
    op.create_index("ix_jobs_page", "jobs", ["tenant", "number"])
    op.create_index("ix_jobs_ring", "jobs", ["rung_at"], postgresql_where=sa.text("state = 'queued'"))
    op.create_index("ix_jobs_worker", "jobs", ["worker"], postgresql_where=sa.text("state = 'in_progress'"))
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("stats", postgresql.JSON(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
    )
    op.create_table(
        "job_attempts",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("claim", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("ended_as", sa.Text()),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.Column("tokens", sa.Integer(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_attempts_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "number", name="pk_job_attempts"),
    )
    op.create_index("ix_job_attempts_open", "job_attempts", ["claim"], postgresql_where=sa.text("ended_at IS NULL"))
    op.create_table(
        "job_blobs",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_blobs_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "digest", name="pk_job_blobs"),
    )
    op.create_index("ix_job_blobs_digest", "job_blobs", ["digest"])
    op.create_table(
        "job_tokens",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("first", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tokens", postgresql.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name="fk_job_tokens_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "first", name="pk_job_tokens"),
    )


def downgrade() -> None:
    for table in ("job_tokens", "job_blobs", "job_attempts", "workers", "jobs", "api_keys"):
        op.drop_table(table)

"""Files and batches."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("created_at", INSTANT, server_default=sa.func.now(), nullable=False),
        sa.Column("expires_at", INSTANT),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
    )
    op.create_index("ix_files_page", "files", ["tenant", "number"])
    op.create_index("ix_files_digest", "files", ["digest"])
    lives_shortly = sa.text("expires_at IS NOT NULL")
    op.create_index("ix_files_expires_at", "files", ["expires_at"], postgresql_where=lives_shortly)
    _create_batches()
    _index_jobs()


def _create_batches() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text()),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("input_file_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("model", sa.Text()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("metadata", postgresql.JSONB(), nullable=False),
        sa.Column("output_lifetime_s", sa.Integer()),
        sa.Column("errors", postgresql.JSON()),
        sa.Column("total", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_line", sa.Integer(), server_default="1", nullable=False),
        sa.Column("next_byte", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("taken", sa.Integer(), server_default="0", nullable=False),
        sa.Column("completed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("usage", postgresql.JSON()),
        sa.Column("output_file_id", sa.Text()),
        sa.Column("error_file_id", sa.Text()),
        sa.Column("created_at", INSTANT, server_default=sa.func.now(), nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
        sa.Column("in_progress_at", INSTANT),
        sa.Column("finalizing_at", INSTANT),
        sa.Column("cancelling_at", INSTANT),
        sa.Column("ended_at", INSTANT),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
    )
    op.create_index("ix_batches_page", "batches", ["tenant", "number"])
    op.create_index("ix_batches_active", "batches", ["number"], postgresql_where=sa.text("ended_at IS NULL"))
    op.create_index("ix_batches_ended_at", "batches", ["ended_at"], postgresql_where=sa.text("ended_at IS NOT NULL"))
    op.create_table(
        "batch_refusals",
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("line", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("status_code", sa.Integer(), nullable=False),
        sa.Column("error", postgresql.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_batch_refusals_batch_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("batch_id", "line", name="pk_batch_refusals"),
    )


def _index_jobs() -> None:
    active = sa.text("batch_id IS NOT NULL AND state IN ('queued', 'in_progress')")
    failed = sa.text("batch_id IS NOT NULL AND state IN ('failed', 'cancelled')")
    op.create_index("ix_jobs_batch_active", "jobs", ["batch_id"], postgresql_where=active)
    op.create_index("ix_jobs_batch_failed", "jobs", ["batch_id"], postgresql_where=failed)


def downgrade() -> None:
    op.drop_index("ix_jobs_batch_failed", "jobs")
    op.drop_index("ix_jobs_batch_active", "jobs")
    for table in ("batch_refusals", "batches", "files"):
        op.drop_table(table)

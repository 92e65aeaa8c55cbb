"""Limits of keys, and idempotency keys."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def key_columns() -> tuple[sa.Column[Any], ...]:
    return (
        sa.Column("old_digest", sa.LargeBinary()),
        sa.Column("old_secret_until", sa.DateTime(timezone=True)),
        sa.Column("requests_per_minute", sa.Integer()),
        sa.Column("tokens_per_minute", sa.Integer()),
        sa.Column("queued_jobs", sa.Integer()),
        sa.Column("jobs_in_flight", sa.Integer()),
    )


def upgrade() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("made", sa.Text(), nullable=False),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("tenant", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_claimed_at", "idempotency_keys", ["claimed_at"])
    for column in key_columns():
        op.add_column("api_keys", column)
    op.create_unique_constraint("uq_api_keys_old_digest", "api_keys", ["old_digest"])
    op.create_table(
        "key_usage",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("requests", sa.Double(), nullable=False, server_default="0"),
        sa.Column("tokens", sa.Double(), nullable=False, server_default="0"),
        sa.Column("charged_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("key_id", name="pk_key_usage"),
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "key_corrections",
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("number", name="pk_key_corrections"),
        prefixes=["UNLOGGED"],
    )
    op.create_index("ix_key_corrections_key_id", "key_corrections", ["key_id"])
    active = sa.text("batch_id IS NULL AND state IN ('queued', 'in_progress')")
    op.create_index("ix_jobs_key", "jobs", ["key_id", "state"], postgresql_where=active)


def downgrade() -> None:
    op.drop_index("ix_jobs_key", "jobs")
    op.drop_table("key_corrections")
    op.drop_table("key_usage")
    op.drop_constraint("uq_api_keys_old_digest", "api_keys")
    for column in key_columns():
        op.drop_column("api_keys", column.name)
    op.drop_table("idempotency_keys")

"""When a job lost its content; dead letters, and what is deleted with a job or a file, are found at once."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("purged_at", sa.DateTime(timezone=True)))
    unstored = sa.text("done_at IS NOT NULL AND NOT stored AND purged_at IS NULL")
    op.create_index("ix_jobs_unstored", "jobs", ["done_at"], postgresql_where=unstored)
    dead = sa.text("error ->> 'code' = 'too_many_attempts'")
    op.create_index("ix_jobs_dead", "jobs", ["tenant", "number"], postgresql_where=dead)
    op.create_index("ix_webhook_deliveries_subject", "webhook_deliveries", ["subject"])
    op.create_index("ix_idempotency_keys_made", "idempotency_keys", ["made"])


def downgrade() -> None:
    op.drop_index("ix_idempotency_keys_made", "idempotency_keys")
    op.drop_index("ix_webhook_deliveries_subject", "webhook_deliveries")
    op.drop_index("ix_jobs_dead", "jobs")
    op.drop_index("ix_jobs_unstored", "jobs")
    op.drop_column("jobs", "purged_at")

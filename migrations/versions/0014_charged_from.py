"""From which attempt on a job is charged: a dead letter that cost nothing is charged when it is claimed again."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("charged_from", sa.Integer, server_default="1", nullable=False))
    op.execute("""
        UPDATE jobs SET charged_from = attempt + 1
        FROM job_attempts AS last
        WHERE error ->> 'code' IN ('too_many_attempts', 'job_unreadable')
          AND (last.job_id, last.number) = (jobs.id, jobs.attempt) AND last.tokens = 0""")


def downgrade() -> None:
    op.drop_column("jobs", "charged_from")

"""Jobs whose rows a worker could not read are found among the dead letters."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    _find("error ->> 'code' IN ('too_many_attempts', 'job_unreadable')")


def downgrade() -> None:
    _find("error ->> 'code' = 'too_many_attempts'")


def _find(dead: str) -> None:
    op.drop_index("ix_jobs_dead", "jobs")
    op.create_index("ix_jobs_dead", "jobs", ["tenant", "number"], postgresql_where=sa.text(dead))

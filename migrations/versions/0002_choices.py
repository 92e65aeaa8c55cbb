"""How each choice of a job ended."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("finish_reasons", postgresql.JSON()))


def downgrade() -> None:
    op.drop_column("jobs", "finish_reasons")

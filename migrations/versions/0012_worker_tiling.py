"""How a worker's model sees pictures, for estimates of what requests cost."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("workers", sa.Column("tiling", sa.JSON(none_as_null=True)))


def downgrade() -> None:
    op.drop_column("workers", "tiling")

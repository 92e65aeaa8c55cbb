"""Webhook endpoints and their deliveries."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("event_types", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("old_secret", sa.Text()),
        sa.Column("old_secret_until", INSTANT),
        sa.Column("created_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("updated_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("failing_since", INSTANT),
        sa.Column("disabled_at", INSTANT),
        sa.Column("disabled_because", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_endpoints"),
    )
    op.create_index("ix_webhook_endpoints_page", "webhook_endpoints", ["tenant", "number"])
    op.create_table(
        "webhook_secrets",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("old_secret", sa.Text()),
        sa.Column("old_secret_until", INSTANT),
        sa.Column("created_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("updated_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("tenant", name="pk_webhook_secrets"),
    )
    _deliveries()
    op.create_table(
        "webhook_attempts",
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("started_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("ended_at", INSTANT),
        sa.Column("status_code", sa.Integer()),
        sa.Column("detail", sa.Text(), nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("delivery_id", "number", name="pk_webhook_attempts"),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["webhook_deliveries.id"], name="fk_webhook_attempts_delivery_id", ondelete="CASCADE"
        ),
    )


def _deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("endpoint_id", sa.Text()),
        sa.Column("url", sa.Text()),
        sa.Column("secret", sa.Text()),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("next_at", INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("attempt", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("leased_until", INSTANT),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
    )
    table = "webhook_deliveries"
    pending, busy = sa.text("state = 'pending'"), sa.text("leased_until IS NOT NULL")
    op.create_index("ix_webhook_deliveries_due", table, ["next_at"], postgresql_where=pending)
    op.create_index("ix_webhook_deliveries_busy", table, ["leased_until"], postgresql_where=busy)
    op.create_index("ix_webhook_deliveries_page", table, ["tenant", "number"])
    op.create_index("ix_webhook_deliveries_endpoint", table, ["endpoint_id", "number"])
    op.create_index("ix_webhook_deliveries_created_at", table, ["created_at"])


def downgrade() -> None:
    for table in ("webhook_attempts", "webhook_deliveries", "webhook_secrets", "webhook_endpoints"):
        op.drop_table(table)

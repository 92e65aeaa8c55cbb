"""Endpoints, secrets, deliveries and their tries."""

from sqlalchemy import BigInteger, Column, ForeignKey, Identity, Index, Integer, Table, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY

from jobs.tables.metadata import INSTANT, metadata

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", Text, primary_key=True),
    Column("number", BigInteger, Identity(always=True), nullable=False),
    Column("tenant", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("event_types", ARRAY(Text), nullable=False),
    # Readable, because it signs. While a new secret replaces it, the old one signs too.
    Column("secret", Text, nullable=False),
    Column("old_secret", Text),
    Column("old_secret_until", INSTANT),
    Column("created_at", INSTANT, nullable=False, server_default=func.now()),
    Column("updated_at", INSTANT, nullable=False, server_default=func.now()),
    # Since when nothing has arrived there.
    Column("failing_since", INSTANT),
    Column("disabled_at", INSTANT),
    Column("disabled_because", Text),
    Index("ix_webhook_endpoints_page", "tenant", "number"),
)

webhook_secrets = Table(
    "webhook_secrets",
    metadata,
    # What signs deliveries of jobs that brought a URL and no secret.
    Column("tenant", Text, primary_key=True),
    Column("secret", Text, nullable=False),
    Column("old_secret", Text),
    Column("old_secret_until", INSTANT),
    Column("created_at", INSTANT, nullable=False, server_default=func.now()),
    Column("updated_at", INSTANT, nullable=False, server_default=func.now()),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("number", BigInteger, Identity(always=True), nullable=False),
    Column("tenant", Text, nullable=False),
    # Without a foreign key: the end of a job must not wait for, or fail with, the removal of an endpoint.
    Column("endpoint_id", Text),
    # Of a job's own webhook.
    Column("url", Text),
    Column("secret", Text),
    # The endpoint, or the URL's host: so many tries may go there at once.
    Column("target", Text, nullable=False),
    Column("event_id", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("created_at", INSTANT, nullable=False, server_default=func.now()),
    Column("state", Text, nullable=False),
    # Failed tries since it was made or replayed: how far the schedule is.
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("next_at", INSTANT, nullable=False, server_default=func.now()),
    # The number of the last try, which fences what is written of it; and until when nobody else may try.
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("leased_until", INSTANT),
    Index("ix_webhook_deliveries_due", "next_at", postgresql_where=text("state = 'pending'")),
    Index("ix_webhook_deliveries_busy", "leased_until", postgresql_where=text("leased_until IS NOT NULL")),
    Index("ix_webhook_deliveries_page", "tenant", "number"),
    Index("ix_webhook_deliveries_endpoint", "endpoint_id", "number"),
    Index("ix_webhook_deliveries_created_at", "created_at"),
    Index("ix_webhook_deliveries_subject", "subject"),
)

webhook_attempts = Table(
    "webhook_attempts",
    metadata,
    Column("delivery_id", Text, ForeignKey(webhook_deliveries.c.id, ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("started_at", INSTANT, nullable=False, server_default=func.now()),
    Column("ended_at", INSTANT),
    Column("status_code", Integer),
    Column("detail", Text, nullable=False, server_default=""),
)

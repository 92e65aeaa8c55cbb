"""The tables of PostgreSQL. Migrations make them; a test holds that both agree.

Requests, tokens and engine statistics are JSON text, not JSONB: they are only carried, and a text may hold U+0000,
which JSONB refuses.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    func,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)

QUEUED = text("state = 'queued'")
IN_PROGRESS = text("state = 'in_progress'")
ACTIVE = text("state IN ('queued', 'in_progress')")

DEAD = text("error ->> 'code' = 'too_many_attempts'")

INSTANT = DateTime(timezone=True)

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    # The order of arrival: decides within a lane, and pages.
    Column("number", BigInteger, Identity(always=True), nullable=False),
    Column("tenant", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("request", JSON(none_as_null=True), nullable=False),
    Column("metadata", JSONB(none_as_null=True), nullable=False),
    Column("deadline", INSTANT),
    Column("max_attempts", Integer, nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("losses", Integer, nullable=False, server_default="0"),
    Column("worker", Text),
    # How many tokens job_tokens holds: what a writer locks and compares before it adds to them.
    Column("token_count", Integer, nullable=False, server_default="0"),
    Column("usage", JSON(none_as_null=True)),
    Column("finish_reason", Text),
    Column("finish_reasons", JSON),
    Column("error", JSON(none_as_null=True)),
    Column("queued_at", INSTANT, nullable=False, server_default=func.now()),
    Column("claimed_at", INSTANT),
    Column("prepared_at", INSTANT),
    Column("first_token_at", INSTANT),
    Column("done_at", INSTANT),
    # How it came in.
    Column("key_id", Text),
    Column("background", Boolean, nullable=False, server_default=true()),
    Column("stored", Boolean, nullable=False, server_default=true()),
    Column("door", JSON(none_as_null=True)),
    Column("batch_id", Text),
    Column("batch_line", Integer),
    Column("webhook", JSON(none_as_null=True)),
    # The estimate of its tokens, prompt and answer.
    Column("cost", Integer, nullable=False, server_default="1"),
    # Since when its content is gone: request, tokens, metadata, door.
    Column("purged_at", INSTANT),
    Index("ix_jobs_turn", "model", "priority", "tenant", "number", postgresql_where=QUEUED),
    Index("ix_jobs_worker", "worker", postgresql_where=IN_PROGRESS),
    Index("ix_jobs_deadline", "deadline", postgresql_where=text("deadline IS NOT NULL AND " + ACTIVE.text)),
    Index("ix_jobs_done", "done_at", postgresql_where=text("done_at IS NOT NULL")),
    Index(
        "ix_jobs_unstored", "done_at", postgresql_where=text("done_at IS NOT NULL AND NOT stored AND purged_at IS NULL")
    ),
    Index("ix_jobs_page", "tenant", "number"),
    Index("ix_jobs_dead", "tenant", "number", postgresql_where=DEAD),
    Index("ix_jobs_batch", "batch_id", "batch_line", unique=True, postgresql_where=text("batch_id IS NOT NULL")),
)

job_tokens = Table(
    "job_tokens",
    metadata,
    # Append only: a long answer that is stored every few seconds must not be written anew each time.
    Column("job_id", Text, ForeignKey(jobs.c.id, ondelete="CASCADE"), primary_key=True),
    Column("first", Integer, primary_key=True, autoincrement=False),
    Column("tokens", JSON(none_as_null=True), nullable=False),
)

job_attempts = Table(
    "job_attempts",
    metadata,
    Column("job_id", Text, ForeignKey(jobs.c.id, ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("worker", Text, nullable=False),
    # Names the call that claimed, so that a claim whose answer was lost finds its job again.
    Column("claim", Text, nullable=False),
    Column("started_at", INSTANT, nullable=False, server_default=func.now()),
    Column("ended_at", INSTANT),
    Column("ended_as", Text),
    Column("detail", Text, nullable=False, server_default=""),
    Column("tokens", Integer, nullable=False, server_default="0"),
    Index("ix_job_attempts_open", "claim", postgresql_where=text("ended_at IS NULL")),
)

job_blobs = Table(
    "job_blobs",
    metadata,
    Column("job_id", Text, ForeignKey(jobs.c.id, ondelete="CASCADE"), primary_key=True),
    Column("digest", Text, primary_key=True),
    Index("ix_job_blobs_digest", "digest"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("device", Text, nullable=False),
    Column("stats", JSON(none_as_null=True), nullable=False),
    # How its model sees pictures.
    Column("tiling", JSON(none_as_null=True)),
    Column("started_at", INSTANT, nullable=False, server_default=func.now()),
    Column("heartbeat_at", INSTANT, nullable=False, server_default=func.now()),
)

tenants = Table(
    "tenants",
    metadata,
    # Only those that differ: a tenant without a row has weight 1.
    Column("name", Text, primary_key=True),
    Column("weight", Double, nullable=False, server_default="1"),
)

queue_shares = Table(
    "queue_shares",
    metadata,
    # How many tokens, divided by its weight, a tenant has had of a model's lane: who has the least goes first.
    Column("model", Text, primary_key=True),
    Column("priority", SmallInteger, primary_key=True, autoincrement=False),
    Column("tenant", Text, primary_key=True),
    Column("virtual", Double, nullable=False, server_default="0"),
    # When something of the tenant's came to wait where nothing did, or was last found waiting.
    Column("used_at", INSTANT, nullable=False, server_default=func.now()),
)

leaders = Table(
    "leaders",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("renewed_at", INSTANT, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("name", Text, nullable=False),
    # sha256 of the secret, which is nowhere else; `hint` is its end, for people to tell keys apart.
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("hint", Text, nullable=False),
    Column("created_at", INSTANT, nullable=False, server_default=func.now()),
    Column("revoked_at", INSTANT),
    # The secret before a rotation, which is good until then.
    Column("old_digest", LargeBinary, unique=True),
    Column("old_secret_until", INSTANT),
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", Integer),
    Column("queued_jobs", Integer),
    Column("jobs_in_flight", Integer),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    # sha256 of the request: its method, path and body.
    Column("fingerprint", LargeBinary, nullable=False),
    # The id of the job, file, batch or endpoint; empty when that is deleted before the key is forgotten.
    Column("made", Text, nullable=False),
    Column("claimed_at", INSTANT, nullable=False, server_default=func.now()),
    Index("ix_idempotency_keys_claimed_at", "claimed_at"),
    Index("ix_idempotency_keys_made", "made"),
)

# What keys with limits have used of a minute. Not logged: after a crash of the database everybody starts at nothing.
key_usage = Table(
    "key_usage",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("requests", Double, nullable=False, server_default="0"),
    Column("tokens", Double, nullable=False, server_default="0"),
    Column("charged_at", INSTANT, nullable=False, server_default=func.now()),
    prefixes=["UNLOGGED"],
)
# What ended jobs came to beyond the cost that they were charged, until it is added to the key's usage.
key_corrections = Table(
    "key_corrections",
    metadata,
    Column("number", BigInteger, Identity(always=True), primary_key=True),
    Column("key_id", Text, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("made_at", INSTANT, nullable=False, server_default=func.now()),
    Index("ix_key_corrections_key_id", "key_id"),
    prefixes=["UNLOGGED"],
)
# What a key has waiting and running.
Index("ix_jobs_key", jobs.c.key_id, jobs.c.state, postgresql_where=text("batch_id IS NULL AND " + ACTIVE.text))

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

files = Table(
    "files",
    metadata,
    Column("id", Text, primary_key=True),
    Column("number", BigInteger, Identity(always=True), nullable=False),
    Column("tenant", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
    Column("created_at", INSTANT, nullable=False, server_default=func.now()),
    Column("expires_at", INSTANT),
    Index("ix_files_page", "tenant", "number"),
    Index("ix_files_digest", "digest"),
    Index("ix_files_expires_at", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Text, primary_key=True),
    Column("number", BigInteger, Identity(always=True), nullable=False),
    Column("tenant", Text, nullable=False),
    Column("key_id", Text),
    Column("endpoint", Text, nullable=False),
    Column("input_file_id", Text, nullable=False),
    # The input's bytes are the batch's while it lives, whatever becomes of the file.
    Column("digest", Text, nullable=False),
    Column("model", Text),
    Column("status", Text, nullable=False),
    Column("metadata", JSONB(none_as_null=True), nullable=False),
    Column("output_lifetime_s", Integer),
    Column("errors", JSON(none_as_null=True)),
    Column("total", Integer, nullable=False, server_default="0"),
    # How far the lines have become jobs: the next line, from 1, and the byte where it begins.
    Column("next_line", Integer, nullable=False, server_default="1"),
    Column("next_byte", BigInteger, nullable=False, server_default="0"),
    # How many lines that is, without empty ones.
    Column("taken", Integer, nullable=False, server_default="0"),
    # Of a batch that has ended; before that they are counted.
    Column("completed", Integer, nullable=False, server_default="0"),
    Column("failed", Integer, nullable=False, server_default="0"),
    Column("usage", JSON(none_as_null=True)),
    Column("output_file_id", Text),
    Column("error_file_id", Text),
    Column("created_at", INSTANT, nullable=False, server_default=func.now()),
    Column("expires_at", INSTANT, nullable=False),
    Column("in_progress_at", INSTANT),
    Column("finalizing_at", INSTANT),
    Column("cancelling_at", INSTANT),
    Column("ended_at", INSTANT),
    Index("ix_batches_page", "tenant", "number"),
    Index("ix_batches_active", "number", postgresql_where=text("ended_at IS NULL")),
    Index("ix_batches_ended_at", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
)

batch_refusals = Table(
    "batch_refusals",
    metadata,
    # Lines of a batch that never became a job, until they stand in its error file.
    Column("batch_id", Text, ForeignKey(batches.c.id, ondelete="CASCADE"), primary_key=True),
    Column("line", Integer, primary_key=True, autoincrement=False),
    Column("status_code", Integer, nullable=False),
    Column("error", JSON(none_as_null=True), nullable=False),
)

# What is left of a batch, and what of it failed: both are counted again and again.
Index("ix_jobs_batch_active", jobs.c.batch_id, postgresql_where=text("batch_id IS NOT NULL AND " + ACTIVE.text))
Index(
    "ix_jobs_batch_failed",
    jobs.c.batch_id,
    postgresql_where=text("batch_id IS NOT NULL AND state IN ('failed', 'cancelled')"),
)

"""A job's rows: itself, its tokens, its attempts, the blobs that it refers to."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    func,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB

from jobs.tables.metadata import INSTANT, metadata

QUEUED = text("state = 'queued'")
IN_PROGRESS = text("state = 'in_progress'")
ACTIVE = text("state IN ('queued', 'in_progress')")

DEAD = text("error ->> 'code' IN ('too_many_attempts', 'job_unreadable')")

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
    # The first attempt whose claim charges the cost to the tenant's share: what was charged before was given back.
    Column("charged_from", Integer, nullable=False, server_default="1"),
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
    # What is left of a batch, and what of it failed: both are counted again and again.
    Index("ix_jobs_batch_active", "batch_id", postgresql_where=text("batch_id IS NOT NULL AND " + ACTIVE.text)),
    Index(
        "ix_jobs_batch_failed",
        "batch_id",
        postgresql_where=text("batch_id IS NOT NULL AND state IN ('failed', 'cancelled')"),
    ),
    # What a key has waiting and running.
    Index("ix_jobs_key", "key_id", "state", postgresql_where=text("batch_id IS NULL AND " + ACTIVE.text)),
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

"""Batches, and those of their lines that never became jobs."""

from sqlalchemy import BigInteger, Column, ForeignKey, Identity, Index, Integer, Table, Text, func, text
from sqlalchemy.dialects.postgresql import JSON, JSONB

from jobs.tables.metadata import INSTANT, metadata

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

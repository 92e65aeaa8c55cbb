"""API keys with what they have used, and the keys that make requests idempotent."""

from sqlalchemy import BigInteger, Column, Double, Identity, Index, Integer, LargeBinary, Table, Text, func

from jobs.tables.metadata import INSTANT, metadata

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

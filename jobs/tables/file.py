"""Tenants' files."""

from sqlalchemy import BigInteger, Column, Identity, Index, Table, Text, func, text

from jobs.tables.metadata import INSTANT, metadata

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

"""Processes that live: workers by their heartbeats, and who leads."""

from sqlalchemy import Column, Integer, Table, Text, func
from sqlalchemy.dialects.postgresql import JSON

from jobs.tables.metadata import INSTANT, metadata

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

leaders = Table(
    "leaders",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("renewed_at", INSTANT, nullable=False),
)

"""How tenants share workers: their weights, and what they have had."""

from sqlalchemy import Column, Double, SmallInteger, Table, Text, func

from jobs.tables.metadata import INSTANT, metadata

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

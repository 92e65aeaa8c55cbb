"""Tenants: their weights, by which they share workers. Knows nothing of keys and jobs; a tenant without a row has the
default weight."""

import math
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.dialects.postgresql import insert

from jobs.database import Database
from jobs.tables import tenants

DEFAULT_WEIGHT = 1.0
LEAST_WEIGHT, MOST_WEIGHT = 0.001, 1000.0


@dataclass(frozen=True, slots=True)
class NamedTenant:
    """When several tenants wait, each gets tokens in proportion to its `weight`."""

    name: str
    weight: float = DEFAULT_WEIGHT


class PostgresTenants:
    """All raise StoreUnavailable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> list[NamedTenant]:
        """Those whose weight was ever set, by name."""
        rows = select(tenants).order_by(tenants.c.name)
        return [_tenant_of(row) for row in self._database.statement(lambda on: on.execute(rows).all())]

    def get(self, name: str) -> NamedTenant:
        """Any name is a tenant's, with the default weight until another is set."""
        rows = select(tenants).where(tenants.c.name == name)
        row = self._database.statement(lambda on: on.execute(rows).one_or_none())
        return NamedTenant(name) if row is None else _tenant_of(row)

    def set(self, name: str, weight: float) -> NamedTenant:
        """Counts from the next claim on. Raises ValueError for an empty name, or a weight that is not between
        LEAST_WEIGHT and MOST_WEIGHT."""
        if not name:
            raise ValueError("name = '': a tenant has a name")
        if not (math.isfinite(weight) and LEAST_WEIGHT <= weight <= MOST_WEIGHT):
            raise ValueError(f"weight = {weight!r}: must be between {LEAST_WEIGHT:g} and {MOST_WEIGHT:g}")
        written = insert(tenants).values(name=name, weight=weight)
        upsert = written.on_conflict_do_update(index_elements=["name"], set_={"weight": weight})
        self._database.statement(lambda on: on.execute(upsert))
        return NamedTenant(name, weight)


def _tenant_of(row: Row[Any]) -> NamedTenant:
    return NamedTenant(row.name, row.weight)

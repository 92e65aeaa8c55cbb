"""Tenants and their weights in PostgreSQL."""

import math
from collections.abc import Iterator

import pytest

from jobs.database import Database
from jobs.tenants import NamedTenant, PostgresTenants

pytestmark = pytest.mark.integration


@pytest.fixture
def tenants(database_url: str) -> Iterator[PostgresTenants]:
    database = Database(database_url, pool_size=1)
    yield PostgresTenants(database)
    database.close()


def test_a_tenant_nobody_has_set_has_weight_one_and_is_not_listed(tenants: PostgresTenants) -> None:
    assert tenants.get("acme") == NamedTenant("acme", 1.0)
    assert tenants.list() == []


def test_a_weight_that_was_set_is_read_listed_and_set_again(tenants: PostgresTenants) -> None:
    assert tenants.set("zeta", 3) == NamedTenant("zeta", 3)
    tenants.set("acme", 0.5)
    assert tenants.list() == [NamedTenant("acme", 0.5), NamedTenant("zeta", 3.0)]
    tenants.set("acme", 2.5)
    assert tenants.get("acme") == NamedTenant("acme", 2.5)


@pytest.mark.parametrize("weight", [0, -1, 0.0001, 1001, math.nan, math.inf])
def test_a_weight_that_nobody_could_be_served_by_is_refused(tenants: PostgresTenants, weight: float) -> None:
    with pytest.raises(ValueError, match="weight = "):
        tenants.set("acme", weight)
    assert tenants.list() == []


def test_a_tenant_without_a_name_is_refused(tenants: PostgresTenants) -> None:
    with pytest.raises(ValueError, match="name = ''"):
        tenants.set("", 1)

"""The database as a host has it whose network loses packets."""

import contextlib
import time
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import text

from cli.services import Services
from jobs.database import Database
from jobs.errors import StoreUnavailable
from tests.chaos.far_host import Apart, FarHost, broken
from tests.chaos.namespace import Namespace, NoNamespace
from tests.chaos.wire import Direction, Network

pytestmark = pytest.mark.integration

STATEMENT_S = 2.0
AFTER_S = 12.0
"""Longer than until TCP tries again what it has kept back for as long as these cuts."""


@pytest.fixture
def far(services: Services) -> Iterator[tuple[FarHost, Namespace]]:
    try:
        namespace = Namespace()
    except NoNamespace as exc:
        pytest.skip(f"needs a network namespace: {exc}")
    with contextlib.closing(namespace), contextlib.closing(Network()) as network:
        yield Apart(services, network, namespace), namespace


def test_statement_that_was_given_up_is_not_run_once_the_network_is_back(
    far: tuple[FarHost, Namespace], services: Services
) -> None:
    host, namespace = far
    with psycopg.connect(services.database_url, autocommit=True) as here:
        here.execute("DROP TABLE IF EXISTS arrived")
        here.execute("CREATE TABLE arrived (number int)")
        database = Database(host.database_url, pool_size=1, statement_timeout_s=STATEMENT_S)

        def arrive(number: int) -> None:
            database.statement(lambda on: on.execute(text("INSERT INTO arrived VALUES (:n)"), {"n": number}))

        def arrived() -> list[int]:
            return [row[0] for row in here.execute("SELECT number FROM arrived ORDER BY number")]

        namespace.inside(lambda: arrive(1))
        with broken(host, Direction.OUT), pytest.raises(StoreUnavailable):
            arrive(2)
        end = time.monotonic() + AFTER_S
        while time.monotonic() < end:
            assert arrived() == [1]
            time.sleep(0.5)
        namespace.inside(lambda: arrive(3))
        assert arrived() == [1, 3]
        here.execute("DROP TABLE arrived")
        database.close()

"""How PostgreSQL finds jobs that wait among many that have ended, whatever its statistics make it believe."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from jobs.database import Database
from jobs.store import claim, depth, shares, sweep

pytestmark = pytest.mark.integration

ENDED, QUEUED, TENANTS = 20_000, 1000, 50
ASKED = {"model": "tiny", "worker": "w", "claim": "c", "lowest": 2, "limit": 256, "id": "wait3"}
ENTERING = f"""
    WITH new AS (SELECT 'tiny' AS model, CAST(1 AS smallint) AS priority, 'newcomer' AS tenant),
    {shares.entering("new")} SELECT"""
STATEMENTS = {
    "claim": claim._CLAIM.text,
    "entering": ENTERING,
    "claimable": sweep._CLAIMABLE.text,
    "place": depth._PLACE.text,
}


def add(connection: psycopg.Connection, name: str, tenants: int, count: int, state: str) -> None:
    """Jobs `name1`… of the tenants `name-0`…"""
    connection.execute(
        """
        INSERT INTO jobs (id, tenant, kind, model, priority, state, request, metadata, max_attempts, done_at)
        SELECT %(name)s || n, %(name)s || '-' || n %% %(tenants)s, 'job', 'tiny', 1, %(state)s, '{}', '{}', 3,
               CASE WHEN %(state)s = 'completed' THEN now() END
        FROM generate_series(1, %(count)s) AS n""",
        {"name": name, "tenants": tenants, "count": count, "state": state},
    )


def never_analyzed(connection: psycopg.Connection) -> None:
    add(connection, "old", 1, ENDED, "completed")


def analyzed_before_anybody_waited(connection: psycopg.Connection) -> None:
    add(connection, "old", 1, ENDED, "completed")
    connection.execute("ANALYZE jobs")


def analyzed_while_all_waited(connection: psycopg.Connection) -> None:
    add(connection, "old", 1, ENDED, "queued")
    connection.execute("ANALYZE jobs")
    connection.execute("UPDATE jobs SET state = 'completed', done_at = now()")


@pytest.fixture(params=[never_analyzed, analyzed_before_anybody_waited, analyzed_while_all_waited])
def database(request: pytest.FixtureRequest, database_url: str) -> Iterator[Database]:
    """Many ended jobs of a tenant, some that wait of it and of others, and tenants that had some once."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        for table in ("jobs", "queue_shares"):
            connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
        request.param(connection)
        connection.execute("UPDATE jobs SET tenant = 'many-0'")
        add(connection, "many", 1, QUEUED, "queued")
        add(connection, "wait", TENANTS, 2 * TENANTS, "queued")
        for tenants in ("many", "wait", "idle"):
            connection.execute(
                "INSERT INTO queue_shares SELECT 'tiny', 1, %s || '-' || n, n FROM generate_series(0, %s) AS n",
                (tenants, 0 if tenants == "many" else TENANTS - 1),
            )
    made = Database(database_url)
    yield made
    made.close()


def scans(plan: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """How each part of a plan that reads jobs finds them, and how many rows it looked at in vain."""
    if plan.get("Relation Name") == "jobs" and "Scan" in plan["Node Type"]:
        rejected = plan.get("Rows Removed by Filter", 0) * plan["Actual Loops"]
        index = plan if "Index Name" in plan else next(iter(plan.get("Plans", ())), plan)
        yield index.get("Index Name", plan["Node Type"]), int(rejected)
    for part in plan.get("Plans", ()):
        yield from scans(part)


@pytest.mark.parametrize("name", STATEMENTS)
def test_who_waits_is_found_by_the_index_of_those_who_wait(database: Database, name: str) -> None:
    explained = text(f"EXPLAIN (ANALYZE, FORMAT JSON) {STATEMENTS[name]}")
    (found,) = database.statement(lambda on: on.execute(explained, ASKED).scalars().all())
    (plan,) = json.loads(found) if isinstance(found, str | bytes) else found
    read = list(scans(plan["Plan"]))
    assert "ix_jobs_turn" in {index for index, _ in read}
    assert {index for index, _ in read} <= {"ix_jobs_turn", "ix_jobs_worker", "pk_jobs"}
    assert sum(rejected for _, rejected in read) <= QUEUED + 2 * TENANTS

"""Migrations against a real PostgreSQL."""

import subprocess
import sys

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from cli.services import Services
from jobs.database import Database
from jobs.errors import StoreUnavailable
from jobs.job import AttemptEnd, Token
from jobs.schema import migrate
from jobs.store import PostgresJobStore
from jobs.tables import metadata
from tests.fixtures.jobs import new_job

pytestmark = pytest.mark.integration


def test_migrations_on_an_empty_database_give_the_tables_of_the_models(database_url: str) -> None:
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        differences = compare_metadata(context, metadata)
    engine.dispose()
    assert differences == []


def test_migrating_a_migrated_database_changes_nothing(database_url: str) -> None:
    migrate(database_url)


def test_migrations_started_by_several_processes_at_once_all_succeed(services: Services) -> None:
    services.postgres.ensure_database("empty")
    url = services.postgres.url("empty")
    command = [sys.executable, "-m", "jobs.schema"]
    started = [subprocess.Popen(command, env={"VLMQ_DATABASE_URL": url}) for _ in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)


def test_migrating_a_database_that_is_away_says_so(services: Services) -> None:
    with pytest.raises(StoreUnavailable, match="does not exist"):
        migrate(services.postgres.url("nowhere"))


def test_dead_letters_of_an_older_schema_are_charged_from_their_next_claim_unless_their_charge_stands(
    database_url: str,
) -> None:
    database = Database(database_url)
    store = PostgresJobStore(database)
    for job_id, tokens in (("job_nothing", ()), ("job_tokens", (Token(1, "x"),)), ("job_waits", ())):
        store.insert(new_job(id=job_id, max_attempts=2 if job_id == "job_waits" else 1))
        store.claim("tiny", "w")
        store.give_back(job_id, 1, AttemptEnd.ENGINE_DIED, "", tokens)
    database.close()
    with psycopg.connect(database_url) as connection:
        connection.execute("ALTER TABLE jobs DROP COLUMN charged_from")
        connection.execute("UPDATE alembic_version SET version_num = '0013'")
    migrate(database_url)
    with psycopg.connect(database_url) as connection:
        found = connection.execute("SELECT id, charged_from FROM jobs ORDER BY id").fetchall()
    assert found == [("job_nothing", 2), ("job_tokens", 1), ("job_waits", 1)]

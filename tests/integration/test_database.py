"""The store while PostgreSQL restarts, freezes, is full, or was never migrated."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection

from cli.services import Services
from jobs.database import IDLE_IN_TRANSACTION_S, Database
from jobs.errors import StoreUnavailable
from jobs.job import JobState, Outcome, Token
from jobs.schema import migrate
from jobs.settings import ServiceSettings, SettingsError, load
from jobs.store import PostgresJobStore
from tests.fixtures.jobs import new_job
from tests.fixtures.services import open_folder

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def own_services() -> Iterator[Services]:
    """Servers to stop and to freeze; each test leaves them running."""
    with open_folder() as folder, Services(folder, durable=False) as running:
        migrate(running.database_url)
        yield running


@pytest.fixture
def fragile(own_services: Services) -> Iterator[Database]:
    opened = Database(own_services.database_url, pool_size=2, connect_timeout_s=2.0, statement_timeout_s=1.0)
    yield opened
    opened.close()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url, pool_size=2, statement_timeout_s=1.0)
    yield opened
    opened.close()


def test_store_goes_on_after_the_database_was_restarted(own_services: Services, fragile: Database) -> None:
    store = PostgresJobStore(fragile)
    job = store.insert(new_job())
    own_services.postgres.stop()
    with pytest.raises(StoreUnavailable, match="does not answer"):
        store.get(job.id)
    own_services.postgres.start()
    assert store.get(job.id) == job
    own_services.postgres.kill()
    own_services.postgres.start()
    assert store.get(job.id) == job


def test_a_workers_result_outlives_a_restart_of_the_database(own_services: Services, fragile: Database) -> None:
    store = PostgresJobStore(fragile, patience_s=60.0)
    store.insert(new_job())
    job = store.claim("tiny", "w")
    assert job is not None
    own_services.postgres.stop()
    restart = threading.Timer(0.5, own_services.postgres.start)
    restart.start()
    done = store.finish(job.id, 1, Outcome(JobState.COMPLETED, (Token(1, "A"),)))
    restart.join()
    assert (done.state, done.text) == (JobState.COMPLETED, "A")
    assert store.get(job.id) == done


def test_a_frozen_database_is_not_waited_for_for_ever(own_services: Services, fragile: Database) -> None:
    store = PostgresJobStore(fragile)
    job = store.insert(new_job())
    connected = _backends(own_services.postgres.process.pid)
    for pid in connected:
        os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable):
            store.get(job.id)
    finally:
        for pid in connected:
            os.kill(pid, signal.SIGCONT)
    assert _eventually(lambda: store.get(job.id) == job)


def test_a_lock_that_somebody_holds_is_not_waited_for_for_ever(database: Database) -> None:
    store = PostgresJobStore(database)
    job = store.insert(new_job())

    def hold(connection):  # type: ignore[no-untyped-def]
        connection.exec_driver_sql("SELECT 1 FROM jobs FOR UPDATE")
        with pytest.raises(StoreUnavailable, match="timeout"):
            store.cancel(job.id)

    database.transaction(hold)
    assert store.cancel(job.id).state == JobState.CANCELLED


def test_a_process_that_freezes_in_a_transaction_is_not_in_the_way_for_longer_than_a_lease(database_url: str) -> None:
    frozen, other = Database(database_url), Database(database_url)
    store = PostgresJobStore(other, patience_s=0.0)
    store.insert(new_job(id="job_1"))
    thawed, locked = threading.Event(), threading.Event()

    def freezes(connection: Connection) -> None:
        connection.exec_driver_sql("UPDATE jobs SET cost = 2")
        locked.set()
        thawed.wait(60)
        connection.exec_driver_sql("SELECT 1")

    with ThreadPoolExecutor(1) as threads:
        try:
            lost = threads.submit(frozen.transaction, freezes)
            assert locked.wait(30)
            # Waits for the lock, for less long than a statement may take.
            assert store.cancel("job_1").state is JobState.CANCELLED
            assert not lost.done()
        finally:
            thawed.set()
        with pytest.raises(StoreUnavailable):
            lost.result(30)
    frozen.close()
    other.close()
    assert load(ServiceSettings).lease_s > IDLE_IN_TRANSACTION_S


def test_a_pool_that_is_in_use_says_so(database_url: str) -> None:
    database = Database(database_url, pool_size=1, connect_timeout_s=0.2)
    with pytest.raises(StoreUnavailable, match="no free connection"):
        database.statement(lambda _: database.statement(lambda on: on.exec_driver_sql("SELECT 1")))
    database.close()


def test_a_database_without_tables_says_what_to_do(services: Services) -> None:
    services.postgres.ensure_database("bare")
    database = Database(services.postgres.url("bare"))
    with pytest.raises(StoreUnavailable, match=r"python -m jobs\.schema"):
        PostgresJobStore(database).get("job_1")
    database.close()


def test_a_wrong_statement_is_no_illness(database: Database) -> None:
    with pytest.raises(Exception, match="syntax error") as caught:
        database.statement(lambda on: on.exec_driver_sql("SELEKT"))
    assert not isinstance(caught.value, StoreUnavailable)


def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    def work(connection):  # type: ignore[no-untyped-def]
        connection.exec_driver_sql("INSERT INTO job_blobs SELECT id, 'x' FROM jobs")
        raise KeyError("stop")

    PostgresJobStore(database).insert(new_job())
    with pytest.raises(KeyError):
        database.transaction(work)
    assert database.statement(lambda on: on.exec_driver_sql("SELECT count(*) FROM job_blobs").scalar_one()) == 0


@pytest.mark.parametrize("url", ["nonsense", "", "mysql://host/db"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="VLMQ_DATABASE_URL"):
        Database(url)


def _backends(postmaster: int) -> list[int]:
    import psutil

    return [postmaster, *(child.pid for child in psutil.Process(postmaster).children())]


def _eventually(holds, limit_s: float = 20.0) -> bool:  # type: ignore[no-untyped-def]
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        try:
            if holds():
                return True
        except StoreUnavailable:
            pass
        time.sleep(0.05)
    return False

"""The sweeper over real services, and who leads."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from jobs import connect
from jobs.database import Database
from jobs.errors import StoreUnavailable
from jobs.events import Delta, Ended, log_of
from jobs.idempotency import IdempotencyKey
from jobs.job import Job, JobState, Token
from jobs.leadership import Leadership
from jobs.ports import WorkerRecord
from jobs.queue import queue_name
from jobs.settings import ServiceSettings, load
from tests.fixtures.damage import damage, write
from tests.fixtures.eventually import eventually
from tests.fixtures.jobs import new_job
from tests.fixtures.services import settings_for
from worker.heartbeat import Heartbeat
from worker.live_job import LiveJob, LiveJobs
from worker.maintenance import Maintenance
from worker.settings import MaintenanceSettings
from worker.sweeper import MOST_BELLS

pytestmark = pytest.mark.integration

MODEL = "tiny"


class Bench:
    """A maintenance that turns when told to, and the services around it."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.settings = settings
        self.database = connect.database(settings)
        self.store = connect.job_store(self.database)
        self.client = connect.redis_client(settings)
        self.log = connect.event_log(settings, self.client)
        self.maintenance = Maintenance(settings, load(MaintenanceSettings, clean_s=0.001, blob_age_s=0.001))

    @property
    def queue(self) -> str:
        return f"{self.settings.redis_prefix}{queue_name(MODEL)}"

    def bells(self, model: str = MODEL) -> int:
        """How many wait in the queue."""
        return int(self.client.llen(f"{self.settings.redis_prefix}{queue_name(model)}"))

    def pass_time(self, job_id: str, seconds: float) -> None:
        with psycopg.connect(self.settings.database_url) as connection:
            older = f"- interval '{seconds} seconds'"
            connection.execute(f"UPDATE jobs SET done_at = done_at {older}")
            connection.execute(f"UPDATE workers SET heartbeat_at = heartbeat_at {older}")

    def claimed(self, **values) -> Job:
        job_id = self.store.insert(new_job(model=MODEL, **values)).id
        self.store.heartbeat(WorkerRecord("w", MODEL, "host", 1, 1))
        job = self.store.claim(MODEL, "w")
        assert job is not None
        assert job.id == job_id
        return job

    def close(self) -> None:
        self.maintenance.close()
        self.client.close()
        self.database.close()


@pytest.fixture
def bench(service_settings: ServiceSettings) -> Iterator[Bench]:
    made = Bench(service_settings)
    yield made
    made.close()


def test_job_whose_bell_was_lost_is_rung_for_once(bench):
    job_id = bench.store.insert(new_job(model=MODEL)).id
    bench.maintenance.turn()
    bench.maintenance.turn()
    assert bench.bells() == 1
    bench.client.delete(bench.queue)
    bench.maintenance.turn()
    assert bench.bells() == 1
    bench.store.cancel(job_id)
    bench.client.delete(bench.queue)
    bench.maintenance.turn()
    assert bench.bells() == 0


def test_bells_of_each_model_are_topped_up_to_what_waits_and_no_further_than_enough(bench):
    for number in range(MOST_BELLS + 20):
        bench.store.insert(new_job(model=MODEL, tenant=f"t{number % 3}"))
    for _ in range(2):
        bench.store.insert(new_job(model="other"))
    for _ in range(3):
        bench.maintenance.turn()
        assert (bench.bells(), bench.bells("other")) == (MOST_BELLS, 2)


def test_bells_nobody_answers_do_not_grow_in_number(bench):
    ids = [bench.store.insert(new_job(model=MODEL)).id for _ in range(3)]
    rung = connect.queue(bench.settings)
    for job_id in ids:
        rung.ring(MODEL, job_id)
    rung.close()
    for _ in range(3):
        bench.maintenance.turn()
    assert bench.bells() == 3


def test_a_sweep_goes_on_while_the_broker_is_frozen_and_rings_when_it_answers(private_redis, database_url, tmp_path):
    bench = Bench(settings_for(database_url, private_redis.url, "p:", tmp_path))
    job = bench.claimed(max_attempts=1)
    bench.store.insert(new_job(model=MODEL))
    bench.pass_time(job.id, 60)
    os.kill(private_redis.process.pid, signal.SIGSTOP)
    try:
        bench.maintenance.turn()
    finally:
        os.kill(private_redis.process.pid, signal.SIGCONT)
    assert bench.store.get(job.id).state is JobState.FAILED
    bench.maintenance.turn()
    assert bench.bells() == 1
    bench.close()


def test_idempotency_keys_are_forgotten_after_their_time(bench):
    key = IdempotencyKey("default", "k", b"")
    bench.store.insert(new_job(), key)
    bench.store.insert(new_job(), replace(key, key="fresh"))
    with psycopg.connect(bench.settings.database_url) as connection:
        connection.execute("UPDATE idempotency_keys SET claimed_at = claimed_at - interval '25 hours' WHERE key = 'k'")
        connection.commit()
        bench.maintenance.turn()
        assert connection.execute("SELECT key FROM idempotency_keys").fetchall() == [("fresh",)]


def test_dead_workers_job_is_queued_and_rung_again(bench):
    job = bench.claimed()
    bench.maintenance.turn()
    assert bench.store.get(job.id).state is JobState.IN_PROGRESS
    bench.pass_time(job.id, 60)
    eventually(
        "the job is taken back",
        lambda: bench.maintenance.turn() or bench.store.get(job.id).state is JobState.QUEUED,
    )
    assert bench.store.get(job.id).losses == 1
    assert bench.bells() == 1


def test_worker_that_could_not_be_heard_while_the_database_was_away_keeps_its_job(private_services, tmp_path):
    settings = settings_for(private_services.database_url, private_services.redis_url, "p:", tmp_path)
    bench = Bench(settings)
    job = bench.claimed()
    turned, stop = threading.Event(), threading.Event()

    def maintain() -> None:
        while not stop.is_set():
            with contextlib.suppress(StoreUnavailable):
                bench.maintenance.turn()
                turned.set()
            stop.wait(0.02)

    thread = threading.Thread(target=maintain)
    thread.start()
    try:
        assert turned.wait(30)
        private_services.postgres.stop()
        time.sleep(settings.lease_s + 1)
        private_services.postgres.start()
        # The worker is heard again within its heartbeat, but the maintenance process is quicker.
        time.sleep(settings.heartbeat_s)
        until = time.monotonic() + 3 * settings.lease_s
        while time.monotonic() < until:
            bench.store.heartbeat(WorkerRecord("w", MODEL, "host", 1, 1))
            time.sleep(settings.heartbeat_s)
        assert (bench.store.get(job.id).state, bench.store.get(job.id).attempt) == (JobState.IN_PROGRESS, 1)
        eventually("a silent worker loses it", lambda: bench.store.get(job.id).state is JobState.QUEUED)
    finally:
        stop.set()
        thread.join()
        bench.close()


def test_job_that_killed_too_many_workers_ends_with_its_published_tokens(bench):
    job = bench.claimed(max_attempts=1)
    tokens = (Token(1, "a"), Token(2, "b"))
    bench.log.open(job.id, 1, [*log_of(job), *map(Delta, tokens)])
    bench.pass_time(job.id, 60)
    bench.maintenance.turn()
    failed = bench.store.get(job.id)
    assert (failed.state, failed.error.code, failed.tokens) == (JobState.FAILED, "too_many_attempts", tokens)
    assert isinstance(bench.log.read(job.id)[-1], Ended)


def test_rows_that_cannot_be_read_hold_up_no_round(bench):
    url = bench.settings.database_url
    lost, late = bench.claimed(max_attempts=1), bench.claimed()
    good = bench.claimed()
    for job in (lost, late):
        bench.log.open(job.id, 1, [*log_of(job), Delta(Token(1, "a"))])
        damage(url, job.id, "no object")
    write(url, late.id, deadline=datetime.now(UTC) - timedelta(seconds=1))
    bench.maintenance.turn()
    assert bench.store.get(late.id).error.code == "deadline_exceeded"
    bench.pass_time(lost.id, 60)
    bench.maintenance.turn()
    assert bench.store.get(lost.id).error.code == "too_many_attempts"
    assert bench.store.get(good.id).state is JobState.QUEUED
    assert bench.bells() == 1
    for job in (lost, late):
        assert bench.store.get(job.id).text == "a"
        assert isinstance(bench.log.read(job.id)[-1], Ended)


def test_running_job_past_its_deadline_fails_and_its_worker_is_told(bench):
    job = bench.claimed()
    told = bench.client.pubsub(ignore_subscribe_messages=True)
    told.subscribe(f"{bench.settings.redis_prefix}control:w")
    told.get_message(timeout=1)
    with psycopg.connect(bench.settings.database_url) as connection:
        connection.execute("UPDATE jobs SET deadline = now() - interval '1 second'")
    bench.maintenance.turn()
    assert bench.store.get(job.id).error.code == "deadline_exceeded"
    message = eventually("the worker is told", lambda: told.get_message(timeout=0.1))
    assert message["data"] == job.id.encode()
    told.close()


def test_bytes_that_no_job_refers_to_are_removed(bench):
    blobs = connect.blobs(bench.settings)
    digest = blobs.put(b"orphan")
    bench.maintenance.turn()
    eventually("the blob is gone", lambda: bench.maintenance.turn() or not blobs.older_than(0))
    assert digest not in blobs.older_than(0)


def test_expired_job_is_removed(bench):
    job = bench.store.cancel(bench.store.insert(new_job(model=MODEL)).id)
    bench.pass_time(job.id, 30 * 86400)
    bench.maintenance.turn()
    assert bench.store.get_many([job.id]) == {}


def test_share_of_a_tenant_that_has_been_idle_for_a_day_is_removed(bench):
    bench.store.cancel(bench.store.insert(new_job(model=MODEL, tenant="gone")).id)
    waits = bench.store.insert(new_job(model=MODEL, tenant="here")).id
    with psycopg.connect(bench.settings.database_url, autocommit=True) as connection:
        connection.execute("UPDATE queue_shares SET used_at = used_at - interval '25 hours'")
        bench.maintenance.turn()
        assert connection.execute("SELECT tenant FROM queue_shares").fetchall() == [("here",)]
    job = bench.store.claim(MODEL, "w")
    assert job is not None and job.id == waits


def test_broker_that_forgot_all_bells_hears_them_again_at_once(private_redis, database_url, tmp_path):
    bench = Bench(settings_for(database_url, private_redis.url, "p:", tmp_path))
    for _ in range(3):
        bench.store.insert(new_job(model=MODEL))
    bench.maintenance.turn()
    private_redis.kill()
    bench.maintenance.turn()
    private_redis.start(empty=True)
    bench.maintenance.turn()
    assert bench.bells() == 3
    bench.close()


@pytest.fixture
def contenders(database_url):
    """Two processes that want the same lead, which lasts for a second."""
    databases = [Database(database_url, pool_size=1) for _ in range(2)]
    yield [Leadership(database, "test", lease_s=1.0) for database in databases]
    for database in databases:
        database.close()


def test_one_leads_and_another_takes_over(contenders):
    first, second = contenders
    assert first.held()
    assert not second.held()
    assert first.held()
    first.close()
    assert second.held()
    assert not first.held()
    second.close()
    assert first.held()


def test_lead_that_is_not_renewed_goes_to_another(contenders):
    first, second = contenders
    assert first.held()
    eventually("the second leads", second.held)
    assert not first.held()


def test_lead_from_before_the_clock_was_set_back_goes_to_another(contenders, database_url):
    first, second = contenders
    assert first.held()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE leaders SET renewed_at = now() + interval '1 hour'")
    assert second.held()


def test_different_leads_do_not_meet(contenders, database_url):
    first, _ = contenders
    database = Database(database_url, pool_size=1)
    assert first.held()
    assert Leadership(database, "other", lease_s=1.0).held()
    database.close()


def test_worker_is_alive_while_the_table_of_jobs_is_locked(service_settings):
    """By a migration, say. The sweeper waits for the same lock, and then looks who was silent."""
    settings = service_settings.model_copy(update={"lease_s": 1.5})
    database = connect.heartbeat_database(settings)
    store, live_jobs = connect.job_store(database), LiveJobs()
    record = WorkerRecord("patient", MODEL, "host", 1, 1)
    heartbeat = Heartbeat(store, record, live_jobs, lambda: None, every_s=0.2, tick_s=0.1)
    heartbeat.start()
    observer = connect.database(settings)
    running = LiveJob(connect.job_store(observer).get(_claimed(observer)), lambda live, tokens: None)
    with live_jobs.holding(running), psycopg.connect(settings.database_url) as other:
        other.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        until = time.monotonic() + 2 * settings.lease_s
        while time.monotonic() < until:
            time.sleep(0.1)
            (status,) = connect.job_store(observer).workers(settings.lease_s)
            assert status.alive
    heartbeat.close()
    database.close()
    observer.close()


def _claimed(database: Database) -> str:
    store = connect.job_store(database)
    store.insert(new_job(model=MODEL))
    job = store.claim(MODEL, "patient")
    assert job is not None
    return job.id

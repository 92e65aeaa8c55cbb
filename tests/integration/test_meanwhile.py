"""What an owner does to a job just while somebody else brings its row and its log together."""

from collections.abc import Iterator, Sequence

import pytest
import redis

from api.settling import Settling
from jobs.control import RedisControl
from jobs.database import Database
from jobs.event_log import RedisEventLog
from jobs.events import Delta, Event, log_of
from jobs.job import AttemptEnd, Job, JobState, Token
from jobs.ports import Append
from jobs.queue import CeleryQueue
from jobs.settings import ServiceSettings
from jobs.store import PostgresJobStore
from tests.fakes.blobs import FakeBlobs
from tests.fixtures.jobs import new_job
from worker.cleaning import JobCleaning
from worker.sweeper import Sweeper

pytestmark = pytest.mark.integration

WORKER = "w:1:0"
PUBLISHED = [Delta(Token(1, "seen "))]


class OwnerDeletes(RedisEventLog):
    """A real log; between the step in Redis and what follows it in the database the owner deletes the job."""

    store: PostgresJobStore
    tenant: str

    def end(self, job_id: str, log: Sequence[Event]) -> list[Event]:
        whole = super().end(job_id, log)
        self.store.delete(job_id, self.tenant)
        return whole


class ReaderComes(RedisEventLog):
    """A real log; just after it was dropped a reader comes who looks at the row, and closes it."""

    store: PostgresJobStore
    control: RedisControl

    def drop(self, job_id: str) -> None:
        super().drop(job_id)
        Settling(self.store, self, self.control, 60).look([job_id])


@pytest.fixture
def client(service_settings: ServiceSettings) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(service_settings.redis_url) as client:
        yield client


@pytest.fixture
def store(service_settings: ServiceSettings) -> Iterator[PostgresJobStore]:
    database = Database(service_settings.database_url)
    yield PostgresJobStore(database)
    database.close()


@pytest.fixture
def log(service_settings: ServiceSettings, client: redis.Redis, store: PostgresJobStore) -> OwnerDeletes:
    log = OwnerDeletes(client, service_settings.redis_prefix, 60)
    log.store, log.tenant = store, new_job().tenant
    return log


def running(store: PostgresJobStore, log: RedisEventLog, **values: object) -> Job:
    """A job with a token that was published and not stored yet."""
    store.insert(new_job(**values))
    job = store.claim("tiny", WORKER)
    assert job is not None
    log.open(job.id, job.attempt, log_of(job))
    assert log.append([Append(job.id, job.attempt, 2, PUBLISHED)]) == [None]
    return job


def test_look_of_readers_goes_on_without_it(
    service_settings: ServiceSettings, client: redis.Redis, store: PostgresJobStore, log: OwnerDeletes
) -> None:
    gone = store.cancel(running(store, log).id)
    other = store.insert(new_job(id="job_other"))
    assert gone.state is JobState.CANCELLED
    control = RedisControl(client, service_settings.redis_prefix)
    logs = Settling(store, log, control, 60).look([gone.id, other.id])
    assert list(logs) == [other.id]


def test_sweep_goes_on_without_it(
    service_settings: ServiceSettings, client: redis.Redis, store: PostgresJobStore, log: OwnerDeletes
) -> None:
    job = running(store, log, max_attempts=1)
    queue = CeleryQueue(service_settings, client)
    sweeper = Sweeper(store, log, queue, RedisControl(client, service_settings.redis_prefix), lease_s=3.0)
    sweeper.sweep()
    assert store.get_many([job.id]) == {}
    queue.close()


def test_cleaning_ends_the_other_logs_without_it(store: PostgresJobStore, log: OwnerDeletes) -> None:
    cancelled = [store.cancel(running(store, log).id).id for _ in range(2)]
    cleaning = JobCleaning(store, log, FakeBlobs(), retention_s=60, unstored_s=60, blob_age_s=60)
    list(cleaning.end_logs())
    assert store.get_many(cancelled) == {}
    assert [job_id for piece in log.unended() for job_id in piece] == []


def test_requeued_job_can_be_opened_though_a_reader_closed_its_log_again(
    service_settings: ServiceSettings, client: redis.Redis, store: PostgresJobStore
) -> None:
    log = ReaderComes(client, service_settings.redis_prefix, 60)
    log.store, log.control = store, RedisControl(client, service_settings.redis_prefix)
    job = running(store, log, max_attempts=1)
    dead = store.give_back(job.id, job.attempt, AttemptEnd.ENGINE_DIED, "", ())
    log.end(job.id, log_of(dead))
    Settling(store, log, log.control, 60).requeue(job.id)
    again = store.claim("tiny", WORKER)
    assert again is not None
    assert log.open(job.id, again.attempt, log_of(again)) == log_of(again)

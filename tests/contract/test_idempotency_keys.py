"""What every pair of JobStore and IdempotencyKeys does with a request that comes again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from jobs.database import Database
from jobs.errors import IdempotencyKeyReused, IdempotencyKeyTaken, JobNotFound
from jobs.idempotency import KEPT_S, IdempotencyKey, IdempotencyKeys, PostgresIdempotencyKeys
from jobs.ports import JobFilter, JobStore
from jobs.store import PostgresJobStore
from tests.fakes.idempotency import FakeIdempotencyKeys
from tests.fakes.store import FakeJobStore
from tests.fixtures.jobs import new_job

pytestmark = pytest.mark.contract

KEY = IdempotencyKey("acme", "k-1", b"\x00" * 32)


@dataclass(frozen=True)
class Parts:
    store: JobStore
    keys: IdempotencyKeys
    pass_time: Callable[[float], None]

    def jobs(self, tenant: str = "acme") -> list[str]:
        return [job.id for job in self.store.page(tenant, JobFilter())]


def _postgres(url: str) -> Iterator[Parts]:
    def pass_time(seconds: float) -> None:
        with psycopg.connect(url) as connection:
            connection.execute(
                "UPDATE idempotency_keys SET claimed_at = claimed_at - make_interval(secs => %s)", (seconds,)
            )

    database = Database(url)
    yield Parts(PostgresJobStore(database), PostgresIdempotencyKeys(database), pass_time)
    database.close()


def _fake() -> Iterator[Parts]:
    passed = [timedelta()]

    def now() -> datetime:
        return datetime.now(UTC) + passed[0]

    def pass_time(seconds: float) -> None:
        passed[0] += timedelta(seconds=seconds)

    keys = FakeIdempotencyKeys(now)
    yield Parts(FakeJobStore(now, keys), keys, pass_time)


@pytest.fixture(params=["postgres", "fake"])
def parts(request: pytest.FixtureRequest) -> Iterator[Parts]:
    if request.param == "fake":
        yield from _fake()
    else:
        yield from _postgres(request.getfixturevalue("database_url"))


def test_a_job_made_under_a_key_is_found_by_the_same_request(parts: Parts) -> None:
    assert parts.keys.find(KEY) is None
    job = parts.store.insert(new_job(tenant="acme"), KEY)
    assert parts.keys.find(KEY) == job.id
    assert parts.store.get(job.id) == job


def test_a_second_job_under_the_key_is_not_recorded(parts: Parts) -> None:
    first = parts.store.insert(new_job(tenant="acme"), KEY)
    with pytest.raises(IdempotencyKeyTaken, match="k-1"):
        parts.store.insert(new_job(tenant="acme"), KEY)
    assert parts.jobs() == [first.id]
    assert parts.keys.find(KEY) == first.id


def test_another_request_under_the_key_is_told_apart(parts: Parts) -> None:
    parts.store.insert(new_job(tenant="acme"), KEY)
    with pytest.raises(IdempotencyKeyReused, match="k-1"):
        parts.keys.find(replace(KEY, fingerprint=b"\x01" * 32))


def test_tenants_do_not_share_keys(parts: Parts) -> None:
    first = parts.store.insert(new_job(tenant="acme"), KEY)
    theirs = replace(KEY, tenant="other", fingerprint=b"\x01" * 32)
    assert parts.keys.find(theirs) is None
    second = parts.store.insert(new_job(tenant="other"), theirs)
    assert (parts.keys.find(KEY), parts.keys.find(theirs)) == (first.id, second.id)


@pytest.mark.parametrize("swept", [False, True])
def test_a_key_is_new_again_after_its_time(parts: Parts, swept: bool) -> None:
    parts.store.insert(new_job(tenant="acme"), KEY)
    parts.pass_time(KEPT_S - 60)
    assert parts.keys.expire() == 0
    assert parts.keys.find(KEY) is not None
    parts.pass_time(61)
    if swept:
        assert parts.keys.expire() == 1
    other = replace(KEY, fingerprint=b"\x01" * 32)
    assert parts.keys.find(other) is None
    second = parts.store.insert(new_job(tenant="acme"), other)
    assert parts.keys.find(other) == second.id
    assert parts.keys.expire() == 0


def test_expire_forgets_no_more_than_its_limit(parts: Parts) -> None:
    for number in range(3):
        parts.store.insert(new_job(tenant="acme"), replace(KEY, key=f"k-{number}"))
    parts.pass_time(KEPT_S)
    assert [parts.keys.expire(2), parts.keys.expire(2), parts.keys.expire(2)] == [2, 1, 0]


def test_a_key_outlives_its_job_without_its_name(parts: Parts) -> None:
    job = parts.store.insert(new_job(tenant="acme"), KEY)
    parts.store.cancel(job.id)
    parts.store.delete(job.id, "acme")
    assert parts.keys.find(KEY) == ""
    with pytest.raises(JobNotFound):
        parts.store.get(job.id)

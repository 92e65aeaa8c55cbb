"""What every pair of JobStore and KeyUsage does with the limits of an API key."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count

import psycopg
import pytest

from jobs.database import Database
from jobs.errors import IdempotencyKeyTaken, LimitReached
from jobs.idempotency import IdempotencyKey
from jobs.job import AttemptEnd, BatchLine, FinishReason, Job, JobState, Origin, Outcome, Token, Usage
from jobs.limits import KeyLimits, KeyUsage, Limit, PostgresKeyUsage, Spent
from jobs.ports import JobFilter, JobStore
from jobs.store import PostgresJobStore
from tests.fakes.limits import FakeKeyUsage
from tests.fakes.store import FakeJobStore
from tests.fixtures.jobs import new_job

pytestmark = pytest.mark.contract

KEY, OTHER = "key_1", "key_2"
_lines = count(1)


@dataclass(frozen=True)
class Parts:
    store: JobStore
    usage: KeyUsage
    pass_time: Callable[[float], None]

    def insert(self, limits: KeyLimits, cost: int = 1, key_id: str | None = KEY, batch: str | None = None) -> Job:
        line = None if batch is None else BatchLine(batch, next(_lines))
        return self.store.insert(new_job(origin=Origin(key_id, batch=line), cost=cost), limits=limits)

    def refused(self, limits: KeyLimits, cost: int = 1) -> LimitReached:
        before = self.jobs
        with pytest.raises(LimitReached) as caught:
            self.insert(limits, cost)
        assert self.jobs == before
        return caught.value

    @property
    def jobs(self) -> int:
        return len(self.store.page("default", JobFilter(limit=100)))


def _postgres(url: str) -> Iterator[Parts]:
    def pass_time(seconds: float) -> None:
        with psycopg.connect(url) as connection:
            for table, column in (("key_usage", "charged_at"), ("key_corrections", "made_at")):
                older = f"UPDATE {table} SET {column} = {column} - make_interval(secs => %s)"
                connection.execute(older, (seconds,))

    database = Database(url)
    yield Parts(PostgresJobStore(database), PostgresKeyUsage(database), pass_time)
    database.close()


def _fake() -> Iterator[Parts]:
    passed = [timedelta()]

    def now() -> datetime:
        return datetime.now(UTC) + passed[0]

    def pass_time(seconds: float) -> None:
        passed[0] += timedelta(seconds=seconds)

    usage = FakeKeyUsage(now)
    yield Parts(FakeJobStore(now, usage=usage), usage, pass_time)


@pytest.fixture(params=["postgres", "fake"])
def parts(request: pytest.FixtureRequest) -> Iterator[Parts]:
    if request.param == "fake":
        yield from _fake()
    else:
        yield from _postgres(request.getfixturevalue("database_url"))


def test_requests_beyond_a_minutes_are_refused_with_the_time_to_wait(parts: Parts) -> None:
    limits = KeyLimits(requests_per_minute=3)
    for _ in range(3):
        parts.insert(limits)
    error = parts.refused(limits)
    assert (error.limit, error.allowed, error.needed) == (Limit.REQUESTS, 3, 1)
    assert error.wait_s is not None and 0 < error.wait_s <= 20
    assert parts.usage.spent(KEY, limits).requests <= 3


def test_what_was_spent_comes_back_evenly(parts: Parts) -> None:
    limits = KeyLimits(requests_per_minute=60)
    for _ in range(60):
        parts.insert(limits)
    parts.pass_time(2)
    assert 0 < parts.usage.spent(KEY, limits).requests <= 58
    parts.insert(limits)
    parts.pass_time(3600)
    assert parts.usage.spent(KEY, limits) == Spent()


def test_tokens_are_charged_by_their_estimate(parts: Parts) -> None:
    limits = KeyLimits(tokens_per_minute=1000)
    parts.insert(limits, cost=900)
    error = parts.refused(limits, cost=900)
    assert (error.limit, error.allowed, error.needed) == (Limit.TOKENS, 1000, 900)
    assert error.wait_s is not None and 0 < error.wait_s <= 48
    parts.insert(limits, cost=100)
    assert 100 < parts.usage.spent(KEY, limits).tokens <= 1000


def test_a_request_larger_than_a_minute_is_told_that_waiting_does_not_help(parts: Parts) -> None:
    error = parts.refused(KeyLimits(tokens_per_minute=100), cost=101)
    assert (error.limit, error.needed, error.wait_s, error.until_job_moves) == (Limit.TOKENS, 101, None, False)


def test_what_is_refused_counts_for_nothing(parts: Parts) -> None:
    limits = KeyLimits(requests_per_minute=10, tokens_per_minute=1000, queued_jobs=1)
    parts.insert(limits, cost=100)
    for _ in range(20):
        assert parts.refused(limits, cost=100).limit == Limit.QUEUED
    spent = parts.usage.spent(KEY, limits)
    assert spent.requests <= 1 and spent.tokens <= 100


def test_a_repeated_request_counts_once(parts: Parts) -> None:
    limits, key = KeyLimits(requests_per_minute=2), IdempotencyKey("default", "k", b"\x00" * 32)
    parts.store.insert(new_job(origin=Origin(KEY)), key, limits)
    with pytest.raises(IdempotencyKeyTaken):
        parts.store.insert(new_job(origin=Origin(KEY)), key, limits)
    assert 0 < parts.usage.spent(KEY, limits).requests <= 1


def test_waiting_jobs_are_limited_until_one_is_claimed(parts: Parts) -> None:
    limits = KeyLimits(queued_jobs=2)
    parts.insert(limits)
    parts.insert(limits)
    error = parts.refused(limits)
    assert (error.limit, error.allowed, error.wait_s, error.until_job_moves) == (Limit.QUEUED, 2, None, True)
    parts.store.claim("tiny", "w")
    parts.insert(limits)
    assert parts.refused(limits).limit == Limit.QUEUED


def test_jobs_in_flight_are_limited_until_one_ends(parts: Parts) -> None:
    limits = KeyLimits(jobs_in_flight=2)
    parts.insert(limits)
    second = parts.insert(limits)
    parts.store.claim("tiny", "w")
    assert parts.refused(limits).limit == Limit.IN_FLIGHT
    parts.store.cancel(second.id)
    parts.insert(limits)


def test_jobs_of_other_keys_and_of_batches_do_not_count(parts: Parts) -> None:
    for _ in range(3):
        parts.insert(KeyLimits(), batch="batch_1")
        parts.insert(KeyLimits(), key_id=OTHER)
        parts.insert(KeyLimits(), key_id=None)
    parts.insert(KeyLimits(queued_jobs=1, jobs_in_flight=1))


def test_keys_do_not_share_their_minutes(parts: Parts) -> None:
    limits = KeyLimits(requests_per_minute=1, tokens_per_minute=10)
    parts.insert(limits, cost=10)
    parts.insert(limits, cost=10, key_id=OTHER)
    assert parts.refused(limits).limit == Limit.REQUESTS


def test_without_limits_nothing_is_counted(parts: Parts) -> None:
    for _ in range(5):
        parts.insert(KeyLimits(), cost=100)
    assert parts.usage.spent(KEY, KeyLimits(requests_per_minute=1, tokens_per_minute=1)) == Spent()


# -- what jobs came to


def finish(parts: Parts, total: int) -> None:
    job = parts.store.claim("tiny", "w")
    assert job is not None
    usage = Usage(prompt_tokens=total - 1, completion_tokens=1)
    parts.store.finish(job.id, job.attempt, Outcome(JobState.COMPLETED, (Token(1, "A"),), usage, FinishReason.STOP))


LIMITS = KeyLimits(tokens_per_minute=10_000_000)


@pytest.mark.parametrize("total", [100, 500_000, 2_000_000])
def test_the_end_of_a_job_corrects_its_estimate(parts: Parts, total: int) -> None:
    parts.insert(KeyLimits(tokens_per_minute=10_000_000), cost=1_000_000)
    parts.insert(KeyLimits(tokens_per_minute=10_000_000), cost=1_000_000)
    finish(parts, total)
    assert_about(parts.usage.spent(KEY, LIMITS).tokens, 1_000_000 + total)
    parts.insert(LIMITS, cost=10)
    assert_about(parts.usage.spent(KEY, LIMITS).tokens, 1_000_000 + total)


def test_a_job_that_never_ran_costs_no_tokens(parts: Parts) -> None:
    parts.insert(LIMITS, cost=1_000_000)
    job = parts.insert(LIMITS, cost=1_000_000)
    parts.store.cancel(job.id)
    parts.store.cancel(job.id)
    assert_about(parts.usage.spent(KEY, LIMITS).tokens, 1_000_000)


def test_a_dead_letter_that_is_given_back_is_charged_to_its_key_again_and_once(parts: Parts) -> None:
    job = parts.store.insert(new_job(origin=Origin(KEY), cost=2_000_000, max_attempts=1), limits=LIMITS)
    for attempt in (1, 2):
        assert parts.store.claim("tiny", "w") is not None
        parts.store.give_back(job.id, attempt, AttemptEnd.ENGINE_DIED, "", ())
        assert_about(parts.usage.spent(KEY, LIMITS).tokens, 0)
        parts.store.requeue(job.id)
        assert_about(parts.usage.spent(KEY, LIMITS).tokens, 2_000_000)
    finish(parts, 1_500_000)
    assert_about(parts.usage.spent(KEY, LIMITS).tokens, 1_500_000)


def test_what_a_dead_letter_drew_beyond_its_estimate_is_charged_to_its_key_once(parts: Parts) -> None:
    limits = KeyLimits(tokens_per_minute=1000)
    job = parts.store.insert(new_job(origin=Origin(KEY), cost=10, max_attempts=1), limits=limits)
    assert parts.store.claim("tiny", "w") is not None
    parts.store.give_back(job.id, 1, AttemptEnd.ENGINE_DIED, "", [Token(k, "x") for k in range(900)])
    assert 100 < parts.usage.spent(KEY, limits).tokens <= 900
    parts.store.requeue(job.id)
    assert parts.usage.spent(KEY, limits).tokens <= 10


def test_a_dead_letter_that_is_cancelled_while_it_waits_again_costs_its_key_nothing(parts: Parts) -> None:
    job = parts.store.insert(new_job(origin=Origin(KEY), cost=2_000_000, max_attempts=1), limits=LIMITS)
    assert parts.store.claim("tiny", "w") is not None
    parts.store.give_back(job.id, 1, AttemptEnd.ENGINE_DIED, "", ())
    parts.store.requeue(job.id)
    parts.store.cancel(job.id)
    assert_about(parts.usage.spent(KEY, LIMITS).tokens, 0)


def test_a_correction_is_forgotten_when_its_key_is_used_no_more(parts: Parts) -> None:
    parts.insert(LIMITS, cost=1)
    finish(parts, 2_000_000)
    parts.usage.forget()
    assert_about(parts.usage.spent(KEY, LIMITS).tokens, 2_000_000)
    parts.pass_time(3600)
    parts.usage.forget()
    assert parts.usage.spent(KEY, LIMITS).tokens == 0


def assert_about(tokens: float, expected: float) -> None:
    """166,667 of these tokens come back in a second, and a slow machine takes its time."""
    assert expected - 800_000 < tokens <= expected + 10


# -- lines of batches


def test_lines_of_a_batch_leave_half_a_minute_to_others(parts: Parts) -> None:
    limits = KeyLimits(tokens_per_minute=1000)
    assert parts.usage.pace(KEY, limits, [100] * 20) == 5
    assert parts.usage.pace(KEY, limits, [400] * 20) == 0
    parts.insert(limits, cost=490)
    parts.pass_time(60)
    assert parts.usage.pace(KEY, limits, [400, 400]) == 1


def test_a_line_that_would_never_fit_goes_when_nothing_is_spent(parts: Parts) -> None:
    limits = KeyLimits(tokens_per_minute=1000)
    assert parts.usage.pace(KEY, limits, [5000, 5000]) == 1
    assert parts.usage.pace(KEY, limits, [5000]) == 0
    parts.pass_time(301)
    assert parts.usage.pace(KEY, limits, [5000]) == 1


def test_lines_are_not_paced_without_a_limit_of_tokens(parts: Parts) -> None:
    assert parts.usage.pace(KEY, KeyLimits(requests_per_minute=1), [10**9] * 3) == 3
    assert parts.usage.pace(KEY, KeyLimits(tokens_per_minute=5), []) == 0

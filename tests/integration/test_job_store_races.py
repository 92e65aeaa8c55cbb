"""Many at once at one PostgreSQL: nobody gets what another has, and a job ends once."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import pytest
from sqlalchemy import Connection, text

from jobs.database import Database
from jobs.errors import StaleAttempt
from jobs.job import AttemptEnd, Job, JobState, Outcome, Token, Usage
from jobs.ports import Partial
from jobs.store import PostgresJobStore
from jobs.store.claim import claim_next, claimed_by
from jobs.store.intake import insert_job
from jobs.store.shares import forget_idle
from tests.fixtures.eventually import eventually
from tests.fixtures.jobs import new_job

pytestmark = pytest.mark.integration

THREADS = 8
TOKENS = tuple(Token(number, "x") for number in range(50))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url, pool_size=THREADS)
    yield opened
    opened.close()


@pytest.fixture
def store(database: Database) -> PostgresJobStore:
    return PostgresJobStore(database)


def claim_all(store: PostgresJobStore, worker: str) -> list[str]:
    claimed = []
    while job := store.claim("tiny", worker):
        claimed.append(job.id)
    return claimed


def test_eight_threads_claim_two_hundred_jobs_none_twice(store: PostgresJobStore) -> None:
    ids = {store.insert(new_job()).id for _ in range(200)}
    with ThreadPoolExecutor(THREADS) as pool:
        claims = list(pool.map(lambda number: claim_all(store, f"w{number}"), range(THREADS)))
    assert Counter(job_id for claimed in claims for job_id in claimed) == Counter(ids)
    for number, claimed in enumerate(claims):
        assert {job.worker for job in store.get_many(claimed).values()} <= {f"w{number}"}


def test_tenants_claimed_by_many_threads_keep_their_shares_and_nobody_waits_in_vain(store: PostgresJobStore) -> None:
    ids = {store.insert(new_job(tenant=f"t{number % 5}", cost=10)).id for number in range(200)}
    left = threading.Semaphore(len(ids))
    taken: list[Job] = []

    def work(number: int) -> None:
        # Each permit stands for a job that nobody else is about to take: then a claim must find one.
        while left.acquire(blocking=False):
            job = store.claim("tiny", f"w{number}")
            assert job is not None
            taken.append(job)
            if number % 2:
                store.finish(job.id, job.attempt, Outcome(JobState.COMPLETED, (), Usage(10, 0)))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    assert Counter(job.id for job in taken) == Counter(ids)
    half = Counter(job.tenant for job in taken[:100])
    assert all(20 - THREADS <= half[f"t{number}"] <= 20 + THREADS for number in range(5)), half


def test_sweeps_and_ends_of_many_tenants_at_once_do_not_deadlock(store: PostgresJobStore) -> None:
    for number in range(60):
        store.insert(new_job(tenant=f"t{number % 7}", model=f"m{number % 2}", max_attempts=1000))

    def work(number: int) -> None:
        for turn in range(15):
            job = store.claim(f"m{(number + turn) % 2}", f"w{number}")
            if job is not None:
                with suppress(StaleAttempt):
                    store.give_back(job.id, job.attempt, AttemptEnd.DRAINED, "", ())
            if number % 2:
                store.take_back_lost(lease_s=0.0)
            else:
                store.retire(f"w{number + 1}")

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    assert sum(depth.count for depth in store.depths()) == 60


def test_cancel_racing_finish_leaves_exactly_one_terminal_state(store: PostgresJobStore) -> None:
    for _ in range(40):
        store.insert(new_job())
        job = store.claim("tiny", "w")
        assert job is not None
        with ThreadPoolExecutor(2) as pool:
            cancel = pool.submit(store.cancel, job.id)
            finish = pool.submit(_finish, store, job)
        end = store.get(job.id).state
        assert cancel.result().state == end
        assert finish.result() == (JobState.COMPLETED if end == JobState.COMPLETED else None)
        assert [attempt.end for attempt in store.attempts(job.id)] == [
            AttemptEnd.FINISHED if end == JobState.COMPLETED else AttemptEnd.CANCELLED
        ]


def test_everything_at_once_ends_every_job_once_with_all_its_tokens(store: PostgresJobStore) -> None:
    ids = [store.insert(new_job(max_attempts=1000)).id for _ in range(20)]

    def work(number: int) -> None:
        while True:
            job = store.claim("tiny", f"w{number}")
            if job is None:
                if all(found.state.terminal for found in store.get_many(ids).values()):
                    return
                continue
            grown = TOKENS[: len(job.tokens) + 20]
            with suppress(StaleAttempt):
                store.save_partials([Partial(job.id, job.attempt, grown)])
                if len(grown) < len(TOKENS):
                    store.give_back(job.id, job.attempt, AttemptEnd.DRAINED, "", TOKENS[: len(grown) + 1])
                else:
                    store.finish(job.id, job.attempt, Outcome(JobState.COMPLETED, TOKENS))

    def sweep() -> None:
        while not all(found.state.terminal for found in store.get_many(ids).values()):
            store.take_back_lost(lease_s=0.0)
            store.claimable(10)

    with ThreadPoolExecutor(THREADS) as pool:
        running = [pool.submit(work, number) for number in range(THREADS - 2)] + [pool.submit(sweep)]
        for future in running:
            future.result()
    for job in store.get_many(ids).values():
        assert (job.state, job.tokens) == (JobState.COMPLETED, TOKENS)
        ends = [attempt.end for attempt in store.attempts(job.id)]
        assert ends.count(AttemptEnd.FINISHED) == 1
        assert ends[-1] == AttemptEnd.FINISHED
        assert None not in ends


def test_partials_of_the_same_jobs_in_any_order_do_not_deadlock(store: PostgresJobStore) -> None:
    for _ in range(20):
        store.insert(new_job())
    jobs = [job for _ in range(20) if (job := store.claim("tiny", "w"))]

    def save(number: int) -> None:
        order = jobs if number % 2 else jobs[::-1]
        for length in range(1, 10):
            assert store.save_partials([Partial(job.id, 1, TOKENS[:length]) for job in order]) == frozenset()

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(save, range(THREADS)))
    assert {job.tokens for job in store.get_many([job.id for job in jobs]).values()} == {TOKENS[:9]}


def test_a_claim_whose_answer_was_lost_finds_its_job_again(database: Database, store: PostgresJobStore) -> None:
    store.insert(new_job())
    taken = database.statement(lambda on: claim_next(on, "tiny", "w", "call-1"))
    assert taken is not None
    assert database.statement(lambda on: claimed_by(on, "call-1")) == taken
    assert database.statement(lambda on: claimed_by(on, "call-2")) is None
    store.cancel(taken.id)
    assert database.statement(lambda on: claimed_by(on, "call-1")) is None


def test_a_share_that_is_forgotten_while_a_job_comes_is_there_for_the_job(
    database: Database, store: PostgresJobStore
) -> None:
    store.cancel(store.insert(new_job()).id)
    idle = {"idle_s": 0.0, "limit": 10}

    def come_first(on: Connection) -> str:
        job = insert_job(on, new_job())
        # It holds the share, which nobody else sees renewed yet.
        assert store.forget_idle_shares(**idle) == 0
        return job.id

    def come_second(on: Connection) -> Future[Job]:
        assert forget_idle(on, **idle) == 1
        coming = pool.submit(store.insert, new_job())
        eventually("the job waits for the share", lambda: database.statement(_waiting))
        return coming

    first = database.transaction(come_first)
    claimed = store.claim("tiny", "w")
    assert claimed is not None and claimed.id == first
    with ThreadPoolExecutor(1) as pool:
        second = database.transaction(come_second).result()
    claimed = store.claim("tiny", "w")
    assert claimed is not None and claimed.id == second.id


def _waiting(connection: Connection) -> int:
    """Statements that wait for another's lock."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return int(connection.execute(waiting).scalar_one())


def _finish(store: PostgresJobStore, job: Job) -> JobState | None:
    with suppress(StaleAttempt):
        return store.finish(job.id, job.attempt, Outcome(JobState.COMPLETED, TOKENS)).state
    return None

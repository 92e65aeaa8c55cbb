"""Jobs whose rows this version cannot read: they are in nobody's way, and none of them is lost."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from jobs.database import Database
from jobs.events import Ended, log_of
from jobs.job import AttemptEnd, JobKind, JobState, Outcome, Token, Webhook
from jobs.job import Origin as Came
from jobs.ports import JobFilter, Partial, WorkerRecord
from jobs.store import PostgresJobStore
from jobs.tiling import Tiling
from tests.fixtures.damage import SAID, UNREADABLE, damage, write
from tests.fixtures.jobs import new_job
from tests.fixtures.worker import WorkerBench

pytestmark = pytest.mark.integration

HOOK = "https://there.example/hook"
GONE = "worker w was silent for longer than 0 s"


@pytest.fixture
def store(database_url: str) -> Iterator[PostgresJobStore]:
    database = Database(database_url)
    yield PostgresJobStore(database)
    database.close()


def told(database_url: str) -> list[tuple[str, str]]:
    with psycopg.connect(database_url) as connection:
        return connection.execute("SELECT subject, event_type FROM webhook_deliveries ORDER BY number").fetchall()


@pytest.mark.parametrize("fault", UNREADABLE)
def test_claim_of_an_unreadable_request_says_what_is_wrong_and_goes_on_with_the_next(
    store: PostgresJobStore, database_url: str, fault: str
) -> None:
    bad, good = (store.insert(new_job()).id for _ in range(2))
    damage(database_url, bad, fault)
    claimed = store.claim("tiny", "w")
    assert claimed is not None and claimed.unreadable is not None
    assert (claimed.id, claimed.state, claimed.request.messages) == (bad, JobState.IN_PROGRESS, ())
    assert claimed.unreadable.startswith("request: ") and SAID[fault] in claimed.unreadable
    following = store.claim("tiny", "w")
    assert following is not None
    assert (following.id, following.unreadable) == (good, None)
    assert store.get(bad) == claimed


def test_lost_unreadable_job_is_taken_back_with_the_others_and_buried_in_its_time(
    store: PostgresJobStore, database_url: str
) -> None:
    bad, good = (store.insert(new_job(max_attempts=2, origin=Came(webhook=Webhook(HOOK)))).id for _ in range(2))
    damage(database_url, bad, "an unknown role")
    assert {store.claim("tiny", "w").id for _ in range(2)} == {bad, good}
    assert {job.id: job.state for job in store.take_back_lost(0)} == {bad: JobState.QUEUED, good: JobState.QUEUED}
    assert {store.claim("tiny", "w").id for _ in range(2)} == {bad, good}
    assert {job.id: job.state for job in store.take_back_lost(0)} == {bad: JobState.FAILED, good: JobState.FAILED}
    assert [attempt.detail for attempt in store.attempts(bad)] == [GONE, GONE]
    assert sorted(told(database_url)) == sorted([(bad, "response.failed"), (good, "response.failed")])


def test_unreadable_job_is_given_back_retired_and_ended_like_any_other(
    store: PostgresJobStore, database_url: str
) -> None:
    job_id = store.insert(new_job(deadline=datetime.now(UTC) + timedelta(hours=1))).id
    damage(database_url, job_id, "an unknown role")
    store.heartbeat(WorkerRecord("w", "tiny", "host", 1, 1))
    job = store.claim("tiny", "w")
    assert store.save_partials([Partial(job.id, job.attempt, (Token(1, "a"),))]) == frozenset()
    assert store.give_back(job.id, job.attempt, AttemptEnd.DRAINED, "", ()).state is JobState.QUEUED
    store.claim("tiny", "w")
    store.retire("w")
    store.claim("tiny", "w")
    assert [job.id for job in store.give_back_unknown("w", [], 0)] == [job_id]
    write(database_url, job_id, deadline=datetime.now(UTC) - timedelta(seconds=1))
    (failed,) = store.fail_past_deadline()
    assert (failed.id, failed.state, failed.text) == (job_id, JobState.FAILED, "a")


@pytest.mark.parametrize(
    ("column", "stored"),
    [
        ("kind", "realtime"),
        ("priority", 7),
        ("metadata", '{"a": 1}'),
        ("usage", "[]"),
        ("finish_reason", "content_filter"),
        ("finish_reasons", '["content_filter"]'),
        ("error", '"broken"'),
        ("door", "5"),
        ("door", '{"input": ' * 5000 + "1" + "}" * 5000),
        ("webhook", "5"),
        ("webhook", "{}"),
    ],
)
def test_unreadable_column_is_named_and_hinders_neither_reads_nor_the_end(
    store: PostgresJobStore, database_url: str, column: str, stored: object
) -> None:
    bad, good = (store.insert(new_job(origin=Came(webhook=Webhook(HOOK)))).id for _ in range(2))
    write(database_url, bad, **{column: stored})
    assert str(store.get(bad).unreadable).startswith(f"{column}: ")
    assert [job.id for job in store.page("default", JobFilter())] == [good, bad]
    assert store.get_many([bad, good]).keys() == {bad, good}
    assert store.cancel(bad).state is JobState.CANCELLED
    if column == "webhook":
        assert told(database_url) == []
    store.delete(bad, "default")


def test_unreadable_tokens_are_named_and_hinder_neither_claim_nor_end(
    store: PostgresJobStore, database_url: str
) -> None:
    job_id = store.insert(new_job()).id
    job = store.claim("tiny", "w")
    store.give_back(job_id, job.attempt, AttemptEnd.DRAINED, "", (Token(1, "a"), Token(2, "b")))
    with psycopg.connect(database_url) as connection:
        connection.execute("""UPDATE job_tokens SET tokens = '{"a": 1}'""")
    again = store.claim("tiny", "w")
    assert again is not None
    assert (again.attempt, again.tokens, str(again.unreadable).split(":")[0]) == (2, (), "tokens")
    assert store.finish(job_id, 2, Outcome(JobState.FAILED, ())).state is JobState.FAILED


def test_attempt_that_ended_for_a_reason_of_a_later_version_is_listed_without_it(
    store: PostgresJobStore, database_url: str
) -> None:
    job_id = store.insert(new_job()).id
    job = store.claim("tiny", "w")
    store.give_back(job_id, job.attempt, AttemptEnd.DRAINED, "why", ())
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE job_attempts SET ended_as = 'moved'")
    (attempt,) = store.attempts(job_id)
    assert (attempt.end, attempt.detail, attempt.ended_at is not None) == (None, "why", True)


@pytest.mark.parametrize("fault", ["an unknown key", "no object"])
def test_worker_fails_an_unreadable_job_as_a_dead_letter_and_runs_the_others(
    worker_bench: WorkerBench, fault: str
) -> None:
    url = worker_bench.settings.database_url
    first, bad, last = (worker_bench.insert(origin=Came(webhook=Webhook(HOOK))) for _ in range(3))
    stored = damage(url, bad, fault)
    for job_id in (first, bad, last):
        assert worker_bench.queue.ring("vlmq-tiny", job_id)
    for job_id in (first, last):
        assert worker_bench.wait(job_id).error is None
    dead = worker_bench.wait(bad)
    assert (dead.state, dead.error.code, dead.attempt) == (JobState.FAILED, "job_unreadable", 1)
    assert SAID[fault] in dead.error.message
    assert f"upgrade the workers, then give the job back: vlmq jobs requeue {bad}" in dead.error.message
    assert isinstance(worker_bench.wait_for_log(bad)[-1], Ended)
    assert (bad, "response.failed") in told(url)
    assert bad in [job.id for job in worker_bench.store.page("default", JobFilter(dead=True))]
    assert worker_bench.started[0].popen.poll() is None

    # The newer worker comes.
    write(url, bad, request=stored)
    worker_bench.event_log.drop(bad)
    worker_bench.store.requeue(bad)
    assert worker_bench.queue.ring("vlmq-tiny", bad)
    done = worker_bench.wait(bad)
    assert (done.error, done.attempt, done.unreadable) == (None, 2, None)
    assert worker_bench.wait_for_log(bad) == log_of(done)


def test_worker_that_says_of_itself_what_nobody_understands_is_listed_with_the_others(
    store: PostgresJobStore, database_url: str
) -> None:
    tiling = Tiling(1, 12, True, 448, 256, 8)
    for name in ("odd", "usual"):
        store.heartbeat(WorkerRecord(name, "tiny", "host", 1, 4, stats={"running": 1}, tiling=tiling))
    with psycopg.connect(database_url) as connection:
        connection.execute("""UPDATE workers SET stats = '[]', tiling = '{"min_tiles": "few"}' WHERE id = 'odd'""")
    records = {status.record.id: status.record for status in store.workers(60)}
    assert (records["odd"].slots, records["odd"].stats, records["odd"].tiling) == (4, {}, None)
    assert (records["usual"].stats, records["usual"].tiling) == ({"running": 1}, tiling)


def test_kind_of_a_later_version_is_shown_as_a_job(store: PostgresJobStore, database_url: str) -> None:
    job_id = store.insert(new_job(kind=JobKind.RESPONSE)).id
    write(database_url, job_id, kind="realtime")
    assert store.get(job_id).kind is JobKind.JOB

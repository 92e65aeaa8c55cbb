"""What every JobStore does for workers and for the sweeper: leases, bells, deadlines, retention."""

from datetime import UTC, datetime, timedelta

import pytest

from jobs.errors import JobPurged
from jobs.job import AttemptEnd, FinishReason, Job, JobState, Origin, Outcome, Token, Usage, Webhook
from jobs.ports import JobStore, WorkerRecord
from jobs.tiling import Tiling
from tests.fixtures.jobs import TimedStore, chat_request, new_job

pytestmark = pytest.mark.contract

TILING = Tiling(min_tiles=1, max_tiles=6, use_thumbnail=True, tile_size=448, tile_tokens=256, frames=8)
WORKER = WorkerRecord("host:1:ab", "tiny", "host", 1, slots=4, stats={"running": 2, "speed": 1.5}, tiling=TILING)
LEASE_S = 10.0


def claimed(store: JobStore, worker: str = WORKER.id) -> Job:
    job = store.claim("tiny", worker)
    assert job is not None
    return job


# -- workers


def test_heartbeat_makes_a_worker_known_and_alive_until_the_lease_is_over(timed_store: TimedStore) -> None:
    store = timed_store.store
    store.heartbeat(WORKER)
    (first,) = store.workers(LEASE_S)
    assert (first.record, first.alive) == (WORKER, True)
    timed_store.pass_time(LEASE_S + 1)
    assert [status.alive for status in store.workers(LEASE_S)] == [False]
    newer = WorkerRecord("host:1:ab", "tiny", "host", 1, slots=4, stats={"running": 0})
    store.heartbeat(newer)
    (again,) = store.workers(LEASE_S)
    assert (again.record, again.alive) == (newer, True)
    assert again.started_at < again.heartbeat_at


def test_not_ours_names_what_a_worker_should_stop(store: JobStore) -> None:
    for _ in range(4):
        store.insert(new_job())
    good, cancelled, given_back, retaken = (claimed(store) for _ in range(4))
    store.cancel(cancelled.id)
    store.give_back(given_back.id, 1, AttemptEnd.DRAINED, "", ())
    store.give_back(retaken.id, 1, AttemptEnd.DRAINED, "", ())
    while claimed(store, "other").id != retaken.id:
        pass
    running = {job.id: 1 for job in (good, cancelled, given_back, retaken)} | {"job_unknown": 1}
    assert store.not_ours(WORKER.id, running) == running.keys() - {good.id}
    assert store.not_ours("other", {retaken.id: 2}) == frozenset()
    assert store.not_ours(WORKER.id, {}) == frozenset()


def test_retire_forgets_the_worker_and_takes_its_jobs_back(store: JobStore) -> None:
    store.heartbeat(WORKER)
    store.insert(new_job())
    job = claimed(store)
    store.retire(WORKER.id)
    assert store.workers(LEASE_S) == []
    assert store.get(job.id).state == JobState.QUEUED
    (attempt,) = store.attempts(job.id)
    assert attempt.end == AttemptEnd.LEASE_EXPIRED


def test_jobs_that_a_worker_does_not_know_are_given_back_after_a_while(timed_store: TimedStore) -> None:
    store = timed_store.store
    for _ in range(3):
        store.insert(new_job())
    known, unknown, foreign = claimed(store), claimed(store), claimed(store, "other")
    assert store.give_back_unknown(WORKER.id, {known.id}, older_than_s=5) == []
    timed_store.pass_time(6)
    assert [job.id for job in store.give_back_unknown(WORKER.id, {known.id}, older_than_s=5)] == [unknown.id]
    back = store.get(unknown.id)
    assert (back.state, back.losses) == (JobState.QUEUED, 0)
    assert {store.get(job.id).state for job in (known, foreign)} == {JobState.IN_PROGRESS}


# -- leases


def test_worker_with_a_heartbeat_from_a_clock_that_was_set_back_has_one_lease_more(timed_store: TimedStore) -> None:
    store = timed_store.store
    store.heartbeat(WORKER)
    store.insert(new_job())
    job = claimed(store)
    timed_store.pass_time(-3600)
    assert store.take_back_lost(LEASE_S) == []
    timed_store.pass_time(LEASE_S + 1)
    assert [lost.id for lost in store.take_back_lost(LEASE_S)] == [job.id]


def test_lease_after_the_clock_was_set_back_runs_while_silence_tells_nothing(timed_store: TimedStore) -> None:
    store = timed_store.store
    store.heartbeat(WORKER)
    store.insert(new_job())
    job = claimed(store)
    timed_store.pass_time(-3600)
    # The maintenance process has only just got the database back.
    store.heed_clock(LEASE_S)
    timed_store.pass_time(LEASE_S + 1)
    assert [lost.id for lost in store.take_back_lost(LEASE_S)] == [job.id]


def test_jobs_of_a_silent_worker_are_taken_back(timed_store: TimedStore) -> None:
    store = timed_store.store
    store.heartbeat(WORKER)
    store.insert(new_job())
    job = claimed(store)
    assert store.take_back_lost(LEASE_S) == []
    timed_store.pass_time(LEASE_S + 1)
    (lost,) = store.take_back_lost(LEASE_S)
    assert (lost.id, lost.state, lost.losses, lost.worker) == (job.id, JobState.QUEUED, 1, None)
    (attempt,) = store.attempts(job.id)
    assert attempt.end == AttemptEnd.LEASE_EXPIRED
    assert WORKER.id in attempt.detail
    assert store.take_back_lost(LEASE_S) == []
    assert store.claimable(60) == {"tiny": [job.id]}


def test_jobs_of_an_unknown_worker_are_taken_back(store: JobStore) -> None:
    store.insert(new_job())
    job = claimed(store, "never heard of")
    assert [lost.id for lost in store.take_back_lost(LEASE_S)] == [job.id]


def test_a_job_that_lost_too_many_workers_becomes_a_dead_letter(store: JobStore) -> None:
    job = store.insert(new_job(max_attempts=1))
    claimed(store)
    (dead,) = store.take_back_lost(LEASE_S)
    assert (dead.id, dead.state) == (job.id, JobState.FAILED)
    assert dead.error is not None
    assert dead.error.code == "too_many_attempts"


def test_take_back_stops_at_its_limit(store: JobStore) -> None:
    for _ in range(3):
        store.insert(new_job())
        claimed(store)
    assert [len(store.take_back_lost(LEASE_S, limit=2)) for _ in range(2)] == [2, 1]


# -- bells


def test_claimable_names_queued_jobs_of_each_model_that_has_some(store: JobStore) -> None:
    assert store.claimable(10) == {}
    first, second = store.insert(new_job()), store.insert(new_job())
    other = store.insert(new_job(model="large"))
    taken = claimed(store)
    (waiting,) = {first.id, second.id} - {taken.id}
    assert store.claimable(10) == {"tiny": [waiting], "large": [other.id]}
    store.cancel(waiting)
    assert store.claimable(10) == {"large": [other.id]}


def test_claimable_stops_at_its_limit_for_each_model(store: JobStore) -> None:
    for number in range(6):
        store.insert(new_job(model=f"m{number % 2}", tenant=f"t{number}"))
    assert {model: len(ids) for model, ids in store.claimable(2).items()} == {"m0": 2, "m1": 2}


def test_claimable_leaves_out_jobs_past_their_deadline(store: JobStore) -> None:
    store.insert(new_job(deadline=datetime.now(UTC) - timedelta(seconds=1)))
    assert store.claimable(10) == {}


# -- deadlines


def test_jobs_past_their_deadline_fail_and_name_their_worker(timed_store: TimedStore) -> None:
    store = timed_store.store
    deadline = datetime.now(UTC) + timedelta(seconds=60)
    running = store.insert(new_job(deadline=deadline))
    claimed(store)
    waiting = store.insert(new_job(deadline=deadline))
    store.insert(new_job())
    assert store.fail_past_deadline() == []
    timed_store.pass_time(61)
    failed = {job.id: job for job in store.fail_past_deadline()}
    assert {job_id: job.worker for job_id, job in failed.items()} == {running.id: WORKER.id, waiting.id: None}
    assert {job.state for job in failed.values()} == {JobState.FAILED}
    assert {job.error.code for job in failed.values() if job.error} == {"deadline_exceeded"}
    (attempt,) = store.attempts(running.id)
    assert attempt.end == AttemptEnd.DEADLINE
    assert store.get(running.id).worker is None
    assert store.fail_past_deadline() == []


# -- retention


def test_expire_deletes_what_ended_before_the_retention(timed_store: TimedStore) -> None:
    store = timed_store.store
    store.insert(new_job())
    old = store.finish(claimed(store).id, 1, Outcome(JobState.COMPLETED, ()))
    waiting = store.insert(new_job())
    timed_store.pass_time(100)
    young = store.cancel(store.insert(new_job()).id)
    assert store.expire(200) == []
    assert store.expire(50) == [old.id]
    assert store.get_many([old.id, waiting.id, young.id]).keys() == {waiting.id, young.id}


def test_orphan_blobs_of_nothing_are_none(store: JobStore) -> None:
    assert store.orphan_blobs([]) == frozenset()


# -- content that was not to be stored


UNSTORED = Origin(stored=False, door={"instructions": "secret"}, webhook=Webhook("https://hook.example/secret"))


def finished(store: JobStore, **values: object) -> Job:
    store.insert(new_job(request=chat_request("secret"), metadata={"k": "secret"}, **values))
    usage = Usage(prompt_tokens=7, completion_tokens=1)
    job = claimed(store)
    outcome = Outcome(JobState.COMPLETED, (Token(1, "secret"),), usage, FinishReason.STOP)
    return store.finish(job.id, job.attempt, outcome)


def test_purge_leaves_what_accounting_needs_and_nothing_of_the_content(store: JobStore) -> None:
    before = finished(store, origin=UNSTORED)
    assert store.purge(before.id)
    after = store.get(before.id)
    assert "secret" not in str(after)
    assert (after.tokens, after.metadata, after.request.messages) == ((), {}, ())
    kept = ("id", "tenant", "kind", "model", "state", "usage", "finish_reason", "timeline", "attempt", "cost")
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]
    assert after.purged_at is not None
    assert len(store.attempts(before.id)) == 1
    assert not store.purge(before.id)


def test_purge_leaves_alone_what_is_stored_or_has_not_ended(store: JobStore) -> None:
    kept = finished(store)
    waiting = store.insert(new_job(origin=UNSTORED))
    assert [store.purge(job_id) for job_id in (kept.id, waiting.id, "job_unknown")] == [False] * 3
    assert "secret" in str(store.get(kept.id))


def test_purge_takes_the_words_of_an_error_and_of_attempts_and_leaves_their_codes(store: JobStore) -> None:
    store.insert(new_job(origin=UNSTORED, max_attempts=1))
    job = claimed(store)
    store.give_back(job.id, 1, AttemptEnd.ENGINE_DIED, "it read: secret", ())
    store.purge(job.id)
    after, (attempt,) = store.get(job.id), store.attempts(job.id)
    assert after.error is not None
    assert (after.error.code, attempt.end) == ("too_many_attempts", AttemptEnd.ENGINE_DIED)
    assert "secret" not in f"{after} {attempt}"
    with pytest.raises(JobPurged):
        store.requeue(job.id)


def test_tokens_that_come_late_do_not_enter_a_purged_row(store: JobStore) -> None:
    job = store.insert(new_job(origin=UNSTORED))
    store.cancel(job.id)
    store.purge(job.id)
    store.extend_tokens(job.id, (Token(1, "secret"),))
    assert store.get(job.id).tokens == ()


def test_purge_unstored_takes_what_ended_long_enough_ago_up_to_its_limit(timed_store: TimedStore) -> None:
    store = timed_store.store
    old = {finished(store, origin=UNSTORED).id for _ in range(3)}
    finished(store)
    timed_store.pass_time(100)
    finished(store, origin=UNSTORED)
    assert store.purge_unstored(200) == []
    taken = [store.purge_unstored(50, limit=2) for _ in range(3)]
    assert [len(ids) for ids in taken] == [2, 1, 0]
    assert {job_id for ids in taken for job_id in ids} == old

"""What every JobStore does with attempts that end without an end of their own: given back, buried, cancelled."""

from dataclasses import replace

import pytest

from jobs.errors import IllegalTransition, JobNotFound, StaleAttempt
from jobs.job import AttemptEnd, JobError, JobState, Outcome
from jobs.ports import JobFilter, JobStore, Partial
from tests.fixtures.attempts import COMPLETED, A, B, C, claimed, give_back
from tests.fixtures.jobs import new_job

pytestmark = pytest.mark.contract


def test_give_back_queues_the_job_again_with_its_tokens(store: JobStore) -> None:
    new = store.insert(new_job())
    back = give_back(store, claimed(store), AttemptEnd.DRAINED, (A, B))
    assert (back.state, back.worker, back.tokens, back.losses, back.attempt) == (JobState.QUEUED, None, (A, B), 0, 1)
    assert back == store.get(new.id)
    (attempt,) = store.attempts(new.id)
    assert (attempt.end, attempt.detail, attempt.tokens) == (AttemptEnd.DRAINED, "why", 2)
    assert store.claimable(60) == {"tiny": [new.id]}
    again = claimed(store)
    assert (again.attempt, again.tokens) == (2, (A, B))
    assert again.timeline.claimed_at == back.timeline.claimed_at


def test_give_back_repeated_after_a_lost_answer_changes_nothing(store: JobStore) -> None:
    store.insert(new_job())
    job = claimed(store)
    back = give_back(store, job, AttemptEnd.ENGINE_DIED, (A,))
    assert back.losses == 1
    assert give_back(store, job, AttemptEnd.ENGINE_DIED, (A,)) == back


def test_give_back_by_a_stale_attempt_raises(store: JobStore) -> None:
    store.insert(new_job())
    first = claimed(store)
    give_back(store, first, AttemptEnd.DRAINED)
    claimed(store)
    with pytest.raises(StaleAttempt):
        give_back(store, first, AttemptEnd.DRAINED)


def test_one_loss_too_many_makes_a_dead_letter(store: JobStore) -> None:
    job = store.insert(new_job(max_attempts=2))
    give_back(store, claimed(store), AttemptEnd.ENGINE_DIED, (A,))
    give_back(store, claimed(store), AttemptEnd.DRAINED)
    dead = give_back(store, claimed(store), AttemptEnd.WORKER_ERROR)
    assert (dead.state, dead.losses, dead.attempt, dead.tokens) == (JobState.FAILED, 2, 3, (A,))
    assert dead.error is not None
    assert dead.error.code == "too_many_attempts"
    assert dead.timeline.done_at is not None
    ends = [attempt.end for attempt in store.attempts(job.id)]
    assert ends == [AttemptEnd.ENGINE_DIED, AttemptEnd.DRAINED, AttemptEnd.WORKER_ERROR]


def test_drains_never_make_a_dead_letter(store: JobStore) -> None:
    store.insert(new_job(max_attempts=1))
    for _ in range(4):
        assert give_back(store, claimed(store), AttemptEnd.DRAINED).state == JobState.QUEUED


def test_requeue_gives_a_dead_letter_another_life(store: JobStore) -> None:
    job = store.insert(new_job(max_attempts=1))
    give_back(store, claimed(store), AttemptEnd.ENGINE_DIED, (A,))
    with pytest.raises(JobNotFound):
        store.requeue(job.id, "other")
    back = store.requeue(job.id, "default")
    assert (back.state, back.losses, back.error, back.tokens) == (JobState.QUEUED, 0, None, (A,))
    assert back.timeline.done_at is None
    assert store.claimable(60) == {"tiny": [job.id]}
    assert claimed(store).attempt == 2


def test_job_that_no_worker_could_read_is_a_dead_letter_too(store: JobStore) -> None:
    unreadable, other = (store.insert(new_job()).id for _ in range(2))
    for job_id, code in ((unreadable, "job_unreadable"), (other, "invalid_image")):
        assert claimed(store).id == job_id
        store.finish(job_id, 1, Outcome(JobState.FAILED, (A,), error=JobError(code, "no")))
    assert [job.id for job in store.page("default", JobFilter(dead=True))] == [unreadable]
    back = store.requeue(unreadable)
    assert (back.state, back.error, back.tokens) == (JobState.QUEUED, None, (A,))
    assert store.page("default", JobFilter(dead=True)) == []
    assert claimed(store).attempt == 2


def test_requeue_of_anything_but_a_dead_letter_raises(store: JobStore) -> None:
    job = store.insert(new_job())
    with pytest.raises(IllegalTransition):
        store.requeue(job.id)
    failed = Outcome(JobState.FAILED, (), error=JobError("invalid_image", "no"))
    store.finish(claimed(store).id, 1, failed)
    with pytest.raises(IllegalTransition):
        store.requeue(job.id)


def test_cancel_of_a_queued_job_ends_it(store: JobStore) -> None:
    job = store.insert(new_job())
    cancelled = store.cancel(job.id, "default")
    assert (cancelled.state, cancelled.worker, cancelled.attempt) == (JobState.CANCELLED, None, 0)
    assert cancelled.timeline.done_at is not None
    assert store.claim("tiny", "w") is None


def test_cancel_of_a_running_job_names_its_worker_and_closes_the_attempt(store: JobStore) -> None:
    store.insert(new_job())
    job = claimed(store, "host:1:ab")
    store.save_partials([Partial(job.id, 1, (A,))])
    cancelled = store.cancel(job.id)
    assert (cancelled.state, cancelled.worker, cancelled.tokens) == (JobState.CANCELLED, "host:1:ab", (A,))
    (attempt,) = store.attempts(job.id)
    assert (attempt.end, attempt.tokens) == (AttemptEnd.CANCELLED, 1)
    assert store.get(job.id) == replace(cancelled, worker=None)


def test_cancel_of_a_terminal_job_returns_it_as_it_is(store: JobStore) -> None:
    store.insert(new_job())
    done = store.finish(claimed(store).id, 1, COMPLETED)
    assert store.cancel(done.id) == done


def test_cancel_of_an_unknown_or_foreign_job_raises(store: JobStore) -> None:
    job = store.insert(new_job(tenant="acme"))
    for job_id, tenant in ((job.id, "other"), ("job_unknown", None)):
        with pytest.raises(JobNotFound):
            store.cancel(job_id, tenant)


def test_extend_tokens_completes_a_cancelled_job_and_never_shortens(store: JobStore) -> None:
    store.insert(new_job())
    job = claimed(store)
    store.save_partials([Partial(job.id, 1, (A,))])
    store.cancel(job.id)
    assert store.extend_tokens(job.id, [A, B]).tokens == (A, B)
    assert store.extend_tokens(job.id, [A]).tokens == (A, B)


def test_extend_tokens_leaves_a_completed_job_alone(store: JobStore) -> None:
    store.insert(new_job())
    done = store.finish(claimed(store).id, 1, COMPLETED)
    assert store.extend_tokens(done.id, [A, B, C]) == done

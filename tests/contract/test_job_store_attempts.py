"""What every JobStore does with an attempt: opened by a claim, written while it runs, ended."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from jobs.errors import IllegalTransition, StaleAttempt
from jobs.job import AttemptEnd, FinishReason, JobError, JobState, Outcome, Priority, Stamps, Token
from jobs.ports import JobStore, Partial
from jobs.queue_place import QueuePlace
from tests.fixtures.attempts import COMPLETED, A, B, C, claimed, give_back
from tests.fixtures.jobs import chat_request, new_job

pytestmark = pytest.mark.contract


def test_claim_takes_by_lane_then_age_and_only_of_its_model(store: JobStore) -> None:
    store.insert(new_job(model="large", priority=Priority.INTERACTIVE))
    batch = store.insert(new_job(priority=Priority.BATCH))
    older = store.insert(new_job(priority=Priority.INTERACTIVE))
    younger = store.insert(new_job(priority=Priority.INTERACTIVE))
    assert [claimed(store).id for _ in range(3)] == [older.id, younger.id, batch.id]
    assert store.claim("tiny", "w") is None


def test_claim_opens_an_attempt_of_the_worker(store: JobStore) -> None:
    new = store.insert(new_job())
    job = claimed(store, "host:1:ab")
    assert (job.state, job.attempt, job.worker) == (JobState.IN_PROGRESS, 1, "host:1:ab")
    assert job.timeline.claimed_at is not None
    assert job.timeline.claimed_at >= new.timeline.queued_at
    assert job == store.get(job.id)
    (attempt,) = store.attempts(job.id)
    assert (attempt.number, attempt.worker, attempt.ended_at, attempt.end) == (1, "host:1:ab", None, None)


def test_claim_leaves_jobs_past_their_deadline_alone(store: JobStore) -> None:
    store.insert(new_job(deadline=datetime.now(UTC) - timedelta(seconds=1)))
    assert store.claim("tiny", "w") is None


def test_queue_place_counts_what_goes_first(store: JobStore) -> None:
    first = store.insert(new_job(cost=10))
    second = store.insert(new_job(cost=20))
    urgent = store.insert(new_job(priority=Priority.INTERACTIVE, cost=5))
    store.insert(new_job(model="large", priority=Priority.INTERACTIVE))
    places = [store.queue_place(job) for job in (urgent, first, second)]
    assert places == [QueuePlace(0, 0), QueuePlace(1, 5), QueuePlace(2, 15)]
    assert store.queue_place(claimed(store)) is None
    assert store.queue_place(second) == QueuePlace(1, 10, until_free=5)


def test_depths_count_waiting_and_running_jobs_by_lane(store: JobStore) -> None:
    store.insert(new_job(priority=Priority.BATCH))
    store.insert(new_job(priority=Priority.BATCH))
    job = store.insert(new_job(priority=Priority.INTERACTIVE))
    claimed(store)
    store.cancel(store.insert(new_job()).id)
    lanes = {(depth.model, depth.priority, depth.state): depth for depth in store.depths()}
    assert {lane: depth.count for lane, depth in lanes.items()} == {
        ("tiny", Priority.BATCH, JobState.QUEUED): 2,
        ("tiny", Priority.INTERACTIVE, JobState.IN_PROGRESS): 1,
    }
    running = lanes["tiny", Priority.INTERACTIVE, JobState.IN_PROGRESS]
    assert running.oldest_queued_at == job.timeline.queued_at


def test_partials_are_stored_and_stamp_the_timeline_once(store: JobStore) -> None:
    store.insert(new_job())
    job = claimed(store)
    assert store.save_partials([Partial(job.id, 1, (), Stamps(prepared_s=0.0))]) == frozenset()
    prepared = store.get(job.id)
    assert prepared.timeline.prepared_at is not None
    assert prepared.timeline.first_token_at is None
    store.save_partials([Partial(job.id, 1, (A,), Stamps(prepared_s=0.0, first_token_s=0.0))])
    first = store.get(job.id)
    assert first.timeline.prepared_at == prepared.timeline.prepared_at
    assert first.timeline.first_token_at is not None
    store.save_partials([Partial(job.id, 1, (A, B, C), Stamps(5.0, 5.0))])
    later = store.get(job.id)
    assert later.tokens == (A, B, C)
    assert later.text == "ABC"
    assert later.timeline == first.timeline


def test_finish_stamps_how_long_ago_things_were(store: JobStore) -> None:
    store.insert(new_job())
    job = claimed(store)
    done = store.finish(job.id, 1, Outcome(JobState.COMPLETED, (A,), stamps=Stamps(prepared_s=3.0, first_token_s=1.0)))
    when = done.timeline
    assert when.prepared_at is not None
    assert when.first_token_at is not None
    assert when.done_at is not None
    assert (when.done_at - when.prepared_at).total_seconds() == pytest.approx(3.0, abs=0.5)
    assert (when.done_at - when.first_token_at).total_seconds() == pytest.approx(1.0, abs=0.5)


def test_partials_never_shorten_what_is_stored(store: JobStore) -> None:
    store.insert(new_job())
    job = claimed(store)
    store.save_partials([Partial(job.id, 1, (A, B, C))])
    store.save_partials([Partial(job.id, 1, (A,))])
    assert store.get(job.id).tokens == (A, B, C)


def test_partials_of_stale_attempts_are_named_and_not_written(store: JobStore) -> None:
    for _ in range(3):
        store.insert(new_job())
    good, given_back, cancelled = (claimed(store) for _ in range(3))
    give_back(store, given_back, AttemptEnd.DRAINED)
    store.cancel(cancelled.id)
    partials = [Partial(job.id, 1, (A,)) for job in (good, given_back, cancelled)] + [Partial("job_unknown", 1, ())]
    assert store.save_partials(partials) == {given_back.id, cancelled.id, "job_unknown"}
    assert store.get(good.id).tokens == (A,)
    assert store.get(given_back.id).tokens == ()
    assert store.save_partials([]) == frozenset()


def test_choices_of_a_job_keep_their_tokens_apart_and_their_reasons(store: JobStore) -> None:
    store.insert(new_job())
    job = store.claim("tiny", "worker")
    assert job is not None
    tokens = (Token(1, "a"), Token(2, "b", choice=1), Token(3, "c"), Token(4, "", -0.5, choice=1))
    reasons = (FinishReason.STOP, FinishReason.LENGTH)
    outcome = Outcome(JobState.INCOMPLETE, tokens, None, FinishReason.LENGTH, finish_reasons=reasons)
    store.finish(job.id, job.attempt, outcome)
    done = store.get(job.id)
    assert (done.tokens, done.finish_reasons) == (tokens, reasons)
    assert (done.text, done.text_of(1), len(done.tokens_of(1))) == ("ac", "b", 2)


def test_finish_ends_the_job_and_its_attempt(store: JobStore) -> None:
    store.insert(new_job())
    job = claimed(store)
    done = store.finish(job.id, 1, COMPLETED)
    assert done == store.get(job.id)
    assert (done.state, done.worker, done.tokens) == (JobState.COMPLETED, None, (A, B))
    assert (done.usage, done.finish_reason, done.error) == (COMPLETED.usage, FinishReason.STOP, None)
    assert done.timeline.done_at is not None
    assert done.timeline.first_token_at is not None
    (attempt,) = store.attempts(job.id)
    assert (attempt.end, attempt.tokens) == (AttemptEnd.FINISHED, 2)
    assert attempt.ended_at is not None


def test_finish_as_failed_keeps_the_error(store: JobStore) -> None:
    store.insert(new_job())
    job = claimed(store)
    error = JobError("invalid_image", "not an image", "messages[0]")
    done = store.finish(job.id, 1, Outcome(JobState.FAILED, (), error=error))
    assert (done.state, done.error, done.losses) == (JobState.FAILED, error, 0)


@pytest.mark.parametrize("words", ["it holds \x00", "it holds \ud800"])
def test_end_whose_reason_no_text_can_hold_is_an_end_all_the_same(store: JobStore, words: str) -> None:
    job = store.insert(new_job(max_attempts=2))
    back = store.give_back(claimed(store).id, 1, AttemptEnd.WORKER_ERROR, words, ())
    assert (back.state, back.losses) == (JobState.QUEUED, 1)
    done = store.finish(claimed(store).id, 2, Outcome(JobState.FAILED, (), error=JobError("server_error", words)))
    assert done.error is not None
    assert (done.state, done.error.code, done.error.message[:8]) == (JobState.FAILED, "server_error", "it holds")
    assert store.attempts(job.id)[0].detail[:8] == "it holds"


def test_finish_repeated_after_a_lost_answer_returns_the_finished_job(store: JobStore) -> None:
    store.insert(new_job())
    job = claimed(store)
    done = store.finish(job.id, 1, COMPLETED)
    assert store.finish(job.id, 1, COMPLETED) == done


def test_finish_by_a_stale_attempt_raises_and_changes_nothing(store: JobStore) -> None:
    store.insert(new_job())
    give_back(store, claimed(store), AttemptEnd.DRAINED)
    second = claimed(store)
    with pytest.raises(StaleAttempt):
        store.finish(second.id, 1, COMPLETED)
    assert store.get(second.id) == second


def test_finish_of_a_cancelled_job_raises(store: JobStore) -> None:
    store.insert(new_job())
    job = claimed(store)
    store.cancel(job.id)
    with pytest.raises(StaleAttempt):
        store.finish(job.id, 1, COMPLETED)
    assert store.get(job.id).state == JobState.CANCELLED


def test_finish_to_a_state_that_is_no_end_raises(store: JobStore) -> None:
    store.insert(new_job())
    job = claimed(store)
    with pytest.raises(IllegalTransition):
        store.finish(job.id, 1, Outcome(JobState.IN_PROGRESS, ()))
    assert store.get(job.id) == job


def test_request_and_tokens_may_hold_any_character(store: JobStore) -> None:
    text = "".join(map(chr, range(0x80))) + "\u2028\ufffd\U0001f469\u200d\U0001f680"
    job = store.insert(new_job(request=chat_request(text)))
    store.finish(claimed(store).id, 1, replace(COMPLETED, tokens=(Token(1, text),)))
    assert store.get(job.id).request == chat_request(text)
    assert store.get(job.id).text == text

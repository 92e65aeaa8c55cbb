"""What every JobStore does on the way of a job from the queue to its end."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from jobs.errors import IllegalTransition, JobExists, JobNotFinished, JobNotFound, StaleAttempt
from jobs.job import (
    AttemptEnd,
    BatchLine,
    FinishReason,
    Job,
    JobError,
    JobKind,
    JobState,
    Origin,
    Outcome,
    Priority,
    Stamps,
    Token,
    TopLogprob,
    Usage,
    Webhook,
)
from jobs.ports import JobFilter, JobStore, Partial
from jobs.queue_place import QueuePlace
from jobs.request import ChatRequest, ImagePart, Message, Role, Sampling, TextPart
from tests.fixtures.jobs import chat_request, new_job

pytestmark = pytest.mark.contract

A, B, C = Token(1, "A"), Token(2, "B"), Token(3, "C", -0.5, (TopLogprob(3, "C", -0.5), TopLogprob(4, "D", -1.5)))
COMPLETED = Outcome(JobState.COMPLETED, (A, B), Usage(5, 2, image_tokens=3, cached_tokens=1), FinishReason.STOP)
DIGEST = "ab" * 32


def claimed(store: JobStore, worker: str = "w") -> Job:
    job = store.claim("tiny", worker)
    assert job is not None
    return job


def give_back(store: JobStore, job: Job, end: AttemptEnd, tokens: tuple[Token, ...] = ()) -> Job:
    return store.give_back(job.id, job.attempt, end, "why", tokens)


# -- recorded and read


def test_insert_records_the_job_as_queued(store: JobStore) -> None:
    request = ChatRequest(
        messages=(
            Message(Role.SYSTEM, (TextPart("Be kind. \x00 ☃ 👩‍🚀"),)),
            Message(Role.USER, (ImagePart(f"blob:{DIGEST}"), ImagePart("https://example.org/a.png", "low"))),
        ),
        sampling=Sampling(seed=2**63, temperature=0.25, logit_bias={7: -1.5}),
        max_tokens=9,
        stop=("\n\n",),
        logprobs=2,
    )
    deadline = datetime.now(UTC) + timedelta(hours=1)
    new = new_job(
        tenant="acme",
        kind=JobKind.CHAT_COMPLETION,
        request=request,
        metadata={"k": "☃"},
        deadline=deadline,
        max_attempts=5,
    )
    job = store.insert(new)
    assert store.get(new.id) == job
    assert (job.id, job.tenant, job.kind, job.model, job.priority) == (
        new.id,
        "acme",
        JobKind.CHAT_COMPLETION,
        "tiny",
        Priority.BACKGROUND,
    )
    assert (job.state, job.attempt, job.losses, job.worker, job.tokens) == (JobState.QUEUED, 0, 0, None, ())
    assert (job.request, job.metadata, job.deadline, job.max_attempts) == (request, {"k": "☃"}, deadline, 5)
    assert (job.usage, job.finish_reason, job.error) == (None, None, None)
    assert job.timeline == replace(job.timeline, claimed_at=None, prepared_at=None, first_token_at=None, done_at=None)


def test_insert_keeps_how_the_job_came_in(store: JobStore) -> None:
    origin = Origin(
        key_id="key_1",
        background=False,
        stored=False,
        door={"instructions": "Be kind. \x00 ☃", "tools": [{"type": "function"}]},
        batch=BatchLine("batch_1", 7),
        webhook=Webhook("https://example.org/hook", ("job.completed",), "whsec_c2VjcmV0"),
    )
    job = store.insert(new_job(origin=origin, cost=321))
    assert (job.origin, job.cost) == (origin, 321)
    assert store.get(job.id) == job


def test_insert_of_a_known_id_raises_and_changes_nothing(store: JobStore) -> None:
    job = store.insert(new_job())
    with pytest.raises(JobExists, match=job.id):
        store.insert(new_job(id=job.id, model="other"))
    assert store.get(job.id) == job


def test_get_of_an_unknown_or_foreign_job_raises(store: JobStore) -> None:
    job = store.insert(new_job(tenant="acme"))
    assert store.get(job.id, "acme") == job
    with pytest.raises(JobNotFound):
        store.get(job.id, "other")
    with pytest.raises(JobNotFound):
        store.get("job_unknown")


def test_get_many_returns_those_that_exist(store: JobStore) -> None:
    first, second = store.insert(new_job()), store.insert(new_job())
    assert store.get_many([first.id, "job_unknown", second.id]) == {first.id: first, second.id: second}
    assert store.get_many([]) == {}


def test_page_walks_a_tenants_jobs_newest_first_and_back(store: JobStore) -> None:
    ids = [store.insert(new_job()).id for _ in range(5)]
    store.insert(new_job(tenant="other"))
    newest = [job.id for job in store.page("default", JobFilter(limit=2))]
    assert newest == [ids[4], ids[3]]
    assert [job.id for job in store.page("default", JobFilter(after=newest[-1], limit=9))] == [ids[2], ids[1], ids[0]]
    oldest = store.page("default", JobFilter(ascending=True, after=ids[0], limit=2))
    assert [job.id for job in oldest] == [ids[1], ids[2]]


def test_page_keeps_what_the_filter_names(store: JobStore) -> None:
    plain = store.insert(new_job())
    marked = store.insert(new_job(metadata={"run": "7", "who": "me"}, model="large"))
    store.insert(new_job(metadata={"run": "8"}))
    store.cancel(plain.id)
    assert [job.id for job in store.page("default", JobFilter(metadata={"run": "7"}))] == [marked.id]
    assert [job.id for job in store.page("default", JobFilter(model="large"))] == [marked.id]
    hidden = store.insert(new_job(kind=JobKind.RESPONSE, origin=Origin(stored=False)))
    assert [job.id for job in store.page("default", JobFilter(kind=JobKind.RESPONSE))] == [hidden.id]
    assert [job.id for job in store.page("default", JobFilter(stored=False))] == [hidden.id]
    assert [job.id for job in store.page("default", JobFilter(state=JobState.CANCELLED))] == [plain.id]


def test_page_after_an_unknown_or_foreign_job_raises(store: JobStore) -> None:
    foreign = store.insert(new_job(tenant="other"))
    for after in (foreign.id, "job_unknown"):
        with pytest.raises(JobNotFound):
            store.page("default", JobFilter(after=after))


def test_delete_of_a_job_that_still_runs_raises(store: JobStore) -> None:
    job = store.insert(new_job())
    with pytest.raises(JobNotFinished, match="queued"):
        store.delete(job.id, "default")
    assert store.get(job.id) == job


def test_delete_removes_a_terminal_job_and_its_references(store: JobStore) -> None:
    image = ChatRequest((Message(Role.USER, (ImagePart(f"blob:{DIGEST}"),)),), Sampling(seed=1))
    job = store.insert(new_job(request=image))
    assert store.orphan_blobs([DIGEST, "cd" * 32]) == {"cd" * 32}
    store.cancel(job.id)
    with pytest.raises(JobNotFound):
        store.delete(job.id, "other")
    store.delete(job.id, "default")
    with pytest.raises(JobNotFound):
        store.get(job.id)
    assert store.attempts(job.id) == []
    assert store.orphan_blobs([DIGEST]) == {DIGEST}


# -- claimed


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


# -- written while it runs


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


# -- ended by its worker


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


# -- given back


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


def test_requeue_of_anything_but_a_dead_letter_raises(store: JobStore) -> None:
    job = store.insert(new_job())
    with pytest.raises(IllegalTransition):
        store.requeue(job.id)
    failed = Outcome(JobState.FAILED, (), error=JobError("invalid_image", "no"))
    store.finish(claimed(store).id, 1, failed)
    with pytest.raises(IllegalTransition):
        store.requeue(job.id)


# -- cancelled


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


def test_request_and_tokens_may_hold_any_character(store: JobStore) -> None:
    text = "".join(map(chr, range(0x80))) + "\u2028\ufffd\U0001f469\u200d\U0001f680"
    job = store.insert(new_job(request=chat_request(text)))
    store.finish(claimed(store).id, 1, replace(COMPLETED, tokens=(Token(1, text),)))
    assert store.get(job.id).request == chat_request(text)
    assert store.get(job.id).text == text


def test_label_puts_metadata_in_place_of_a_jobs_own(store: JobStore) -> None:
    job = store.insert(new_job(metadata={"a": "b", "c": "d"}))
    assert store.label(job.id, job.tenant, {"a": "z"}).metadata == {"a": "z"}
    assert store.get(job.id).metadata == {"a": "z"}
    with pytest.raises(JobNotFound):
        store.label(job.id, "other", {})
    assert store.page(job.tenant, JobFilter(answered=True)) == []

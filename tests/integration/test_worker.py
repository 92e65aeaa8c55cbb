"""One real worker with its real engine, over real PostgreSQL and Valkey."""

import signal
from datetime import UTC, datetime, timedelta

import pytest

from jobs.events import log_of
from jobs.job import AttemptEnd, FinishReason, JobState
from jobs.request import ImagePart, TextPart
from tests.fixtures.eventually import eventually
from tests.fixtures.pictures import png
from tests.fixtures.worker import WorkerBench

pytestmark = pytest.mark.integration

LONG = 3500
"""Tokens that the tiny model needs many seconds for."""


def test_job_runs_to_its_end_and_its_log_tells_the_same_as_its_row(worker_bench: WorkerBench):
    job = worker_bench.wait(worker_bench.submit())
    assert (job.state, job.finish_reason) in (
        (JobState.INCOMPLETE, FinishReason.LENGTH),
        (JobState.COMPLETED, FinishReason.STOP),
    )
    assert job.usage is not None
    assert job.usage.completion_tokens == len(job.tokens) > 0
    assert worker_bench.wait_for_log(job.id) == log_of(job)
    line = job.timeline
    assert line.queued_at <= line.claimed_at <= line.prepared_at <= line.first_token_at <= line.done_at


def test_job_with_a_picture_counts_its_image_tokens(worker_bench: WorkerBench):
    source = f"blob:{worker_bench.blobs.put(png())}"
    job = worker_bench.wait(worker_bench.submit(ImagePart(source), TextPart("What is it?")))
    assert job.usage is not None
    assert job.usage.image_tokens == 3 * 16
    assert job.error is None


def test_many_jobs_run_together_and_answer_as_alone(worker_bench: WorkerBench):
    texts = [f"Question number {k}: why?" for k in range(8)]
    alone = worker_bench.wait(worker_bench.submit(TextPart(texts[0]))).text
    jobs = [worker_bench.submit(TextPart(text)) for text in texts]
    answers = [worker_bench.wait(job_id).text for job_id in jobs]
    assert answers[0] == alone
    assert len(set(answers)) > 1


def test_cancelled_job_frees_its_slot_when_the_worker_is_told(worker_bench: WorkerBench):
    job_id = worker_bench.submit(max_tokens=LONG)
    worker_bench.wait_for_tokens(job_id)
    job = worker_bench.store.cancel(job_id)
    worker_bench.control.stop_job(str(job.worker), job_id)
    eventually("the engine is idle", lambda: worker_bench.stats().get("running") == 0)
    stored = worker_bench.store.get(job_id)
    assert stored.state is JobState.CANCELLED
    assert len(stored.tokens) < LONG


def test_cancelled_job_frees_its_slot_without_being_told(worker_bench: WorkerBench):
    job_id = worker_bench.submit(max_tokens=LONG)
    worker_bench.wait_for_tokens(job_id)
    worker_bench.store.cancel(job_id)
    eventually("the engine is idle", lambda: worker_bench.stats().get("running") == 0)
    assert worker_bench.store.get(job_id).state is JobState.CANCELLED


def test_deadline_that_passes_while_running_fails_the_job(worker_bench: WorkerBench):
    deadline = datetime.now(UTC) + timedelta(seconds=1.5)
    job = worker_bench.wait(worker_bench.submit(max_tokens=LONG, deadline=deadline))
    assert (job.state, job.error.code) == (JobState.FAILED, "deadline_exceeded")
    assert worker_bench.store.attempts(job.id)[0].end is AttemptEnd.FINISHED
    eventually("the engine is idle", lambda: worker_bench.stats().get("running") == 0)


def test_partial_answer_is_stored_while_the_job_runs(worker_bench: WorkerBench):
    job_id = worker_bench.submit(max_tokens=LONG)
    eventually("some tokens are stored", lambda: len(worker_bench.store.get(job_id).tokens) > 5)
    assert worker_bench.store.get(job_id).state is JobState.IN_PROGRESS
    worker_bench.store.cancel(job_id)


def test_lost_bell_is_answered_by_another(worker_bench: WorkerBench):
    lost = worker_bench.insert()
    rung = worker_bench.submit()
    worker_bench.wait(lost)
    assert worker_bench.queue.ring("vlmq-tiny", rung)
    worker_bench.wait(rung)


def test_engine_that_is_killed_is_replaced_and_the_answer_is_the_same(worker_bench: WorkerBench):
    parts = (TextPart("Tell me a long story about the sea."),)
    undisturbed = worker_bench.wait(worker_bench.submit(*parts, max_tokens=200))
    job_id = worker_bench.submit(*parts, max_tokens=200)
    worker_bench.wait_for_tokens(job_id)
    killed = worker_bench.started[0].engine()
    killed.send_signal(signal.SIGKILL)
    job = worker_bench.wait(job_id)
    assert [a.end for a in worker_bench.store.attempts(job_id)] == [AttemptEnd.ENGINE_DIED, AttemptEnd.FINISHED]
    assert (job.text, job.tokens) == (undisturbed.text, undisturbed.tokens)
    assert worker_bench.wait_for_log(job_id) == log_of(job)
    assert worker_bench.started[0].engine().pid != killed.pid

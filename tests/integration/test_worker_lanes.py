"""A worker that one tenant keeps busy, and another who waits for an answer."""

import pytest

from jobs.job import JobState, Priority
from tests.fixtures.worker import WorkerBench

pytestmark = pytest.mark.integration

SLOTS = 32
QUEUED = 300


def test_an_interactive_job_starts_before_those_that_only_wait_have_a_slot(own_bench: WorkerBench) -> None:
    """What is queued in the other lane outnumbers what the engine has, and every place of the worker is taken."""
    bench = own_bench
    lines = [bench.insert(max_tokens=200, tenant="bulk", priority=Priority.BATCH) for _ in range(QUEUED)]
    bench.start().wait_ready()
    for job_id in lines[: SLOTS + 12]:
        assert bench.queue.ring("vlmq-tiny", job_id)
    bench.wait_for_tokens(lines[0])
    before = {job.id for job in bench.store.get_many(lines).values() if job.state is not JobState.QUEUED}
    urgent = bench.submit(max_tokens=4, tenant="someone", priority=Priority.INTERACTIVE)
    answer = bench.wait(urgent)
    assert answer.timeline.first_token_at is not None
    jobs = bench.store.get_many(lines).values()
    ended = [job for job in jobs if job.timeline.done_at and job.timeline.done_at < answer.timeline.first_token_at]
    assert {job.id for job in ended} <= before
    assert len(ended) <= SLOTS
    for job in jobs:
        bench.store.cancel(job.id)

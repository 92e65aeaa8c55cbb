"""Attempts that are lost, taken back or given back, and what the next one makes of it."""

import threading
import time

import pytest

from jobs.events import Delta, Ended, log_of
from jobs.job import AttemptEnd, FinishReason, JobState, Token
from tests.fixtures.eventually import eventually
from worker.engine.generation import Finish
from worker.live_job import EndKind

pytestmark = pytest.mark.unit


def test_engine_that_dies_gives_the_job_back_with_its_tokens_and_the_next_attempt_continues(bench):
    ids = bench.ids("one two three four five six")[:8]
    job_id = bench.submit()
    thread = bench.start(job_id)
    bench.engine.say(f"{job_id}:1:0", ids[:3])
    bench.engine.sinks[f"{job_id}:1:0"].on_engine_died("killed by SIGKILL")
    thread.join(10)
    job = bench.store.get(job_id)
    assert (job.state, job.losses, [t.id for t in job.tokens]) == (JobState.QUEUED, 1, ids[:3])
    bench.engine.script = ids
    job = bench.run(job_id)
    assert bench.engine.submitted[1].generated == ids[:3]
    assert (job.state, [t.id for t in job.tokens]) == (JobState.INCOMPLETE, ids)
    assert bench.ended_log(job_id) == log_of(job)


def test_tokens_published_but_not_stored_are_continued_from(bench):
    ids = bench.ids("one two three four five six")[:8]
    job_id = bench.submit()
    job = bench.store.claim("tiny", "dead")
    published = [*log_of(job), *(Delta(Token(i, bench.tokenizer.whole.decode([i]))) for i in ids[:5])]
    bench.log.open(job_id, 1, published)
    bench.store.give_back(job_id, 1, AttemptEnd.LEASE_EXPIRED, "", ())
    bench.engine.script = ids
    job = bench.run(job_id)
    assert bench.engine.submitted[0].generated == ids[:5]
    assert [t.id for t in job.tokens] == ids
    assert bench.ended_log(job_id)[: len(published)] == published


def test_continuation_that_has_all_its_tokens_ends_without_the_engine(bench):
    ids = bench.ids("one two three four five six")[:8]
    job_id = bench.submit()
    bench.store.claim("tiny", "dead")
    bench.store.give_back(job_id, 1, AttemptEnd.LEASE_EXPIRED, "", [Token(i, "x") for i in ids])
    job = bench.run(job_id)
    assert (job.state, job.finish_reason, len(job.tokens)) == (JobState.INCOMPLETE, FinishReason.LENGTH, 8)
    assert bench.engine.submitted == []


def test_answer_of_a_superseded_attempt_is_dropped(bench):
    job_id = bench.submit()
    thread = bench.start(job_id)
    bench.store.give_back(job_id, 1, AttemptEnd.LEASE_EXPIRED, "", ())
    bench.engine.say(f"{job_id}:1:0", bench.ids("abcdefghij")[:8], Finish.LENGTH)
    thread.join(10)
    assert bench.store.get(job_id).state is JobState.QUEUED


def test_drain_gives_running_jobs_back_without_a_loss_and_passes_bells_on(bench):
    job_id = bench.submit()
    thread = bench.start(job_id)
    bench.engine.say(f"{job_id}:1:0", bench.ids("one"))
    bench.runner.stop_claiming()
    bench.runner.answer("job_next")
    bench.runner.give_all_back()
    thread.join(10)
    job = bench.store.get(job_id)
    assert (job.state, job.losses, len(job.tokens)) == (JobState.QUEUED, 0, len(bench.ids("one")))
    assert bench.store.attempts(job_id)[0].end is AttemptEnd.DRAINED
    assert bench.queue.rung == [("tiny", "job_next"), ("tiny", job_id)]


def test_job_whose_claim_was_under_way_when_the_drain_began_goes_back_with_the_grace(bench):
    bench.store.answers.clear()
    job_id = bench.submit()
    thread = threading.Thread(target=bench.runner.answer, args=(job_id,))
    thread.start()
    eventually("the claim is under way", lambda: bench.store.get(job_id).state is JobState.IN_PROGRESS)
    bench.runner.stop_claiming()
    drain = threading.Thread(target=bench.runner.end_after, args=(0.1, 0.1))
    drain.start()
    bench.store.answers.set()
    for each in (thread, drain):
        each.join(30)
    assert bench.store.attempts(job_id)[0].end is AttemptEnd.DRAINED


def test_end_that_the_database_never_takes_is_a_loss_until_the_job_is_quarantined(bench):
    bench.store.refused = True
    bench.engine.script = bench.ids("abcdefghij")[:8]
    job_id = bench.submit(max_attempts=2)
    assert bench.run(job_id).losses == 1
    job = bench.run(job_id)
    assert (job.state, job.error.code) == (JobState.FAILED, "too_many_attempts")
    assert bench.store.attempts(job_id)[0].detail.endswith(r"ValueError: 'no \x00 in text'")
    assert isinstance(bench.ended_log(job_id)[-1], Ended)


def test_fault_in_what_the_engine_said_breaks_the_attempt_alone(bench):
    """On the engine's thread, which serves all other jobs."""
    job_id = bench.submit()
    thread = bench.start(job_id)
    bench.engine.say(f"{job_id}:1:0", ["no id"])
    thread.join(10)
    assert bench.store.attempts(job_id)[0].end is AttemptEnd.WORKER_ERROR
    assert bench.store.get(job_id).losses == 1


def test_unexpected_fault_gives_the_job_back_as_a_loss_until_it_is_quarantined(bench):
    bench.engine.fault = RuntimeError("boom")
    job_id = bench.submit(max_attempts=2)
    assert bench.run(job_id).losses == 1
    job = bench.run(job_id)
    assert (job.state, job.error.code) == (JobState.FAILED, "too_many_attempts")
    assert bench.store.attempts(job_id)[0].detail == "RuntimeError: boom"
    assert isinstance(bench.ended_log(job_id)[-1], Ended)


def test_lost_jobs_on_their_last_attempt_run_one_at_a_time(bench):
    jobs = [bench.submit() for _ in range(3)]
    for _ in range(2):
        for claimed in [bench.store.claim("tiny", "dead") for _ in jobs]:
            bench.store.give_back(claimed.id, claimed.attempt, AttemptEnd.ENGINE_DIED, "", ())
    threads = [threading.Thread(target=bench.runner.answer, args=(job_id,)) for job_id in jobs]
    for thread in threads:
        thread.start()
    for count in (1, 2, 3):
        eventually("the engine has the generations", lambda count=count: len(bench.engine.submitted) == count)
        time.sleep(0.05)
        assert len(bench.engine.submitted) == count
        bench.engine.sinks[bench.engine.submitted[-1].id].on_engine_died("again")
    for thread in threads:
        thread.join(10)
    assert {bench.store.get(job_id).error.code for job_id in jobs} == {"too_many_attempts"}


def test_job_on_its_last_attempt_runs_beside_none_that_was_ever_lost(bench):
    once, twice, never = (bench.submit() for _ in range(3))
    for lost in ({once, twice}, {twice}):
        for claimed in [bench.store.claim("tiny", "dead") for _ in range(3)]:
            end = AttemptEnd.ENGINE_DIED if claimed.id in lost else AttemptEnd.DRAINED
            bench.store.give_back(claimed.id, claimed.attempt, end, "", ())
    threads = [threading.Thread(target=bench.runner.answer, args=(job_id,)) for job_id in (once, twice, never)]
    for thread, engines in zip(threads, ([once], [once], [once, never]), strict=True):
        thread.start()
        eventually("as many run as may", lambda engines=engines: jobs_of(bench) == engines)
        time.sleep(0.05)
        assert jobs_of(bench) == engines
    bench.live_jobs.stop(once, EndKind.NOT_OURS)
    eventually("the last attempt begins", lambda: jobs_of(bench) == [once, never, twice])
    for job_id in (twice, never):
        bench.live_jobs.stop(job_id, EndKind.NOT_OURS)
    for thread in threads:
        thread.join(10)


def jobs_of(bench):
    """Whose generations the engine has been given."""
    return [generation.id.partition(":")[0] for generation in bench.engine.submitted]


def test_end_is_written_when_the_database_is_back(bench):
    bench.store.down = 1
    bench.engine.script = bench.ids("abcdefghij")[:8]
    assert bench.run(bench.submit()).state is JobState.INCOMPLETE

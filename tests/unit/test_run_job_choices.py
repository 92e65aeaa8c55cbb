"""Several choices of one job, over fakes of everything around it."""

from datetime import UTC, datetime, timedelta

import pytest

from jobs.events import log_of
from jobs.job import AttemptEnd, FinishReason, JobState, Token
from tests.fixtures.eventually import eventually
from worker.engine.generation import Finish

pytestmark = pytest.mark.unit


def test_choices_run_beside_each_other_and_take_turns_in_the_log(bench):
    ids = [bench.ids("one two three"), bench.ids("four five six"), bench.ids("seven eight nine")]
    end = bench.tokenizer.id_of("<|im_end|>")
    job_id = bench.submit(n=3)
    thread = bench.start(job_id)
    eventually("the engine has the generations", lambda: len(bench.engine.submitted) == 3)
    for choice in (2, 0, 1):
        bench.engine.say(f"{job_id}:1:{choice}", ids[choice][: choice + 1])
    bench.engine.say(f"{job_id}:1:0", [end], Finish.STOP)
    bench.engine.say(f"{job_id}:1:2", [end], Finish.STOP)
    bench.engine.say(f"{job_id}:1:1", ids[1][2:3], Finish.LENGTH)
    thread.join(10)
    job = bench.store.get(job_id)
    assert (job.state, job.finish_reason) == (JobState.INCOMPLETE, FinishReason.LENGTH)
    assert job.finish_reasons == (FinishReason.STOP, FinishReason.LENGTH, FinishReason.STOP)
    assert [t.choice for t in job.tokens] == [0, 1, 2, 0, 1, 2, 1, 2, 2]
    assert [t.id for t in job.tokens_of(2)] == [*ids[2][:3], end]
    assert job.text == bench.tokenizer.whole.decode(ids[0][:1])
    assert job.usage.completion_tokens == 9
    assert bench.ended_log(job_id) == log_of(job)
    assert len({g.sampling.seed for g in bench.engine.submitted}) == 3
    assert bench.engine.submitted[0].sampling.seed == 7


def test_choice_that_a_stop_string_ends_frees_its_slot_while_the_others_go_on(bench):
    job_id = bench.submit(n=2, stop=("thr",), max_tokens=100)
    thread = bench.start(job_id)
    eventually("the engine has the generations", lambda: len(bench.engine.submitted) == 2)
    bench.engine.say(f"{job_id}:1:1", bench.ids("one two three four"))
    assert bench.engine.cancelled == [f"{job_id}:1:1"]
    bench.engine.say(f"{job_id}:1:0", bench.ids("a three"))
    thread.join(10)
    job = bench.store.get(job_id)
    assert (job.state, job.text_of(0), job.text_of(1)) == (JobState.COMPLETED, "a ", "one two ")


def test_choices_of_a_dead_engine_continue_each_from_what_was_published(bench):
    ids = [bench.ids("one two three four five six seven")[:8], bench.ids("nine ten eleven twelve thirteen")[:8]]
    job_id = bench.submit(n=2)
    thread = bench.start(job_id)
    eventually("the engine has the generations", lambda: len(bench.engine.submitted) == 2)
    bench.engine.say(f"{job_id}:1:0", ids[0], Finish.LENGTH)
    bench.engine.say(f"{job_id}:1:1", ids[1][:2])
    bench.engine.sinks[f"{job_id}:1:1"].on_engine_died("killed by SIGKILL")
    thread.join(10)
    job = bench.store.get(job_id)
    assert [t.choice for t in job.tokens] == [0, 1, 0, 1, 0]
    thread = bench.start(job_id)
    eventually("the engine has the generations", lambda: len(bench.engine.submitted) == 4)
    assert [g.generated for g in bench.engine.submitted[2:]] == [ids[0][:3], ids[1][:2]]
    bench.engine.say(f"{job_id}:2:1", ids[1][2:], Finish.LENGTH)
    bench.engine.say(f"{job_id}:2:0", ids[0][3:], Finish.LENGTH)
    thread.join(10)
    again = bench.store.get(job_id)
    assert again.tokens[:5] == job.tokens
    assert [[t.id for t in again.tokens_of(choice)] for choice in (0, 1)] == ids
    assert bench.ended_log(job_id) == log_of(again)


def test_continuation_submits_only_the_choices_that_go_on(bench):
    end = bench.tokenizer.id_of("<|im_end|>")
    job_id = bench.submit(n=2)
    bench.store.claim("tiny", "dead")
    held = [Token(end, ""), Token(bench.ids("a")[0], "a", choice=1)]
    bench.store.give_back(job_id, 1, AttemptEnd.LEASE_EXPIRED, "", held)
    bench.engine.script, bench.engine.finish = [bench.ids("a")[0], end], Finish.STOP
    job = bench.run(job_id)
    assert [g.id for g in bench.engine.submitted] == [f"{job_id}:2:1"]
    assert (job.state, job.text_of(0), job.text_of(1)) == (JobState.COMPLETED, "", "a")


def test_deadline_frees_the_slots_of_all_choices(bench):
    job_id = bench.submit(n=3, deadline=datetime.now(UTC) + timedelta(seconds=0.3))
    bench.runner.answer(job_id)
    assert bench.store.get(job_id).error.code == "deadline_exceeded"
    assert sorted(bench.engine.cancelled) == [f"{job_id}:1:{choice}" for choice in range(3)]

"""What becomes of a job that runs to an end of its own: the use case over fakes of everything around it."""

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from jobs.events import log_of
from jobs.job import AttemptEnd, FinishReason, JobState, Token
from jobs.request import ChatRequest, Message, Role, Sampling, TextPart
from tests.fixtures.eventually import eventually
from tests.fixtures.jobs import new_job
from worker.engine.generation import Finish
from worker.live_job import EndKind

pytestmark = pytest.mark.unit


def test_answer_that_stops_is_completed_with_usage_and_a_whole_log(bench):
    end = bench.tokenizer.id_of("<|im_end|>")
    bench.engine.script, bench.engine.finish = [*bench.ids("Hi!"), end], Finish.STOP
    job = bench.run(bench.submit())
    assert (job.state, job.finish_reason, job.text) == (JobState.COMPLETED, FinishReason.STOP, "Hi!")
    assert job.usage.completion_tokens == len(job.tokens) == len(bench.ids("Hi!")) + 1
    assert job.usage.prompt_tokens == len(bench.engine.submitted[0].prompt_ids)
    assert job.usage.cached_tokens == 3
    assert bench.ended_log(job.id) == log_of(job)


def test_answer_of_max_tokens_is_incomplete(bench):
    bench.engine.script = bench.ids("a b c d e f g h i j k")[:8]
    job = bench.run(bench.submit(max_tokens=8))
    assert (job.state, job.finish_reason, len(job.tokens)) == (JobState.INCOMPLETE, FinishReason.LENGTH, 8)


def test_stop_string_ends_the_answer_and_frees_the_slot(bench):
    bench.engine.script, bench.engine.finish = bench.ids("one two three four"), None
    job = bench.run(bench.submit(stop=("thr",), max_tokens=100))
    assert (job.state, job.text) == (JobState.COMPLETED, "one two ")
    assert bench.engine.cancelled == [f"{job.id}:1:0"]


def test_min_tokens_reaches_the_engine_and_keeps_stop_strings_quiet(bench):
    bench.engine.script = ids = bench.ids("one two three four")
    job = bench.run(bench.submit(stop=("two", "four"), min_tokens=len(bench.ids("one two")), max_tokens=len(ids)))
    assert (job.state, job.text) == (JobState.COMPLETED, "one two three ")
    assert bench.engine.submitted[0].min_tokens == len(bench.ids("one two"))


def test_answer_that_ignores_the_end_token_goes_on_past_it_in_every_attempt(bench):
    end = bench.tokenizer.id_of("<|im_end|>")
    ids = [*bench.ids("Hi"), end, *bench.ids("Ho")]
    job_id = bench.submit(ignore_eos=True, max_tokens=len(ids))
    bench.store.claim("tiny", "dead")
    bench.store.give_back(job_id, 1, AttemptEnd.DRAINED, "", [Token(i, "x") for i in ids[:-1]])
    bench.engine.script = ids
    job = bench.run(job_id)
    assert (job.state, [t.id for t in job.tokens]) == (JobState.INCOMPLETE, ids)
    assert bench.engine.submitted[0].stop_ids == []


def test_engine_that_refuses_fails_the_job_with_its_code(bench):
    job_id = bench.submit()
    thread = bench.start(job_id)
    bench.engine.sinks[f"{job_id}:1:0"].on_refused("context_length_exceeded", "too long by 5")
    thread.join(10)
    job = bench.store.get(job_id)
    assert (job.state, job.error.code, job.error.message) == (
        *(JobState.FAILED, "context_length_exceeded"),
        "too long by 5",
    )


def test_cancelled_job_is_stopped_and_not_written(bench):
    job_id = bench.submit()
    thread = bench.start(job_id)
    bench.engine.say(f"{job_id}:1:0", bench.ids("one"))
    bench.store.cancel(job_id)
    bench.live_jobs.stop(job_id, EndKind.NOT_OURS)
    thread.join(10)
    assert bench.store.get(job_id).state is JobState.CANCELLED
    assert bench.engine.cancelled == [f"{job_id}:1:0"]
    assert bench.live_jobs.all() == []


def test_deadline_that_passes_while_running_fails_the_job_and_frees_the_slot(bench):
    job_id = bench.submit(deadline=datetime.now(UTC) + timedelta(seconds=0.3))
    bench.runner.answer(job_id)
    job = bench.store.get(job_id)
    assert (job.state, job.error.code) == (JobState.FAILED, "deadline_exceeded")
    assert bench.engine.cancelled == [f"{job_id}:1:0"]


def test_tenants_do_not_share_cached_prefixes(bench):
    bench.engine.script = bench.ids("abcdefghij")[:8]
    for tenant in ("default", "a", "b", "a"):
        bench.run(bench.submit(tenant=tenant))
    salts = [generation.salt for generation in bench.engine.submitted]
    assert salts[0] == 0
    assert salts[1] == salts[3] != salts[2]


def test_sampling_travels_whole(bench):
    asked = Sampling(
        seed=9, temperature=0.5, top_p=0.9, top_k=5, min_p=0.1, repetition_penalty=1.1, presence_penalty=0.2,
        frequency_penalty=0.3, logit_bias={5: -1.0},
    )  # fmt: skip
    request = ChatRequest((Message(Role.USER, (TextPart("x"),)),), asked, max_tokens=3, logprobs=2)
    job_id = bench.store.insert(replace(new_job(model="tiny"), request=request)).id
    bench.engine.script = bench.ids("abc")[:3]
    bench.runner.answer(job_id)
    sent = bench.engine.submitted[0].sampling
    assert {name: getattr(sent, name) for name in asked.__struct_fields__} == {
        name: getattr(asked, name) for name in asked.__struct_fields__
    }
    assert sent.logprobs == 2


def test_timeline_says_when_things_were_not_when_they_were_written(bench):
    job_id = bench.submit()
    thread = bench.start(job_id)
    eventually("the engine has the job", lambda: bench.engine.submitted)
    time.sleep(0.1)
    bench.engine.say(f"{job_id}:1:0", bench.ids("one"))
    time.sleep(0.1)
    bench.engine.say(f"{job_id}:1:0", bench.ids("abcdefghij")[:8], Finish.LENGTH)
    thread.join(10)
    when = bench.store.get(job_id).timeline
    assert (when.first_token_at - when.prepared_at).total_seconds() > 0.05
    assert (when.done_at - when.first_token_at).total_seconds() > 0.05

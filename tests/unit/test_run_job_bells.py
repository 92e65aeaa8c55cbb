"""What a bell does: which job it claims, and when none."""

import threading
import time

import pytest

from jobs.job import JobState, Priority
from tests.fixtures.eventually import eventually
from tests.fixtures.job_bench import PLACES
from worker.engine.generation import Finish

pytestmark = pytest.mark.unit


def test_bell_without_a_waiting_job_does_nothing(bench):
    bench.runner.answer("job_gone")
    assert bench.engine.submitted == []


def test_bell_runs_the_next_job_whichever_it_named(bench):
    first, second = bench.submit(), bench.submit()
    bench.engine.script = bench.ids("abcdefgh")[:8]
    bench.runner.answer(second)
    assert bench.store.get(first).state.terminal
    assert bench.store.get(second).state is JobState.QUEUED


def test_nothing_is_claimed_while_no_engine_serves(bench):
    bench.engine.script = bench.ids("abcdefghij")[:8]
    bench.engine.serving.clear()
    job_id = bench.submit()
    thread = threading.Thread(target=bench.runner.answer, args=(job_id,))
    thread.start()
    time.sleep(0.05)
    assert bench.store.get(job_id).state is JobState.QUEUED
    bench.engine.serving.set()
    thread.join(10)
    assert bench.store.get(job_id).state is JobState.INCOMPLETE


def test_bell_that_waits_for_an_engine_is_passed_on_by_a_drain(bench):
    bench.engine.serving.clear()
    thread = threading.Thread(target=bench.runner.answer, args=("job_x",))
    thread.start()
    bench.runner.stop_claiming()
    thread.join(10)
    assert bench.queue.rung == [("tiny", "job_x")]


def test_without_a_place_only_a_job_somebody_waits_for_is_run(bench):
    taken = [bench.start(bench.submit(priority=Priority.BATCH)) for _ in range(PLACES)]
    bench.submit(priority=Priority.BATCH)
    bench.submit(priority=Priority.BACKGROUND)
    bell = threading.Thread(target=bench.runner.answer, args=("job_x",))
    bell.start()
    time.sleep(0.3)
    assert len(bench.engine.submitted) == PLACES
    urgent = bench.submit(priority=Priority.INTERACTIVE)
    eventually("the urgent job runs", lambda: len(bench.engine.submitted) == PLACES + 1)
    assert bench.store.get(urgent).state is JobState.IN_PROGRESS
    assert [generation.lane for generation in bench.engine.submitted] == [Priority.BATCH] * PLACES + [0]
    bench.runner.give_all_back()
    for thread in [*taken, bell]:
        thread.join(10)


def test_bell_without_a_place_takes_the_next_that_is_free(bench):
    taken = [bench.start(bench.submit(priority=Priority.BATCH)) for _ in range(PLACES)]
    last = bench.submit(priority=Priority.BATCH)
    bell = threading.Thread(target=bench.runner.answer, args=(last,))
    bell.start()
    bench.engine.say(bench.engine.submitted[0].id, bench.ids("abcdefgh")[:8], Finish.LENGTH)
    eventually("the last one runs", lambda: bench.store.get(last).state is JobState.IN_PROGRESS)
    bench.runner.give_all_back()
    for thread in [*taken, bell]:
        thread.join(10)


def test_bell_without_a_place_is_passed_on_by_a_drain(bench):
    taken = [bench.start(bench.submit()) for _ in range(PLACES)]
    bell = threading.Thread(target=bench.runner.answer, args=("job_x",))
    bell.start()
    time.sleep(0.05)
    bench.runner.stop_claiming()
    bell.join(10)
    assert bench.queue.rung == [("tiny", "job_x")]
    bench.runner.give_all_back()
    for thread in taken:
        thread.join(10)

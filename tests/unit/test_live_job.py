"""A running job's one ending, and which of two attempts at one job by one worker it is meant for."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from jobs.job import AttemptEnd, Job
from jobs.ports import WorkerRecord
from tests.fakes.store import FakeJobStore
from tests.fixtures.eventually import eventually
from tests.fixtures.jobs import new_job
from worker.answer import Answer
from worker.detokenizer import Detokenizers
from worker.engine.generation import SampledToken, TokenOutput
from worker.heartbeat import Heartbeat
from worker.live_job import Ending, EndKind, LiveJob, LiveJobs
from worker.partials import Partials
from worker.tokenizer import ChatTokenizer
from worker.transcript import Transcript

pytestmark = pytest.mark.unit

WORKER = WorkerRecord("me", "tiny", "host", 1, 4)


class OvertakenStore(FakeJobStore):
    """While it says whose attempts are current, `meanwhile` happens, once."""

    meanwhile: Callable[[], None] = staticmethod(lambda: None)

    def not_ours(self, worker, running):
        return self._overtaken(super().not_ours(worker, running))

    def save_partials(self, partials):
        return self._overtaken(super().save_partials(partials))

    def _overtaken(self, ids):
        if ids:
            self.meanwhile, meanwhile = lambda: None, self.meanwhile
            meanwhile()
        return ids


@pytest.fixture
def store() -> OvertakenStore:
    made = OvertakenStore()
    made.heartbeat(WORKER)
    made.insert(new_job(model="tiny"))
    return made


@pytest.fixture
def holding() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def claimed(store: FakeJobStore) -> Job:
    job = store.claim("tiny", "me")
    assert job is not None
    return job


def live_of(job: Job, on_tokens=lambda live, tokens: None) -> LiveJob:
    return LiveJob(job, on_tokens)


def claims_again(store: OvertakenStore, live_jobs: LiveJobs, holding: ExitStack) -> tuple[LiveJob, list[LiveJob]]:
    """A first attempt that is no longer current, and the second one by the same worker, which begins while the store
    is being asked about the first."""
    first, second = live_of(claimed(store)), []
    holding.enter_context(live_jobs.holding(first))
    store.give_back(first.id, 1, AttemptEnd.ENGINE_DIED, "", ())

    def again() -> None:
        second.append(live_of(claimed(store)))
        holding.enter_context(live_jobs.holding(second[0]))

    store.meanwhile = again
    return first, second


def test_answer_that_a_tick_gets_for_an_earlier_attempt_leaves_the_new_one_alone(store, holding):
    live_jobs = LiveJobs()
    first, second = claims_again(store, live_jobs, holding)
    heartbeat = Heartbeat(store, WORKER, live_jobs, lambda: None, every_s=60, tick_s=0.01)
    heartbeat.start()
    eventually("the first attempt is told", first.ending.done)
    heartbeat.close()
    assert first.ending.result().kind is EndKind.NOT_OURS
    assert not second[0].ending.done()


def test_answer_that_partials_get_for_an_earlier_attempt_leaves_the_new_one_alone(store, holding):
    live_jobs = LiveJobs()
    first, second = claims_again(store, live_jobs, holding)
    partials = Partials(store, live_jobs, every_s=0.01)
    partials.start()
    eventually("the first attempt is told", first.ending.done)
    partials.close()
    assert not second[0].ending.done()


@pytest.mark.parametrize("late", [False, True])
def test_older_of_two_attempts_at_one_job_ends_whichever_begins_first(store, holding, late):
    """A worker that stood still for longer than its lease may claim what was taken from it."""
    older = live_of(claimed(store))
    store.give_back(older.id, 1, AttemptEnd.LEASE_EXPIRED, "", ())
    newer = live_of(claimed(store))
    live_jobs = LiveJobs()
    for live in (newer, older) if late else (older, newer):
        holding.enter_context(live_jobs.holding(live))
    assert older.ending.result(0).kind is EndKind.NOT_OURS
    assert not newer.ending.done()
    assert live_jobs.attempts() == {newer.id: 2}


def test_job_that_is_ended_while_its_answer_grows_ends_behind_the_last_token(store, tiny_model: Path):
    """Its deadline, say: row and log must not differ by the token that was just under way."""
    begun = threading.Event()

    def publish(live: LiveJob, tokens) -> None:
        begun.set()
        deadline.join(0.2)
        ended_within.append(live.ending.done())

    ended_within: list[bool] = []
    live = live_of(claimed(store), publish)
    detokenizers = Detokenizers(ChatTokenizer.load(tiny_model))
    live.write_to(Answer([Transcript(detokenizers, (), (), max_tokens=9)]))
    deadline = threading.Thread(target=lambda: (begun.wait(10), live.end(Ending(EndKind.DEADLINE))))
    deadline.start()
    assert live.on_output(0, TokenOutput("g", [SampledToken(5)]))
    deadline.join(10)
    assert ended_within == [False]
    assert live.ending.result(0).kind is EndKind.DEADLINE
    assert not live.on_output(0, TokenOutput("g", [SampledToken(6)]))
    assert [token.id for token in live.tokens] == [5]

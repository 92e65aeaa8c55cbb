"""The publisher over a log that can be away, forget, and be taken over by another attempt."""

import threading
import time
from collections.abc import Iterator, Sequence

import pytest

from jobs.errors import StaleAttempt, StreamUnavailable
from jobs.events import Delta, Ended, Event, Queued, Started
from jobs.job import JobState, Token
from jobs.ports import Append
from tests.fakes.event_log import FakeEventLog
from tests.fixtures.eventually import eventually
from worker.publisher import Publisher

pytestmark = pytest.mark.unit

START: list[Event] = [Queued(), Started()]


class FlakyLog(FakeEventLog):
    """Counts journeys; `away` makes every call fail."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.journeys: list[int] = []

    def _check(self) -> None:
        if self.away:
            raise StreamUnavailable("away")

    def open(self, job_id: str, attempt: int, log: Sequence[Event]) -> list[Event]:
        self._check()
        return super().open(job_id, attempt, log)

    def append(self, appends: Sequence[Append]) -> list[Exception | None]:
        self._check()
        self.journeys.append(len(appends))
        return super().append(appends)

    def end(self, job_id: str, log: Sequence[Event]) -> list[Event]:
        self._check()
        return super().end(job_id, log)


@pytest.fixture
def log() -> FlakyLog:
    return FlakyLog()


@pytest.fixture
def publisher(log: FlakyLog) -> Iterator[Publisher]:
    made = Publisher(log, flush_s=0.02)
    made.start()
    yield made
    made.close(5)


def token(k: int) -> Token:
    return Token(k, f"t{k}")


def deltas(log: FlakyLog, job_id: str) -> list[int]:
    return [event.token.id for event in log.read(job_id) if isinstance(event, Delta)]


def ended(log: FlakyLog, job_id: str) -> bool:
    events = log.read(job_id)
    return bool(events) and isinstance(events[-1], Ended)


def test_tokens_arrive_in_order_and_once(publisher, log):
    publisher.open("a", 1, START, lambda: None)
    for k in range(50):
        publisher.add("a", 1, [token(k)])
    publisher.end("a", 1, JobState.COMPLETED)
    eventually("the log has its end", lambda: ended(log, "a"))
    assert log.read("a") == [*START, *(Delta(token(k)) for k in range(50)), Ended(JobState.COMPLETED)]


def test_many_jobs_share_a_journey(publisher, log):
    for name in "abcdefgh":
        publisher.open(name, 1, START, lambda: None)
        publisher.add(name, 1, [token(0)])
    eventually("every log has its tokens", lambda: all(deltas(log, name) == [0] for name in "abcdefgh"))
    log.journeys.clear()
    for name in "abcdefgh":
        publisher.add(name, 1, [token(1)])
    eventually("every log has its tokens", lambda: all(deltas(log, name) == [0, 1] for name in "abcdefgh"))
    assert len(log.journeys) < 8


def test_open_returns_what_an_earlier_attempt_had_published(publisher, log):
    log.open("a", 1, [*START, Delta(token(0)), Delta(token(1))])
    known = publisher.open("a", 2, [*START, Delta(token(0))], lambda: None)
    assert known == [*START, Delta(token(0)), Delta(token(1))]
    publisher.add("a", 2, [token(2)])
    eventually("the log has the tokens", lambda: deltas(log, "a") == [0, 1, 2])


def test_open_of_a_superseded_attempt_is_stale(publisher, log):
    log.open("a", 3, START)
    with pytest.raises(StaleAttempt):
        publisher.open("a", 2, START, lambda: None)


def test_log_that_was_away_gets_everything_when_it_is_back(publisher, log):
    log.away = True
    assert publisher.open("a", 1, START, lambda: None) == START
    publisher.add("a", 1, [token(0), token(1)])
    publisher.end("a", 1, JobState.COMPLETED)
    time.sleep(0.05)
    log.away = False
    eventually("the log has its end", lambda: ended(log, "a"))
    assert deltas(log, "a") == [0, 1]


def test_log_that_forgot_everything_gets_the_whole_again(publisher, log):
    publisher.open("a", 1, START, lambda: None)
    publisher.add("a", 1, [token(0), token(1)])
    eventually("the log has the tokens", lambda: deltas(log, "a") == [0, 1])
    log.drop("a")
    publisher.add("a", 1, [token(2)])
    eventually("the log has the tokens", lambda: deltas(log, "a") == [0, 1, 2])
    assert log.read("a")[:2] == START


def test_attempt_that_was_superseded_is_told_and_publishes_nothing_more(publisher, log):
    told = threading.Event()
    publisher.open("a", 1, START, told.set)
    publisher.add("a", 1, [token(0)])
    eventually("the log has the tokens", lambda: deltas(log, "a") == [0])
    log.open("a", 2, log.read("a"))
    publisher.add("a", 1, [token(9)])
    assert told.wait(10)
    publisher.add("a", 1, [token(10)])
    publisher.end("a", 1, JobState.COMPLETED)
    publisher.open("b", 1, START, lambda: None)
    publisher.add("b", 1, [token(0)])
    eventually("the log has the tokens", lambda: deltas(log, "b") == [0])
    assert deltas(log, "a") == [0]
    assert not ended(log, "a")


def test_forgotten_attempt_is_not_ended_by_a_late_call(publisher, log):
    publisher.open("a", 1, START, lambda: None)
    publisher.forget("a", 1)
    publisher.open("a", 2, START, lambda: None)
    publisher.end("a", 1, JobState.FAILED)
    publisher.add("a", 2, [token(0)])
    eventually("the log has the tokens", lambda: deltas(log, "a") == [0])
    assert not ended(log, "a")


def test_close_sends_what_is_left(log):
    publisher = Publisher(log, flush_s=5)
    publisher.start()
    publisher.open("a", 1, START, lambda: None)
    publisher.add("a", 1, [token(0)])
    publisher.add("a", 1, [token(1)])
    publisher.close(5)
    assert deltas(log, "a") == [0, 1]

"""What every EventLog does."""

from collections.abc import Iterator

import pytest
import redis

from jobs.errors import LogGap, StaleAttempt
from jobs.event_log import RedisEventLog
from jobs.events import Delta, Ended, Event, Queued, Started
from jobs.job import JobState, Token, TopLogprob
from jobs.ports import Append, EventLog
from tests.fakes.event_log import FakeEventLog

pytestmark = pytest.mark.contract

HEAD: list[Event] = [Queued(), Started()]
DELTAS: list[Event] = [Delta(Token(number, f"t{number} ☃")) for number in range(6)]
CANCELLED = Ended(JobState.CANCELLED)


@pytest.fixture(params=["redis", "fake"])
def log(request: pytest.FixtureRequest) -> Iterator[EventLog]:
    if request.param == "fake":
        yield FakeEventLog()
        return
    with redis.Redis.from_url(request.getfixturevalue("redis_url")) as client:
        yield RedisEventLog(client, request.getfixturevalue("redis_prefix"), ended_ttl_s=60)


def test_open_of_a_new_log_writes_the_rows(log: EventLog) -> None:
    assert log.read("j") == []
    assert log.open("j", 1, HEAD) == HEAD
    assert log.read("j") == HEAD


def test_open_repeated_after_a_lost_answer_changes_nothing(log: EventLog) -> None:
    log.open("j", 1, HEAD)
    assert log.open("j", 1, HEAD) == HEAD
    assert log.read("j") == HEAD


def test_open_returns_what_an_earlier_attempt_published_beyond_the_row(log: EventLog) -> None:
    log.open("j", 1, HEAD)
    log.append([Append("j", 1, 2, DELTAS[:3])])
    assert log.open("j", 2, HEAD + DELTAS[:1]) == HEAD + DELTAS[:3]


def test_open_adds_what_the_row_has_beyond_the_log(log: EventLog) -> None:
    log.open("j", 1, HEAD)
    assert log.open("j", 2, HEAD + DELTAS[:2]) == HEAD + DELTAS[:2]
    assert log.read("j") == HEAD + DELTAS[:2]


def test_open_by_an_earlier_attempt_raises(log: EventLog) -> None:
    log.open("j", 2, HEAD)
    with pytest.raises(StaleAttempt):
        log.open("j", 1, HEAD)


def test_open_of_an_ended_log_raises(log: EventLog) -> None:
    log.end("j", [Queued(), CANCELLED])
    with pytest.raises(StaleAttempt):
        log.open("j", 1, HEAD)


def test_append_continues_logs_in_order(log: EventLog) -> None:
    for job_id in ("j", "k"):
        log.open(job_id, 1, HEAD)
    both = [Append("j", 1, 2, DELTAS[:1]), Append("k", 1, 2, DELTAS[:2]), Append("j", 1, 3, DELTAS[1:3])]
    assert log.append(both) == [None, None, None]
    assert log.read("j") == HEAD + DELTAS[:3]
    assert log.read("k") == HEAD + DELTAS[:2]
    assert log.append([]) == []


def test_append_keeps_log_probabilities(log: EventLog) -> None:
    log.open("j", 1, HEAD)
    event = Delta(Token(1, "a", -0.25, (TopLogprob(1, "a", -0.25), TopLogprob(2, "b", -2.5))))
    log.append([Append("j", 1, 2, [event])])
    assert log.read("j")[2] == event


def test_append_repeated_after_a_lost_answer_is_harmless(log: EventLog) -> None:
    log.open("j", 1, HEAD)
    append = Append("j", 1, 2, DELTAS[:2])
    assert [log.append([append]), log.append([append])] == [[None], [None]]
    assert log.read("j") == HEAD + DELTAS[:2]


def test_append_that_overlaps_adds_only_the_rest(log: EventLog) -> None:
    log.open("j", 1, HEAD)
    log.append([Append("j", 1, 2, DELTAS[:2])])
    assert log.append([Append("j", 1, 2, DELTAS[:5])]) == [None]
    assert log.append([Append("j", 1, 0, HEAD + DELTAS)]) == [None]
    assert log.read("j") == HEAD + DELTAS


def test_append_behind_a_gap_names_where_the_log_goes_on(log: EventLog) -> None:
    log.open("j", 1, HEAD)
    (failure,) = log.append([Append("j", 1, 5, DELTAS[:1])])
    assert isinstance(failure, LogGap)
    assert failure.next_sequence == 2
    assert log.read("j") == HEAD


def test_append_to_a_forgotten_log_asks_for_all_of_it_and_takes_it(log: EventLog) -> None:
    log.open("j", 1, HEAD)
    log.drop("j")
    (failure,) = log.append([Append("j", 1, 2, DELTAS[:1])])
    assert isinstance(failure, LogGap)
    assert failure.next_sequence == 0
    assert log.append([Append("j", 1, 0, HEAD + DELTAS[:1])]) == [None]
    assert log.read("j") == HEAD + DELTAS[:1]


def test_append_by_a_stale_attempt_fails_alone_and_writes_nothing(log: EventLog) -> None:
    log.open("j", 1, HEAD)
    log.open("j", 2, HEAD)
    log.open("k", 1, HEAD)
    failures = log.append([Append("j", 1, 2, DELTAS[:1]), Append("k", 1, 2, DELTAS[:1])])
    assert isinstance(failures[0], StaleAttempt)
    assert failures[1] is None
    assert log.read("j") == HEAD
    assert log.append([Append("j", 2, 2, DELTAS[:1])]) == [None]


def test_append_of_a_newer_attempt_shuts_the_older_one_out(log: EventLog) -> None:
    log.open("j", 1, HEAD)
    assert log.append([Append("j", 2, 2, DELTAS[:1])]) == [None]
    (failure,) = log.append([Append("j", 1, 3, DELTAS[1:2])])
    assert isinstance(failure, StaleAttempt)


def test_end_adds_what_is_missing_and_closes_the_log(log: EventLog) -> None:
    log.open("j", 1, HEAD)
    log.append([Append("j", 1, 2, DELTAS[:1])])
    whole = [*HEAD, *DELTAS[:3], Ended(JobState.COMPLETED)]
    assert log.end("j", whole) == whole
    assert log.read("j") == whole
    (failure,) = log.append([Append("j", 1, 3, DELTAS[1:2])])
    assert isinstance(failure, StaleAttempt)


def test_end_of_a_log_that_redis_never_had_writes_all_of_it(log: EventLog) -> None:
    assert log.end("j", [Queued(), CANCELLED]) == [Queued(), CANCELLED]
    assert log.read("j") == [Queued(), CANCELLED]


def test_end_keeps_tokens_that_were_published_beyond_the_row(log: EventLog) -> None:
    log.open("j", 1, HEAD)
    log.append([Append("j", 1, 2, DELTAS[:3])])
    assert log.end("j", [*HEAD, DELTAS[0], CANCELLED]) == [*HEAD, *DELTAS[:3], CANCELLED]


def test_end_repeated_changes_nothing(log: EventLog) -> None:
    log.open("j", 1, HEAD)
    once = log.end("j", [*HEAD, DELTAS[0], CANCELLED])
    assert log.end("j", [*HEAD, *DELTAS[:2], CANCELLED]) == once


def test_drop_forgets_a_log_so_that_it_can_begin_again(log: EventLog) -> None:
    log.end("j", [*HEAD, CANCELLED])
    log.drop("j")
    assert log.read("j") == []
    assert log.open("j", 2, HEAD) == HEAD
    log.drop("never written")


def test_erased_log_is_not_brought_back_by_who_comes_late(log: EventLog) -> None:
    log.open("j", 1, [Queued(), Started(), Delta(Token(1, "secret"))])
    log.erase(["j", "never written"])
    assert log.read("j") == []
    (answer,) = log.append([Append("j", 1, 3, [Delta(Token(2, "more"))])])
    assert isinstance(answer, StaleAttempt)
    with pytest.raises(StaleAttempt):
        log.open("j", 2, [Queued(), Started()])
    assert log.end("j", [Queued(), Started(), Delta(Token(1, "secret")), Ended(JobState.COMPLETED)]) == []
    assert log.read("j") == []
    log.erase([])
    log.drop("j")
    assert log.open("j", 2, [Queued()]) == [Queued()]


def test_unended_logs_are_those_of_attempts_and_no_others(log: EventLog) -> None:
    for number in range(700):
        log.open(f"j{number}", 1, HEAD)
    log.end("j0", [*HEAD, CANCELLED])
    log.erase(["j1"])
    log.drop("j2")
    found = [job_id for piece in log.unended() for job_id in piece]
    assert sorted(found) == sorted(f"j{number}" for number in range(3, 700))

"""The event log while Valkey restarts, forgets, or is away, and what the API's reader sees in it."""

import os
import signal
from collections.abc import Iterator

import pytest
import redis

from cli.valkey import EmbeddedValkey
from jobs import connect
from jobs.errors import LogGap, LogRefused, StreamUnavailable
from jobs.event_log import RedisEventLog, decode_entry, entry_after, fence_key, stream_key
from jobs.events import Delta, Ended, Event, Queued, Started
from jobs.job import JobState, Token
from jobs.ports import Append
from jobs.settings import ServiceSettings

pytestmark = pytest.mark.integration

HEAD: list[Event] = [Queued(), Started()]
DELTAS: list[Event] = [Delta(Token(number, "x")) for number in range(6)]
END = Ended(JobState.COMPLETED)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


@pytest.fixture
def log(client: redis.Redis, redis_prefix: str) -> RedisEventLog:
    return RedisEventLog(client, redis_prefix, ended_ttl_s=60)


@pytest.fixture
def fragile(private_redis: EmbeddedValkey) -> Iterator[RedisEventLog]:
    settings = ServiceSettings(redis_url=private_redis.url)
    with connect.redis_client(settings, timeout_s=0.5) as opened:
        yield connect.event_log(settings, opened)


def test_a_reader_resumes_after_any_sequence_without_gap_or_loss(
    client: redis.Redis, log: RedisEventLog, redis_prefix: str
) -> None:
    log.open("j", 1, HEAD)
    log.append([Append("j", 1, 2, DELTAS[:3])])
    log.append([Append("j", 1, 5, DELTAS[3:])])
    whole = log.end("j", [*HEAD, *DELTAS, END])
    key = stream_key(redis_prefix, "j")
    for seen in range(-1, len(whole)):
        entries = client.xrange(key, min=f"({entry_after(seen)}")
        got = dict(
            numbered
            for entry_id, fields in entries  # type: ignore[union-attr]
            for first, events in [decode_entry(entry_id, fields)]  # type: ignore[arg-type]
            for numbered in enumerate(events, first)
        )
        assert [got[sequence] for sequence in range(seen + 1, len(whole))] == whole[seen + 1 :]
        assert min(got, default=seen + 1) <= seen + 1


def test_logs_have_a_lifetime_and_a_shorter_one_after_their_end(
    client: redis.Redis, log: RedisEventLog, redis_prefix: str
) -> None:
    keys = (stream_key(redis_prefix, "j"), fence_key(redis_prefix, "j"))
    log.open("j", 1, HEAD)
    assert all(60 < client.ttl(key) <= 3600 for key in keys)
    client.expire(keys[0], 10)
    log.append([Append("j", 1, 2, DELTAS)])
    assert all(60 < client.ttl(key) <= 3600 for key in keys)
    log.end("j", [*HEAD, *DELTAS, END])
    assert all(0 < client.ttl(key) <= 60 for key in keys)


def test_one_append_of_many_jobs_is_one_journey(client: redis.Redis, log: RedisEventLog) -> None:
    for number in range(10):
        log.open(f"j{number}", 1, HEAD)
    appends = [Append(f"j{number}", 1, 2, DELTAS[:1]) for number in range(10)]
    log.append(appends)
    reads = client.info("stats")["total_reads_processed"]
    log.append([Append(f"j{number}", 1, 3, DELTAS[1:2]) for number in range(10)])
    # One for the append, one for the question itself.
    assert client.info("stats")["total_reads_processed"] - reads <= 2


def test_a_redis_that_forgot_its_scripts_is_taught_them_again(client: redis.Redis, log: RedisEventLog) -> None:
    log.open("j", 1, HEAD)
    log.append([Append("j", 1, 2, DELTAS[:1])])
    client.script_flush()
    assert log.append([Append("j", 1, 3, DELTAS[1:2]), Append("j", 1, 4, DELTAS[2:3])]) == [None, None]
    client.script_flush()
    assert log.end("j", [*HEAD, END])[-1] == END


def test_a_redis_that_comes_back_empty_is_filled_from_the_worker(
    private_redis: EmbeddedValkey, fragile: RedisEventLog
) -> None:
    fragile.open("j", 1, HEAD)
    private_redis.kill()
    with pytest.raises(StreamUnavailable):
        fragile.append([Append("j", 1, 2, DELTAS[:1])])
    private_redis.start(empty=True)
    (failure,) = fragile.append([Append("j", 1, 2, DELTAS[:1])])
    assert isinstance(failure, LogGap)
    assert fragile.append([Append("j", 1, failure.next_sequence, [*HEAD, DELTAS[0]])]) == [None]
    assert fragile.read("j") == [*HEAD, DELTAS[0]]


def test_a_redis_that_restarts_keeps_its_logs(private_redis: EmbeddedValkey, fragile: RedisEventLog) -> None:
    fragile.open("j", 1, HEAD)
    fragile.append([Append("j", 1, 2, DELTAS)])
    private_redis.stop()
    private_redis.start()
    assert fragile.read("j") == HEAD + DELTAS


def test_a_frozen_redis_is_not_waited_for_for_ever(private_redis: EmbeddedValkey, fragile: RedisEventLog) -> None:
    fragile.open("j", 1, HEAD)
    os.kill(private_redis.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StreamUnavailable):
            fragile.read("j")
    finally:
        os.kill(private_redis.process.pid, signal.SIGCONT)
    assert fragile.read("j") == HEAD


def test_a_full_redis_takes_nothing_and_loses_nothing(private_redis: EmbeddedValkey, fragile: RedisEventLog) -> None:
    fragile.open("j", 1, HEAD)
    with redis.Redis.from_url(private_redis.url) as admin:
        admin.config_set("maxmemory", "1")
        (failure,) = fragile.append([Append("j", 1, 2, DELTAS)])
        assert isinstance(failure, LogRefused)
        assert "maxmemory" in str(failure)
        admin.config_set("maxmemory", "0")
    assert fragile.append([Append("j", 1, 2, DELTAS)]) == [None]
    assert fragile.read("j") == HEAD + DELTAS

"""A log in Redis that is not as we left it costs no other job anything, and its own job neither tokens nor its end."""

from collections.abc import Callable, Iterator

import pytest
import redis

from cli.valkey import EmbeddedValkey
from jobs.event_log import RedisEventLog, fence_key, stream_key
from jobs.events import Delta, Ended, Event, Queued, Started
from jobs.job import JobState, Token
from tests.fixtures.eventually import eventually
from worker.publisher import Publisher

pytestmark = pytest.mark.integration

HEAD: list[Event] = [Queued(), Started()]
DELTAS: list[Event] = [Delta(Token(number, f"t{number} ")) for number in range(6)]
END = Ended(JobState.COMPLETED)
SPOILED = "spoiled"
OTHERS = ("a", "b", "y", "z")


class Spoiler:
    """Does harm to the keys of the job SPOILED."""

    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._client = client
        self._stream, self._fence = stream_key(prefix, SPOILED), fence_key(prefix, SPOILED)

    def stream_is_a_text(self) -> None:
        self._client.set(self._stream, "no stream")

    def stream_is_a_set(self) -> None:
        self._client.delete(self._stream)
        self._client.sadd(self._stream, "no stream")

    def stream_is_emptied(self) -> None:
        """It remembers the last ID, and takes none before it."""
        self._client.xadd(self._stream, {"e": b""}, "900-0")
        self._client.xtrim(self._stream, maxlen=0, approximate=False)

    def stream_has_an_entry_of_another_make(self) -> None:
        self._client.xadd(self._stream, {"other": b"\xc1"}, "*")

    def fence_is_a_list(self) -> None:
        self._client.delete(self._fence)
        self._client.rpush(self._fence, "no fence")

    def fence_is_a_word(self) -> None:
        self._client.set(self._fence, "nobody")


HARMS = [harm for name, harm in vars(Spoiler).items() if not name.startswith("_")]

Harm = Callable[[Spoiler], None]


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


@pytest.fixture
def spoiler(client: redis.Redis, redis_prefix: str) -> Spoiler:
    return Spoiler(client, redis_prefix)


@pytest.fixture
def log(client: redis.Redis, redis_prefix: str) -> RedisEventLog:
    return RedisEventLog(client, redis_prefix, ended_ttl_s=60)


@pytest.fixture
def publisher(log: RedisEventLog) -> Iterator[Publisher]:
    made = Publisher(log, flush_s=0.02)
    made.start()
    yield made
    made.close(5)


def never() -> None:
    raise AssertionError("the attempt is current")


def publish(publisher: Publisher, job_id: str, deltas: list[Event]) -> None:
    publisher.add(job_id, 1, [event.token for event in deltas if isinstance(event, Delta)])


def said(caplog: pytest.LogCaptureFixture, action: str) -> list[str]:
    """The jobs that such a record names."""
    return [record.__dict__["job_id"] for record in caplog.records if record.__dict__.get("action") == action]


def arrives(log: RedisEventLog, job_id: str, whole: list[Event]) -> None:
    eventually(f"the log of {job_id} is whole", lambda: log.read(job_id) == whole, within_s=30)


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_log_that_is_spoiled_while_its_job_runs_holds_up_no_other_and_is_whole_at_its_end(
    publisher: Publisher, log: RedisEventLog, spoiler: Spoiler, harm: Harm
) -> None:
    jobs = [*OTHERS[:2], SPOILED, *OTHERS[2:]]
    for job_id in jobs:
        publisher.open(job_id, 1, HEAD, never)
        publish(publisher, job_id, DELTAS[:1])
    for job_id in jobs:
        arrives(log, job_id, HEAD + DELTAS[:1])
    harm(spoiler)
    for upto in range(2, 5):
        for job_id in jobs:
            publish(publisher, job_id, DELTAS[upto - 1 : upto])
        for job_id in OTHERS:
            arrives(log, job_id, HEAD + DELTAS[:upto])
    for job_id in jobs:
        publish(publisher, job_id, DELTAS[4:])
        publisher.end(job_id, 1, JobState.COMPLETED)
    for job_id in jobs:
        arrives(log, job_id, [*HEAD, *DELTAS, END])


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_log_that_is_spoiled_before_its_job_begins_holds_up_no_other_and_is_whole_at_its_end(
    publisher: Publisher, log: RedisEventLog, spoiler: Spoiler, harm: Harm
) -> None:
    harm(spoiler)
    jobs = [*OTHERS[:2], SPOILED, *OTHERS[2:]]
    for job_id in jobs:
        publisher.open(job_id, 1, HEAD, never)
        publish(publisher, job_id, DELTAS)
    for job_id in OTHERS:
        arrives(log, job_id, HEAD + DELTAS)
    for job_id in jobs:
        publisher.end(job_id, 1, JobState.COMPLETED)
    for job_id in jobs:
        arrives(log, job_id, [*HEAD, *DELTAS, END])


def test_token_that_cannot_be_written_holds_up_no_other_job_and_the_row_ends_its_log(
    publisher: Publisher, log: RedisEventLog, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = [*OTHERS[:2], SPOILED, *OTHERS[2:]]
    for job_id in jobs:
        publisher.open(job_id, 1, HEAD, never)
    publisher.add(SPOILED, 1, [Token(0, "half a \ud83d")])
    for upto in range(1, 4):
        for job_id in jobs:
            publish(publisher, job_id, DELTAS[upto - 1 : upto])
        for job_id in OTHERS:
            arrives(log, job_id, HEAD + DELTAS[:upto])
    for job_id in jobs:
        publisher.end(job_id, 1, JobState.COMPLETED)
    for job_id in OTHERS:
        arrives(log, job_id, [*HEAD, *DELTAS[:3], END])
    eventually("it is given up", lambda: SPOILED in said(caplog, "publish_given_up"))
    assert said(caplog, "publish_refused") == [SPOILED]
    whole = [*HEAD, *DELTAS, END]
    assert log.end(SPOILED, whole) == whole


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_log_that_is_spoiled_is_ended_as_its_row_tells(log: RedisEventLog, spoiler: Spoiler, harm: Harm) -> None:
    log.open(SPOILED, 1, HEAD)
    harm(spoiler)
    whole = [*HEAD, *DELTAS, END]
    assert log.end(SPOILED, whole) == whole
    assert log.read(SPOILED) == whole


def test_full_redis_takes_all_logs_when_it_has_room_again(private_redis: EmbeddedValkey) -> None:
    with redis.Redis.from_url(private_redis.url) as client:
        log = RedisEventLog(client, "p:", ended_ttl_s=60)
        publisher = Publisher(log, flush_s=0.02)
        publisher.start()
        for job_id in OTHERS:
            publisher.open(job_id, 1, HEAD, never)
        client.config_set("maxmemory", "1")
        for job_id in OTHERS:
            publish(publisher, job_id, DELTAS[:3])
        publisher.open("late", 1, HEAD, never)
        assert [log.read(job_id) for job_id in (*OTHERS, "late")] == [HEAD] * len(OTHERS) + [[]]
        client.config_set("maxmemory", "0")
        for job_id in OTHERS:
            publish(publisher, job_id, DELTAS[3:])
            publisher.end(job_id, 1, JobState.COMPLETED)
            arrives(log, job_id, [*HEAD, *DELTAS, END])
        arrives(log, "late", HEAD)
        publisher.close(5)

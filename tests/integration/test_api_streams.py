"""The multiplexed reader over a real Redis: order, once each, resumed anywhere, through outages."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import pytest
import pytest_asyncio
import redis
from redis.asyncio import Redis

from api.backend import reader_client
from api.errors import ServerClosing
from api.follower import Sequenced
from api.streams import StreamReader
from cli.valkey import EmbeddedValkey
from jobs.errors import JobNotFound, StreamUnavailable
from jobs.event_log import RedisEventLog, stream_key
from jobs.events import Delta, Ended, Event, Queued, Started
from jobs.job import JobState, Token
from jobs.ports import Append

pytestmark = pytest.mark.integration

JOB = "job_1"


def log_with(tokens: int, ended: bool = False) -> list[Event]:
    log: list[Event] = [Queued(), Started(), *(Delta(Token(n, f"{n} ")) for n in range(tokens))]
    return [*log, Ended(JobState.COMPLETED)] if ended else log


class Rows:
    """What the rows say: a dictionary in place of the database."""

    def __init__(self) -> None:
        self.logs: dict[str, list[Event]] = {}
        self.looks = 0
        self.fault: Exception | None = None

    async def look(self, job_ids: Sequence[str]) -> Mapping[str, Sequence[Event]]:
        self.looks += 1
        if self.fault is not None:
            raise self.fault
        return {job_id: self.logs[job_id] for job_id in job_ids if job_id in self.logs}


Start = Callable[..., StreamReader]


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest_asyncio.fixture
async def start(rows: Rows, redis_url: str, redis_prefix: str) -> AsyncIterator[Start]:
    """Starts readers that are stopped at the end."""
    running: list[tuple[StreamReader, Redis]] = []

    def make(url: str = redis_url, buffer: int = 1024) -> StreamReader:
        client = reader_client(url)
        reader = StreamReader(client, redis_prefix, rows.look, buffer)
        reader.start()
        running.append((reader, client))
        return reader

    yield make
    for reader, client in running:
        await reader.stop()
        await client.aclose()


@pytest.fixture
def event_log(redis_url: str, redis_prefix: str) -> RedisEventLog:
    return RedisEventLog(redis.Redis.from_url(redis_url), redis_prefix, 60)


async def read_all(reader: StreamReader, job_id: str, known: Sequence[Event], after: int = -1) -> list[Sequenced]:
    got: list[Sequenced] = []
    async with asyncio.timeout(30), reader.follow(job_id, known, after) as follower:
        while not follower.ended:
            got += await follower.batch(5)
    return got


def write_all(event_log: RedisEventLog, job_id: str, log: list[Event], step: int = 3) -> None:
    event_log.open(job_id, 1, log[:2])
    for first in range(2, len(log) - 1, step):
        (fault,) = event_log.append([Append(job_id, 1, first, log[first : min(first + step, len(log) - 1)])])
        assert fault is None
    event_log.end(job_id, log)


async def test_log_is_followed_from_every_sequence_on(start: Start, event_log: RedisEventLog, rows: Rows) -> None:
    log = log_with(20, ended=True)
    rows.logs[JOB] = log[:1]
    reader = start()
    early = [asyncio.create_task(read_all(reader, JOB, log[:1], after)) for after in range(-1, len(log) - 1)]
    await asyncio.sleep(0.05)
    await asyncio.to_thread(write_all, event_log, JOB, log)
    late = [asyncio.create_task(read_all(reader, JOB, log[:1], after)) for after in range(-1, len(log) - 1)]
    for tasks in (early, late):
        for after, got in enumerate(await asyncio.gather(*tasks), start=-1):
            assert got == list(enumerate(log))[after + 1 :]
    assert reader.followers == 0


async def test_follower_that_begins_behind_the_end_ends_with_the_log(
    start: Start, event_log: RedisEventLog, rows: Rows
) -> None:
    log = log_with(4, ended=True)
    rows.logs[JOB] = log[:1]
    task = asyncio.create_task(read_all(start(), JOB, log[:1], after=1000))
    await asyncio.sleep(0.05)
    await asyncio.to_thread(write_all, event_log, JOB, log)
    rows.logs[JOB] = log
    assert await task == []


async def test_entry_that_nobody_can_read_is_read_from_the_row(
    start: Start, event_log: RedisEventLog, rows: Rows, redis_url: str, redis_prefix: str
) -> None:
    log = log_with(4, ended=True)
    rows.logs[JOB] = log[:1]
    reader = start()
    task = asyncio.create_task(read_all(reader, JOB, log[:1]))
    await asyncio.sleep(0.05)
    with redis.Redis.from_url(redis_url) as client:
        client.xadd(stream_key(redis_prefix, JOB), {"e": b"\xc1"}, id="3-0")
        with pytest.raises(StreamUnavailable):
            event_log.read(JOB)
    rows.logs[JOB] = log
    assert await task == list(enumerate(log))
    assert not reader.broken


async def test_key_that_is_no_log_costs_the_readers_of_other_logs_nothing(
    start: Start, event_log: RedisEventLog, rows: Rows, redis_url: str, redis_prefix: str
) -> None:
    log = log_with(4, ended=True)
    rows.logs = {JOB: log[:1], "job_spoiled": log[:1]}
    with redis.Redis.from_url(redis_url) as client:
        client.set(stream_key(redis_prefix, "job_spoiled"), "no stream")
    reader = start()
    spoiled = asyncio.create_task(read_all(reader, "job_spoiled", log[:1]))
    task = asyncio.create_task(read_all(reader, JOB, log[:1]))
    await asyncio.to_thread(write_all, event_log, JOB, log)
    # What its row says stays behind: it comes from Redis.
    assert await task == list(enumerate(log))
    rows.logs["job_spoiled"] = log
    assert await spoiled == list(enumerate(log))


async def test_loop_that_breaks_leaves_nobody_waiting_and_says_so(start: Start, rows: Rows) -> None:
    rows.logs[JOB] = log_with(1)
    rows.fault = ValueError("a row that nobody can read")
    reader = start()
    with pytest.raises(ServerClosing):
        await read_all(reader, JOB, rows.logs[JOB])
    assert reader.broken


async def test_fifty_followers_that_drop_and_resume_get_each_event_once(
    start: Start, event_log: RedisEventLog, rows: Rows
) -> None:
    reader, chance = start(), random.Random(5)
    logs = {f"job_{n}": log_with(120, ended=True) for n in range(5)}
    rows.logs = {job_id: log[:1] for job_id, log in logs.items()}

    async def dropping(job_id: str) -> list[Sequenced]:
        got: list[Sequenced] = []
        while True:
            async with reader.follow(job_id, rows.logs[job_id], len(got) - 1) as follower:
                for _ in range(chance.randint(1, 4)):
                    got += await follower.batch(0.2)
                    if follower.ended:
                        return got
            await asyncio.sleep(chance.random() * 0.01)

    async def write(job_id: str) -> None:
        log = logs[job_id]
        await asyncio.to_thread(event_log.open, job_id, 1, log[:2])
        for first in range(2, len(log) - 1):
            await asyncio.to_thread(event_log.append, [Append(job_id, 1, first, [log[first]])])
        await asyncio.to_thread(event_log.end, job_id, log)

    async with asyncio.timeout(60):
        readers = [asyncio.create_task(dropping(f"job_{n % 5}")) for n in range(50)]
        await asyncio.gather(*(write(job_id) for job_id in logs))
        for n, got in enumerate(await asyncio.gather(*readers)):
            assert got == list(enumerate(logs[f"job_{n % 5}"]))


async def test_slow_follower_holds_a_bounded_buffer_and_still_gets_everything(
    start: Start, event_log: RedisEventLog, rows: Rows
) -> None:
    log = log_with(300, ended=True)
    rows.logs[JOB] = log[:1]
    await asyncio.to_thread(write_all, event_log, JOB, log, 2)
    reader = start(buffer=8)
    got: list[Sequenced] = []
    async with asyncio.timeout(30), reader.follow(JOB, log[:1]) as follower:
        while not follower.ended:
            batch = await follower.batch(5)
            assert len(batch) < 8 + 2
            got += batch
            await asyncio.sleep(0.001)
    assert got == list(enumerate(log))


async def test_redis_that_restarts_empty_in_mid_stream_repeats_and_loses_nothing(
    start: Start, rows: Rows, redis_prefix: str, private_redis: EmbeddedValkey
) -> None:
    log = log_with(10, ended=True)
    rows.logs[JOB] = log[:5]
    client = redis.Redis.from_url(private_redis.url)
    event_log = RedisEventLog(client, redis_prefix, 60)
    reader = start(private_redis.url)
    following = asyncio.create_task(read_all(reader, JOB, log[:1]))
    await asyncio.to_thread(event_log.open, JOB, 1, log[:8])
    async with reader.follow(JOB, []) as follower:
        while follower.expected < 8:
            await follower.batch(5)
    await asyncio.to_thread(private_redis.kill)
    await asyncio.sleep(0.2)
    await asyncio.to_thread(private_redis.start, empty=True)
    client.close()
    assert await asyncio.to_thread(event_log.open, JOB, 2, log[:5]) == log[:5]
    await asyncio.to_thread(event_log.append, [Append(JOB, 2, 5, log[5:12])])
    await asyncio.to_thread(event_log.end, JOB, log)
    assert await following == list(enumerate(log))
    client.close()


async def test_rows_carry_followers_while_redis_is_away(
    start: Start, rows: Rows, private_redis: EmbeddedValkey
) -> None:
    log = log_with(4, ended=True)
    rows.logs[JOB] = log[:3]
    reader = start(private_redis.url)
    await asyncio.to_thread(private_redis.kill)
    following = asyncio.create_task(read_all(reader, JOB, log[:1]))
    await asyncio.sleep(1.5)
    rows.logs[JOB] = log
    assert await following == list(enumerate(log))


async def test_log_that_lacks_its_end_is_ended_by_the_row(start: Start, event_log: RedisEventLog, rows: Rows) -> None:
    log = log_with(4, ended=True)
    rows.logs[JOB] = log
    await asyncio.to_thread(event_log.open, JOB, 1, log[:4])
    assert await read_all(start(), JOB, log[:1]) == list(enumerate(log))


async def test_log_whose_beginning_redis_lost_is_filled_from_the_row(
    start: Start, event_log: RedisEventLog, rows: Rows, redis_url: str, redis_prefix: str
) -> None:
    log = log_with(9, ended=True)
    rows.logs[JOB] = log[:7]
    await asyncio.to_thread(write_all, event_log, JOB, log, 2)
    with redis.Redis.from_url(redis_url) as client:
        assert client.xtrim(stream_key(redis_prefix, JOB), minid="6-0", approximate=False) == 2
    assert await read_all(start(), JOB, log[:1]) == list(enumerate(log))


async def test_follower_of_a_deleted_job_is_told(start: Start, rows: Rows) -> None:
    reader = start()
    with pytest.raises(JobNotFound):
        await read_all(reader, "job_gone", log_with(0)[:1])


async def test_silent_job_is_looked_up_less_and_less(start: Start, rows: Rows) -> None:
    rows.logs[JOB] = log_with(0)[:1]
    async with start().follow(JOB, rows.logs[JOB]) as follower:
        await follower.batch(1)
        assert await follower.batch(4) == []
    assert 1 <= rows.looks <= 3


async def test_closing_ends_every_follower_now_and_later(start: Start, rows: Rows) -> None:
    rows.logs[JOB] = log_with(0)[:1]
    reader = start()
    following = asyncio.create_task(read_all(reader, JOB, rows.logs[JOB]))
    await asyncio.sleep(0.05)
    reader.close_followers()
    with pytest.raises(ServerClosing):
        await following
    with pytest.raises(ServerClosing):
        await read_all(reader, JOB, rows.logs[JOB])


async def test_ping_tells_whether_redis_answers(start: Start, private_redis: EmbeddedValkey) -> None:
    reader = start(private_redis.url)
    assert await reader.ping(2)
    await asyncio.to_thread(private_redis.kill)
    assert not await reader.ping(2)

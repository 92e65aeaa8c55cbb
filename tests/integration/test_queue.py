"""The door-bell against a real Valkey, and against one that is ill."""

import base64
import json
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
import redis

from cli.valkey import EmbeddedValkey
from jobs import connect
from jobs.control import control_channel
from jobs.queue import TASK_RUN_JOB, CeleryQueue, producer, queue_name
from jobs.settings import ServiceSettings
from tests.fixtures.eventually import eventually

pytestmark = pytest.mark.integration


@pytest.fixture
def fragile(private_redis: EmbeddedValkey) -> Iterator[CeleryQueue]:
    opened = connect.queue(ServiceSettings(redis_url=private_redis.url, redis_prefix="t:"))
    yield opened
    opened.close()


def waiting(url: str, key: str) -> list[bytes]:
    with redis.Redis.from_url(url) as client:
        return list(client.lrange(key, 0, -1))


def test_a_ring_puts_the_id_and_nothing_else_on_the_models_queue(redis_url: str, redis_prefix: str) -> None:
    queue = connect.queue(ServiceSettings(redis_url=redis_url, redis_prefix=redis_prefix))
    assert queue.ring("tiny", "job_1")
    queue.close()
    (raw,) = waiting(redis_url, redis_prefix + queue_name("tiny"))
    message = json.loads(raw)
    assert message["content-type"] == "application/json"
    assert message["headers"]["task"] == TASK_RUN_JOB
    assert message["headers"]["argsrepr"] == "('job_1',)"
    assert b"job_1" in base64.b64decode(message["body"])


def test_a_bell_that_a_worker_took_and_lost_is_put_back_within_a_minute(redis_url: str, redis_prefix: str) -> None:
    settings = ServiceSettings(redis_url=redis_url, redis_prefix=redis_prefix)
    queue, key = connect.queue(settings), redis_prefix + queue_name("tiny")
    assert queue.ring("tiny", "job_1")
    queue.close()
    with (
        producer(settings) as app,
        app.connection() as taking,
        app.connection() as others,
        redis.Redis.from_url(redis_url) as client,
    ):
        channel = taking.channel()
        assert channel.basic_get(queue_name("tiny")) is not None and waiting(redis_url, key) == []
        for age_s, back in ((20, 0), (60, 1)):
            (tag,) = client.zrange(f"{redis_prefix}unacked_index", 0, -1)
            client.zadd(f"{redis_prefix}unacked_index", {tag: time.time() - age_s})
            others.default_channel.qos.restore_visible(interval=1)
            assert len(waiting(redis_url, key)) == back
        assert client.exists(f"{redis_prefix}unacked") == 0
        # It would put back what it took: it must not know any more.
        channel.qos._delivered.clear()


def test_worker_that_died_while_it_put_bells_back_keeps_the_others_from_it_for_seconds_only(
    redis_url: str, redis_prefix: str
) -> None:
    settings = ServiceSettings(redis_url=redis_url, redis_prefix=redis_prefix)
    queue, key = connect.queue(settings), redis_prefix + queue_name("tiny")
    assert queue.ring("tiny", "job_1")
    queue.close()
    with producer(settings) as app, app.connection() as dead, app.connection() as others:
        taking = dead.channel()
        assert taking.basic_get(queue_name("tiny")) is not None
        with redis.Redis.from_url(redis_url) as client:
            (tag,) = client.zrange(f"{redis_prefix}unacked_index", 0, -1)
            client.zadd(f"{redis_prefix}unacked_index", {tag: time.time() - 60})
        with taking.conn_or_acquire() as client:
            # As the library does it, without the release.
            assert client.lock(taking.unacked_mutex_key, timeout=taking.unacked_mutex_expire).acquire(blocking=False)

        def put_back() -> bool:
            others.default_channel.qos.restore_visible(interval=1)
            return len(waiting(redis_url, key)) == 1

        assert not put_back()
        eventually("the bell is back", put_back, 60)
        taking.qos._delivered.clear()


def test_many_threads_ring_at_once(redis_url: str, redis_prefix: str) -> None:
    queue = connect.queue(ServiceSettings(redis_url=redis_url, redis_prefix=redis_prefix))
    threads = [threading.Thread(target=queue.ring, args=("tiny", f"job_{number}")) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue.close()
    assert len(waiting(redis_url, redis_prefix + queue_name("tiny"))) == 30


def test_waiting_counts_the_bells_of_one_model(redis_url: str, redis_prefix: str) -> None:
    queue = connect.queue(ServiceSettings(redis_url=redis_url, redis_prefix=redis_prefix))
    assert queue.waiting("tiny") == 0
    for number in range(3):
        assert queue.ring("tiny", f"job_{number}")
    assert queue.ring("other", "job_3")
    assert (queue.waiting("tiny"), queue.waiting("other")) == (3, 1)
    queue.close()


def test_waiting_while_redis_is_away_is_not_known(private_redis: EmbeddedValkey, fragile: CeleryQueue) -> None:
    assert fragile.waiting("tiny") == 0
    private_redis.stop()
    assert fragile.waiting("tiny") is None
    private_redis.start(empty=True)
    assert fragile.waiting("tiny") == 0


def test_a_ring_while_redis_is_away_returns_false(private_redis: EmbeddedValkey, fragile: CeleryQueue) -> None:
    assert fragile.ring("tiny", "job_1")
    private_redis.stop()
    assert not fragile.ring("tiny", "job_2")


def test_the_first_ring_after_an_empty_restart_arrives(private_redis: EmbeddedValkey, fragile: CeleryQueue) -> None:
    assert fragile.ring("tiny", "job_1")
    private_redis.kill()
    private_redis.start(empty=True)
    assert fragile.ring("tiny", "job_2")
    assert len(waiting(private_redis.url, "t:jobs.tiny")) == 1


def test_a_ring_while_redis_is_frozen_returns_false_in_bounded_time(
    private_redis: EmbeddedValkey, fragile: CeleryQueue
) -> None:
    assert fragile.ring("tiny", "job_1")
    os.kill(private_redis.process.pid, signal.SIGSTOP)
    try:
        assert not fragile.ring("tiny", "job_2")
    finally:
        os.kill(private_redis.process.pid, signal.SIGCONT)


def test_a_word_to_a_worker_arrives_on_its_channel(service_settings: ServiceSettings) -> None:
    with connect.redis_client(service_settings) as client, client.pubsub() as heard:
        heard.subscribe(control_channel(service_settings.redis_prefix, "host:1:ab"))
        assert heard.get_message(timeout=10)
        connect.control(service_settings, client).stop_job("host:1:ab", "job_1")
        message = heard.get_message(ignore_subscribe_messages=True, timeout=10)
    assert message is not None
    assert message["data"] == b"job_1"


def test_a_word_while_redis_is_away_is_dropped(private_redis: EmbeddedValkey) -> None:
    settings = ServiceSettings(redis_url=private_redis.url)
    with connect.redis_client(settings) as client:
        private_redis.stop()
        connect.control(settings, client).stop_job("host:1:ab", "job_1")

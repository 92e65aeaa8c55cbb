"""The door-bell of the workers: Celery messages through Redis that carry a job's id and nothing else.

Holds what both sides must agree on: the task's name, the queues' names, the configuration of the broker.
"""

import logging
from typing import Any
from urllib.parse import parse_qs, urlsplit

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from jobs.settings import ServiceSettings

log = logging.getLogger(__name__)

TASK_RUN_JOB = "vlmq.run_job"

WORKER_SOCKET_TIMEOUT_S = 10.0
"""Without a limit a worker never notices a connection that is half open."""

PRODUCER_SOCKET_TIMEOUT_S = 2.0


UNHEARD_S = 30
"""After so long a bell is put back that a worker took and did not acknowledge, which it does before it runs anything:
it died, or lost Redis, at just that moment."""

PUTTING_BACK_S = 5
"""The longest that one worker keeps the others from putting bells back: it may have died over it. Two that do so at
once are harmless, as each bell is put back in a transaction; the library's own limit is five minutes."""


def queue_name(model: str) -> str:
    return f"jobs.{model}"


def broker_url(redis_url: str) -> str:
    """Kombu's spelling of the address of a unix socket; other addresses are the same."""
    parts = urlsplit(redis_url)
    if parts.scheme != "unix":
        return redis_url
    database = parse_qs(parts.query).get("db", [])
    return f"redis+socket://{parts.netloc}{parts.path}" + (f"?virtual_host={database[0]}" if database else "")


def celery_config(settings: ServiceSettings) -> dict[str, Any]:
    """Early acknowledgement and no prefetch: Redis only rings, the claim is in SQL. With late acknowledgement
    Celery 5.7 workers die when Redis restarts under running jobs, and a dropped connection runs every job again."""
    return {
        "broker_url": broker_url(settings.redis_url),
        "result_backend": None,
        "task_ignore_result": True,
        "task_acks_late": False,
        "worker_disable_prefetch": True,
        "worker_prefetch_multiplier": 1,
        # What a worker does is decided by rows and signals: nobody with a way into Redis shuts it down or revokes.
        "worker_enable_remote_control": False,
        "task_serializer": "json",
        "accept_content": ["json"],
        "worker_soft_shutdown_timeout": 25,
        "worker_enable_soft_shutdown_on_idle": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "task_publish_retry": False,
        "broker_transport_options": {
            "socket_timeout": WORKER_SOCKET_TIMEOUT_S,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "health_check_interval": 5,
            "max_connections": 600,
            "global_keyprefix": settings.redis_prefix,
            "queue_order_strategy": "priority",
            "visibility_timeout": UNHEARD_S,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "unacked_mutex_expire": PUTTING_BACK_S,
        },
    }


def producer(settings: ServiceSettings) -> Celery:
    """The side that sends: it would rather fail soon than keep a request waiting."""
    config = celery_config(settings)
    config["broker_transport_options"] |= {
        "socket_timeout": PRODUCER_SOCKET_TIMEOUT_S,
        "socket_connect_timeout": 1,
    }
    made = Celery("vlmq", set_as_current=False)
    made.conf.update(config)
    return made


class CeleryQueue:
    """The ringing side. Safe for threads. `client` is its own: a Redis to ask how many bells wait."""

    def __init__(self, settings: ServiceSettings, client: redis.Redis) -> None:
        self._celery = producer(settings)
        self._client = client
        self._prefix = settings.redis_prefix

    def ring(self, model: str, job_id: str) -> bool:
        try:
            self._celery.send_task(TASK_RUN_JOB, args=(job_id,), queue=queue_name(model), retry=False)
        except OperationalError as exc:
            log.warning("could not ring for a job: %s", exc, extra={"action": "ring", "job_id": job_id})
            return False
        return True

    def waiting(self, model: str) -> int | None:
        try:
            # The broker keeps a queue as a list under its name.
            return int(self._client.llen(self._prefix + queue_name(model)))
        except redis.RedisError as exc:
            log.warning("could not count bells: %s", exc, extra={"action": "count_bells"})
            return None

    def close(self) -> None:
        self._celery.close()
        self._client.close()

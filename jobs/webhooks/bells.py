"""The queue of deliveries: a message says that some delivery is due, and the deliverer that takes it looks which.

As with jobs (docs/adr/0004), losing or repeating a message is harmless: whoever rings compares how many wait.
"""

import logging

import redis
from kombu.exceptions import OperationalError

from jobs.queue import producer
from jobs.settings import ServiceSettings
from jobs.webhooks.errands import PostgresErrands

log = logging.getLogger(__name__)

QUEUE = "webhooks"
TASK_DELIVER = "vlmq.deliver_webhook"
MOST_BELLS = 256


class DeliveryBells:
    """The ringing side. Safe for threads."""

    def __init__(self, settings: ServiceSettings, client: redis.Redis, errands: PostgresErrands) -> None:
        self._celery = producer(settings)
        self._client = client
        self._list = settings.redis_prefix + QUEUE
        self._errands = errands

    def ring(self) -> None:
        """Sees that as many bells wait as deliveries are due, up to MOST_BELLS. An ill broker is told of in the log.
        Raises StoreUnavailable."""
        due = self._errands.waiting(MOST_BELLS)
        if not due:
            return
        try:
            for delivery_id in due[int(self._client.llen(self._list)) :]:
                self._celery.send_task(TASK_DELIVER, args=(delivery_id,), queue=QUEUE, retry=False)
        except (redis.RedisError, OperationalError) as exc:
            log.warning("could not ring for deliveries: %s", exc, extra={"action": "ring_deliveries"})

    def close(self) -> None:
        self._celery.close()

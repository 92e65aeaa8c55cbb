"""Words to one worker while it runs, over Redis pub/sub: best effort, the row is the truth."""

import logging

import redis

log = logging.getLogger(__name__)


def control_channel(prefix: str, worker_id: str) -> str:
    """The channel that a worker listens to. A message is the id (UTF-8) of a job that it should stop."""
    return f"{prefix}control:{worker_id}"


class RedisControl:
    def __init__(self, client: redis.Redis, prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    def stop_job(self, worker: str, job_id: str) -> None:
        try:
            self._client.publish(control_channel(self._prefix, worker), job_id)
        except redis.RedisError as exc:
            # The worker asks the database every second which of its jobs it should stop.
            log.warning("could not tell worker %s to stop: %s", worker, exc, extra={"action": "stop", "job_id": job_id})

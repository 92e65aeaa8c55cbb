"""Hears on this worker's control channel which of its jobs to stop, and says so at once.

Best effort: what is missed while Redis is away, the heartbeat's tick learns from the store.
"""

import logging
import threading
from collections.abc import Callable

import redis
from redis.client import PubSub

log = logging.getLogger(__name__)

_WAIT_S = 1.0
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 4.0


class ControlListener:
    """`stop_job` is called with each job id, on the listener's thread."""

    def __init__(self, client: redis.Redis, channel: str, stop_job: Callable[[str], None]) -> None:
        self._client = client
        self._channel = channel
        self._stop_job = stop_job
        self._pause_s = _FIRST_PAUSE_S
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._listen()
            except redis.RedisError as exc:
                log.warning("control channel lost: %s", exc, extra={"action": "control_lost"})
                self._closing.wait(self._pause_s)
                self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _listen(self) -> None:
        with PubSub(self._client.connection_pool, ignore_subscribe_messages=True) as pubsub:
            pubsub.subscribe(self._channel)
            self._pause_s = _FIRST_PAUSE_S
            while not self._closing.is_set():
                message = pubsub.get_message(timeout=_WAIT_S)
                if message is not None and message["type"] == "message":
                    data = message["data"]
                    # What is no text names no job.
                    self._stop_job(data.decode(errors="replace") if isinstance(data, bytes) else data)

"""A full queue refuses work with the time after which it is worth coming back."""

import threading
import time
from collections.abc import Sequence

from api.errors import ApiError
from jobs.job import JobState
from jobs.ports import Depth, JobStore, WorkerStatus

FRESH_S = 1.0
TOKENS_PER_JOB = 128.0
"""What an answer is taken to cost when only the workers' speed is known."""
RETRY_AFTER_S = (1, 60)
"""Clients of OpenAI's kind do not come back by themselves after more than 120 s."""


class Backpressure:
    """Thread-safe. Counts are read once in FRESH_S: several processes may pass the limit by a second's jobs."""

    def __init__(self, store: JobStore, max_queued: int, lease_s: float) -> None:
        self._store = store
        self._max_queued = max_queued
        self._lease_s = lease_s
        self._lock = threading.Lock()
        self._read_at = 0.0
        self._queued: dict[str, int] = {}

    def admit(self, model: str) -> None:
        """Raises ApiError (429) while `max_queued` jobs of the model wait. Raises StoreUnavailable."""
        with self._lock:
            if time.monotonic() - self._read_at > FRESH_S:
                self._queued = queued_by_model(self._store.depths())
                self._read_at = time.monotonic()
            queued = self._queued.get(model, 0)
            self._queued[model] = queued + 1
        if queued >= self._max_queued:
            wait_s = self._retry_after_s(model)
            raise ApiError(
                f"{queued} jobs wait for the model {model!r}, the limit is {self._max_queued}; retry after {wait_s} s.",
                status=429,
                kind="rate_limit_error",
                code="queue_full",
                headers={"retry-after": str(wait_s)},
            )

    def _retry_after_s(self, model: str) -> int:
        speed = tokens_per_s(model, self._store.workers(self._lease_s))
        least, most = RETRY_AFTER_S
        # A tenth of the line must have moved on before asking again makes sense.
        wait_s = self._max_queued / 10 * TOKENS_PER_JOB / speed if speed > 0 else float(most)
        return int(min(max(wait_s, least), most))


def queued_by_model(depths: Sequence[Depth]) -> dict[str, int]:
    queued: dict[str, int] = {}
    for depth in depths:
        if depth.state is JobState.QUEUED:
            queued[depth.model] = queued.get(depth.model, 0) + depth.count
    return queued


def tokens_per_s(model: str, workers: Sequence[WorkerStatus]) -> float:
    """The measured speed of the model's living workers together, 0 when none has told."""
    speeds = (w.record.stats.get("tokens_per_s", 0.0) for w in workers if w.alive and w.record.model == model)
    return sum(float(speed) for speed in speeds if isinstance(speed, int | float))

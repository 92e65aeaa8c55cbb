"""A full queue refuses work with the time after which it is worth coming back."""

import math
import threading
import time
from collections import Counter
from collections.abc import Sequence

from api.errors import ApiError
from api.eta import seconds_for
from jobs.job import JobState, Priority
from jobs.ports import Depth, JobStore

FRESH_S = 1.0
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
        self._queued: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()

    def admit(self, model: str, tokens: int) -> None:
        """For a job that is estimated to cost so many tokens. Raises ApiError (429) while `max_queued` jobs of the
        model wait, StoreUnavailable."""
        with self._lock:
            if time.monotonic() - self._read_at > FRESH_S:
                depths = self._store.depths()
                self._queued, self._tokens = queued_by_model(depths), queued_tokens_by_model(depths)
                self._read_at = time.monotonic()
            queued, ahead = self._queued[model], self._tokens[model]
            if queued < self._max_queued:
                self._queued[model] += 1
                self._tokens[model] += tokens
        if queued >= self._max_queued:
            wait_s = self._retry_after_s(model, ahead)
            raise ApiError(
                f"{queued} jobs wait for the model {model!r}, the limit is {self._max_queued}; retry after {wait_s} s.",
                status=429,
                kind="rate_limit_error",
                code="queue_full",
                headers={"retry-after": str(wait_s)},
            )

    def _retry_after_s(self, model: str, tokens: int) -> int:
        least, most = RETRY_AFTER_S
        # A tenth of the line must have moved on before asking again makes sense.
        wait_s = seconds_for(tokens / 10, model, self._store.workers(self._lease_s))
        return math.ceil(min(max(most if wait_s is None else wait_s, least), most))


def queued_by_model(depths: Sequence[Depth]) -> Counter[str]:
    """Waiting jobs without those of batches, which are as many as batches may have lines."""
    queued: Counter[str] = Counter()
    for depth in depths:
        if depth.state is JobState.QUEUED:
            queued[depth.model] += depth.count - depth.in_batches
    return queued


def queued_tokens_by_model(depths: Sequence[Depth]) -> Counter[str]:
    """What waits in the lanes that go before batches."""
    tokens: Counter[str] = Counter()
    for depth in depths:
        if depth.state is JobState.QUEUED and depth.priority is not Priority.BATCH:
            tokens[depth.model] += depth.tokens
    return tokens

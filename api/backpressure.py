"""A full queue refuses work with the time after which it is worth coming back."""

import math
from dataclasses import dataclass

from api.errors import ApiError
from api.queue_watch import QueueWatch
from jobs.job import Priority

RETRY_AFTER_S = (1, 60)
"""Clients of OpenAI's kind do not come back by themselves after more than 120 s."""


@dataclass(frozen=True, slots=True)
class Backpressure:
    """Thread-safe. By a watch that is a second old: several processes may pass the limit by a second's jobs."""

    watch: QueueWatch
    max_queued: int

    def check(self, model: str) -> None:
        """Refuses what `admit` would refuse, before any work is done for it. Raises as that."""
        if (queued := self.watch.queued(model)) >= self.max_queued:
            raise self._full(model, queued)

    def admit(self, model: str, priority: Priority, tenant: str, tokens: int) -> None:
        """For a job that is estimated to cost so many tokens. Raises ApiError (429) while `max_queued` jobs of the
        model wait, StoreUnavailable."""
        if not self.watch.add(model, priority, tenant, tokens, self.max_queued):
            raise self._full(model, self.watch.queued(model))

    def _full(self, model: str, queued: int) -> ApiError:
        least, most = RETRY_AFTER_S
        # A tenth of the line must have moved on before asking again makes sense.
        wait_s = self.watch.seconds_for(model, 0.1)
        retry_s = math.ceil(min(max(most if wait_s is None else wait_s, least), most))
        return ApiError(
            f"{queued} jobs wait for the model {model!r}, the limit is {self.max_queued}; retry after {retry_s} s.",
            status=429,
            kind="rate_limit_error",
            code="queue_full",
            headers={"retry-after": str(retry_s)},
        )

"""A full queue refuses work with the time after which it is worth coming back."""

from dataclasses import dataclass

from api.errors import ApiError
from api.queue_watch import QueueWatch
from api.retry_after import retry_after_s
from jobs.job import NewJob
from jobs.limits import Limit

MOST_S = 60.0
"""After which a full queue is worth another look, however slow it is."""


@dataclass(frozen=True, slots=True)
class Backpressure:
    """Thread-safe. By a watch that is a second old: several processes may pass the limit by a second's jobs."""

    watch: QueueWatch
    max_queued: int

    def check(self, model: str) -> None:
        """Refuses what `admit` would refuse, before any work is done for it. Raises as that."""
        if (queued := self.watch.queued(model)) >= self.max_queued:
            raise self._full(model, queued)

    def admit(self, job: NewJob) -> None:
        """Counts a job that is about to be recorded. Raises ApiError (429) while `max_queued` jobs of its model wait,
        StoreUnavailable."""
        if not self.watch.add(job, self.max_queued):
            raise self._full(job.model, self.watch.queued(job.model))

    def refused(self, job: NewJob, limit: str) -> float | None:
        """For one that was admitted and that a limit of its key then kept out: it does not count. In how many seconds
        one of its tenant's jobs makes room, where the limit counts jobs; None: nobody knows."""
        self.watch.remove(job)
        if limit == Limit.IN_FLIGHT:
            return self.watch.seconds_until_end(job.model)
        return self.watch.seconds_until_begin(job.model, job.tenant)

    def _full(self, model: str, queued: int) -> ApiError:
        # A tenth of the line must have moved on before asking again makes sense.
        retry_s = retry_after_s(self.watch.seconds_for(model, 0.1), unknown_s=MOST_S, most_s=MOST_S)
        return ApiError(
            f"{queued} jobs wait for the model {model!r}, the limit is {self.max_queued}; retry after {retry_s} s.",
            status=429,
            kind="rate_limit_error",
            code="queue_full",
            headers={"retry-after": str(retry_s)},
        )

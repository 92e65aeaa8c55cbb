"""What each tenant's share of a lane has been charged, and from which attempt on a job is part of it."""

from collections.abc import Sequence
from datetime import datetime

from jobs.job import AttemptEnd, Job, JobState, NewJob
from jobs.queue_place import Waiting
from tests.fakes.store.rows import Rows

Lane = tuple[str, int, str]


def lane_of(job: NewJob | Job) -> Lane:
    return job.model, job.priority, job.tenant


class Shares:
    """Reads `rows`, and never changes them."""

    def __init__(self, rows: Rows) -> None:
        self.weights: dict[str, float] = {}
        self._rows = rows
        self._virtual: dict[Lane, float] = {}
        self._used_at: dict[Lane, datetime] = {}
        self._charged_from: dict[str, int] = {}

    def enter(self, new: NewJob | Job) -> None:
        """Before the job is queued."""
        lane = [job for job in self._rows.queue(new.model) if job.priority == new.priority]
        if any(job.tenant == new.tenant for job in lane):
            return
        everyone = [virtual for key, virtual in self._virtual.items() if key[:2] == (new.model, new.priority)]
        floor = min((self._virtual[lane_of(job)] for job in lane), default=max(everyone, default=0.0))
        self._virtual[lane_of(new)] = max(self._virtual.get(lane_of(new), floor), floor)
        self._used_at[lane_of(new)] = self._rows.now()

    def first(self, waiting: Sequence[Job]) -> Job:
        """Whose turn it is."""
        return min(waiting, key=lambda job: (job.priority, self._virtual[lane_of(job)], job.tenant))

    def claim(self, job: Job) -> None:
        """Before its attempt begins."""
        if job.attempt + 1 == self._charged_from.get(job.id, 1):
            self._charge(job, job.cost)

    def settle(self, job: Job, end: AttemptEnd) -> int:
        """Before the job ends. Gives what its key is to be charged for that."""
        if not self._is_charged(job):
            return -job.cost
        correction = _correction(job, end)
        self._charge(job, correction)
        if correction == -job.cost:
            self._charged_from[job.id] = job.attempt + 1
        return correction

    def reopen(self, job: Job, drawn: int) -> int:
        """Takes the end of a dead letter back that had drawn so many tokens. Gives what its key is to be charged."""
        surplus = max(0, drawn - job.cost)
        self._charge(job, -surplus)
        return -surplus if self._is_charged(job) else job.cost

    def forget_idle(self, idle_s: float, limit: int) -> int:
        before = self._rows.ago(idle_s)
        waiting = {lane_of(job) for job in self._rows.jobs.values() if job.state == JobState.QUEUED}
        idle = sorted(lane for lane, used_at in self._used_at.items() if used_at < before and lane not in waiting)
        for lane in idle[:limit]:
            del self._virtual[lane], self._used_at[lane]
        return len(idle[:limit])

    def waiting(self, job: Job, tenant: str, theirs: list[Job]) -> Waiting:
        """A tenant that waits with `theirs` in the lane of `job`."""
        virtual = self._virtual[job.model, job.priority, tenant]
        return Waiting(tenant, len(theirs), sum(o.cost for o in theirs), virtual, self.weights.get(tenant, 1.0))

    def _charge(self, job: Job, tokens: int) -> None:
        if lane_of(job) in self._virtual:
            self._virtual[lane_of(job)] += tokens / self.weights.get(job.tenant, 1.0)

    def _is_charged(self, job: Job) -> bool:
        return job.attempt >= self._charged_from.get(job.id, 1)


def _correction(job: Job, end: AttemptEnd) -> int:
    stopped = job.state == JobState.IN_PROGRESS and end in (AttemptEnd.CANCELLED, AttemptEnd.DEADLINE)
    if job.usage is not None:
        return job.usage.total_tokens - job.cost
    return max(0, len(job.tokens) - job.cost) if stopped or job.tokens else -job.cost

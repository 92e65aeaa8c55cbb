"""When a waiting job's turn comes: from what goes before it, and from how fast the model's workers are now."""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.job import Job, JobState
from jobs.ports import JobStore, WorkerStatus


@dataclass(frozen=True, slots=True)
class Wait:
    """`jobs` go before a job; it begins in about `eta_s` seconds. None: no worker has told a speed."""

    jobs: int
    eta_s: float | None


def wait_of(job: Job, store: JobStore, lease_s: float) -> Wait | None:
    """None: it does not wait. Raises StoreUnavailable."""
    place = store.queue_place(job) if job.state is JobState.QUEUED else None
    if place is None:
        return None
    return Wait(place.jobs, seconds_for(place.tokens + place.until_free, job.model, store.workers(lease_s)))


def seconds_for(tokens: float, model: str, workers: Sequence[WorkerStatus]) -> float | None:
    """How long the model's living workers need for so many tokens, prompts and answers together."""
    speed = speed_of(model, workers, "served_per_s")
    return round(tokens / speed, 1) if speed > 0 else None


def speed_of(model: str, workers: Sequence[WorkerStatus], which: str) -> float:
    """A speed that the model's living workers have measured, of all together; 0 when none has told."""
    speeds = (w.record.stats.get(which, 0.0) for w in workers if w.alive and w.record.model == model)
    return sum(float(speed) for speed in speeds if isinstance(speed, int | float))

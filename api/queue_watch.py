"""What waits and who works, as this process last saw it: about a second old at most, and read once for all requests.

Knows no limit and no HTTP.
"""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from api.eta import Wait, seconds_for
from jobs.errors import StoreUnavailable
from jobs.job import Job, NewJob
from jobs.ports import JobStore, WorkerStatus
from jobs.queue_place import Lines
from jobs.tiling import Tiling

FRESH_S = 1.0
READING_SHARE = 0.1
"""Of a process's time at most: a queue of millions takes seconds to add up, and is read less often."""
EXACT_JOBS = 100
"""While no more jobs wait, a new one's place is counted anew: that costs little then."""


class QueueWatch:
    """Thread-safe. One request at a time reads, the others go on with what is there: no queue may form behind the
    question how long the queue is. Several processes do not see each other's jobs of the last second."""

    def __init__(self, store: JobStore, lease_s: float) -> None:
        self._store = store
        self._lease_s = lease_s
        self._reading = threading.Lock()
        self._lock = threading.Lock()
        self._read_at: float | None = None
        self._fresh_s = FRESH_S
        self._lines = Lines()
        self._workers: Sequence[WorkerStatus] = ()
        self._queued: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()

    def queued(self, model: str) -> int:
        """Waiting jobs that belong to no batch: of those there are as many as batches may have lines. Raises
        StoreUnavailable."""
        self._refresh()
        with self._lock:
            return self._queued[model]

    def add(self, job: NewJob, most: int) -> bool:
        """Counts a job that comes now, unless `most` wait already. Raises StoreUnavailable."""
        self._refresh()
        with self._lock:
            if self._queued[job.model] >= most:
                return False
            self._count(job, 1)
            return True

    def remove(self, job: NewJob) -> None:
        """One that was added and does not come after all."""
        with self._lock:
            self._count(job, -1)

    def _count(self, job: NewJob, jobs: int) -> None:
        self._queued[job.model] += jobs
        self._tokens[job.model] += jobs * job.cost
        self._lines = self._lines.plus(job.model, job.priority, job.tenant, jobs * job.cost, jobs)

    def seconds_for(self, model: str, part: float) -> float | None:
        """How long this part of what `queued` counts takes. None: no worker has told a speed."""
        with self._lock:
            return seconds_for(part * self._tokens[model], model, self._workers)

    def tiling(self, model: str) -> Tiling | None:
        """How the newest of the model's workers sees pictures. None: none is known. Raises StoreUnavailable."""
        self._refresh()
        with self._lock:
            records = [worker.record for worker in reversed(self._workers)]
        return next((record.tiling for record in records if record.model == model and record.tiling), None)

    def seconds_until_begin(self, model: str, tenant: str) -> float | None:
        """Until the first of what the tenant has waiting begins. None: nothing waits, or no worker has told a speed."""
        with self._lock:
            place = self._lines.place_of_first(model, tenant)
            return None if place is None else seconds_for(place.tokens + place.until_free, model, self._workers)

    def seconds_until_end(self, model: str) -> float | None:
        """Until one of the running jobs has ended. None: nothing runs, or no worker has told a speed."""
        with self._lock:
            tokens = self._lines.until_free.get(model)
            return None if tokens is None else seconds_for(tokens, model, self._workers)

    def wait_of_new(self, job: Job) -> Wait:
        """Of a job that was added and recorded just now; by what was known before when the database does not answer:
        whoever has recorded a job is told so."""
        place = None
        with suppress(StoreUnavailable):
            self._refresh()
            if self._waiting(job.model) <= EXACT_JOBS:
                place = self._store.queue_place(job)
        with self._lock:
            if place is None:
                place = self._lines.place_of_last(job.model, job.priority, job.tenant, job.cost)
            return Wait(place.jobs, seconds_for(place.tokens + place.until_free, job.model, self._workers))

    def _waiting(self, model: str) -> int:
        with self._lock:
            return sum(line.waiting.jobs for line in self._lines.lines if line.model == model)

    def _refresh(self) -> None:
        with self._lock:
            known = self._read_at is not None
            if self._read_at is not None and time.monotonic() - self._read_at <= self._fresh_s:
                return
        # Only the first reading is waited for.
        if not self._reading.acquire(blocking=not known):
            return
        try:
            if not known and self._read_at is not None:
                return
            began = time.monotonic()
            lines, workers = self._store.lines(), self._store.workers(self._lease_s)
            with self._lock:
                self._read_at = time.monotonic()
                self._fresh_s = max(FRESH_S, (self._read_at - began) / READING_SHARE)
                self._lines, self._workers = lines, workers
                self._queued, self._tokens = Counter(), Counter()
                for line in lines.lines:
                    self._queued[line.model] += line.alone
                    self._tokens[line.model] += line.alone_tokens
        finally:
            self._reading.release()

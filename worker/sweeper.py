"""What keeps the promise that every accepted job ends: dead workers' jobs, lost bells, deadlines.

One pass at a time, by whoever leads; two passes at once would do no harm. Must work when the queue does not.
"""

import contextlib
import logging

from jobs.errors import JobNotFound, StreamUnavailable
from jobs.job import Job
from jobs.log_end import end_log
from jobs.ports import Control, EventLog, JobStore, Queue

log = logging.getLogger(__name__)

MOST_BELLS = 256
"""Of one model at a time: more than its workers answer between two sweeps."""


class Sweeper:
    def __init__(self, store: JobStore, event_log: EventLog, queue: Queue, control: Control, lease_s: float) -> None:
        self._store = store
        self._event_log = event_log
        self._queue = queue
        self._control = control
        self._lease_s = lease_s

    def sweep(self, judge: bool = True) -> None:
        """The part that somebody waits for. `judge`: whether a worker's silence tells anything now. Raises
        StoreUnavailable."""
        if judge:
            self._take_back()
        else:
            # Or a lease that begins when the clock is heeded would begin only when silence tells something again.
            self._store.heed_clock(self._lease_s)
        for job in self._store.fail_past_deadline():
            log.info("deadline of %s passed", job.id, extra={"action": "deadline", "job_id": job.id})
            self._end_log(job)
            if job.worker is not None:
                self._control.stop_job(job.worker, job.id)

    def _take_back(self) -> None:
        for job in self._store.take_back_lost(self._lease_s):
            log.warning("took back %s", job.id, extra={"action": "taken_back", "job_id": job.id})
            if job.state.terminal:
                self._end_log(job)

    def ring(self) -> None:
        """Sees that as many bells wait as there are jobs to answer them with, up to MOST_BELLS for each model: whether
        they were lost on the way, forgotten by the broker, or never rung. Raises StoreUnavailable."""
        for model, jobs in self._store.claimable(MOST_BELLS).items():
            bells = self._queue.waiting(model)
            if bells is None:
                return
            for job_id in jobs[bells:]:
                if not self._queue.ring(model, job_id):
                    return

    def _end_log(self, job: Job) -> None:
        # Its owner may have deleted it since.
        try:
            with contextlib.suppress(JobNotFound):
                end_log(self._store, self._event_log, job)
        except StreamUnavailable as exc:
            # A reader that finds the row terminal ends the log itself, and so does the cleaner.
            log.warning("log not ended: %s", exc, extra={"action": "end_log", "job_id": job.id})

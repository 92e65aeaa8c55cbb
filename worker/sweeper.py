"""What keeps the promise that every accepted job ends: dead workers' jobs, lost bells, deadlines, retention.

One pass at a time, by whoever leads; two passes at once would do no harm. Must work when the queue does not.
"""

import logging
from dataclasses import dataclass

from jobs.errors import BlobsUnavailable, StreamUnavailable
from jobs.events import log_of, tokens_of
from jobs.job import Job
from jobs.ports import Blobs, Control, EventLog, JobStore, Queue

log = logging.getLogger(__name__)

_EVERYTHING = 1_000_000
_BATCH = 500

MOST_BELLS = 256
"""Of one model at a time: more than its workers answer between two sweeps."""


@dataclass(frozen=True, slots=True)
class SweepTimes:
    """`blob_age_s`: how long bytes that no job refers to are kept, for requests that are just coming in."""

    lease_s: float
    retention_s: float
    blob_age_s: float


class Sweeper:
    def __init__(
        self, store: JobStore, event_log: EventLog, queue: Queue, control: Control, blobs: Blobs, times: SweepTimes
    ) -> None:
        self._store = store
        self._event_log = event_log
        self._queue = queue
        self._control = control
        self._blobs = blobs
        self._times = times

    def sweep(self) -> None:
        """The part that somebody waits for. Raises StoreUnavailable."""
        for job in self._store.take_back_lost(self._times.lease_s):
            log.warning("took back %s", job.id, extra={"action": "taken_back", "job_id": job.id})
            if job.state.terminal:
                self._end_log(job)
        for job in self._store.fail_past_deadline():
            log.info("deadline of %s passed", job.id, extra={"action": "deadline", "job_id": job.id})
            self._end_log(job)
            if job.worker is not None:
                self._control.stop_job(job.worker, job.id)

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

    def clean(self) -> None:
        """The part that can wait: what is kept no longer. Raises StoreUnavailable."""
        for job_id in self._store.expire(self._times.retention_s):
            try:
                self._event_log.drop(job_id)
            except StreamUnavailable:
                # It has a TTL of its own.
                break
        try:
            self._collect_blobs()
        except BlobsUnavailable as exc:
            log.warning("blobs stay: %s", exc, extra={"action": "collect_blobs"})

    def _end_log(self, job: Job) -> None:
        """The log may hold tokens that the row has not: they were seen, so they are kept."""
        try:
            tokens = tokens_of(self._event_log.end(job.id, log_of(job)))
        except StreamUnavailable as exc:
            # A reader that finds the row terminal ends the log itself.
            log.warning("log not ended: %s", exc, extra={"action": "end_log", "job_id": job.id})
            return
        if len(tokens) > len(job.tokens):
            self._store.extend_tokens(job.id, tokens)

    def _collect_blobs(self) -> None:
        old = self._blobs.older_than(self._times.blob_age_s, _EVERYTHING)
        for start in range(0, len(old), _BATCH):
            for digest in self._store.orphan_blobs(old[start : start + _BATCH]):
                self._blobs.delete(digest)

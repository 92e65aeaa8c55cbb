"""Bringing a job's row and its event log together after the job has ended, and ending it by cancel."""

import contextlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from jobs.errors import JobNotFound, JobPurged, JobUnreadable, LogRefused, StreamUnavailable
from jobs.events import Event, log_of
from jobs.job import Job, JobState
from jobs.log_end import end_log
from jobs.ports import Control, EventLog, JobStore

log = logging.getLogger(__name__)


class Settling:
    """Synchronous, like the ports. Redis may be away: the row decides, and readers go by the row then."""

    def __init__(self, store: JobStore, events: EventLog, control: Control, stream_ttl_s: float) -> None:
        self._store = store
        self._events = events
        self._control = control
        self._stream_ttl = timedelta(seconds=stream_ttl_s)

    def settle(self, job: Job) -> Job:
        """Closes the log of a terminal job. Tokens that had been published but not stored go into the row, so that
        log and row tell the same. Running jobs, purged ones, and those whose log is past its time, come back as they
        are."""
        try:
            return self._closed(job)
        except StreamUnavailable as exc:
            log.warning("a log stays open: %s", exc, extra={"action": "settle.skipped", "job_id": job.id})
            return job

    def _closed(self, job: Job) -> Job:
        """As `settle`. Raises StreamUnavailable, and JobNotFound when the job is deleted meanwhile."""
        done = job.timeline.done_at
        if (
            job.purged_at is not None
            or not job.state.terminal
            or done is None
            or datetime.now(UTC) - done > self._stream_ttl
        ):
            return job
        return end_log(self._store, self._events, job)

    def ended(self, job_id: str) -> Job:
        """The row of a job whose log has ended, with all that was published. Raises JobNotFound, StoreUnavailable."""
        job = self._store.get(job_id)
        # What these published last may have stayed out of the row when they were ended from outside.
        return self.settle(job) if job.state in (JobState.CANCELLED, JobState.FAILED) else job

    def cancel(self, job_id: str, tenant: str | None = None) -> Job:
        """Ends the job unless it has ended, row first; then the log, then the worker that runs it is told. Raises
        JobNotFound, StoreUnavailable."""
        job = self._store.cancel(job_id, tenant)
        if job.state is not JobState.CANCELLED:
            return job
        settled = self.settle(job)
        if job.worker is not None:
            try:
                self._control.stop_job(job.worker, job.id)
            except StreamUnavailable as exc:
                # The worker asks the store each second which of its jobs are no longer its own.
                log.warning("a worker was not told: %s", exc, extra={"action": "cancel.untold", "job_id": job.id})
        return settled

    def requeue(self, job_id: str, tenant: str | None = None) -> Job:
        """Gives a dead letter back. Its closed log goes first, so that the next attempt can open a new one. Raises
        JobNotFound, IllegalTransition, StoreUnavailable, StreamUnavailable."""
        job = self._store.get(job_id, tenant)
        if job.error is not None and job.error.is_dead_letter:
            self._events.drop(job_id)
        queued = self._store.requeue(job_id, tenant)
        # A reader that still knew it as failed may have closed it again. What an attempt has begun meanwhile, it sends
        # again.
        with contextlib.suppress(StreamUnavailable):
            self._events.drop(job_id)
        return queued

    def delete(self, job_id: str, tenant: str) -> None:
        """Removes an ended job and its log. Raises JobNotFound, JobNotFinished, StoreUnavailable."""
        self._store.delete(job_id, tenant)
        self._erase_log(job_id)

    def purge(self, job_id: str) -> None:
        """Takes the content from an ended job that is not stored, and its log. Raises StoreUnavailable."""
        if self._store.purge(job_id):
            self._erase_log(job_id)

    def _erase_log(self, job_id: str) -> None:
        try:
            self._events.erase([job_id])
        except StreamUnavailable as exc:
            # Nobody can ask for it any more, and its time to live runs.
            log.warning("a log outlives its job: %s", exc, extra={"action": "erase_log", "job_id": job_id})

    def look(self, job_ids: Sequence[str]) -> dict[str, list[Event]]:
        """The logs of these jobs as their rows tell them, with the logs of ended ones closed. A purged job has none, as
        if it were deleted."""
        logs: dict[str, list[Event]] = {}
        there = True
        for job_id, job in self._store.get_many(job_ids).items():
            if job.purged_at is not None:
                continue
            try:
                logs[job_id] = log_of(self._closed(job) if there else job)
            except JobNotFound:
                # Deleted since it was read.
                continue
            except StreamUnavailable as exc:
                # When one log is waited for in vain, the next would be too, and each reader behind it.
                log.warning("logs stay open: %s", exc, extra={"action": "settle.skipped", "job_id": job_id})
                there = isinstance(exc, LogRefused)
                logs[job_id] = log_of(job)
        return logs


def kept(job: Job) -> Job:
    """The job, for who wants its content. Raises JobPurged."""
    if job.purged_at is not None:
        raise JobPurged(job.id)
    return job


def understood(job: Job) -> Job:
    """The job, for who goes on from what it was asked. Raises JobUnreadable."""
    if job.unreadable is not None:
        raise JobUnreadable(job.id, job.unreadable)
    return job

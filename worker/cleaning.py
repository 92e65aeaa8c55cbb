"""Removes what is kept no longer: jobs, contents, files, batches, deliveries, keys, shares, bytes nobody refers to.

In steps of a bounded size, for a bounded time at once, going on where it was: leases and bells never wait for it.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from jobs.errors import BlobsUnavailable, JobNotFound, LogRefused, StreamUnavailable
from jobs.job import Job
from jobs.log_end import end_log
from jobs.ports import Blobs, EventLog, JobStore

log = logging.getLogger(__name__)

BATCH = 500
_EVERYTHING = 1_000_000
FORGET_SHARES_AFTER_S = 86_400.0
_BEGINNING = float("-inf")

Chore = Callable[[], Iterator[None]]
"""Does one bounded step between two yields. Raises StoreUnavailable."""


class Cleaner:
    """Does all chores, one after the other, every `every_s` seconds; at most about `slice_s` seconds in one turn."""

    def __init__(self, chores: Sequence[Chore], every_s: float, slice_s: float) -> None:
        self._chores = chores
        self._every_s = every_s
        self._slice_s = slice_s
        self._begun = _BEGINNING
        self._round: Iterator[None] | None = None

    def turn(self) -> None:
        """Raises StoreUnavailable; what was left of the round then waits for the next one."""
        now = time.monotonic()
        if self._round is None:
            if now - self._begun < self._every_s:
                return
            self._begun, self._round = now, self._all()
        steps, self._round = self._round, None
        for _ in steps:
            if time.monotonic() - now >= self._slice_s:
                self._round = steps
                return

    def _all(self) -> Iterator[None]:
        for chore in self._chores:
            yield from chore()


def until_few(remove: Callable[[int], int]) -> Chore:
    """A chore of a call that removes up to so many and returns how many they were: again, as long as they are many."""

    def chore() -> Iterator[None]:
        while remove(BATCH) >= BATCH:
            yield
        yield

    return chore


@dataclass(frozen=True, slots=True)
class JobCleaning:
    """`retention_s`: of jobs that have ended; `unstored_s`: of the content of those that nobody asked to keep;
    `blob_age_s`: of bytes that nobody refers to, for requests that are just coming in."""

    store: JobStore
    event_log: EventLog
    blobs: Blobs
    retention_s: float
    unstored_s: float
    blob_age_s: float

    def expire(self, limit: int) -> int:
        gone = self.store.expire(self.retention_s, limit)
        self._erase_logs(gone)
        return len(gone)

    def purge(self, limit: int) -> int:
        purged = self.store.purge_unstored(self.unstored_s, limit)
        self._erase_logs(purged)
        return len(purged)

    def forget_shares(self, limit: int) -> int:
        return self.store.forget_idle_shares(FORGET_SHARES_AFTER_S, limit)

    def end_logs(self) -> Iterator[None]:
        """Of jobs that ended while Redis was away: their logs would stay as long as those of running ones."""
        try:
            for job_ids in self.event_log.unended():
                there = self.store.get_many(job_ids)
                self.event_log.erase([job_id for job_id in job_ids if job_id not in there])
                for job in there.values():
                    if job.state.terminal and job.purged_at is None:
                        self._end_log(job)
                yield
        except StreamUnavailable as exc:
            log.warning("logs stay open: %s", exc, extra={"action": "end_logs"})

    def collect_blobs(self) -> Iterator[None]:
        try:
            old = self.blobs.older_than(self.blob_age_s, _EVERYTHING)
            yield
            for start in range(0, len(old), BATCH):
                for digest in self.store.orphan_blobs(old[start : start + BATCH]):
                    # Somebody may have put it again since it was found old.
                    self.blobs.delete(digest, self.blob_age_s)
                yield
        except BlobsUnavailable as exc:
            log.warning("blobs stay: %s", exc, extra={"action": "collect_blobs"})

    def _end_log(self, job: Job) -> None:
        try:
            end_log(self.store, self.event_log, job)
        except JobNotFound:
            # Its owner has deleted it since.
            pass
        except LogRefused as exc:
            log.warning("a log stays open: %s", exc, extra={"action": "end_logs", "job_id": job.id})

    def _erase_logs(self, job_ids: Sequence[str]) -> None:
        try:
            self.event_log.erase(job_ids)
        except StreamUnavailable as exc:
            # They have a time to live of their own.
            log.warning("logs outlive their jobs: %s", exc, extra={"action": "erase_logs"})

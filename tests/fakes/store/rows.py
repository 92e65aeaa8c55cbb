"""The jobs and their attempts, numbered as they came. Knows nothing of shares, keys or workers."""

import itertools
from collections.abc import Callable
from datetime import datetime, timedelta

from jobs.errors import JobNotFound, StaleAttempt
from jobs.job import Attempt, AttemptEnd, Job, JobState


class Rows:
    """`now` is called for every instant."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.now = now
        self.jobs: dict[str, Job] = {}
        self.attempts: dict[str, list[Attempt]] = {}
        self.number: dict[str, int] = {}
        self._numbers = itertools.count()

    def ago(self, seconds: float) -> datetime:
        return self.now() - timedelta(seconds=seconds)

    def add(self, job: Job) -> Job:
        self.number[job.id] = next(self._numbers)
        self.attempts[job.id] = []
        return self.put(job)

    def put(self, job: Job) -> Job:
        self.jobs[job.id] = job
        return job

    def remove(self, job_id: str) -> None:
        for table in (self.jobs, self.number, self.attempts):
            table.pop(job_id, None)

    def get(self, job_id: str, tenant: str | None = None) -> Job:
        job = self.jobs.get(job_id)
        if job is None or tenant not in (None, job.tenant):
            raise JobNotFound(job_id)
        return job

    def in_order(self, reverse: bool = False) -> list[Job]:
        return sorted(self.jobs.values(), key=lambda job: self.number[job.id], reverse=reverse)

    def queue(self, model: str) -> list[Job]:
        waiting = [job for job in self.jobs.values() if job.model == model and job.state == JobState.QUEUED]
        return sorted(waiting, key=lambda job: (job.priority, self.number[job.id]))

    def open(self, model: str) -> list[Job]:
        """Of the queue, those that may still be claimed."""
        return [job for job in self.queue(model) if job.deadline is None or job.deadline > self.now()]

    def held_by(self, worker: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.worker == worker and job.state == JobState.IN_PROGRESS]

    def active(self, key_id: str) -> list[JobState]:
        """The states of what a key has under way, its batches aside."""
        of_key = [job for job in self.jobs.values() if job.origin.key_id == key_id and job.origin.batch is None]
        return [job.state for job in of_key if not job.state.terminal]

    def is_current(self, job_id: str, attempt: int) -> bool:
        job = self.jobs.get(job_id)
        return job is not None and job.attempt == attempt and job.state == JobState.IN_PROGRESS

    def current(self, job_id: str, attempt: int) -> Job:
        if not self.is_current(job_id, attempt):
            raise StaleAttempt(job_id, attempt)
        return self.jobs[job_id]

    def closed_as(self, job_id: str, attempt: int, end: AttemptEnd) -> bool:
        job = self.jobs.get(job_id)
        return job is not None and 0 < job.attempt == attempt and self.attempts[job_id][-1].end == end

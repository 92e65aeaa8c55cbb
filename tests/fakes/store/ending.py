"""How an attempt and a job end. Every change to a terminal state passes here, and every return to the queue."""

from dataclasses import replace

from jobs import transitions
from jobs.errors import IllegalTransition, JobPurged
from jobs.job import TOO_MANY_ATTEMPTS, AttemptEnd, Job, JobError, JobState
from tests.fakes.limits import FakeKeyUsage
from tests.fakes.store.rows import Rows
from tests.fakes.store.shares import Shares


class Endings:
    def __init__(self, rows: Rows, shares: Shares, usage: FakeKeyUsage) -> None:
        self._rows = rows
        self._shares = shares
        self._usage = usage

    def end(self, job: Job, state: JobState, end: AttemptEnd, detail: str = "", error: JobError | None = None) -> Job:
        transitions.check(job.state, state)
        self._close_attempt(job, end, detail)
        self._usage.correct(job.origin.key_id, self._shares.settle(job, end))
        timeline = replace(job.timeline, done_at=self._rows.now())
        return self._rows.put(replace(job, state=state, worker=None, error=error, timeline=timeline))

    def return_or_bury(self, job: Job, end: AttemptEnd, detail: str) -> Job:
        losses = job.losses + (1 if end.is_loss else 0)
        if end.is_loss and losses >= job.max_attempts:
            message = f"{losses} attempts were lost, the last one as {end}" + (f": {detail}" if detail else "")
            error = JobError(TOO_MANY_ATTEMPTS, message)
            return self.end(replace(job, losses=losses), JobState.FAILED, end, detail, error)
        transitions.check(job.state, JobState.QUEUED)
        self._close_attempt(job, end, detail)
        self._shares.enter(job)
        return self._rows.put(replace(job, state=JobState.QUEUED, worker=None, losses=losses))

    def reopen(self, job: Job) -> Job:
        """A dead letter, back into the queue."""
        if job.state != JobState.FAILED or job.error is None or not job.error.is_dead_letter:
            raise IllegalTransition(job.state, JobState.QUEUED)
        if job.purged_at is not None:
            raise JobPurged(job.id)
        drawn = self._rows.attempts[job.id][-1].tokens
        self._usage.correct(job.origin.key_id, self._shares.reopen(job, drawn))
        self._shares.enter(job)
        timeline = replace(job.timeline, done_at=None)
        return self._rows.put(replace(job, state=JobState.QUEUED, losses=0, error=None, timeline=timeline))

    def _close_attempt(self, job: Job, end: AttemptEnd, detail: str) -> None:
        if job.state == JobState.IN_PROGRESS:
            attempts, tokens = self._rows.attempts[job.id], len(job.tokens)
            attempts[-1] = replace(attempts[-1], ended_at=self._rows.now(), end=end, detail=detail, tokens=tokens)

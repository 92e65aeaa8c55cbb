"""What the sweeper does to many jobs at once: silent workers, deadlines, the end of their retention."""

from dataclasses import replace

from jobs.job import AttemptEnd, Job, JobError, JobState
from tests.fakes.store.ending import Endings
from tests.fakes.store.fleet import Fleet
from tests.fakes.store.rows import Rows


def take_back_lost(rows: Rows, fleet: Fleet, endings: Endings, lease_s: float, limit: int) -> list[Job]:
    fleet.heed_clock(lease_s)
    lost = [
        job
        for job in sorted(rows.jobs.values(), key=lambda job: job.id)
        if job.state == JobState.IN_PROGRESS and not fleet.alive(job.worker, lease_s)
    ]
    return [
        endings.return_or_bury(
            job, AttemptEnd.LEASE_EXPIRED, f"worker {job.worker} was silent for longer than {lease_s:g} s"
        )
        for job in lost[:limit]
    ]


def claimable(rows: Rows, limit: int) -> dict[str, list[str]]:
    models = {job.model for job in rows.jobs.values()}
    found = {model: [job.id for job in rows.open(model)][:limit] for model in models}
    return {model: ids for model, ids in found.items() if ids}


def fail_past_deadline(rows: Rows, endings: Endings, limit: int) -> list[Job]:
    now = rows.now()
    late = [
        (job.deadline, job)
        for job in rows.jobs.values()
        if job.deadline is not None and job.deadline < now and not job.state.terminal
    ]
    failed = []
    for deadline, job in sorted(late, key=lambda pair: pair[0])[:limit]:
        error = JobError("deadline_exceeded", f"the job was not done at its deadline, {deadline.isoformat()}")
        ended = endings.end(job, JobState.FAILED, AttemptEnd.DEADLINE, error=error)
        failed.append(replace(ended, worker=job.worker))
    return failed


def expire(rows: Rows, retention_s: float, limit: int) -> list[str]:
    before = rows.ago(retention_s)
    old = [job.id for job in rows.jobs.values() if job.timeline.done_at is not None and job.timeline.done_at < before]
    for job_id in old[:limit]:
        rows.remove(job_id)
    return old[:limit]

"""How a job comes in, and how jobs are listed."""

from datetime import datetime

from jobs.job import Job, JobState, NewJob, Timeline
from jobs.ports import JobFilter
from tests.fakes.store.rows import Rows


def queued(new: NewJob, at: datetime) -> Job:
    return Job(
        id=new.id,
        tenant=new.tenant,
        kind=new.kind,
        model=new.model,
        priority=new.priority,
        state=JobState.QUEUED,
        request=new.request,
        metadata=dict(new.metadata),
        deadline=new.deadline,
        max_attempts=new.max_attempts,
        attempt=0,
        losses=0,
        worker=None,
        tokens=(),
        usage=None,
        finish_reason=None,
        error=None,
        timeline=Timeline(queued_at=at),
        origin=new.origin,
        cost=new.cost,
    )


def page(rows: Rows, tenant: str, filter: JobFilter) -> list[Job]:
    after = None if filter.after is None else rows.number[rows.get(filter.after, tenant).id]
    found = [
        job
        for job in rows.in_order(reverse=not filter.ascending)
        if job.tenant == tenant
        and _matches(job, filter)
        and (after is None or (rows.number[job.id] > after) == filter.ascending)
        and job.id != filter.after
    ]
    return found[: filter.limit]


def _matches(job: Job, filter: JobFilter) -> bool:
    return (
        filter.state in (None, job.state)
        and filter.model in (None, job.model)
        and filter.kind in (None, job.kind)
        and filter.stored in (None, job.origin.stored)
        and (not filter.answered or job.state in (JobState.COMPLETED, JobState.INCOMPLETE))
        and (not filter.dead or (job.error is not None and job.error.is_dead_letter))
        and filter.metadata.items() <= job.metadata.items()
    )

"""The claim: how exactly one worker gets the next queued job."""

from sqlalchemy import Connection, func, insert, literal, or_, select, update

from jobs.job import Job, JobState
from jobs.store.intake import get_job
from jobs.store.rows import job_of, select_jobs
from jobs.tables import job_attempts, jobs


def claim_next(connection: Connection, model: str, worker: str, claim: str) -> Job | None:
    """One statement: it locks the next row that nobody else is taking, takes it, and opens the attempt."""
    chosen = (
        select(jobs.c.id)
        .where(jobs.c.model == model, jobs.c.state == JobState.QUEUED)
        .where(or_(jobs.c.deadline.is_(None), jobs.c.deadline > func.now()))
        .order_by(jobs.c.priority, jobs.c.number)
        .limit(1)
        .with_for_update(skip_locked=True)
        .cte("chosen")
    )
    taken = (
        update(jobs)
        .where(jobs.c.id == chosen.c.id)
        .values(
            state=JobState.IN_PROGRESS,
            attempt=jobs.c.attempt + 1,
            worker=worker,
            claimed_at=func.coalesce(jobs.c.claimed_at, func.now()),
        )
        .returning(*jobs.c)
        .cte("taken")
    )
    opened = insert(job_attempts).from_select(
        ["job_id", "number", "worker", "claim"],
        select(taken.c.id, taken.c.attempt, literal(worker), literal(claim)),
    )
    row = connection.execute(select_jobs(taken).add_cte(opened.cte("opened"))).one_or_none()
    if row is None:
        return None
    job = job_of(row)
    # The row is the newest, the tokens are those of the statement's snapshot: another worker may have taken the job
    # and given it back with more of them since.
    return job if len(job.tokens) == row.token_count else get_job(connection, job.id)


def claimed_by(connection: Connection, claim: str) -> Job | None:
    """What an earlier `claim_next` of this name took, when its answer was lost."""
    attempt = select(job_attempts.c.job_id).where(job_attempts.c.claim == claim, job_attempts.c.ended_at.is_(None))
    row = connection.execute(select_jobs().where(jobs.c.id.in_(attempt))).one_or_none()
    return job_of(row) if row is not None else None

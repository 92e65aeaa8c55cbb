"""What the sweeper mends: jobs of silent workers, overdue messages, deadlines, retention.

Rows that somebody else has locked are skipped: they are being changed, and the next sweep sees how.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import Connection, and_, delete, func, or_, select, union_all, update

from jobs.job import AttemptEnd, Job, JobError, JobState
from jobs.store.ending import end_job, lockable, return_or_bury
from jobs.store.intake import get_jobs, live_batch
from jobs.tables import batches, files, job_blobs, jobs, workers

DEADLINE_EXCEEDED = "deadline_exceeded"
LONGEST_RING_PAUSE_S = 300.0
FORGET_WORKER_AFTER = timedelta(hours=1)


def take_back_lost(connection: Connection, lease_s: float, limit: int) -> list[Job]:
    alive = select(workers.c.id).where(workers.c.heartbeat_at >= func.now() - timedelta(seconds=lease_s))
    lost = connection.execute(
        lockable()
        .where(jobs.c.state == JobState.IN_PROGRESS, jobs.c.worker.not_in(alive))
        .order_by(jobs.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    connection.execute(delete(workers).where(workers.c.heartbeat_at < func.now() - FORGET_WORKER_AFTER))
    taken = []
    for row in lost:
        detail = f"worker {row.worker} was silent for longer than {lease_s:g} s"
        taken.append(return_or_bury(connection, row, AttemptEnd.LEASE_EXPIRED, detail))
    return taken


def due_to_ring(connection: Connection, overdue_s: float, limit: int) -> list[Job]:
    pause_s = func.least(overdue_s * func.power(2.0, func.least(jobs.c.rings - 1, 20)), LONGEST_RING_PAUSE_S)
    waited_s = func.extract("epoch", func.now() - jobs.c.rung_at)
    # No pause is shorter than the first: that much the index can tell.
    perhaps = jobs.c.rung_at < func.now() - timedelta(seconds=min(overdue_s, LONGEST_RING_PAUSE_S))
    due = (
        select(jobs.c.id)
        .where(jobs.c.state == JobState.QUEUED, or_(jobs.c.rung_at.is_(None), and_(perhaps, waited_s > pause_s)))
        .order_by(jobs.c.rung_at.asc().nulls_first())
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    rung = {"rung_at": func.now(), "rings": jobs.c.rings + 1}
    stamped = update(jobs).where(jobs.c.id == due.c.id).values(**rung).returning(jobs.c.id)
    return list(get_jobs(connection, list(connection.execute(stamped).scalars())).values())


def fail_past_deadline(connection: Connection, limit: int) -> list[Job]:
    late = connection.execute(
        lockable()
        .add_columns(jobs.c.deadline)
        .where(jobs.c.state.in_([JobState.QUEUED, JobState.IN_PROGRESS]), jobs.c.deadline < func.now())
        .order_by(jobs.c.deadline)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    failed = []
    for row in late:
        message = f"the job was not done at its deadline, {row.deadline.isoformat()}"
        error = JobError(code=DEADLINE_EXCEEDED, message=message)
        job = end_job(connection, row, JobState.FAILED, AttemptEnd.DEADLINE, error=error)
        failed.append(replace(job, worker=row.worker))
    return failed


def expire(connection: Connection, retention_s: float, limit: int) -> list[str]:
    old = (
        select(jobs.c.id)
        .where(jobs.c.done_at < func.now() - timedelta(seconds=retention_s), live_batch().is_(None))
        .order_by(jobs.c.done_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("old")
    )
    return list(connection.execute(delete(jobs).where(jobs.c.id == old.c.id).returning(jobs.c.id)).scalars())


def orphan_blobs(connection: Connection, digests: Sequence[str]) -> frozenset[str]:
    users = (
        select(job_blobs.c.digest).where(job_blobs.c.digest.in_(digests)),
        select(files.c.digest).where(files.c.digest.in_(digests)),
        # The input of a batch that lives, also when its file was deleted.
        select(batches.c.digest).where(batches.c.digest.in_(digests), batches.c.ended_at.is_(None)),
    )
    used = connection.execute(union_all(*users)).scalars()
    return frozenset(digests) - frozenset(used)

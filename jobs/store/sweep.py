"""What the sweeper mends: jobs of silent workers, lost bells, deadlines, retention.

Rows that somebody else has locked are skipped: they are being changed, and the next sweep sees how.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import Connection, delete, func, select, text, union_all, update

from jobs.job import AttemptEnd, Job, JobError, JobState
from jobs.store.ending import end_job, lockable, return_or_bury
from jobs.store.intake import live_batch
from jobs.store.shares import by_share
from jobs.tables import batches, files, job_blobs, jobs, workers

DEADLINE_EXCEEDED = "deadline_exceeded"
FORGET_WORKER_AFTER = timedelta(hours=1)

# Every model whose jobs ever waited has a share.
_CLAIMABLE = text("""
    SELECT served.model, job.id
    FROM (SELECT DISTINCT model FROM queue_shares) AS served
    CROSS JOIN LATERAL (
        SELECT id FROM jobs
        WHERE model = served.model AND state = 'queued' AND (deadline IS NULL OR deadline > now())
        ORDER BY priority LIMIT :limit
    ) AS job""")


def heed_clock(connection: Connection, lease_s: float) -> None:
    # By such a stamp a dead worker would live until the clock gets there; a living one must not lose its jobs.
    ahead = workers.c.heartbeat_at > func.now() + timedelta(seconds=lease_s)
    connection.execute(update(workers).where(ahead).values(heartbeat_at=func.now()))


def take_back_lost(connection: Connection, lease_s: float, limit: int) -> list[Job]:
    lease = timedelta(seconds=lease_s)
    heed_clock(connection, lease_s)
    living = select(workers.c.id).where(workers.c.heartbeat_at >= func.now() - lease)
    lost = connection.execute(
        lockable()
        .where(jobs.c.state == JobState.IN_PROGRESS, jobs.c.worker.not_in(living))
        .order_by(jobs.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    connection.execute(delete(workers).where(workers.c.heartbeat_at < func.now() - FORGET_WORKER_AFTER))
    taken = []
    for row in by_share(lost):
        detail = f"worker {row.worker} was silent for longer than {lease_s:g} s"
        taken.append(return_or_bury(connection, row, AttemptEnd.LEASE_EXPIRED, detail))
    return taken


def claimable(connection: Connection, limit: int) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for model, job_id in connection.execute(_CLAIMABLE, {"limit": limit}):
        found.setdefault(model, []).append(job_id)
    return found


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
    for row in by_share(late):
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

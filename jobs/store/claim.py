"""The claim: how exactly one worker gets the next queued job."""

from sqlalchemy import Connection, text

from jobs.job import Job
from jobs.store.intake import get_job
from jobs.store.rows import job_of, whole_jobs

# One statement: it locks the next row that nobody else is taking, takes it, and opens the attempt.
_CLAIM = text(f"""
    WITH chosen AS (
        SELECT id FROM jobs
        WHERE model = :model AND state = 'queued' AND (deadline IS NULL OR deadline > now())
        ORDER BY priority, number
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    ), taken AS (
        UPDATE jobs
        SET state = 'in_progress', attempt = attempt + 1, worker = :worker, claimed_at = coalesce(claimed_at, now())
        FROM chosen
        WHERE jobs.id = chosen.id
        RETURNING jobs.*
    ), opened AS (
        INSERT INTO job_attempts (job_id, number, worker, claim)
        SELECT id, attempt, worker, CAST(:claim AS text) FROM taken
    )
    {whole_jobs("taken")}""")

_CLAIMED = text(
    whole_jobs() + " WHERE id = (SELECT job_id FROM job_attempts WHERE claim = :claim AND ended_at IS NULL)"
)


def claim_next(connection: Connection, model: str, worker: str, claim: str) -> Job | None:
    """`claim` is a name of this call's own, by which `claimed_by` finds what it took."""
    row = connection.execute(_CLAIM, {"model": model, "worker": worker, "claim": claim}).one_or_none()
    if row is None:
        return None
    job = job_of(row)
    # The row is the newest, the tokens are those of the statement's snapshot: another worker may have taken the job
    # and given it back with more of them since.
    return job if len(job.tokens) == row.token_count else get_job(connection, job.id)


def claimed_by(connection: Connection, claim: str) -> Job | None:
    """What an earlier `claim_next` of this name took, when its answer was lost."""
    row = connection.execute(_CLAIMED, {"claim": claim}).one_or_none()
    return job_of(row) if row is not None else None

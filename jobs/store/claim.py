"""The claim: how exactly one worker gets the next queued job."""

from sqlalchemy import Connection, text

from jobs.job import Job, Priority
from jobs.store.intake import get_job
from jobs.store.rows import job_of, whole_jobs
from jobs.store.shares import OLDEST_FIRST, charging, in_line

# One statement: it asks the tenants in turn for their oldest job that nobody else is taking, takes the first that it
# gets, and opens the attempt. Turns stand in a query of their own: a sort after the join would lock a job of each.
_CLAIM = text(f"""
    WITH chosen AS MATERIALIZED (
        SELECT job.id
        FROM (
            SELECT priority, tenant FROM queue_shares
            WHERE model = :model AND priority <= :lowest
            ORDER BY priority, virtual, tenant
        ) AS turn
        CROSS JOIN LATERAL (
            SELECT id FROM jobs
            WHERE {in_line("CAST(:model AS text)", "turn.priority", "turn.tenant")}
              AND (deadline IS NULL OR deadline > now())
            {OLDEST_FIRST}
            LIMIT 1
            FOR UPDATE SKIP LOCKED
        ) AS job
        LIMIT 1
    ), taken AS (
        UPDATE jobs
        SET state = 'in_progress', attempt = attempt + 1, worker = :worker, claimed_at = coalesce(claimed_at, now())
        FROM chosen
        WHERE jobs.id = chosen.id
        RETURNING jobs.*
    ), opened AS (
        INSERT INTO job_attempts (job_id, number, worker, claim)
        SELECT id, attempt, worker, CAST(:claim AS text) FROM taken
    ), {charging("taken", "job.cost", "job.attempt = job.charged_from")}
    {whole_jobs("taken")}""")

_CLAIMED = text(
    whole_jobs() + " WHERE id = (SELECT job_id FROM job_attempts WHERE claim = :claim AND ended_at IS NULL)"
)


def claim_next(
    connection: Connection, model: str, worker: str, claim: str, lowest: Priority = Priority.BATCH
) -> Job | None:
    """`claim` is a name of this call's own, by which `claimed_by` finds what it took."""
    asked = {"model": model, "worker": worker, "claim": claim, "lowest": int(lowest)}
    row = connection.execute(_CLAIM, asked).one_or_none()
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

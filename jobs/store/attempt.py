"""What a running attempt writes. Every write names job and attempt, and applies only while that attempt is current."""

from collections.abc import Sequence

from sqlalchemy import Connection, select, text

from jobs.errors import StaleAttempt
from jobs.job import AttemptEnd, Job, Outcome, Token
from jobs.ports import Partial
from jobs.store.ending import COUNTED, end_job, locked_attempt, return_or_bury, stamped
from jobs.store.intake import get_job
from jobs.store.rows import add_tokens
from jobs.tables import job_attempts, jobs

# In the order of ids, so that two writers of the same rows wait for each other instead of deadlocking.
_LOCK = text("""
    SELECT jobs.id, jobs.attempt, jobs.token_count
    FROM jobs JOIN unnest(CAST(:ids AS text[]), CAST(:attempts AS int[])) AS named (id, attempt)
      ON jobs.id = named.id AND jobs.attempt = named.attempt
    WHERE jobs.state = 'in_progress'
    ORDER BY jobs.id
    FOR UPDATE OF jobs""")
_SAVE = text(f"UPDATE jobs SET {COUNTED} WHERE id = :id")


def save_partials(connection: Connection, partials: Sequence[Partial]) -> frozenset[str]:
    named = {(partial.job_id, partial.attempt): partial for partial in partials}
    lists = {"ids": [job_id for job_id, _ in named], "attempts": [attempt for _, attempt in named]}
    rows = connection.execute(_LOCK, lists).all()
    for row in rows:
        partial = named[row.id, row.attempt]
        count = add_tokens(connection, row, partial.tokens)
        connection.execute(_SAVE, {"id": row.id, "count": count, **stamped(partial.stamps)})
    stale = named.keys() - {(row.id, row.attempt) for row in rows}
    return frozenset(job_id for job_id, _ in stale)


def finish(connection: Connection, job_id: str, attempt: int, outcome: Outcome) -> Job:
    try:
        row = locked_attempt(connection, job_id, attempt)
    except StaleAttempt:
        if _closed_as(connection, job_id, attempt, AttemptEnd.FINISHED):
            return get_job(connection, job_id)
        raise
    return end_job(
        connection,
        row,
        outcome.state,
        AttemptEnd.FINISHED,
        tokens=outcome.tokens,
        usage=outcome.usage,
        finish_reason=outcome.finish_reason,
        finish_reasons=outcome.finish_reasons,
        error=outcome.error,
        stamps=outcome.stamps,
    )


def give_back(
    connection: Connection, job_id: str, attempt: int, end: AttemptEnd, detail: str, tokens: Sequence[Token]
) -> Job:
    try:
        row = locked_attempt(connection, job_id, attempt)
    except StaleAttempt:
        if _closed_as(connection, job_id, attempt, end):
            return get_job(connection, job_id)
        raise
    return return_or_bury(connection, row, end, detail, tokens)


def _closed_as(connection: Connection, job_id: str, attempt: int, end: AttemptEnd) -> bool:
    """Whether this very attempt is the job's last and was closed so: then the same call was made before, and its
    answer was lost. Only the attempt itself closes as finished, drained or broken; see `sweep` for the rest."""
    found = connection.execute(
        select(job_attempts.c.ended_as)
        .join(jobs, jobs.c.id == job_attempts.c.job_id)
        .where(jobs.c.id == job_id, jobs.c.attempt == attempt, job_attempts.c.number == attempt)
    ).scalar_one_or_none()
    return found == end

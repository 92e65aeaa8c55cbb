"""What clients and operators do to a job: cancel it, complete its tokens, give a dead letter another life."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection, literal, update
from sqlalchemy.dialects.postgresql import JSONB

from jobs.errors import IllegalTransition, JobPurged
from jobs.job import AttemptEnd, Job, JobState, Token
from jobs.limits import charge_again
from jobs.store.ending import end_job, locked_job
from jobs.store.intake import get_job
from jobs.store.rows import add_tokens, encode
from jobs.store.shares import enter, reopen
from jobs.tables import jobs


def cancel(connection: Connection, job_id: str, tenant: str | None) -> Job:
    row = locked_job(connection, job_id, tenant)
    if JobState(row.state).terminal:
        return get_job(connection, job_id)
    return replace(end_job(connection, row, JobState.CANCELLED, AttemptEnd.CANCELLED), worker=row.worker)


def label(connection: Connection, job_id: str, tenant: str, metadata: Mapping[str, str]) -> Job:
    row = locked_job(connection, job_id, tenant)
    new = literal(encode(dict(metadata)), JSONB())
    connection.execute(update(jobs).where(jobs.c.id == row.id).values(metadata=new))
    return get_job(connection, job_id)


def extend_tokens(connection: Connection, job_id: str, tokens: Sequence[Token]) -> Job:
    row = locked_job(connection, job_id, tenant=None)
    if row.state in (JobState.CANCELLED, JobState.FAILED) and row.purged_at is None:
        count = add_tokens(connection, row, tokens)
        connection.execute(update(jobs).where(jobs.c.id == job_id).values(token_count=count))
    return get_job(connection, job_id)


def requeue(connection: Connection, job_id: str, tenant: str | None) -> Job:
    row = locked_job(connection, job_id, tenant)
    error = get_job(connection, job_id).error
    # The table allows failed → queued for dead letters only.
    if row.state != JobState.FAILED or error is None or not error.is_dead_letter:
        raise IllegalTransition(row.state, JobState.QUEUED)
    if row.purged_at is not None:
        raise JobPurged(job_id)
    fresh = {"state": JobState.QUEUED, "losses": 0, "error": None, "done_at": None}
    charge_again(connection, job_id, reopen(connection, row))
    enter(connection, job_id)
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(**fresh))
    return get_job(connection, job_id)

"""What clients and operators do to a job: cancel it, complete its tokens, give a dead letter another life."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
from sqlalchemy import Connection, literal, update
from sqlalchemy.dialects.postgresql import JSONB

from jobs.errors import IllegalTransition, JobPurged
from jobs.job import AttemptEnd, Job, JobError, JobState, Token
from jobs.store.ending import TOO_MANY_ATTEMPTS, end_job, locked_job
from jobs.store.intake import get_job
from jobs.store.rows import add_tokens, encode
from jobs.store.shares import enter
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
    error = msgspec.json.decode(row.error, type=JobError) if row.error else None
    # The table allows failed → queued for this one reason only.
    if row.state != JobState.FAILED or error is None or error.code != TOO_MANY_ATTEMPTS:
        raise IllegalTransition(row.state, JobState.QUEUED)
    if row.purged_at is not None:
        raise JobPurged(job_id)
    fresh = {"state": JobState.QUEUED, "losses": 0, "error": None, "done_at": None}
    enter(connection, job_id)
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(**fresh))
    return get_job(connection, job_id)

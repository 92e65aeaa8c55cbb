"""Jobs as clients see them: recorded, read, listed, deleted."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, ScalarSelect, delete, literal, select, text
from sqlalchemy.dialects.postgresql import JSONB

from jobs.errors import JobNotFinished, JobNotFound, JobOfBatch
from jobs.idempotency import IdempotencyKey, claim
from jobs.job import Attempt, Job, JobState, NewJob
from jobs.limits import KeyLimits, charge
from jobs.ports import JobFilter
from jobs.store.purge import forget_traces
from jobs.store.rows import attempt_of, encode, job_of, select_jobs, whole_jobs
from jobs.store.shares import entering
from jobs.tables import DEAD, batches, job_attempts, jobs

_INSERT = text(f"""
    WITH inserted AS (
        INSERT INTO jobs
            (id, tenant, kind, model, priority, state, request, metadata, deadline, max_attempts,
             key_id, background, stored, door, batch_id, batch_line, webhook, cost)
        VALUES (:id, :tenant, :kind, :model, :priority, :state, CAST(:request AS json), CAST(:metadata AS jsonb),
                :deadline, :max_attempts,
                :key_id, :background, :stored, CAST(:door AS json), :batch_id, :batch_line, CAST(:webhook AS json),
                :cost)
        RETURNING *
    ), referred AS (
        INSERT INTO job_blobs (job_id, digest)
        SELECT inserted.id, blob.digest FROM inserted, unnest(CAST(:blobs AS text[])) AS blob (digest)
    ), {entering("inserted")}
    {whole_jobs("inserted")}""")

_GET = text(whole_jobs() + " WHERE id = :id AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant)")


def insert_job(connection: Connection, new: NewJob) -> Job:
    return job_of(connection.execute(_INSERT, _values(new)).one())


def insert_jobs(connection: Connection, news: Sequence[NewJob]) -> None:
    """Many at once, in fewer journeys."""
    if news:
        connection.execute(_INSERT, [_values(new) for new in news])


def _values(new: NewJob) -> dict[str, Any]:
    origin = new.origin
    return {
        "id": new.id,
        "tenant": new.tenant,
        "kind": new.kind,
        "model": new.model,
        "priority": int(new.priority),
        "state": JobState.QUEUED,
        "request": encode(new.request),
        "metadata": encode(new.metadata),
        "deadline": new.deadline,
        "max_attempts": new.max_attempts,
        "blobs": list(new.request.blobs()),
        "key_id": origin.key_id,
        "background": origin.background,
        "stored": origin.stored,
        "door": encode(origin.door) if origin.door else None,
        "batch_id": origin.batch.batch_id if origin.batch else None,
        "batch_line": origin.batch.line if origin.batch else None,
        "webhook": encode(origin.webhook) if origin.webhook else None,
        "cost": new.cost,
    }


def insert_checked(connection: Connection, new: NewJob, key: IdempotencyKey | None, limits: KeyLimits) -> Job:
    # The job last: whoever is refused, or loses the race for the key, has not written a request that may be long.
    if limits.any and new.origin.key_id is not None:
        charge(connection, new.origin.key_id, limits, new.cost)
    if key is not None:
        claim(connection, key, new.id)
    return insert_job(connection, new)


def get_job(connection: Connection, job_id: str, tenant: str | None = None) -> Job:
    row = connection.execute(_GET, {"id": job_id, "tenant": tenant}).one_or_none()
    if row is None:
        raise JobNotFound(job_id)
    return job_of(row)


def get_jobs(connection: Connection, job_ids: Sequence[str]) -> dict[str, Job]:
    found = connection.execute(select_jobs().where(jobs.c.id.in_(job_ids)))
    return {row.id: job_of(row) for row in found}


def page(connection: Connection, tenant: str, wanted: JobFilter) -> list[Job]:
    statement = select_jobs().where(jobs.c.tenant == tenant).limit(wanted.limit)
    statement = statement.order_by(jobs.c.number.asc() if wanted.ascending else jobs.c.number.desc())
    if wanted.state is not None:
        statement = statement.where(jobs.c.state == wanted.state)
    if wanted.model is not None:
        statement = statement.where(jobs.c.model == wanted.model)
    if wanted.kind is not None:
        statement = statement.where(jobs.c.kind == wanted.kind)
    if wanted.stored is not None:
        statement = statement.where(jobs.c.stored == wanted.stored)
    if wanted.answered:
        statement = statement.where(jobs.c.state.in_((JobState.COMPLETED, JobState.INCOMPLETE)))
    if wanted.dead:
        statement = statement.where(DEAD)
    if wanted.metadata:
        statement = statement.where(jobs.c.metadata.contains(literal(encode(wanted.metadata), JSONB())))
    if wanted.after is not None:
        numbers = select(jobs.c.number).where(jobs.c.id == wanted.after, jobs.c.tenant == tenant)
        after = connection.execute(numbers).scalar_one_or_none()
        if after is None:
            raise JobNotFound(wanted.after)
        statement = statement.where(jobs.c.number > after if wanted.ascending else jobs.c.number < after)
    return [job_of(row) for row in connection.execute(statement)]


def attempts(connection: Connection, job_id: str) -> list[Attempt]:
    rows = select(job_attempts).where(job_attempts.c.job_id == job_id).order_by(job_attempts.c.number)
    return [attempt_of(row) for row in connection.execute(rows)]


def delete_job(connection: Connection, job_id: str, tenant: str) -> None:
    owned = select(jobs.c.state, live_batch().label("batch")).where(jobs.c.id == job_id, jobs.c.tenant == tenant)
    row = connection.execute(owned.with_for_update(of=jobs)).one_or_none()
    if row is None:
        raise JobNotFound(job_id)
    if not JobState(row.state).terminal:
        raise JobNotFinished(job_id, row.state)
    if row.batch is not None:
        raise JobOfBatch(job_id, row.batch)
    connection.execute(delete(jobs).where(jobs.c.id == job_id))
    forget_traces(connection, [job_id])


def live_batch() -> ScalarSelect[str]:
    """The id of a job's batch while the job's answer is still to go into its files."""
    return select(batches.c.id).where(batches.c.id == jobs.c.batch_id, batches.c.ended_at.is_(None)).scalar_subquery()

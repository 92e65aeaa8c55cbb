"""How an attempt and a job end. Every change to a terminal state passes here, and every return to the queue."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Row, Select, select, text

from jobs import transitions
from jobs.errors import JobNotFound, StaleAttempt
from jobs.job import TOO_MANY_ATTEMPTS, AttemptEnd, FinishReason, Job, JobError, JobState, Stamps, Token, Usage
from jobs.limits import CORRECTING
from jobs.store.rows import add_tokens, encode, job_of, whole_jobs
from jobs.store.shares import charging, correction, entering, is_charged
from jobs.tables import jobs
from jobs.webhooks.outbox import TELL_JOB, new_events

_LOCKABLE = """
    SELECT id, model, priority, tenant, cost, charged_from, state, attempt, losses, max_attempts, worker, token_count,
           purged_at
    FROM jobs"""
_LOCK_ATTEMPT = text(f"{_LOCKABLE} WHERE id = :id AND attempt = :attempt AND state = 'in_progress' FOR UPDATE")
_LOCK_JOB = text(
    f"{_LOCKABLE} WHERE id = :id AND (CAST(:tenant AS text) IS NULL OR tenant = :tenant) FOR UPDATE",
)

# The attempt of a queued job is closed already, and stays as it was.
_CLOSED = """
    closed AS (
        UPDATE job_attempts SET ended_at = now(), ended_as = :end, detail = :detail, tokens = :count
        WHERE job_id = :id AND number = :attempt AND ended_at IS NULL
    )"""
COUNTED = """
    token_count = :count,
    prepared_at = coalesce(prepared_at, now() - make_interval(secs => CAST(:prepared_s AS float8))),
    first_token_at = coalesce(
        first_token_at,
        now() - make_interval(secs => CAST(:first_token_s AS float8)),
        CASE WHEN :count > 0 THEN now() END
    )"""
"""What an attempt has come to, on the row: `count` tokens, and the timeline's stamps where they are missing."""

_END = text(f"""
    WITH ended AS (
        UPDATE jobs
        SET state = :state, usage = CAST(:usage AS json), finish_reason = :finish_reason,
            finish_reasons = CAST(:finish_reasons AS json), error = CAST(:error AS json), done_at = now(),
            worker = NULL, losses = :losses, charged_from = :charged_from,
            {COUNTED}
        WHERE id = :id
        RETURNING *
    ), {_CLOSED}, {TELL_JOB}, {charging("ended", "CAST(:correction AS int)", "CAST(:correction AS int) <> 0")},
    {CORRECTING}
    {whole_jobs("ended")}""")
_RETURN = text(f"""
    WITH returned AS (
        UPDATE jobs SET state = 'queued', worker = NULL, losses = :losses, {COUNTED}
        WHERE id = :id
        RETURNING *
    ), {_CLOSED}, {entering("returned")}
    {whole_jobs("returned")}""")


def stamped(stamps: Stamps) -> dict[str, float | None]:
    """The stamps as parameters of COUNTED."""
    return {"prepared_s": stamps.prepared_s, "first_token_s": stamps.first_token_s}


def lockable() -> Select[Any]:
    """What a change of state needs to know of a row. The caller adds which rows, and how it waits for them."""
    return select(
        jobs.c.id,
        jobs.c.model,
        jobs.c.priority,
        jobs.c.tenant,
        jobs.c.cost,
        jobs.c.charged_from,
        jobs.c.state,
        jobs.c.attempt,
        jobs.c.losses,
        jobs.c.max_attempts,
        jobs.c.worker,
        jobs.c.token_count,
    )


def locked_attempt(connection: Connection, job_id: str, attempt: int) -> Row[Any]:
    """The locked row of a running attempt. Raises StaleAttempt when it is not the job's current one."""
    row = connection.execute(_LOCK_ATTEMPT, {"id": job_id, "attempt": attempt}).one_or_none()
    if row is None:
        raise StaleAttempt(job_id, attempt)
    return row


def locked_job(connection: Connection, job_id: str, tenant: str | None) -> Row[Any]:
    row = connection.execute(_LOCK_JOB, {"id": job_id, "tenant": tenant}).one_or_none()
    if row is None:
        raise JobNotFound(job_id)
    return row


def end_job(
    connection: Connection,
    row: Row[Any],
    state: JobState,
    end: AttemptEnd,
    detail: str = "",
    tokens: Sequence[Token] = (),
    usage: Usage | None = None,
    finish_reason: FinishReason | None = None,
    finish_reasons: Sequence[FinishReason] = (),
    error: JobError | None = None,
    losses: int | None = None,
    stamps: Stamps = Stamps(),  # noqa: B008  a frozen value
) -> Job:
    """Ends a locked job and the attempt that runs it, if one does, and writes down whom to tell."""
    transitions.check(JobState(row.state), state)
    count = add_tokens(connection, row, tokens)
    charge = correction(row, end, usage, count)
    values = {
        "id": row.id,
        "attempt": row.attempt,
        "state": state,
        "count": count,
        "correction": charge,
        # The key was charged when the job came, its tenant's share only when it was claimed.
        "key_correction": charge if is_charged(row) else -row.cost,
        "charged_from": row.attempt + 1 if charge == -row.cost else row.charged_from,
        "usage": encode(usage) if usage else None,
        "finish_reason": finish_reason,
        "finish_reasons": encode(finish_reasons) if finish_reasons else None,
        "error": encode(replace(error, message=_plain(error.message))) if error else None,
        "losses": row.losses if losses is None else losses,
        "end": end,
        "detail": _plain(detail),
        **stamped(stamps),
        **new_events(),
    }
    return job_of(connection.execute(_END, values).one())


def return_or_bury(
    connection: Connection, row: Row[Any], end: AttemptEnd, detail: str, tokens: Sequence[Token] = ()
) -> Job:
    """Puts a locked running job back into the queue; or ends it as a dead letter, when this
    was one loss too many."""
    losses = row.losses + (1 if end.is_loss else 0)
    if losses >= row.max_attempts and end.is_loss:
        message = f"{losses} attempts were lost, the last one as {end}" + (f": {detail}" if detail else "")
        error = JobError(code=TOO_MANY_ATTEMPTS, message=message)
        return end_job(connection, row, JobState.FAILED, end, detail, tokens, error=error, losses=losses)
    transitions.check(JobState(row.state), JobState.QUEUED)
    values = {
        "id": row.id,
        "attempt": row.attempt,
        "count": add_tokens(connection, row, tokens),
        "losses": losses,
        "end": end,
        "detail": _plain(detail),
        **stamped(Stamps()),
    }
    return job_of(connection.execute(_RETURN, values).one())


def _plain(words: str) -> str:
    """What PostgreSQL can keep of somebody else's words: an end must not fail by how its reason is spelt."""
    return words.encode(errors="replace").decode().replace("\x00", "\ufffd")

"""How an attempt and a job end. Every change to a terminal state passes here, and every return to the queue."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Row, Select, func, select, update

from jobs import transitions
from jobs.errors import JobNotFound, StaleAttempt
from jobs.job import AttemptEnd, FinishReason, JobError, JobState, Token, Usage
from jobs.store.rows import add_tokens, encode
from jobs.tables import job_attempts, jobs

TOO_MANY_ATTEMPTS = "too_many_attempts"


def lockable() -> Select[Any]:
    """What a change of state needs to know of a row. The caller adds which rows, and how it waits for them."""
    return select(
        jobs.c.id,
        jobs.c.state,
        jobs.c.attempt,
        jobs.c.losses,
        jobs.c.max_attempts,
        jobs.c.worker,
        jobs.c.token_count,
        jobs.c.error,
    )


def locked_attempt(connection: Connection, job_id: str, attempt: int) -> Row[Any]:
    """The locked row of a running attempt. Raises StaleAttempt when it is not the job's current one."""
    current = (jobs.c.id == job_id, jobs.c.attempt == attempt, jobs.c.state == JobState.IN_PROGRESS)
    row = connection.execute(lockable().where(*current).with_for_update()).one_or_none()
    if row is None:
        raise StaleAttempt(job_id, attempt)
    return row


def locked_job(connection: Connection, job_id: str, tenant: str | None) -> Row[Any]:
    statement = lockable().where(jobs.c.id == job_id).with_for_update()
    if tenant is not None:
        statement = statement.where(jobs.c.tenant == tenant)
    row = connection.execute(statement).one_or_none()
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
    error: JobError | None = None,
    losses: int | None = None,
) -> None:
    """Ends a locked job and the attempt that runs it, if one does."""
    transitions.check(JobState(row.state), state)
    count = add_tokens(connection, row, tokens)
    _close_attempt(connection, row, end, detail, count)
    connection.execute(
        update(jobs)
        .where(jobs.c.id == row.id)
        .values(
            state=state,
            worker=None,
            token_count=count,
            first_token_at=stamp_once(jobs.c.first_token_at, count > 0),
            usage=encode(usage) if usage else None,
            finish_reason=finish_reason,
            error=encode(error) if error else None,
            losses=row.losses if losses is None else losses,
            done_at=func.now(),
        )
    )


def return_or_bury(
    connection: Connection, row: Row[Any], end: AttemptEnd, detail: str, tokens: Sequence[Token] = ()
) -> None:
    """Puts a locked running job back into the queue, due to be rung at once; or ends it as a dead letter, when this
    was one loss too many."""
    losses = row.losses + (1 if end.is_loss else 0)
    if losses >= row.max_attempts and end.is_loss:
        message = f"{losses} attempts were lost, the last one as {end}" + (f": {detail}" if detail else "")
        error = JobError(code=TOO_MANY_ATTEMPTS, message=message)
        end_job(connection, row, JobState.FAILED, end, detail, tokens, error=error, losses=losses)
        return
    transitions.check(JobState(row.state), JobState.QUEUED)
    count = add_tokens(connection, row, tokens)
    _close_attempt(connection, row, end, detail, count)
    back = {"state": JobState.QUEUED, "worker": None, "losses": losses, "rung_at": None, "rings": 0}
    connection.execute(
        update(jobs)
        .where(jobs.c.id == row.id)
        .values(**back, token_count=count, first_token_at=stamp_once(jobs.c.first_token_at, count > 0))
    )


def _close_attempt(connection: Connection, row: Row[Any], end: AttemptEnd, detail: str, tokens: int) -> None:
    if row.state != JobState.IN_PROGRESS:
        return
    connection.execute(
        update(job_attempts)
        .where(job_attempts.c.job_id == row.id, job_attempts.c.number == row.attempt)
        .values(ended_at=func.now(), ended_as=end, detail=detail, tokens=tokens)
    )


def stamp_once(column: Column[Any], happened: bool) -> ColumnElement[Any]:
    """The value for an instant of the timeline that is set the first time only."""
    return func.coalesce(column, func.now()) if happened else column

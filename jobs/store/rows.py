"""Rows as values: a job with its tokens, an attempt. Nobody else in the store reads or writes encoded columns."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Row, Select, func, select, text
from sqlalchemy.dialects.postgresql import JSON, aggregate_order_by

from jobs.job import (
    Attempt,
    AttemptEnd,
    BatchLine,
    FinishReason,
    Job,
    JobError,
    JobKind,
    JobState,
    Origin,
    Priority,
    Timeline,
    Token,
    Usage,
    Webhook,
)
from jobs.request import NOTHING, ChatRequest
from jobs.tables import job_tokens, jobs

T = TypeVar("T")

_request = msgspec.json.Decoder(ChatRequest)
_chunks = msgspec.json.Decoder(list[list[Token]])
_finish_reasons = msgspec.json.Decoder(tuple[FinishReason, ...])
_usage = msgspec.json.Decoder(Usage)
_error = msgspec.json.Decoder(JobError)
_metadata = msgspec.json.Decoder(dict[str, str])
_door = msgspec.json.Decoder(dict[str, Any])
_webhook = msgspec.json.Decoder(Webhook)


def encode(value: Any) -> str:
    """A value as a JSON column takes it."""
    return msgspec.json.encode(value).decode()


def whole_jobs(source: str = "jobs") -> str:
    """SQL for whole jobs: the columns of `source` (the table, or what a statement returned of it) and the tokens.

    The statements that every job passes are written as SQL: to build them anew from expressions each time costs more
    than to run them.
    """
    return f"""
        SELECT job.*,
               (SELECT json_agg(part.tokens ORDER BY part.first) FROM job_tokens part WHERE part.job_id = job.id)
               AS tokens
        FROM {source} AS job"""


def select_jobs() -> Select[Any]:
    """The same as an expression, for statements that are put together from parts."""
    tokens = (
        select(func.json_agg(aggregate_order_by(job_tokens.c.tokens, job_tokens.c.first), type_=JSON()))
        .where(job_tokens.c.job_id == jobs.c.id)
        .scalar_subquery()
        .label("tokens")
    )
    return select(jobs, tokens)


class Reader:
    """Of one row. What cannot be read is replaced and written down: such a row comes among others, of which none must
    have to wait for it."""

    def __init__(self, row: Row[Any]) -> None:
        self._row = row._mapping
        self._faults: list[str] = []

    def read(self, column: str, decode: Callable[[Any], T], otherwise: T) -> T:
        """`otherwise` also where nothing stands."""
        stored = self._row[column]
        if stored is None:
            return otherwise
        try:
            return decode(stored)
        except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
            self._faults.append(f"{column}: {exc!s:.300}")
            return otherwise

    @property
    def unreadable(self) -> str | None:
        return "; ".join(self._faults) or None


def job_of(row: Row[Any]) -> Job:
    """The job of a row of `whole_jobs` or `select_jobs`, also of one that cannot be read: then it says so."""
    reader = Reader(row)
    read = reader.read
    return Job(
        id=row.id,
        tenant=row.tenant,
        kind=read("kind", JobKind, JobKind.JOB),
        model=row.model,
        priority=read("priority", Priority, Priority.BATCH),
        state=JobState(row.state),
        request=read("request", _request.decode, NOTHING),
        metadata=read("metadata", _metadata.decode, {}),
        deadline=row.deadline,
        max_attempts=row.max_attempts,
        attempt=row.attempt,
        losses=row.losses,
        worker=row.worker,
        tokens=read("tokens", _tokens, ()),
        usage=read("usage", _usage.decode, None),
        finish_reason=read("finish_reason", FinishReason, None),
        error=read("error", _error.decode, None),
        timeline=Timeline(row.queued_at, row.claimed_at, row.prepared_at, row.first_token_at, row.done_at),
        finish_reasons=read("finish_reasons", _finish_reasons.decode, ()),
        origin=_origin_of(row, reader),
        cost=row.cost,
        purged_at=row.purged_at,
        unreadable=reader.unreadable,
    )


def _tokens(stored: Any) -> tuple[Token, ...]:
    return tuple(token for chunk in _chunks.decode(stored) for token in chunk)


def _origin_of(row: Row[Any], reader: Reader) -> Origin:
    return Origin(
        key_id=row.key_id,
        background=row.background,
        stored=row.stored,
        door=reader.read("door", _door.decode, {}),
        batch=None if row.batch_id is None else BatchLine(row.batch_id, row.batch_line),
        webhook=reader.read("webhook", _webhook.decode, None),
    )


def attempt_of(row: Row[Any]) -> Attempt:
    return Attempt(
        number=row.number,
        worker=row.worker,
        started_at=row.started_at,
        ended_at=row.ended_at,
        end=next((end for end in AttemptEnd if end == row.ended_as), None),
        detail=row.detail,
        tokens=row.tokens,
    )


_ADD_TOKENS = text("INSERT INTO job_tokens (job_id, first, tokens) VALUES (:job_id, :first, CAST(:tokens AS json))")


def add_tokens(connection: Connection, stored: Row[Any], tokens: Sequence[Token]) -> int:
    """Appends to a locked job what it has not stored yet, and returns how many tokens it has then. The first tokens
    of a job are the same whoever brings them, so only their number is compared."""
    first: int = stored.token_count
    if len(tokens) <= first:
        return first
    connection.execute(_ADD_TOKENS, {"job_id": stored.id, "first": first, "tokens": encode(tokens[first:])})
    return len(tokens)

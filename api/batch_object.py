"""A batch as OpenAI shows it. Renders only."""

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel

from jobs.batches import Batch, BatchStatus, BatchUsage, LineFault


class LineFaultObject(BaseModel):
    """`line` counts from 1; null: not one line's fault."""

    code: str
    line: int | None
    message: str
    param: str | None


class BatchErrors(BaseModel):
    object: str
    data: list[LineFaultObject]


class RequestCounts(BaseModel):
    """Requests stopped by a cancel or by the end of the window are neither completed nor failed."""

    total: int
    completed: int
    failed: int


class CachedTokens(BaseModel):
    cached_tokens: int


class ReasoningTokens(BaseModel):
    reasoning_tokens: int


class BatchUsageObject(BaseModel):
    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class BatchObject(BaseModel):
    """`usage` and the files are there when it has ended; all instants are Unix seconds."""

    id: str
    object: str
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsageObject | None
    metadata: dict[str, str] | None


class BatchList(BaseModel):
    object: str
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


def batch_object(batch: Batch) -> BatchObject:
    ended_at = _unix(batch.ended_at)

    def ended_as(status: BatchStatus) -> int | None:
        return ended_at if batch.status is status else None

    counts = batch.counts
    return BatchObject(
        id=batch.id,
        object="batch",
        endpoint=batch.endpoint.value,
        model=batch.model,
        errors=_errors(batch.errors),
        input_file_id=batch.input_file_id,
        completion_window="24h",
        status=batch.status.value,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        created_at=int(batch.created_at.timestamp()),
        in_progress_at=_unix(batch.in_progress_at),
        expires_at=int(batch.expires_at.timestamp()),
        finalizing_at=_unix(batch.finalizing_at),
        completed_at=ended_as(BatchStatus.COMPLETED),
        failed_at=ended_as(BatchStatus.FAILED),
        expired_at=ended_as(BatchStatus.EXPIRED),
        cancelling_at=_unix(batch.cancelling_at),
        cancelled_at=ended_as(BatchStatus.CANCELLED),
        request_counts=RequestCounts(total=counts.total, completed=counts.completed, failed=counts.failed),
        usage=_usage(batch.usage),
        metadata=dict(batch.metadata) or None,
    )


def batch_list(batches: Sequence[Batch], has_more: bool) -> BatchList:
    data = [batch_object(batch) for batch in batches]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return BatchList(object="list", data=data, first_id=first, last_id=last, has_more=has_more)


def _unix(instant: datetime | None) -> int | None:
    return None if instant is None else int(instant.timestamp())


def _errors(faults: Sequence[LineFault]) -> BatchErrors | None:
    if not faults:
        return None
    data = [LineFaultObject(code=f.code, line=f.line, message=f.message, param=f.param) for f in faults]
    return BatchErrors(object="list", data=data)


def _usage(usage: BatchUsage | None) -> BatchUsageObject | None:
    if usage is None:
        return None
    return BatchUsageObject(
        input_tokens=usage.input_tokens,
        input_tokens_details=CachedTokens(cached_tokens=usage.cached_tokens),
        output_tokens=usage.output_tokens,
        output_tokens_details=ReasoningTokens(reasoning_tokens=0),
        total_tokens=usage.input_tokens + usage.output_tokens,
    )

"""Rows of batches, with what was counted beside them, as values."""

from typing import Any

import msgspec
from sqlalchemy import Row

from jobs.batches import Batch, BatchStatus, BatchUsage, Counts, Endpoint, LineFault

_faults = msgspec.json.Decoder(tuple[LineFault, ...])
_usage = msgspec.json.Decoder(BatchUsage)
_metadata = msgspec.json.Decoder(dict[str, str])


def batch_of(row: Row[Any]) -> Batch:
    return Batch(
        id=row.id,
        tenant=row.tenant,
        key_id=row.key_id,
        endpoint=Endpoint(row.endpoint),
        input_file_id=row.input_file_id,
        digest=row.digest,
        model=row.model,
        status=BatchStatus(row.status),
        metadata=_metadata.decode(row.metadata),
        output_lifetime_s=row.output_lifetime_s,
        errors=_faults.decode(row.errors) if row.errors else (),
        next_line=row.next_line,
        next_byte=row.next_byte,
        taken=row.taken,
        counts=_counts_of(row),
        usage=_usage.decode(row.usage) if row.usage else None,
        output_file_id=row.output_file_id,
        error_file_id=row.error_file_id,
        created_at=row.created_at,
        expires_at=row.expires_at,
        in_progress_at=row.in_progress_at,
        finalizing_at=row.finalizing_at,
        cancelling_at=row.cancelling_at,
        ended_at=row.ended_at,
        overdue=row.overdue,
    )


def _counts_of(row: Row[Any]) -> Counts:
    if row.ended_at is not None:
        return Counts(row.total, row.completed, row.failed)
    return Counts(row.total, row.taken - row.refused - row.active - row.lost, row.refused + row.lost_alone)

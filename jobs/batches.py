"""Batches: many requests of one file, done when there is time. Values only, no storage.

validating ──► in_progress ──► finalizing ──► completed | expired
    │  │            │              │
    │  └────────────┴──────────────┴──► cancelling ──► cancelled
    └──► failed
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec

WINDOW_S = 24 * 3600


class Endpoint(StrEnum):
    CHAT_COMPLETIONS = "/v1/chat/completions"
    RESPONSES = "/v1/responses"


class BatchStatus(StrEnum):
    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


class LineFault(msgspec.Struct, frozen=True):
    """Why a batch failed: what is wrong with its file. `line` counts from 1; None: not one line's fault."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BatchUsage(msgspec.Struct, frozen=True):
    """Tokens of all answers of a batch. `cached_tokens` are part of `input_tokens`."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that could not become a job. `error` is as a client would get it, with `status_code`."""

    line: int
    status_code: int
    error: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Counts:
    """`completed` and `failed` have a result; those stopped by a cancel or the end of the window are in neither."""

    total: int
    completed: int
    failed: int


@dataclass(frozen=True, slots=True)
class NewBatch:
    """`digest` names the input's bytes. `output_lifetime_s` None: its files live until they are deleted."""

    id: str
    tenant: str
    key_id: str | None
    endpoint: Endpoint
    input_file_id: str
    digest: str
    metadata: Mapping[str, str]
    output_lifetime_s: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """`next_line`, `next_byte` and `taken` say how far its lines have become jobs or refusals. `model` is known once
    the file was found right. `overdue`: the completion window is over, by the database's clock."""

    id: str
    tenant: str
    key_id: str | None
    endpoint: Endpoint
    input_file_id: str
    digest: str
    model: str | None
    status: BatchStatus
    metadata: Mapping[str, str]
    output_lifetime_s: int | None
    errors: tuple[LineFault, ...]
    next_line: int
    next_byte: int
    taken: int
    counts: Counts
    usage: BatchUsage | None
    output_file_id: str | None
    error_file_id: str | None
    created_at: datetime
    expires_at: datetime
    in_progress_at: datetime | None
    finalizing_at: datetime | None
    cancelling_at: datetime | None
    ended_at: datetime | None
    overdue: bool


@dataclass(frozen=True, slots=True)
class Place:
    """How far a batch's lines were taken: the next line and byte, and how many lines came before."""

    line: int
    byte: int
    taken: int

"""The job: one accepted chat request and everything that is known of it. Values only, no storage."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any

import msgspec

from jobs.request import ChatRequest

DEFAULT_TENANT = "default"


class JobState(StrEnum):
    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return self not in (JobState.QUEUED, JobState.IN_PROGRESS)


class JobKind(StrEnum):
    """Which door the job came through."""

    JOB = "job"
    CHAT_COMPLETION = "chat.completion"
    RESPONSE = "response"


class Priority(IntEnum):
    """Lanes: someone waits, nobody waits, nobody minds. Smaller goes first."""

    INTERACTIVE = 0
    BACKGROUND = 1
    BATCH = 2


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"


class AttemptEnd(StrEnum):
    """Why an attempt was closed. Those that count as a loss lead to quarantine."""

    FINISHED = "finished"
    CANCELLED = "cancelled"
    DEADLINE = "deadline_exceeded"
    DRAINED = "drained"
    MEDIA_UNAVAILABLE = "media_unavailable"
    LEASE_EXPIRED = "lease_expired"
    ENGINE_DIED = "engine_died"
    WORKER_ERROR = "worker_error"

    @property
    def is_loss(self) -> bool:
        return self not in (
            AttemptEnd.FINISHED,
            AttemptEnd.CANCELLED,
            AttemptEnd.DEADLINE,
            AttemptEnd.DRAINED,
        )


class TopLogprob(msgspec.Struct, frozen=True, array_like=True):
    id: int
    text: str
    logprob: float


class Token(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """One generated token. `text` is what it added to the answer: empty for an end token and while a half
    character or a possible stop string is held back. The texts of all tokens of a choice joined are its answer."""

    id: int
    text: str
    logprob: float | None = None
    top: tuple[TopLogprob, ...] = ()
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts of tokens. `image_tokens` and `cached_tokens` (prefix reuse) are parts of `prompt_tokens`."""

    prompt_tokens: int
    completion_tokens: int
    image_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


TOO_MANY_ATTEMPTS = "too_many_attempts"
JOB_UNREADABLE = "job_unreadable"

DEAD_LETTERS = (TOO_MANY_ATTEMPTS, JOB_UNREADABLE)
"""Codes of failed jobs that are kept as they are for another try, once what stood in their way is mended."""


@dataclass(frozen=True, slots=True)
class JobError:
    """`code` is OpenAI's where OpenAI has one (`invalid_image`, `context_length_exceeded`, …)."""

    code: str
    message: str
    param: str | None = None

    @property
    def is_dead_letter(self) -> bool:
        return self.code in DEAD_LETTERS


@dataclass(frozen=True, slots=True)
class Timeline:
    """Instants of the job's life, by the database's clock. `claimed_at` is that of the first attempt,
    `prepared_at` and `first_token_at` those of the first attempt that came so far."""

    queued_at: datetime
    claimed_at: datetime | None = None
    prepared_at: datetime | None = None
    first_token_at: datetime | None = None
    done_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One claim by one worker. `tokens` is how many the job had when the attempt ended. One that ended for a reason
    which this version does not know has no `end`."""

    number: int
    worker: str
    started_at: datetime
    ended_at: datetime | None = None
    end: AttemptEnd | None = None
    detail: str = ""
    tokens: int = 0


class Webhook(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a job's own end is told, besides the tenant's registered endpoints. `event_types` empty: OpenAI's names of
    all ends. `secret` None: signed with the tenant's."""

    url: str
    event_types: tuple[str, ...] = ()
    secret: str | None = None


@dataclass(frozen=True, slots=True)
class BatchLine:
    """The place of a job in a batch's input file; lines count from 1."""

    batch_id: str
    line: int


@dataclass(frozen=True, slots=True)
class Origin:
    """How a job came in. `background`: nobody holds a connection open for it. `stored`: clients may read it again
    through OpenAI's surfaces. `door` is what the API keeps in order to show the job in the shape in which it was
    asked for: JSON values that nobody else reads."""

    key_id: str | None = None
    background: bool = True
    stored: bool = True
    door: Mapping[str, Any] = field(default_factory=dict)
    batch: BatchLine | None = None
    webhook: Webhook | None = None


ANYWHERE = Origin()
"""Of a job that came in as most do: in the background, kept, without anything of its own."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """What the API hands to the store: everything else is the store's to fill in. `cost` is the estimate of its tokens,
    text and visual, prompt and answer, by which the queue is shared before the true count is known."""

    id: str
    tenant: str
    kind: JobKind
    model: str
    priority: Priority
    request: ChatRequest
    metadata: dict[str, str] = field(default_factory=dict)
    deadline: datetime | None = None
    max_attempts: int = 3
    origin: Origin = ANYWHERE
    cost: int = 1


@dataclass(frozen=True, slots=True)
class Job:
    """A row of `jobs`. `attempt` is the number of claims so far and the fencing token of the current one;
    `losses` counts the attempts that died (drains do not count); `worker` is set while in progress. `tokens` are those
    of all choices, which take turns. `finish_reasons` has one per choice once the job is completed or incomplete;
    `finish_reason` is `length` when any of them is. `purged_at`: since when its content is gone (request,
    tokens, metadata, door); what is left is for accounting. `unreadable`: which columns this version cannot read and
    why, because a newer one wrote them or somebody damaged them; in their places stands nothing. Such a job is shown
    and ended as any other, but never run."""

    id: str
    tenant: str
    kind: JobKind
    model: str
    priority: Priority
    state: JobState
    request: ChatRequest
    metadata: dict[str, str]
    deadline: datetime | None
    max_attempts: int
    attempt: int
    losses: int
    worker: str | None
    tokens: tuple[Token, ...]
    usage: Usage | None
    finish_reason: FinishReason | None
    error: JobError | None
    timeline: Timeline
    finish_reasons: tuple[FinishReason, ...] = ()
    origin: Origin = ANYWHERE
    cost: int = 1
    purged_at: datetime | None = None
    unreadable: str | None = None

    @property
    def text(self) -> str:
        """The answer so far: the first choice's."""
        return self.text_of(0)

    def tokens_of(self, choice: int) -> tuple[Token, ...]:
        return tuple(token for token in self.tokens if token.choice == choice)

    def text_of(self, choice: int) -> str:
        return "".join(token.text for token in self.tokens if token.choice == choice)


@dataclass(frozen=True, slots=True)
class Stamps:
    """How many seconds ago an attempt was prepared and drew its first token; None: not yet. The store takes them from
    its own clock, so that the timeline is exact however late it is written."""

    prepared_s: float | None = None
    first_token_s: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ends a job: `completed` and `incomplete` carry usage and finish reasons, `failed` an error."""

    state: JobState
    tokens: tuple[Token, ...]
    usage: Usage | None = None
    finish_reason: FinishReason | None = None
    error: JobError | None = None
    stamps: Stamps = Stamps()
    finish_reasons: tuple[FinishReason, ...] = ()

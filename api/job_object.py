"""A job, its attempts and its events as the jobs API shows them. Renders only."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from api.completion import logprobs_object, tool_calls_object, usage_object
from api.eta import Wait
from api.tool_parser import said
from jobs.events import Delta, Ended, Event, Queued, Started
from jobs.job import Attempt, Job, JobError, Timeline, Webhook
from jobs.webhooks.event import RESPONSE_EVENTS


class ErrorObject(BaseModel):
    code: str
    message: str
    param: str | None


class TimelineObject(BaseModel):
    """Unix seconds with fractions, by the database's clock."""

    queued_at: float
    claimed_at: float | None
    prepared_at: float | None
    first_token_at: float | None
    done_at: float | None


class AttemptObject(BaseModel):
    """One claim by one worker. `tokens`: how many the job had when the attempt ended."""

    number: int
    worker: str
    started_at: float
    ended_at: float | None
    end: str | None
    detail: str
    tokens: int


class ChoiceObject(BaseModel):
    """One of several answers to a request with `n` above 1."""

    index: int
    output: str
    tool_calls: list[dict[str, Any]] | None
    logprobs: dict[str, Any] | None
    finish_reason: str | None


class JobWebhook(BaseModel):
    """Where the job's end is told, and by which events. What signs is not shown."""

    url: str
    event_types: list[str]


class JobObject(BaseModel):
    """`output`, `tool_calls` and `logprobs` are the answer so far: the first choice's; with `n` above 1 `choices` has
    them all, and is null otherwise. `finish_reason` is `length` when any choice was cut. `queue_position` is how many
    jobs are estimated to go before it, and `eta_s` in how many seconds it begins; both are null when it does not wait
    and in lists, `eta_s` also while no speed is known. `attempts` is null in lists. `webhook` is the job's
    own, without its secret. `purged_at`: since when its content is gone, because it was not to be stored."""

    id: str
    object: str
    status: str
    model: str
    created_at: int
    queue_position: int | None
    eta_s: float | None
    priority: str
    deadline: float | None
    metadata: dict[str, str]
    webhook: JobWebhook | None
    output: str
    tool_calls: list[dict[str, Any]] | None
    logprobs: dict[str, Any] | None
    choices: list[ChoiceObject] | None
    usage: dict[str, Any] | None
    finish_reason: str | None
    error: ErrorObject | None
    timeline: TimelineObject
    attempts: list[AttemptObject] | None
    purged_at: float | None


class JobList(BaseModel):
    object: str
    data: list[JobObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedJob(BaseModel):
    id: str
    object: str
    deleted: bool


def job_object(job: Job, wait: Wait | None = None, attempts: Sequence[Attempt] | None = None) -> JobObject:
    return JobObject(
        id=job.id,
        object="job",
        status=job.state.value,
        model=job.model,
        created_at=int(job.timeline.queued_at.timestamp()),
        queue_position=wait.jobs if wait else None,
        eta_s=wait.eta_s if wait else None,
        priority=job.priority.name.lower(),
        deadline=_unix(job.deadline),
        metadata=job.metadata,
        webhook=_webhook(job.origin.webhook),
        output=(answer := said(job)).text,
        tool_calls=tool_calls_object(answer) or None,
        logprobs=_logprobs(job, 0),
        choices=_choices(job) if job.request.n > 1 else None,
        usage=usage_object(job.usage),
        finish_reason=job.finish_reason.value if job.finish_reason else None,
        error=_error(job.error),
        timeline=_timeline(job.timeline),
        attempts=None if attempts is None else [_attempt(attempt) for attempt in attempts],
        purged_at=_unix(job.purged_at),
    )


def job_list(jobs: Sequence[Job], has_more: bool) -> JobList:
    data = [job_object(job) for job in jobs]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return JobList(object="list", data=data, first_id=first, last_id=last, has_more=has_more)


def event_object(job_id: str, sequence: int, event: Event, ended: Job | None = None) -> dict[str, Any]:
    """The data of one event. It depends on the log alone, so it is the same at every replay; `ended` is the row that
    the terminal event shows."""
    head: dict[str, Any] = {"type": event_name(event), "sequence": sequence, "job_id": job_id}
    if isinstance(event, Delta):
        head["index"] = event.token.choice
        head["text"] = event.token.text
        if event.token.logprob is not None:
            head["logprobs"] = logprobs_object([event.token])
    elif ended is not None:
        head["job"] = job_object(ended).model_dump()
    return head


def event_name(event: Event) -> str:
    match event:
        case Queued():
            return "job.queued"
        case Started():
            return "job.in_progress"
        case Delta():
            return "job.delta"
        case Ended(state):
            return f"job.{state.value}"


def _choices(job: Job) -> list[ChoiceObject]:
    return [
        ChoiceObject(
            index=choice,
            output=(answer := said(job, choice)).text,
            tool_calls=tool_calls_object(answer) or None,
            logprobs=_logprobs(job, choice),
            finish_reason=job.finish_reasons[choice].value if job.finish_reasons else None,
        )
        for choice in range(job.request.n)
    ]


def _logprobs(job: Job, choice: int) -> dict[str, Any] | None:
    return None if job.request.logprobs is None else logprobs_object(job.tokens_of(choice))


def _webhook(webhook: Webhook | None) -> JobWebhook | None:
    if webhook is None:
        return None
    return JobWebhook(url=webhook.url, event_types=list(webhook.event_types or RESPONSE_EVENTS))


def _unix(instant: datetime | None) -> float | None:
    return None if instant is None else instant.timestamp()


def _error(error: JobError | None) -> ErrorObject | None:
    return None if error is None else ErrorObject(code=error.code, message=error.message, param=error.param)


def _timeline(timeline: Timeline) -> TimelineObject:
    return TimelineObject(
        queued_at=timeline.queued_at.timestamp(),
        claimed_at=_unix(timeline.claimed_at),
        prepared_at=_unix(timeline.prepared_at),
        first_token_at=_unix(timeline.first_token_at),
        done_at=_unix(timeline.done_at),
    )


def _attempt(attempt: Attempt) -> AttemptObject:
    return AttemptObject(
        number=attempt.number,
        worker=attempt.worker,
        started_at=attempt.started_at.timestamp(),
        ended_at=_unix(attempt.ended_at),
        end=attempt.end.value if attempt.end else None,
        detail=attempt.detail,
        tokens=attempt.tokens,
    )

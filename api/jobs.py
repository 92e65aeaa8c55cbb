"""`/v1/jobs`: submit, read, list, cancel, give back, delete, and follow a job's events."""

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from api.auth import Asker, Caller, Tenant
from api.backend import Backend, backend_of
from api.body import parse_object, read_body
from api.errors import ApiError, ServerClosing
from api.eta import Wait, wait_of
from api.idempotency import Made, key_of
from api.job_object import DeletedJob, JobList, JobObject, event_name, event_object, job_list, job_object
from api.openapi import event_stream, json_body
from api.poll_hint import poll_hint
from api.query import JobId, known_only, metadata_filter, resume_point
from api.schema import JobBody, validate
from api.settling import kept
from api.sse import KEEP_ALIVE, EventStream, named_event, unless_gone
from jobs.errors import JobNotFound, VlmqError
from jobs.events import Ended, log_of
from jobs.idempotency import IdempotencyKey
from jobs.job import Job, JobKind, JobState
from jobs.ports import JobFilter

log = logging.getLogger(__name__)

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post("", status_code=201, summary="Submit a job", openapi_extra=json_body(JobBody))
async def submit_job(request: Request, caller: Asker, response: Response) -> JobObject:
    """Answers as soon as the job is recorded; it is never lost after that."""
    backend = backend_of(request)
    raw = await read_body(request, backend.settings.max_body_bytes)
    shown = await backend.threads.call(_submit, backend, raw, caller, key_of(request, caller, raw))
    job_id = shown.value.id
    response.headers.update(shown.headers | {"x-vlmq-job-id": job_id, "location": f"/v1/jobs/{job_id}"})
    response.headers.update(_hint(shown.value))
    return shown.value


def _submit(backend: Backend, raw: bytes, caller: Caller, key: IdempotencyKey | None) -> Made[JobObject]:
    def make() -> JobObject:
        job = backend.submission.submit(validate(JobBody, parse_object(raw)), JobKind.JOB, caller, idempotency=key)
        backend.metrics.accepted(job.kind, job.model)
        return job_object(job, backend.submission.backpressure.watch.wait_of_new(job), attempts=[])

    return backend.once.do(key, lambda job_id: _read(backend, job_id, caller.tenant), make)


@router.get("", summary="List jobs, newest first")
async def list_jobs(
    request: Request,
    tenant: Tenant,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    status: JobState | None = None,
    model: str | None = None,
    dead: bool = False,
) -> JobList:
    """A page behind the job `after`. `metadata[key]=value` narrows it to jobs that carry this pair, `dead=true` to
    dead letters: those that lost too many workers, or that a worker could not read."""
    backend = backend_of(request)
    known_only(request, "after", "limit", "order", "status", "model", "dead", metadata=True)
    # One more than asked for tells whether there are more.
    wanted = JobFilter(status, model, metadata_filter(request), after, limit + 1, order == "asc", dead=dead)
    page = await backend.threads.call(backend.store.page, tenant, wanted)
    return job_list(page[:limit], has_more=len(page) > limit)


@router.get("/{job_id}", summary="Read a job")
async def get_job(
    job_id: JobId, request: Request, response: Response, tenant: Tenant, wait: Annotated[float, Query(ge=0)] = 0.0
) -> JobObject:
    """With `?wait=` seconds the answer comes when the job has ended, or after that time as it is then. Before its end
    `openai-poll-after-ms` says when to ask again."""
    backend = backend_of(request)
    known_only(request, "wait")
    if wait > backend.settings.max_wait_s:
        message = f"Invalid value for 'wait': at most {backend.settings.max_wait_s:g} seconds, got {wait:g}."
        raise ApiError(message, param="wait", code="invalid_value")
    if wait:
        row = await backend.threads.call(backend.store.get, job_id, tenant)
        await unless_gone(request, _until_end(backend, row, wait))
    job = await backend.threads.call(_read, backend, job_id, tenant)
    response.headers.update(_hint(job))
    return job


def _hint(job: JobObject) -> dict[str, str]:
    return poll_hint(JobState(job.status), job.eta_s)


async def _until_end(backend: Backend, job: Job, wait_s: float) -> None:
    until = time.monotonic() + wait_s
    # A job that is gone meanwhile, or its content: what is left of it is read anyway.
    with suppress(JobNotFound):
        async with backend.reader.follow(job.id, log_of(job)) as follower:
            while not follower.ended and (left_s := until - time.monotonic()) > 0:
                await follower.batch(left_s)


def _read(backend: Backend, job_id: str, tenant: str) -> JobObject:
    return _shown(backend, backend.store.get(job_id, tenant))


def _shown(backend: Backend, job: Job) -> JobObject:
    return job_object(job, _wait(backend, job), backend.store.attempts(job.id))


def _wait(backend: Backend, job: Job) -> Wait | None:
    return wait_of(job, backend.store, backend.services.lease_s)


@router.post("/{job_id}/cancel", summary="Cancel a job")
async def cancel_job(job_id: JobId, request: Request, tenant: Tenant) -> JobObject:
    """In any state, and again: a job that has ended comes back as it is."""
    backend = backend_of(request)
    return await backend.threads.call(_cancel, backend, job_id, tenant)


def _cancel(backend: Backend, job_id: str, tenant: str) -> JobObject:
    return _shown(backend, backend.settling.cancel(job_id, tenant))


@router.post("/{job_id}/requeue", summary="Give a dead letter back")
async def requeue_job(job_id: JobId, request: Request, tenant: Tenant) -> JobObject:
    """Queues a job again that failed as `too_many_attempts` or `job_unreadable`. It goes on after the tokens that it
    has."""
    backend = backend_of(request)
    return await backend.threads.call(_requeue, backend, job_id, tenant)


def _requeue(backend: Backend, job_id: str, tenant: str) -> JobObject:
    job = backend.settling.requeue(job_id, tenant)
    backend.submission.ring(job)
    return _shown(backend, job)


@router.delete("/{job_id}", summary="Delete a job that has ended")
async def delete_job(job_id: JobId, request: Request, tenant: Tenant) -> DeletedJob:
    """409 while it waits or runs: cancel it first."""
    backend = backend_of(request)
    await backend.threads.call(backend.settling.delete, job_id, tenant)
    return DeletedJob(id=job_id, object="job", deleted=True)


@router.get(
    "/{job_id}/events",
    summary="Follow a job's events",
    response_class=Response,
    responses=event_stream("Server-sent events: job.queued, job.in_progress, job.delta, then one that ends it."),
)
async def follow_job(
    job_id: JobId, request: Request, tenant: Tenant, starting_after: Annotated[int | None, Query(ge=0)] = None
) -> Response:
    """The whole log from sequence 0, or what comes after `starting_after` (or the header `Last-Event-ID`). 204 when
    a log that has ended holds nothing more, which stops a browser's EventSource from coming back."""
    backend = backend_of(request)
    known_only(request, "starting_after")
    after = resume_point(request, starting_after)
    job = await backend.threads.call(_settled, backend, job_id, tenant)
    if job.state.terminal:
        last = len(log_of(job)) - 1
        if after == last:
            return Response(status_code=204)
        if after > last:
            message = f"Invalid value for 'starting_after': the log ends at {last}, got {after}."
            raise ApiError(message, param="starting_after", code="invalid_value")
    return EventStream(b": following\n\n", _events(backend, job, after))


def _settled(backend: Backend, job_id: str, tenant: str) -> Job:
    return kept(backend.settling.settle(backend.store.get(job_id, tenant)))


async def _events(backend: Backend, job: Job, after: int) -> AsyncGenerator[bytes, None]:
    """One whole event per chunk. Ends without a terminal event when the process goes down or the database is away:
    the client comes back with what it saw last."""
    async with backend.reader.follow(job.id, log_of(job), after) as follower:
        while not follower.ended:
            try:
                events = await follower.batch(backend.settings.keepalive_s)
            except (ServerClosing, VlmqError):
                return
            if not events:
                yield KEEP_ALIVE
            for sequence, event in events:
                ended = await _row(backend, job.id) if isinstance(event, Ended) else None
                if isinstance(event, Ended) and ended is None:
                    return
                yield named_event(event_name(event), sequence, event_object(job.id, sequence, event, ended))


async def _row(backend: Backend, job_id: str) -> Job | None:
    try:
        return kept(await backend.threads.call(backend.settling.ended, job_id))
    except VlmqError as exc:
        log.warning("a stream ends early: %s", exc, extra={"action": "events.cut", "job_id": job_id})
        return None

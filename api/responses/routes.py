"""`/v1/responses`: create, retrieve, follow, cancel, delete."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from api.auth import Asker, Caller, Tenant
from api.backend import Backend, backend_of
from api.body import parse_object, read_body
from api.errors import ApiError, Unsupported
from api.idempotency import Made, key_of
from api.openapi import event_stream, json_body
from api.poll_hint import poll_hint
from api.query import known_only, resume_point
from api.responses.body import ResponseBody, response_body
from api.responses.include import INCLUDE, includes
from api.responses.object import response_object
from api.responses.order import order_of_body
from api.responses.refused import LOGPROBS, check_includes
from api.responses.stored import ResponseId, stored_response
from api.responses.stream import OPENING, last_number, stream_of
from api.settling import kept
from api.sse import EventStream
from api.waiting import Waiting
from jobs.idempotency import IdempotencyKey
from jobs.job import Job, JobState

router = APIRouter(prefix="/v1/responses", tags=["responses"])


@router.post("", summary="Create a response", openapi_extra=json_body(ResponseBody))
async def create_response(request: Request, caller: Asker) -> Response:
    """Waited for, as a stream, or with `background: true` at once. The client's leaving cancels the job, but not one in
    the background or under an `Idempotency-Key`. What is asked with `store: false` is forgotten as soon as it is
    answered."""
    backend = backend_of(request)
    raw = await read_body(request, backend.settings.max_body_bytes)
    key = key_of(request, caller, raw)
    body, made = await backend.threads.call(_accept, backend, raw, caller, key)
    job, streams, background, unstored = made.value, body.stream, body.background, not body.store
    # From here on it may be waited for, perhaps for minutes, and the pictures in them are large.
    del raw, body
    waiting = Waiting.of(backend, request, made, key, unstored=unstored, background=background)
    if streams:
        return waiting.stream_at_once(OPENING, stream_of(backend, job))
    if background:
        hint = await backend.threads.call(_hint, backend, job)
        return JSONResponse(response_object(job), headers={**waiting.headers, **hint})
    return await waiting.whole(response_object)


def _accept(backend: Backend, raw: bytes, caller: Caller, key: IdempotencyKey | None) -> tuple[ResponseBody, Made[Job]]:
    body = response_body(parse_object(raw))

    def make() -> Job:
        backend.submission.backpressure.check(body.model)
        job = backend.submission.record(order_of_body(backend.submission, body, caller), key)
        backend.metrics.accepted(job.kind, job.model)
        return job

    return body, backend.once.do(key, lambda job_id: kept(backend.store.get(job_id, caller.tenant)), make)


@router.get(
    "/{response_id}",
    summary="Retrieve a response",
    response_class=Response,
    responses=event_stream("The response, or with `stream=true` its server-sent events."),
)
async def retrieve_response(
    response_id: ResponseId,
    request: Request,
    tenant: Tenant,
    stream: bool = False,
    starting_after: Annotated[int | None, Query(ge=0)] = None,
    include_obfuscation: bool = False,
) -> Response:
    """As it is now; or with `stream=true` all its events from sequence 0 on, or those behind `starting_after` (or the
    header `Last-Event-ID`), however the response was created and for as long as it is kept. Before its end
    `openai-poll-after-ms` says when to ask again."""
    backend = backend_of(request)
    known_only(request, "stream", "starting_after", "include_obfuscation", many=INCLUDE)
    check_includes(wanted := includes(request), LOGPROBS)
    if include_obfuscation:
        raise Unsupported("include_obfuscation", "events are not padded with random characters")
    job = await backend.threads.call(_settled, backend, response_id, tenant)
    if wanted and job.request.logprobs is None:
        check_includes(wanted)
    if not stream:
        if starting_after is not None:
            message = "Invalid value for 'starting_after': it is only allowed with 'stream=true'."
            raise ApiError(message, param="starting_after", code="invalid_value")
        return JSONResponse(response_object(job), headers=await backend.threads.call(_hint, backend, job))
    after = resume_point(request, starting_after)
    if job.state.terminal and after > (last := last_number(job)):
        message = f"Invalid value for 'starting_after': the events end at {last}, got {after}."
        raise ApiError(message, param="starting_after", code="invalid_value")
    return EventStream(OPENING, stream_of(backend, job, after))


def _hint(backend: Backend, job: Job) -> dict[str, str]:
    # As if it had come just now: an older one waits no longer than that, and a long queue is not counted for a hint.
    queued = job.state is JobState.QUEUED
    eta_s = backend.submission.backpressure.watch.wait_of_new(job).eta_s if queued else None
    return poll_hint(job.state, eta_s)


def _settled(backend: Backend, response_id: str, tenant: str) -> Job:
    return backend.settling.settle(stored_response(backend.store, response_id, tenant))


@router.post("/{response_id}/cancel", summary="Cancel a background response")
async def cancel_response(response_id: ResponseId, request: Request, tenant: Tenant) -> dict[str, Any]:
    """Again and after its end it comes back as it is. Close the connection to cancel one that is waited for."""
    backend = backend_of(request)
    return await backend.threads.call(_cancel, backend, response_id, tenant)


def _cancel(backend: Backend, response_id: str, tenant: str) -> dict[str, Any]:
    job = stored_response(backend.store, response_id, tenant)
    if not job.origin.background:
        message = f"The response {response_id!r} was not created with 'background': true; close its connection instead."
        raise ApiError(message, param="response_id", code="response_not_in_background")
    return response_object(backend.settling.cancel(job.id, tenant))


@router.delete("/{response_id}", summary="Delete a response that has ended")
async def delete_response(response_id: ResponseId, request: Request, tenant: Tenant) -> dict[str, Any]:
    """409 while it waits or runs: cancel it first. Responses that go on from it keep what they have of it."""
    backend = backend_of(request)
    await backend.threads.call(_delete, backend, response_id, tenant)
    return {"id": response_id, "object": "response", "deleted": True}


def _delete(backend: Backend, response_id: str, tenant: str) -> None:
    stored_response(backend.store, response_id, tenant)
    backend.settling.delete(response_id, tenant)

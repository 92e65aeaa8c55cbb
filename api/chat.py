"""`POST /v1/chat/completions`: the same job underneath, waited for, whole or as a stream of chunks."""

import time
from collections.abc import AsyncGenerator

from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.auth import Asker, Caller
from api.backend import Backend, backend_of
from api.body import parse_object, read_body
from api.chunks import Chunks
from api.completion import completion_object
from api.errors import NO_RETRY, ApiError, ServerClosing, as_api_error, error_body
from api.follower import Follower, Sequenced
from api.idempotency import Made, key_of
from api.openapi import json_body
from api.schema import ChatBody, validate
from api.settling import kept
from api.sse import DONE, KEEP_ALIVE, data_event
from api.waiting import Waiting, answered
from jobs.errors import VlmqError
from jobs.events import Delta, log_of
from jobs.idempotency import IdempotencyKey
from jobs.job import Job, JobKind, JobState, Origin

router = APIRouter(tags=["chat"])


@router.post("/v1/chat/completions", summary="Create a chat completion", openapi_extra=json_body(ChatBody))
async def create_chat_completion(request: Request, caller: Asker) -> Response:
    """OpenAI's chat completion, plain or with `stream: true`. The client's leaving cancels the job, but not under an
    `Idempotency-Key`. What is asked with `store: false` is forgotten as soon as it is answered."""
    backend = backend_of(request)
    raw = await read_body(request, backend.settings.max_body_bytes)
    key = key_of(request, caller, raw)
    body, made = await backend.threads.call(_accept, backend, raw, caller, key)
    # Who says nothing of it can look at the job for a while.
    unstored = "store" in body.model_fields_set and not body.store
    streams, include_usage = body.stream, body.stream_options is not None and body.stream_options.include_usage
    # From here on it is waited for, perhaps for minutes, and the pictures in them are large.
    del raw, body
    waiting = Waiting.of(backend, request, made, key, unstored=unstored)
    if streams:
        return await waiting.stream(_chunks(backend, made.value, include_usage))
    return await waiting.whole(lambda ended: completion_object(_uncancelled(ended)))


def _accept(backend: Backend, raw: bytes, caller: Caller, key: IdempotencyKey | None) -> tuple[ChatBody, Made[Job]]:
    body = validate(ChatBody, parse_object(raw))

    def make() -> Job:
        origin = Origin(background=False, stored=body.store)
        job = backend.submission.submit(body, JobKind.CHAT_COMPLETION, caller, origin, key)
        backend.metrics.accepted(job.kind, job.model)
        return job

    return body, backend.once.do(key, lambda job_id: kept(backend.store.get(job_id, caller.tenant)), make)


async def _chunks(backend: Backend, job: Job, include_usage: bool) -> AsyncGenerator[bytes, None]:
    """Before the first chunk a failure raises and becomes an ordinary error response, afterwards an error event."""
    chunks = Chunks(job, include_usage)
    async with backend.reader.follow(job.id, log_of(job)) as follower:
        events = await _head(follower, backend.settings.stream_head_s)
        if follower.ended:
            await _answered(backend, job)
        for chunk in chunks.roles():
            yield data_event(chunk)
        try:
            while True:
                tokens = [event.token for _, event in events if isinstance(event, Delta)]
                for chunk in chunks.contents(tokens):
                    yield data_event(chunk)
                if not events:
                    yield KEEP_ALIVE
                if follower.ended:
                    break
                events = await follower.batch(backend.settings.keepalive_s)
            ended = await _answered(backend, job)
        except (ApiError, VlmqError) as exc:
            yield data_event(error_body(_in_mid_stream(exc, job)))
            return
    for chunk in chunks.finishes(ended):
        yield data_event(chunk)
    if include_usage:
        yield data_event(chunks.usage(ended.usage))
    yield DONE


async def _head(follower: Follower, patience_s: float) -> list[Sequenced]:
    """The events up to the first token or the end, at most those that come within `patience_s`."""
    until = time.monotonic() + patience_s
    events: list[Sequenced] = []
    while not follower.ended and (left_s := until - time.monotonic()) > 0:
        events += await follower.batch(left_s)
        if events and isinstance(events[-1][1], Delta):
            break
    return events


async def _answered(backend: Backend, job: Job) -> Job:
    return _uncancelled(await answered(backend, job.id))


def _uncancelled(ended: Job) -> Job:
    """Raises ApiError for a job that has no answer, because somebody cancelled it."""
    if ended.state is JobState.CANCELLED:
        raise ApiError(f"The job {ended.id} was cancelled.", status=409, code="job_cancelled", headers=NO_RETRY)
    return ended


def _in_mid_stream(exc: Exception, job: Job) -> ApiError:
    if isinstance(exc, ServerClosing):
        exc.message = f"The server is shutting down; the answer goes on at /v1/jobs/{job.id}/events."
    return as_api_error(exc)

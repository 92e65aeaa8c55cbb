"""`/v1/chat/completions` that were made with `store: true`: read, list, label, delete, and what they were asked."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from api.auth import Tenant
from api.backend import Backend, backend_of
from api.body import parse_object, read_body
from api.completion import completion_object
from api.errors import ApiError
from api.openapi import json_body
from api.query import JOB_ID, known_only, metadata_filter
from api.schema import MetadataKey, MetadataValue, validate
from api.settling import understood
from api.wire import Wire
from jobs.errors import JobNotFound
from jobs.job import Job, JobKind, JobState
from jobs.ports import JobFilter
from jobs.request import ImagePart, Message, Part, TextPart, VideoPart

router = APIRouter(prefix="/v1/chat/completions", tags=["chat"])


class LabelBody(Wire):
    """The new metadata, instead of the old."""

    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]


def _completion_id(completion_id: str) -> str:
    """What cannot be an id is not looked for: PostgreSQL takes no U+0000."""
    if JOB_ID.fullmatch(completion_id) is None:
        raise _not_found(completion_id)
    return completion_id


CompletionId = Annotated[str, Depends(_completion_id)]


@router.get("", summary="List stored chat completions, oldest first")
async def list_chat_completions(
    request: Request,
    tenant: Tenant,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "asc",
    model: str | None = None,
) -> Response:
    """Those that have their answer. `metadata[key]=value` narrows it to completions that carry this pair."""
    backend = backend_of(request)
    known_only(request, "after", "limit", "order", "model", metadata=True)
    wanted = JobFilter(
        *(None, model, metadata_filter(request), after, limit + 1, order == "asc"),
        kind=JobKind.CHAT_COMPLETION,
        stored=True,
        answered=True,
    )
    page = await backend.threads.call(backend.store.page, tenant, wanted)
    return JSONResponse(_list([_shown(job) for job in page[:limit]], has_more=len(page) > limit))


@router.get("/{completion_id}", summary="Read a stored chat completion")
async def get_chat_completion(completion_id: CompletionId, request: Request, tenant: Tenant) -> Response:
    backend = backend_of(request)
    known_only(request)
    return JSONResponse(_shown(await backend.threads.call(_stored, backend, completion_id, tenant)))


@router.post(
    "/{completion_id}", summary="Change a stored chat completion's metadata", openapi_extra=json_body(LabelBody)
)
async def update_chat_completion(completion_id: CompletionId, request: Request, tenant: Tenant) -> Response:
    backend = backend_of(request)
    raw = await read_body(request, backend.settings.max_body_bytes)
    return JSONResponse(_shown(await backend.threads.call(_label, backend, completion_id, tenant, raw)))


@router.delete("/{completion_id}", summary="Delete a stored chat completion")
async def delete_chat_completion(completion_id: CompletionId, request: Request, tenant: Tenant) -> Response:
    """The job goes with it, and with the job what it was asked."""
    backend = backend_of(request)
    await backend.threads.call(_delete, backend, completion_id, tenant)
    return JSONResponse({"id": completion_id, "object": "chat.completion.deleted", "deleted": True})


@router.get("/{completion_id}/messages", summary="List the messages of a stored chat completion")
async def list_chat_completion_messages(
    completion_id: CompletionId,
    request: Request,
    tenant: Tenant,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "asc",
) -> Response:
    """What it was asked, not its answer. A picture that came as bytes is shown by its digest, as `blob:<sha256>`."""
    backend = backend_of(request)
    known_only(request, "after", "limit", "order")
    job = understood(await backend.threads.call(_stored, backend, completion_id, tenant))
    messages = [_message(job, place, message) for place, message in enumerate(job.request.messages)]
    if order == "desc":
        messages.reverse()
    ids = [message["id"] for message in messages]
    if after is not None and after not in ids:
        message = f"Invalid value for 'after': the completion has no message {after[:100]!r}."
        raise ApiError(message, param="after", code="invalid_value")
    first = 0 if after is None else ids.index(after) + 1
    return JSONResponse(_list(messages[first : first + limit], has_more=first + limit < len(messages)))


def _stored(backend: Backend, completion_id: str, tenant: str) -> Job:
    """Raises ApiError (404) for what is unknown, another's, of another door, not stored, or without an answer."""
    try:
        job = backend.store.get(completion_id, tenant)
    except JobNotFound:
        raise _not_found(completion_id) from None
    answered = job.state in (JobState.COMPLETED, JobState.INCOMPLETE)
    if job.kind is not JobKind.CHAT_COMPLETION or not job.origin.stored or not answered:
        raise _not_found(completion_id)
    return job


def _label(backend: Backend, completion_id: str, tenant: str, raw: bytes) -> Job:
    body = validate(LabelBody, parse_object(raw))
    _stored(backend, completion_id, tenant)
    return backend.store.label(completion_id, tenant, body.metadata)


def _delete(backend: Backend, completion_id: str, tenant: str) -> None:
    _stored(backend, completion_id, tenant)
    backend.settling.delete(completion_id, tenant)


def _shown(job: Job) -> dict[str, Any]:
    return {**completion_object(job), "metadata": job.metadata}


def _message(job: Job, place: int, message: Message) -> dict[str, Any]:
    """`content` is the text alone; `content_parts` are all parts where there is more than text."""
    text = "\n".join(part.text for part in message.parts if isinstance(part, TextPart))
    several = any(not isinstance(part, TextPart) for part in message.parts)
    shown: dict[str, Any] = {
        "id": f"{job.id}-{place}",
        "role": message.role.value,
        "content": text if message.parts else None,
        "content_parts": [_part(part) for part in message.parts] if several else None,
        "name": None,
    }
    if message.calls:
        shown["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.calls
        ]
    if message.call_id is not None:
        shown["tool_call_id"] = message.call_id
    return shown


def _part(part: Part) -> dict[str, Any]:
    match part:
        case TextPart(text):
            return {"type": "text", "text": text}
        case ImagePart(source, detail):
            return {"type": "image_url", "image_url": {"url": source, "detail": detail}}
        case VideoPart(source):
            return {"type": "video_url", "video_url": {"url": source}}


def _list(data: list[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": has_more}


def _not_found(completion_id: str) -> ApiError:
    message = f"Chat completion with id {completion_id[:100]!r} not found."
    return ApiError(message, status=404, param="completion_id", code="completion_not_found")

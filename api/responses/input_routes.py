"""What a response was asked: its input items, and how many tokens an input would have."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request

from api.auth import Tenant
from api.backend import Backend, backend_of
from api.body import parse_object, read_body
from api.openapi import json_body
from api.query import known_only
from api.responses.body import InputTokensBody, input_tokens_body
from api.responses.include import INCLUDE, includes
from api.responses.input_items import input_items, item_list, page_of, shown
from api.responses.order import prompt_of
from api.responses.refused import IMAGE_URL, check_includes
from api.responses.stored import ResponseId, stored_response
from api.sse import unless_gone
from api.tokenize import counted
from jobs.counting import CountPrompt

router = APIRouter(prefix="/v1/responses", tags=["responses"])


@router.get("/{response_id}/input_items", summary="List a response's input items")
async def list_input_items(
    response_id: ResponseId,
    request: Request,
    tenant: Tenant,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
) -> dict[str, Any]:
    """What the request itself brought; what it went on from is listed at that response. Pictures that came as data:
    URLs have theirs with `include[]=message.input_image.image_url`."""
    backend = backend_of(request)
    known_only(request, "after", "limit", "order", many=INCLUDE)
    check_includes(wanted := includes(request), IMAGE_URL)
    return await backend.threads.call(_page, backend, response_id, tenant, after, limit, order, IMAGE_URL in wanted)


def _page(
    backend: Backend,
    response_id: str,
    tenant: str,
    after: str | None,
    limit: int,
    order: Literal["asc", "desc"],
    with_bytes: bool,
) -> dict[str, Any]:
    job = stored_response(backend.store, response_id, tenant)
    page, has_more = page_of(input_items(job), after, limit, order)
    bytes_of = backend.submission.blobs.get if with_bytes else None
    return item_list([shown(item, bytes_of) for item in page], has_more)


@router.post("/input_tokens", summary="Count a response's input tokens", openapi_extra=json_body(InputTokensBody))
async def count_input_tokens(request: Request, tenant: Tenant) -> dict[str, Any]:
    """The whole prompt: instructions, earlier turns, media. A live worker of the model counts; nothing is queued."""
    backend = backend_of(request)
    raw = await read_body(request, backend.settings.max_body_bytes)
    model, question = await backend.threads.call(_question, backend, raw, tenant)
    # It may wait for others, and then for a worker; the pictures in it are large.
    del raw
    count = await unless_gone(request, counted(backend, model, question, "input"))
    return {"object": "response.input_tokens", "input_tokens": count.prompt_tokens}


def _question(backend: Backend, raw: bytes, tenant: str) -> tuple[str, CountPrompt]:
    body = input_tokens_body(parse_object(raw))
    return body.model, CountPrompt(prompt_of(backend.submission, body, tenant))

"""The Responses API, as `api.responses.object` renders it."""

from typing import Any, Literal

from api.document.shape import STREAM, Shape, Shapes, Shown

Items = list[dict[str, Any]]


class ResponseError(Shown):
    code: str
    message: str
    param: str | None


class IncompleteDetails(Shown):
    reason: Literal["max_output_tokens"]


class InputDetails(Shown):
    cached_tokens: int
    cache_write_tokens: int
    image_tokens: int
    text_tokens: int


class OutputDetails(Shown):
    reasoning_tokens: int


class ResponseUsage(Shown):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class Response(Shown):
    """`output` holds messages and calls of functions. Every key is always there."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["queued", "in_progress", "completed", "failed", "cancelled", "incomplete"]
    background: bool
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    model: str
    output: Items
    usage: ResponseUsage | None
    instructions: str | None
    previous_response_id: str | None
    metadata: dict[str, str]
    max_output_tokens: int | None
    max_tool_calls: None
    temperature: float
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: int
    text: dict[str, Any]
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    parallel_tool_calls: bool
    reasoning: None
    truncation: Literal["disabled"]
    store: bool
    service_tier: Literal["default"]
    user: str | None
    safety_identifier: str | None
    prompt_cache_key: None


class DeletedResponse(Shown):
    id: str
    object: Literal["response"]
    deleted: Literal[True]


class InputItemList(Shown):
    object: Literal["list"]
    data: Items
    first_id: str | None
    last_id: str | None
    has_more: bool


class InputTokenCount(Shown):
    object: Literal["response.input_tokens"]
    input_tokens: int


SHAPES: Shapes = {
    "POST /v1/responses": {200: Shape(Response, "The response, or with `stream: true` its events.", others=STREAM)},
    "GET /v1/responses/{response_id}": {
        200: Shape(Response, "The response, or with `stream=true` its events.", others=STREAM)
    },
    "DELETE /v1/responses/{response_id}": {200: Shape(DeletedResponse)},
    "POST /v1/responses/{response_id}/cancel": {200: Shape(Response)},
    "GET /v1/responses/{response_id}/input_items": {200: Shape(InputItemList)},
    "POST /v1/responses/input_tokens": {200: Shape(InputTokenCount)},
}

"""Chat completions, as `api.completion` renders them."""

from typing import Any, Literal

from api.document.shape import STREAM, Shape, Shapes, Shown


class TopLogprob(Shown):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(Shown):
    content: list[TokenLogprob]
    refusal: None


class PromptDetails(Shown):
    cached_tokens: int
    image_tokens: int
    text_tokens: int


class CompletionUsage(Shown):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class CalledFunction(Shown):
    name: str
    arguments: str


class ToolCall(Shown):
    id: str
    type: Literal["function"]
    function: CalledFunction


class AnswerMessage(Shown):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[ToolCall] | None = None


class CompletionChoice(Shown):
    index: int
    message: AnswerMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: str


class ChatCompletion(Shown):
    """`id` is the job's."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | None
    service_tier: Literal["default"]
    metadata: dict[str, Any] | None = None


class CompletionList(Shown):
    object: Literal["list"]
    data: list[ChatCompletion]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedCompletion(Shown):
    id: str
    object: Literal["chat.completion.deleted"]
    deleted: Literal[True]


class StoredMessageList(Shown):
    """Each message has `id`, `role`, `content`, `content_parts` and `name`, and what tools add to it."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


STORED = "/v1/chat/completions/{completion_id}"
SHAPES: Shapes = {
    "POST /v1/chat/completions": {
        200: Shape(ChatCompletion, "The answer, or with `stream: true` its chunks.", others=STREAM)
    },
    "GET /v1/chat/completions": {200: Shape(CompletionList)},
    f"GET {STORED}": {200: Shape(ChatCompletion)},
    f"POST {STORED}": {200: Shape(ChatCompletion)},
    f"DELETE {STORED}": {200: Shape(DeletedCompletion)},
    f"GET {STORED}/messages": {200: Shape(StoredMessageList)},
}

"""The chat request as it comes over the wire: fields, types, ranges. Knows neither media nor jobs' storage."""

from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from api.faults import first_fault
from api.refused import refuse_unsupported, supported
from api.response_format import ResponseFormat, TextFormat
from api.tool_schema import CalledTool, FunctionTool, ToolChoice
from api.webhook_field import WebhookField
from api.wire import Text, Wire, no_nul

Count = Annotated[int, Field(gt=0, lt=2**31)]


class TextContent(Wire):
    type: Literal["text"]
    text: Text


class ImageUrl(Wire):
    """`url`: data:, https://, http:// or file://."""

    url: Text
    detail: Literal["auto", "low", "high"] = "auto"


class ImageContent(Wire):
    type: Literal["image_url"]
    image_url: ImageUrl


class VideoUrl(Wire):
    """`url`: as an image's. The model sees `num_segments` frames from between `start` and `end`."""

    url: Text
    num_segments: Annotated[int, Field(gt=0, le=1024, description="Frames; default: the server's.")] | None = None
    start: Annotated[float, Field(ge=0, le=1e6, description="Seconds of the video.")] | None = None
    end: Annotated[float, Field(gt=0, le=1e6, description="Seconds of the video.")] | None = None

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> "VideoUrl":
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError(f"'start' is {self.start:g}, not before 'end', which is {self.end:g}")
        return self


class VideoContent(Wire):
    type: Literal["video_url"]
    video_url: VideoUrl


Content = Annotated[TextContent | ImageContent | VideoContent, Field(discriminator="type")]


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _without_nulls(message: Any) -> Any:
    # Clients send an answer back as they got it, with `refusal: null` and the like.
    return {k: v for k, v in message.items() if v is not None} if isinstance(message, dict) else message


Contents = Annotated[
    list[Content],
    Field(min_length=1, json_schema_extra={"description": "A string, or parts of text, image_url and video_url."}),
    BeforeValidator(_as_parts, json_schema_input_type=str | list[Content]),
]


class PlainMessage(Wire):
    """`content` is a string or a list of parts; only a user's message may have pictures and videos."""

    role: Literal["system", "developer", "user"]
    content: Contents


class AssistantMessage(Wire):
    """An earlier answer: what it said, what it called, or both."""

    role: Literal["assistant"]
    content: Contents = Field(default_factory=list)
    tool_calls: Annotated[list[CalledTool], Field(min_length=1)] | None = None

    @pydantic.model_validator(mode="after")
    def _has_something(self) -> "AssistantMessage":
        if not self.content and self.tool_calls is None:
            raise ValueError("'content' is required where 'tool_calls' is not")
        return self


class ToolMessage(Wire):
    """What came of a call."""

    role: Literal["tool"]
    content: Contents
    tool_call_id: Text


ChatMessage = Annotated[PlainMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class StreamOptions(Wire):
    include_usage: bool = False


def _as_stops(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


def _token_ids(bias: dict[str, float]) -> dict[str, float]:
    for key, value in bias.items():
        if not (key.isascii() and key.isdigit() and int(key) < 2**31):
            raise ValueError(f"keys must be token ids, got {key!r:.40}")
        if not -100 <= value <= 100:
            raise ValueError(f"values must be from -100 to 100, got {value!r} for token {key}")
    return bias


StopText = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(no_nul)]
Stops = Annotated[
    list[StopText],
    Field(max_length=4),
    BeforeValidator(_as_stops, json_schema_input_type=str | list[StopText]),
]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(no_nul)]
MetadataValue = Annotated[str, StringConstraints(max_length=512), AfterValidator(no_nul)]


class AnyBody(Wire):
    """What a body may have whatever shape its conversation has: how to sample, how to queue, what to remember."""

    model: Text
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0, lt=2**31, description="0: off.")] = 0
    min_p: Annotated[float, Field(ge=0, le=1, description="0: off.")] = 0.0
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] = 1.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    logit_bias: Annotated[dict[str, float], Field(max_length=1024), AfterValidator(_token_ids)] = Field(
        default_factory=dict
    )
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stops = Field(default_factory=list)
    min_tokens: Annotated[
        int, Field(ge=0, lt=2**31, description="Before so many tokens neither an end token nor a stop string ends it.")
    ] = 0
    ignore_eos: Annotated[bool, Field(description="Go on past the model's end tokens, up to the token limit.")] = False
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] = Field(default_factory=dict)
    user: Annotated[Text, Field(max_length=512, description="Logged with the job; changes nothing.")] | None = None
    safety_identifier: (
        Annotated[Text, Field(max_length=128, description="Logged with the job; changes nothing.")] | None
    ) = None
    priority: Literal["interactive", "background", "batch"] | None = None
    deadline: Annotated[
        float | Annotated[str, StringConstraints(max_length=64)] | None,
        Field(description="Seconds from now, or an ISO 8601 instant with its offset; the job fails when it passes."),
    ] = None
    webhook: WebhookField = None


class WorkBody(AnyBody):
    """What the doors for chat messages take."""

    messages: Annotated[
        list[Annotated[ChatMessage, BeforeValidator(_without_nulls)]],
        Field(min_length=1),
    ]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    n: Annotated[int, Field(ge=1, le=128, description="Answers to the one request, each drawn by itself.")] = 1
    response_format: ResponseFormat | None = None
    tools: Annotated[list[FunctionTool], Field(description="Functions that the model may call.")] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @pydantic.model_validator(mode="after")
    def _agree(self) -> "WorkBody":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("'top_logprobs' needs 'logprobs': true")
        both = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(both) > 1:
            raise ValueError("'max_tokens' and 'max_completion_tokens' differ; send one of them")
        for field in ("min_tokens", "ignore_eos"):
            if getattr(self, field) and not isinstance(self.response_format, TextFormat | None):
                raise ValueError(f"{field!r} cannot go with a JSON 'response_format', which decides where the end is")
        if not self.tools and (self.tool_choice not in (None, "none") or self.parallel_tool_calls is not None):
            field = "parallel_tool_calls" if self.tool_choice in (None, "none") else "tool_choice"
            raise ValueError(f"{field!r} is only allowed with 'tools'")
        if self.token_limit is not None and self.min_tokens > self.token_limit:
            raise ValueError(f"'min_tokens' is {self.min_tokens}, more than the {self.token_limit} tokens allowed")
        return self

    @property
    def has_calls(self) -> bool:
        """Whether the conversation so far has calls or results."""
        return any(isinstance(m, ToolMessage) or getattr(m, "tool_calls", None) for m in self.messages)

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class ChatBody(WorkBody):
    """`POST /v1/chat/completions`."""

    stream: bool = False
    stream_options: StreamOptions | None = None
    store: Annotated[bool, Field(description="Keep it readable at GET /v1/chat/completions/{id}.")] = False

    @pydantic.model_validator(mode="after")
    def _stream_options_only_with_stream(self) -> "ChatBody":
        if self.stream_options is not None and not self.stream:
            raise ValueError("'stream_options' is only allowed with 'stream': true")
        return self


class JobBody(WorkBody):
    """`POST /v1/jobs`."""

    stream: Annotated[Literal[False], Field(description="Follow GET /v1/jobs/{id}/events instead.")] = False
    store: Annotated[Literal[False], Field(description="Every job is kept; stored completions are another door's.")] = (
        False
    )


class TextBody(Wire):
    """`POST /v1/tokenize` for plain text."""

    model: Text
    text: Text


B = TypeVar("B", bound=Wire)


def validate(kind: type[B], body: dict[str, Any]) -> B:
    """A body of OpenAI's chat fields. Raises Unsupported for those that are refused, and as `validated`."""
    refuse_unsupported(body)
    return validated(kind, supported(body))


def validated(kind: type[B], body: dict[str, Any]) -> B:
    """Raises ApiError that names the field, its value and what it may be."""
    try:
        return kind.model_validate(body)
    except pydantic.ValidationError as exc:
        raise first_fault(exc, body) from exc

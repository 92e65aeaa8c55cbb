"""The bodies of the Responses API as they come over the wire: fields, types, ranges."""

from typing import Annotated, Any, Literal

import pydantic
from pydantic import BeforeValidator, Field, StringConstraints

from api.response_format import JsonObjectFormat, TextFormat
from api.responses.items import WireItem, as_items
from api.responses.refused import LOGPROBS, refuse_unsupported, supported
from api.responses.tools import ResponseTool, ResponseToolChoice, refuse_other_tools
from api.schema import AnyBody, Count, validated
from api.wire import Text, Wire

Include = Literal["message.output_text.logprobs"]


class SchemaFormat(Wire):
    """As chat's `response_format`, in one level. The schema is always kept, whatever `strict` says."""

    type: Literal["json_schema"]
    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    description: Annotated[Text, Field(max_length=4096)] | None = None
    strict: bool | None = None


class TextConfig(Wire):
    format: Annotated[TextFormat | JsonObjectFormat | SchemaFormat, Field(discriminator="type")] | None = None
    verbosity: Literal["medium"] | None = None


class ResponseStreamOptions(Wire):
    """Events are not padded with random characters."""

    include_obfuscation: Literal[False] = False


class AskedBody(Wire):
    """What decides a prompt."""

    model: Text
    input: Annotated[
        list[WireItem],
        Field(min_length=1, json_schema_extra={"description": "A string, or items."}),
        BeforeValidator(as_items, json_schema_input_type=str | list[WireItem]),
    ]
    instructions: Annotated[Text, Field(description="A system message; not carried over to later turns.")] | None = None
    previous_response_id: Annotated[Text, Field(max_length=64)] | None = None
    text: TextConfig = Field(default_factory=TextConfig)
    tools: Annotated[list[ResponseTool], Field(description="Functions that the model may call.")] = Field(
        default_factory=list
    )
    tool_choice: ResponseToolChoice = "auto"
    parallel_tool_calls: bool = True

    @pydantic.model_validator(mode="after")
    def _choice_of_something(self) -> "AskedBody":
        if not self.tools and self.tool_choice not in ("none", "auto"):
            raise ValueError("'tool_choice' asks for a call, but there are no 'tools'")
        return self


class InputTokensBody(AskedBody):
    """`POST /v1/responses/input_tokens`."""


class ResponseBody(AskedBody, AnyBody):
    """`POST /v1/responses`."""

    background: bool = False
    stream: bool = False
    stream_options: ResponseStreamOptions | None = None
    store: Annotated[bool, Field(description="False: it cannot be read again.")] = True
    max_output_tokens: Count | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20, description="Above 0 it asks for log-probabilities.")] = 0
    include: list[Include] = Field(default_factory=list)

    @pydantic.model_validator(mode="after")
    def _agree(self) -> "ResponseBody":
        if self.stream_options is not None and not self.stream:
            raise ValueError("'stream_options' is only allowed with 'stream': true")
        if self.background and not self.store:
            raise ValueError("'background' needs 'store': true, or nobody could ever read the response")
        for field in ("min_tokens", "ignore_eos"):
            if getattr(self, field) and not isinstance(self.text.format, TextFormat | None):
                raise ValueError(f"{field!r} cannot go with a JSON 'text.format', which decides where the end is")
        if self.max_output_tokens is not None and self.min_tokens > self.max_output_tokens:
            raise ValueError(f"'min_tokens' is {self.min_tokens}, more than the {self.max_output_tokens} allowed")
        return self

    @property
    def logprobs(self) -> int | None:
        """As a job asks for them."""
        return self.top_logprobs if self.top_logprobs or LOGPROBS in self.include else None


def response_body(fields: dict[str, Any]) -> ResponseBody:
    """Raises Unsupported, or ApiError that names the field, its value and what it may be."""
    refuse_unsupported(fields)
    refuse_other_tools(fields)
    return validated(ResponseBody, supported(fields))


def input_tokens_body(fields: dict[str, Any]) -> InputTokensBody:
    """Raises as `response_body`."""
    refuse_unsupported(fields)
    refuse_other_tools(fields)
    return validated(InputTokensBody, supported(fields))

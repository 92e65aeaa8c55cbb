"""Input items as they come over the wire: fields, types, ranges. Knows neither media nor jobs."""

from typing import Annotated, Any, Literal

import msgspec
import pydantic
from pydantic import AfterValidator, BeforeValidator, Field

from api.wire import Text, Wire

Status = Literal["in_progress", "completed", "incomplete"]
Detail = Literal["auto", "low", "high"]


class InputText(Wire):
    type: Literal["input_text"]
    text: Text


class InputImage(Wire):
    """`image_url`: data:, https://, http:// or file://; or `file_id` of an uploaded picture."""

    type: Literal["input_image"]
    image_url: Text | None = None
    file_id: Text | None = None
    detail: Detail = "auto"

    @pydantic.model_validator(mode="after")
    def _one_source(self) -> "InputImage":
        if (self.image_url is None) == (self.file_id is None):
            raise ValueError("an image needs either 'image_url' or 'file_id'")
        return self


class InputVideo(Wire):
    """vlmq's own, as `video_url` of a chat message. The model sees `num_segments` frames from between `start` and
    `end`, in seconds of the video."""

    type: Literal["input_video"]
    video_url: Text | None = None
    file_id: Text | None = None
    num_segments: Annotated[int, Field(gt=0, le=1024)] | None = None
    start: Annotated[float, Field(ge=0, le=1e6)] | None = None
    end: Annotated[float, Field(gt=0, le=1e6)] | None = None

    @pydantic.model_validator(mode="after")
    def _in_order(self) -> "InputVideo":
        if (self.video_url is None) == (self.file_id is None):
            raise ValueError("a video needs either 'video_url' or 'file_id'")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError(f"'start' is {self.start:g}, not before 'end', which is {self.end:g}")
        return self


class InputFile(Wire):
    """A picture that was uploaded to /v1/files."""

    type: Literal["input_file"]
    file_id: Text
    detail: Detail = "auto"


class OutputText(Wire):
    """What a model said before. Annotations and log-probabilities come back with it and change nothing."""

    type: Literal["output_text"]
    text: Text
    annotations: list[Any] = Field(default_factory=list)
    logprobs: list[Any] = Field(default_factory=list)


class Refusal(Wire):
    type: Literal["refusal"]
    refusal: Text


Content = Annotated[InputText | InputImage | InputVideo | InputFile | OutputText | Refusal, Field(discriminator="type")]


def _as_parts(content: Any, info: pydantic.ValidationInfo) -> Any:
    if not isinstance(content, str):
        return _parts_without_nulls(content)
    kind = "output_text" if info.data.get("role") == "assistant" else "input_text"
    return [{"type": kind, "text": content}]


def _without_nulls(value: Any) -> Any:
    """Clients send an item back as they got it, with `phase: null` and the like."""
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


def _parts_without_nulls(parts: Any) -> Any:
    return [_without_nulls(part) for part in parts] if isinstance(parts, list) else parts


def _as_texts(output: Any) -> Any:
    return [{"type": "input_text", "text": output}] if isinstance(output, str) else _parts_without_nulls(output)


def _object_text(arguments: str) -> str:
    try:
        msgspec.json.decode(arguments, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as exc:
        raise ValueError(f"it must be the text of a JSON object ({exc})") from exc
    return arguments


CallId = Annotated[Text, Field(min_length=1, max_length=64)]


class MessageItem(Wire):
    """`content` is a string or a list of parts: `input_…` parts, or, from the assistant, `output_text` and `refusal`.
    `id`, `status` and `phase` come back with an answer and change nothing."""

    type: Literal["message"]
    role: Literal["user", "assistant", "system", "developer"]
    content: Annotated[list[Content], BeforeValidator(_as_parts, json_schema_input_type=str | list[Content])]
    id: Text | None = None
    status: Status | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class FunctionCall(Wire):
    """What the model called in an earlier turn. `arguments` is the text of a JSON object."""

    type: Literal["function_call"]
    call_id: CallId
    name: Annotated[Text, Field(min_length=1, max_length=128)]
    arguments: Annotated[Text, AfterValidator(_object_text)]
    id: Text | None = None
    status: Status | None = None


class FunctionCallOutput(Wire):
    """What the function answered: text, or parts of it."""

    type: Literal["function_call_output"]
    call_id: CallId
    output: Annotated[list[InputText], BeforeValidator(_as_texts, json_schema_input_type=str | list[InputText])]
    id: Text | None = None
    status: Status | None = None


def _typed(item: Any) -> Any:
    item = _without_nulls(item)
    return {"type": "message", **item} if isinstance(item, dict) and "role" in item else item


Item = MessageItem | FunctionCall | FunctionCallOutput
WireItem = Annotated[Annotated[Item, Field(discriminator="type")], BeforeValidator(_typed)]


def as_items(given: Any) -> Any:
    return [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given

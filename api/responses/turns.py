"""Input items as the messages of a job: roles, parts, calls, media behind references. Raises ApiError that names the
place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from api.conversation import Limits
from api.errors import ApiError
from api.media import MediaKind, admit
from api.responses.items import (
    Content,
    FunctionCall,
    FunctionCallOutput,
    InputFile,
    InputImage,
    InputText,
    InputVideo,
    Item,
    MessageItem,
    OutputText,
    Refusal,
)
from api.responses.turn_checks import check_turns
from api.responses.uploads import Uploads
from api.tool_use import with_results_in_order
from jobs.request import ImagePart, Message, Part, Role, TextPart, VideoPart
from jobs.tools import ToolCall

Media = InputImage | InputVideo | InputFile
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Turns:
    """`messages` are the whole conversation; `shown` are the items alone, as a door keeps them."""

    messages: tuple[Message, ...]
    shown: tuple[dict[str, Any], ...]


def to_turns(items: Sequence[Item], past: Sequence[Message], limits: Limits, uploads: Uploads) -> Turns:
    """`past` are the messages that go before: limits hold for the whole. Bytes are stored only when everything else
    is right. Raises ApiError, BlobsUnavailable, StoreUnavailable."""
    check_turns(items, past, limits)
    _conversation(items, past, {})
    admitted = {
        (i, p): _admitted(part, f"input[{i}].content[{p}]", limits, uploads)
        for i, item in enumerate(items)
        for p, part in enumerate(item.content if isinstance(item, MessageItem) else ())
        if isinstance(part, Media)
    }
    sources = {
        place: media if isinstance(media, str) else f"blob:{uploads.keep(media)}" for place, media in admitted.items()
    }
    return Turns(_conversation(items, past, sources), tuple(_shown(item, i, sources) for i, item in enumerate(items)))


def _admitted(part: Media, param: str, limits: Limits, uploads: Uploads) -> bytes | str:
    if isinstance(part, InputVideo) and (part.num_segments or 0) > limits.max_video_segments:
        param = f"{param}.num_segments"
        most = f"at most {limits.max_video_segments} are allowed, got {part.num_segments}"
        raise ApiError(f"Invalid value for {param!r}: {most}.", param=param, code="invalid_value")
    if part.file_id is not None:
        return uploads.source_of(part.file_id, f"{param}.file_id")
    if isinstance(part, InputVideo):
        return admit(part.video_url or "", f"{param}.video_url", limits.media, MediaKind.VIDEO)
    assert isinstance(part, InputImage)
    return admit(part.image_url or "", f"{param}.image_url", limits.media)


def _conversation(items: Sequence[Item], past: Sequence[Message], sources: dict[Place, str]) -> tuple[Message, ...]:
    messages, places = _messages(items, sources)
    return with_results_in_order([*past, *messages], [*["previous_response_id"] * len(past), *places])


def _messages(items: Sequence[Item], sources: dict[Place, str]) -> tuple[list[Message], list[str]]:
    """And the place of each in the body."""
    messages: list[Message] = []
    places: list[str] = []
    for i, item in enumerate(items):
        if not (isinstance(item, FunctionCall) and messages and messages[-1].role is Role.ASSISTANT):
            places.append(f"input[{i}]")
        match item:
            case MessageItem():
                parts = tuple(_part(part, sources.get((i, p), "")) for p, part in enumerate(item.content))
                # OpenAI renamed "system" to "developer"; the models know one of them.
                messages.append(Message(Role.SYSTEM if item.role == "developer" else Role(item.role), parts))
            case FunctionCall():
                # One turn of the model: what it said, then all that it called.
                said = messages.pop() if messages and messages[-1].role is Role.ASSISTANT else _NOTHING_SAID
                call = ToolCall(item.call_id, item.name, item.arguments)
                messages.append(Message(Role.ASSISTANT, said.parts, (*said.calls, call)))
            case FunctionCallOutput():
                parts = tuple(TextPart(part.text) for part in item.output)
                messages.append(Message(Role.TOOL, parts, call_id=item.call_id))
    return messages, places


_NOTHING_SAID = Message(Role.ASSISTANT, ())


def _part(part: Content, source: str) -> Part:
    match part:
        case InputText() | OutputText():
            return TextPart(part.text)
        case Refusal():
            return TextPart(part.refusal)
        case InputVideo():
            return VideoPart(source, part.num_segments, part.start, part.end)
        case InputImage() | InputFile():
            return ImagePart(source, part.detail)


def _shown(item: Item, i: int, sources: dict[Place, str]) -> dict[str, Any]:
    match item:
        case MessageItem():
            content = [_shown_part(part, sources.get((i, p), "")) for p, part in enumerate(item.content)]
            return {"type": item.type, "role": item.role, "content": content}
        case FunctionCall():
            return {"type": item.type, "call_id": item.call_id, "name": item.name, "arguments": item.arguments}
        case FunctionCallOutput():
            output = [part.model_dump() for part in item.output]
            return {"type": item.type, "call_id": item.call_id, "output": output}


def _shown_part(part: Content, source: str) -> dict[str, Any]:
    shown = part.model_dump(exclude_none=True)
    for field in ("image_url", "video_url"):
        url = shown.get(field, "")
        if url[:5].lower() == "data:":
            del shown[field]
            shown |= {"blob": source.removeprefix("blob:"), "media_type": url[5:].partition(";")[0]}
    return shown

"""From the messages of the wire to those of a job: roles, parts, media behind references, placeholders counted."""

from collections.abc import Callable
from dataclasses import dataclass

from api.errors import ApiError
from api.media import MediaKind, MediaLimits, admit
from api.schema import (
    AssistantMessage,
    ChatMessage,
    Content,
    ImageContent,
    TextContent,
    ToolMessage,
    VideoContent,
)
from api.tool_use import ToolLimits, with_results_in_order
from jobs.request import ImagePart, Message, Part, Role, TextPart, VideoPart
from jobs.tools import ToolCall

PLACEHOLDER = "<image>"
VIDEO_PLACEHOLDER = "<video>"


@dataclass(frozen=True, slots=True)
class Limits:
    max_messages: int
    max_images: int
    max_videos: int
    max_video_segments: int
    max_text_chars: int
    media: MediaLimits
    tools: ToolLimits


def to_messages(wire: list[ChatMessage], limits: Limits, keep: Callable[[bytes], str]) -> tuple[Message, ...]:
    """`keep` stores bytes and returns their digest; it is called only when everything else is right. Raises
    ApiError that names the place."""
    _check_sizes(wire, limits)
    places = [f"messages[{m}]" for m in range(len(wire))]
    with_results_in_order([_message(message, m, {}) for m, message in enumerate(wire)], places)
    admitted = {
        (m, p): _admitted(part, f"messages[{m}].content[{p}]", limits)
        for m, message in enumerate(wire)
        for p, part in enumerate(message.content)
        if not isinstance(part, TextContent)
    }
    sources = {place: media if isinstance(media, str) else f"blob:{keep(media)}" for place, media in admitted.items()}
    return with_results_in_order([_message(message, m, sources) for m, message in enumerate(wire)], places)


def _admitted(part: ImageContent | VideoContent, param: str, limits: Limits) -> bytes | str:
    if isinstance(part, ImageContent):
        return admit(part.image_url.url, f"{param}.image_url.url", limits.media)
    asked = part.video_url.num_segments
    if asked is not None and asked > limits.max_video_segments:
        param = f"{param}.video_url.num_segments"
        message = f"Invalid value for {param!r}: at most {limits.max_video_segments} are allowed, got {asked}."
        raise ApiError(message, param=param, code="invalid_value")
    return admit(part.video_url.url, f"{param}.video_url.url", limits.media, MediaKind.VIDEO)


def _message(wire: ChatMessage, m: int, sources: dict[tuple[int, int], str]) -> Message:
    parts = tuple(_part(part, sources.get((m, p), "")) for p, part in enumerate(wire.content))
    match wire:
        case ToolMessage():
            return Message(Role.TOOL, parts, call_id=wire.tool_call_id)
        case AssistantMessage():
            calls = (ToolCall(call.id, call.function.name, call.function.arguments) for call in wire.tool_calls or ())
            return Message(Role.ASSISTANT, parts, tuple(calls))
        case _:
            # OpenAI renamed "system" to "developer"; the models know one of them.
            return Message(Role.SYSTEM if wire.role == "developer" else Role(wire.role), parts)


def _part(wire: Content, source: str) -> Part:
    match wire:
        case TextContent():
            return TextPart(wire.text)
        case ImageContent():
            return ImagePart(source, wire.image_url.detail)
        case VideoContent():
            video = wire.video_url
            return VideoPart(source, video.num_segments, video.start, video.end)


def _check_sizes(wire: list[ChatMessage], limits: Limits) -> None:
    parts = [part for message in wire for part in message.content]
    if len(wire) > limits.max_messages:
        message = f"'messages' has {len(wire)} entries; at most {limits.max_messages} are allowed."
        raise ApiError(message, param="messages", code="invalid_value")
    chars = sum(len(part.text) for part in parts if isinstance(part, TextContent))
    calls = (call for message in wire if isinstance(message, AssistantMessage) for call in message.tool_calls or ())
    chars += sum(len(call.function.arguments) for call in calls)
    images = sum(isinstance(part, ImageContent) for part in parts)
    videos = sum(isinstance(part, VideoContent) for part in parts)
    for count, most, name in (
        (images, limits.max_images, "images"),
        (videos, limits.max_videos, "videos"),
        (chars, limits.max_text_chars, "characters of text"),
    ):
        if count > most:
            message = f"The request has {count} {name}; at most {most} are allowed."
            raise ApiError(message, param="messages", code="invalid_value")
    for m, message_ in enumerate(wire):
        _check_placeholders(message_, f"messages[{m}].content")


def _check_placeholders(message: ChatMessage, param: str) -> None:
    images = sum(isinstance(part, ImageContent) for part in message.content)
    videos = sum(isinstance(part, VideoContent) for part in message.content)
    if message.role != "user":
        if images or videos:
            raise no_media_from(message.role, param)
        return
    text = "\n".join(part.text for part in message.content if isinstance(part, TextContent))
    check_placeholders(text, images, videos, param)


def no_media_from(role: str, param: str) -> ApiError:
    message = f"Only user messages may have images and videos; this one is from {role!r}."
    return ApiError(message, param=param, code="invalid_value")


def check_placeholders(text: str, images: int, videos: int, param: str) -> None:
    """Media stand where their placeholder stands, or, when a message has none, in front of its text. `<video>` is a
    placeholder only where there are videos: it is HTML, too. Raises ApiError."""
    for placeholder, media, name in ((PLACEHOLDER, images, "images"), (VIDEO_PLACEHOLDER, videos, "videos")):
        places = text.count(placeholder)
        if places in (0, media) or (placeholder == VIDEO_PLACEHOLDER and not videos):
            continue
        raise ApiError(
            f"The message has {places} {placeholder} placeholders and {media} {name}; the counts must be equal, or "
            "leave the placeholders out.",
            param=param,
            code="invalid_value",
        )

"""From the messages of the wire to those of a job: roles, parts, pictures behind references, placeholders counted."""

from collections.abc import Callable
from dataclasses import dataclass

from api.errors import ApiError
from api.media import MediaLimits, admit
from api.schema import ChatMessage, ImageContent
from jobs.request import ImagePart, Message, Part, Role, TextPart

PLACEHOLDER = "<image>"


@dataclass(frozen=True, slots=True)
class Limits:
    max_messages: int
    max_images: int
    max_text_chars: int
    media: MediaLimits


def to_messages(wire: list[ChatMessage], limits: Limits, keep: Callable[[bytes], str]) -> tuple[Message, ...]:
    """`keep` stores bytes and returns their digest; it is called only when everything else is right. Raises
    ApiError that names the place."""
    _check_sizes(wire, limits)
    admitted = {
        (m, p): admit(part.image_url.url, f"messages[{m}].content[{p}].image_url.url", limits.media)
        for m, message in enumerate(wire)
        for p, part in enumerate(message.content)
        if isinstance(part, ImageContent)
    }
    sources = {place: media if isinstance(media, str) else f"blob:{keep(media)}" for place, media in admitted.items()}
    return tuple(_message(message, m, sources) for m, message in enumerate(wire))


def _message(wire: ChatMessage, m: int, sources: dict[tuple[int, int], str]) -> Message:
    parts: list[Part] = [
        ImagePart(sources[m, p], part.image_url.detail) if isinstance(part, ImageContent) else TextPart(part.text)
        for p, part in enumerate(wire.content)
    ]
    # OpenAI renamed "system" to "developer"; the models know one of them.
    return Message(Role.SYSTEM if wire.role == "developer" else Role(wire.role), tuple(parts))


def _check_sizes(wire: list[ChatMessage], limits: Limits) -> None:
    if len(wire) > limits.max_messages:
        message = f"'messages' has {len(wire)} entries; at most {limits.max_messages} are allowed."
        raise ApiError(message, param="messages", code="invalid_value")
    images = sum(isinstance(part, ImageContent) for message in wire for part in message.content)
    if images > limits.max_images:
        message = f"The request has {images} images; at most {limits.max_images} are allowed."
        raise ApiError(message, param="messages", code="invalid_value")
    chars = sum(len(part.text) for message in wire for part in message.content if not isinstance(part, ImageContent))
    if chars > limits.max_text_chars:
        message = f"The request has {chars} characters of text; at most {limits.max_text_chars} are allowed."
        raise ApiError(message, param="messages", code="invalid_value")
    for m, message_ in enumerate(wire):
        _check_placeholders(message_, f"messages[{m}].content")


def _check_placeholders(message: ChatMessage, param: str) -> None:
    """Pictures stand where `<image>` stands, or, when a message has none, in front of its text."""
    images = sum(isinstance(part, ImageContent) for part in message.content)
    if message.role != "user":
        if images:
            raise ApiError(
                f"Only user messages may have images; this one is from {message.role!r}.",
                param=param,
                code="invalid_value",
            )
        return
    places = sum(part.text.count(PLACEHOLDER) for part in message.content if not isinstance(part, ImageContent))
    if places not in (0, images):
        raise ApiError(
            f"The message has {places} {PLACEHOLDER} placeholders and {images} images; the counts must be equal, or "
            "leave the placeholders out.",
            param=param,
            code="invalid_value",
        )

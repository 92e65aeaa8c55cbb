"""Whether input items make a conversation: how much there is, and who may send what."""

from collections.abc import Iterator, Sequence

from api.conversation import Limits, check_placeholders, no_media_from
from api.errors import ApiError
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
from jobs.request import ImagePart, Message, Part, VideoPart

_MEDIA = (InputImage, InputVideo, InputFile)
_SAID = (OutputText, Refusal)


def check_turns(items: Sequence[Item], past: Sequence[Message], limits: Limits) -> None:
    """`past` are the messages that go before: limits hold for the whole. Raises ApiError that names the place."""
    _check_sizes(items, past, limits)
    for i, item in enumerate(items):
        if isinstance(item, MessageItem):
            _check_content(item, f"input[{i}].content")


def _check_sizes(items: Sequence[Item], past: Sequence[Message], limits: Limits) -> None:
    if len(items) + len(past) > limits.max_messages:
        whole = f"{len(items)} items" + (f" behind {len(past)} messages" if past else "")
        message = f"'input' has {whole}; at most {limits.max_messages} together are allowed."
        raise ApiError(message, param="input", code="invalid_value")
    sizes = list(_sizes(items, past))
    for count, most, name in (
        (sum(images for images, _, _ in sizes), limits.max_images, "images"),
        (sum(videos for _, videos, _ in sizes), limits.max_videos, "videos"),
        (sum(chars for _, _, chars in sizes), limits.max_text_chars, "characters of text"),
    ):
        if count > most:
            where = "The request and what goes before it have" if past else "The request has"
            raise ApiError(f"{where} {count} {name}; at most {most} are allowed.", param="input", code="invalid_value")


def _sizes(items: Sequence[Item], past: Sequence[Message]) -> Iterator[tuple[int, int, int]]:
    """Of each piece of the conversation: images, videos, characters of text."""
    for message in past:
        yield from (_size_of(part) for part in message.parts)
        yield from ((0, 0, len(call.arguments)) for call in message.calls)
    for item in items:
        match item:
            case MessageItem():
                yield from (_size_of(part) for part in item.content)
            case FunctionCall():
                yield 0, 0, len(item.arguments)
            case FunctionCallOutput():
                yield from (_size_of(part) for part in item.output)


def _size_of(part: Content | Part) -> tuple[int, int, int]:
    match part:
        case ImagePart() | InputImage() | InputFile():
            return 1, 0, 0
        case VideoPart() | InputVideo():
            return 0, 1, 0
        case Refusal():
            return 0, 0, len(part.refusal)
        case _:
            return 0, 0, len(part.text)


def _check_content(item: MessageItem, param: str) -> None:
    for p, part in enumerate(item.content):
        if isinstance(part, _MEDIA) and item.role != "user":
            raise no_media_from(item.role, f"{param}[{p}]")
        if isinstance(part, _SAID) != (item.role == "assistant"):
            own = "'output_text' and 'refusal'" if item.role == "assistant" else "'input_…'"
            message = f"Invalid value for '{param}[{p}].type': a message from {item.role!r} has {own} parts, "
            raise ApiError(message + f"got {part.type!r}.", param=f"{param}[{p}].type", code="invalid_value")
    if item.role == "user":
        text = "\n".join(part.text for part in item.content if isinstance(part, InputText))
        images = sum(isinstance(part, InputImage | InputFile) for part in item.content)
        check_placeholders(text, images, sum(isinstance(part, InputVideo) for part in item.content), param)

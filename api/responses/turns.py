"""Input items as the messages of a job: roles, parts, media behind references. Raises ApiError that names the place."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from api.conversation import Limits, check_placeholders, no_media_from
from api.errors import ApiError, Unsupported
from api.media import MediaKind, admit
from api.responses.items import Content, InputFile, InputImage, InputText, InputVideo, MessageItem, OutputText, Refusal
from jobs.request import ImagePart, Message, Part, Role, TextPart, VideoPart

Media = InputImage | InputVideo | InputFile
Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Turns:
    """`messages` are those of the items alone; `shown` are the items as a door keeps them."""

    messages: tuple[Message, ...]
    shown: tuple[dict[str, Any], ...]


def to_turns(
    items: Sequence[MessageItem], past: Sequence[Message], limits: Limits, keep: Callable[[bytes], str]
) -> Turns:
    """`past` are the messages that go before: limits hold for the whole. `keep` stores bytes and returns their digest;
    it is called only when everything else is right."""
    _check_sizes(items, past, limits)
    admitted = {
        (i, p): _admitted(part, f"input[{i}].content[{p}]", limits)
        for i, item in enumerate(items)
        for p, part in enumerate(item.content)
        if isinstance(part, Media)
    }
    sources = {place: media if isinstance(media, str) else f"blob:{keep(media)}" for place, media in admitted.items()}
    return Turns(
        tuple(_message(item, i, sources) for i, item in enumerate(items)),
        tuple(_shown(item, i, sources) for i, item in enumerate(items)),
    )


def _admitted(part: Media, param: str, limits: Limits) -> bytes | str:
    if isinstance(part, InputFile) or part.file_id is not None:
        raise Unsupported(f"{param}.file_id", "send the picture as 'image_url'")
    if isinstance(part, InputImage):
        return admit(part.image_url or "", f"{param}.image_url", limits.media)
    if part.num_segments is not None and part.num_segments > limits.max_video_segments:
        param = f"{param}.num_segments"
        most = f"at most {limits.max_video_segments} are allowed, got {part.num_segments}"
        raise ApiError(f"Invalid value for {param!r}: {most}.", param=param, code="invalid_value")
    return admit(part.video_url or "", f"{param}.video_url", limits.media, MediaKind.VIDEO)


def _message(item: MessageItem, i: int, sources: dict[Place, str]) -> Message:
    # OpenAI renamed "system" to "developer"; the models know one of them.
    role = Role.SYSTEM if item.role == "developer" else Role(item.role)
    return Message(role, tuple(_part(part, sources.get((i, p), "")) for p, part in enumerate(item.content)))


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


def _shown(item: MessageItem, i: int, sources: dict[Place, str]) -> dict[str, Any]:
    content = [_shown_part(part, sources.get((i, p), "")) for p, part in enumerate(item.content)]
    return {"type": "message", "role": item.role, "content": content}


def _shown_part(part: Content, source: str) -> dict[str, Any]:
    shown = part.model_dump(exclude_none=True)
    for field in ("image_url", "video_url"):
        url = shown.get(field, "")
        if url[:5].lower() == "data:":
            del shown[field]
            shown |= {"blob": source.removeprefix("blob:"), "media_type": url[5:].partition(";")[0]}
    return shown


def _check_sizes(items: Sequence[MessageItem], past: Sequence[Message], limits: Limits) -> None:
    if len(items) + len(past) > limits.max_messages:
        whole = f"{len(items)} items" + (f" behind {len(past)} earlier messages" if past else "")
        message = f"'input' has {whole}; at most {limits.max_messages} together are allowed."
        raise ApiError(message, param="input", code="invalid_value")
    for i, item in enumerate(items):
        _check_content(item, f"input[{i}].content")
    sizes = [_size_of(part) for part in _parts(items, past)]
    for count, most, name in (
        (sum(images for images, _, _ in sizes), limits.max_images, "images"),
        (sum(videos for _, videos, _ in sizes), limits.max_videos, "videos"),
        (sum(chars for _, _, chars in sizes), limits.max_text_chars, "characters of text"),
    ):
        if count > most:
            where = "The request and the turns before it have" if past else "The request has"
            raise ApiError(f"{where} {count} {name}; at most {most} are allowed.", param="input", code="invalid_value")


def _parts(items: Sequence[MessageItem], past: Sequence[Message]) -> Iterator[Content | Part]:
    for message in past:
        yield from message.parts
    for item in items:
        yield from item.content


def _size_of(part: Content | Part) -> tuple[int, int, int]:
    """How many images, videos, and characters of text."""
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
    said = (OutputText, Refusal)
    for p, part in enumerate(item.content):
        if isinstance(part, Media) and item.role != "user":
            raise no_media_from(item.role, f"{param}[{p}]")
        if isinstance(part, said) != (item.role == "assistant"):
            own = "'output_text' and 'refusal'" if item.role == "assistant" else "'input_text'"
            message = f"Invalid value for '{param}[{p}].type': a message from {item.role!r} has {own} parts, "
            raise ApiError(message + f"got {part.type!r}.", param=f"{param}[{p}].type", code="invalid_value")
    if item.role == "user":
        text = "\n".join(part.text for part in item.content if isinstance(part, InputText))
        images = sum(isinstance(part, InputImage | InputFile) for part in item.content)
        check_placeholders(text, images, sum(isinstance(part, InputVideo) for part in item.content), param)

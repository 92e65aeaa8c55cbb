"""Words and picture files as a chat job's body. Knows no server."""

import base64
from pathlib import Path
from typing import Any

from cli.errors import CommandError

MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
)


def body(model: str, question: str, pictures: list[str], **more: Any) -> dict[str, Any]:
    """One user message: the pictures in order, then the question. `more` are fields of the request; None is left
    out. Raises CommandError for a file that is missing or is no picture."""
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": picture_url(picture)}} for picture in pictures
    ]
    content: Any = [*parts, {"type": "text", "text": question}] if parts else question
    given = {key: value for key, value in more.items() if value is not None}
    return {"model": model, "messages": [{"role": "user", "content": content}], **given}


def picture_url(picture: str) -> str:
    """URLs as they are; files as data: URLs."""
    if picture.startswith(("https://", "http://", "data:", "file://")):
        return picture
    try:
        data = Path(picture).read_bytes()
    except OSError as exc:
        raise CommandError(f"cannot read the picture {picture}: {exc.strerror}") from exc
    return f"data:{_media_type(picture, data)};base64,{base64.b64encode(data).decode()}"


def _media_type(picture: str, data: bytes) -> str:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    for magic, media_type in MAGIC:
        if data.startswith(magic):
            return media_type
    raise CommandError(f"{picture} is no picture of a kind we know (PNG, JPEG, WebP, GIF, BMP)")

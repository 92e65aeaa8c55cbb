"""Words, picture files and video files as a chat job's body. Knows no server."""

import base64
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cli.errors import CommandError

PICTURE_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
)
_BRANDS = {b"avif": "image/avif", b"avis": "image/avif"}
_EBML = b"\x1a\x45\xdf\xa3"


def body(
    model: str, question: str, pictures: list[str], videos: Sequence[str] = (), detail: str | None = None, **more: Any
) -> dict[str, Any]:
    """One user message: the pictures in order, the videos in order, then the question. `detail` is that of all
    pictures; `more` are fields of the request; None is left out. Raises CommandError for a file that is missing or of
    no known kind."""
    closely = {} if detail is None else {"detail": detail}
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": picture_url(picture), **closely}} for picture in pictures
    ]
    parts += [{"type": "video_url", "video_url": {"url": video_url(video)}} for video in videos]
    content: Any = [*parts, {"type": "text", "text": question}] if parts else question
    given = {key: value for key, value in more.items() if value is not None}
    return {"model": model, "messages": [{"role": "user", "content": content}], **given}


def picture_url(picture: str) -> str:
    """URLs as they are; files as data: URLs."""
    return _url(picture, "picture", _picture_type, "PNG, JPEG, WebP, AVIF, GIF, BMP")


def video_url(video: str) -> str:
    """URLs as they are; files as data: URLs."""
    return _url(video, "video", _video_type, "MP4, QuickTime, WebM, Matroska, GIF, WebP")


def _url(place: str, name: str, type_of: Callable[[bytes], str | None], kinds: str) -> str:
    if place.startswith(("https://", "http://", "data:", "file://")):
        return place
    try:
        data = Path(place).read_bytes()
    except OSError as exc:
        raise CommandError(f"cannot read the {name} {place}: {exc.strerror}") from exc
    media_type = type_of(data)
    if media_type is None:
        raise CommandError(f"{place} is no {name} of a kind we know ({kinds})")
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _picture_type(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12])
    return next((media_type for magic, media_type in PICTURE_MAGIC if data.startswith(magic)), None)


def _video_type(data: bytes) -> str | None:
    if data[4:8] == b"ftyp":
        return None if data[8:12] in _BRANDS else "video/mp4"
    if data[4:8] in (b"moov", b"mdat", b"wide", b"free"):
        return "video/quicktime"
    if data.startswith(_EBML):
        return "video/webm" if b"webm" in data[:64] else "video/x-matroska"
    picture = _picture_type(data)
    return picture if picture in ("image/gif", "image/webp") else None

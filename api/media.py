"""Pictures and videos at the door: the bytes of `data:` URLs are taken out, other URLs stay references. Decodes and
fetches nothing: the worker does, and knows which files and addresses are allowed."""

import base64
import binascii
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from api.errors import ApiError

MAX_URL_CHARS = 8192


VIDEO_TYPES = frozenset(
    {
        "video/mp4", "video/quicktime", "video/x-m4v", "video/webm", "video/x-matroska", "video/matroska", "image/gif",
        "image/webp",
    }
)  # fmt: skip
"""Media types that a video's data: URL may name."""


class MediaKind(StrEnum):
    """The word that OpenAI's error codes have; those of videos are made alike."""

    IMAGE = "image"
    VIDEO = "video"


@dataclass(frozen=True, slots=True)
class MediaLimits:
    max_image_bytes: int
    max_video_bytes: int
    schemes: Collection[str]


@dataclass(frozen=True, slots=True)
class _Place:
    kind: MediaKind
    param: str

    def refusal(self, message: str, code: str) -> ApiError:
        """`code` has `{kind}` where the kind stands."""
        return ApiError(
            f"Invalid {self.kind} in {self.param!r}: {message}.",
            param=self.param,
            code=code.format(kind=self.kind.value),
        )


def admit(url: str, param: str, limits: MediaLimits, kind: MediaKind = MediaKind.IMAGE) -> bytes | str:
    """The bytes of a `data:` URL, or the URL itself. Raises ApiError with OpenAI's image error codes, or the same with
    "video" in the place of "image"."""
    place = _Place(kind, param)
    scheme = url.partition(":")[0].lower() if ":" in url[:64] else ""
    if scheme not in limits.schemes:
        names = ", ".join(f"{name}:" for name in limits.schemes)
        raise place.refusal(f"the URL must start with one of {names} got {url[:40]!r}", "invalid_{kind}_url")
    if scheme == "data":
        return _data_bytes(url, place, limits.max_image_bytes if kind is MediaKind.IMAGE else limits.max_video_bytes)
    _check_reference(url, scheme, place)
    return url


def _data_bytes(url: str, place: _Place, limit: int) -> bytes:
    header, comma, payload = url.partition(",")
    media_type, *options = header[len("data:") :].lower().split(";")
    if not comma or "base64" not in options:
        raise place.refusal(f"a data: URL must be base64: data:{place.kind}/…;base64,…", "invalid_base64_{kind}")
    _check_type(media_type, place)
    if not payload:
        raise place.refusal(f"the {place.kind} is empty", "empty_{kind}_file")
    if len(payload) // 4 * 3 > limit + 2:
        raise place.refusal(f"the {place.kind} is longer than {limit} bytes", "{kind}_file_too_large")
    try:
        data = binascii.a2b_base64(payload.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as exc:
        raise place.refusal(f"the base64 data is wrong: {exc}", "invalid_base64_{kind}") from exc
    if len(data) > limit:
        raise place.refusal(f"the {place.kind} is longer than {limit} bytes", "{kind}_file_too_large")
    return data


def _check_type(media_type: str, place: _Place) -> None:
    if place.kind is MediaKind.IMAGE:
        accepted, right = "image/…", media_type.startswith("image/")
    else:
        accepted, right = f"one of {', '.join(sorted(VIDEO_TYPES))}", media_type in VIDEO_TYPES
    if not right:
        raise place.refusal(
            f"the media type must be {accepted}, got {media_type[:60]!r}", "unsupported_{kind}_media_type"
        )


def _check_reference(url: str, scheme: str, place: _Place) -> None:
    if len(url) > MAX_URL_CHARS:
        raise place.refusal(f"the URL is longer than {MAX_URL_CHARS} characters", "invalid_{kind}_url")
    if any(char.isspace() or not char.isprintable() for char in url):
        raise place.refusal("the URL holds spaces or control characters", "invalid_{kind}_url")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as exc:
        raise place.refusal(f"the URL is malformed: {exc}", "invalid_{kind}_url") from exc
    if scheme == "file":
        if host not in (None, "", "localhost") or not parts.path.startswith("/"):
            raise place.refusal("a file: URL needs an absolute path: file:///…", "invalid_{kind}_url")
    elif not host:
        raise place.refusal("the URL names no host", "invalid_{kind}_url")


def data_url(data: bytes, media_type: str) -> str:
    """The inverse of `admit` for bytes, for clients and tests."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"

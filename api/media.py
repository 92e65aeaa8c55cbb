"""Pictures at the door: the bytes of `data:` URLs are taken out, other URLs stay references. Decodes no picture and
fetches nothing: the worker does, and knows which files and addresses are allowed."""

import base64
import binascii
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from api.errors import ApiError

MAX_URL_CHARS = 8192


@dataclass(frozen=True, slots=True)
class MediaLimits:
    max_image_bytes: int
    schemes: Collection[str]


def admit(url: str, param: str, limits: MediaLimits) -> bytes | str:
    """The bytes of a `data:` URL, or the URL itself. Raises ApiError with OpenAI's image error codes."""
    scheme = url.partition(":")[0].lower() if ":" in url[:64] else ""
    if scheme not in limits.schemes:
        names = ", ".join(f"{name}:" for name in limits.schemes)
        raise _refusal(f"the URL must start with one of {names} got {url[:40]!r}", param, "invalid_image_url")
    if scheme == "data":
        return _data_bytes(url, param, limits.max_image_bytes)
    _check_reference(url, scheme, param)
    return url


def _data_bytes(url: str, param: str, limit: int) -> bytes:
    header, comma, payload = url.partition(",")
    media_type, *options = header[len("data:") :].lower().split(";")
    if not comma or "base64" not in options:
        raise _refusal("a data: URL must be base64: data:image/…;base64,…", param, "invalid_base64_image")
    if not media_type.startswith("image/"):
        code = "unsupported_image_media_type"
        raise _refusal(f"the media type must be image/…, got {media_type[:60]!r}", param, code)
    if not payload:
        raise _refusal("the picture is empty", param, "empty_image_file")
    if len(payload) // 4 * 3 > limit + 2:
        raise _refusal(f"the picture is longer than {limit} bytes", param, "image_file_too_large")
    try:
        data = binascii.a2b_base64(payload.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as exc:
        raise _refusal(f"the base64 data is wrong: {exc}", param, "invalid_base64_image") from exc
    if len(data) > limit:
        raise _refusal(f"the picture is longer than {limit} bytes", param, "image_file_too_large")
    return data


def _check_reference(url: str, scheme: str, param: str) -> None:
    if len(url) > MAX_URL_CHARS:
        raise _refusal(f"the URL is longer than {MAX_URL_CHARS} characters", param, "invalid_image_url")
    if any(char.isspace() or not char.isprintable() for char in url):
        raise _refusal("the URL holds spaces or control characters", param, "invalid_image_url")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as exc:
        raise _refusal(f"the URL is malformed: {exc}", param, "invalid_image_url") from exc
    if scheme == "file":
        if host not in (None, "", "localhost") or not parts.path.startswith("/"):
            raise _refusal("a file: URL needs an absolute path: file:///…", param, "invalid_image_url")
    elif not host:
        raise _refusal("the URL names no host", param, "invalid_image_url")


def _refusal(message: str, param: str, code: str) -> ApiError:
    return ApiError(f"Invalid image in {param!r}: {message}.", param=param, code=code)


def data_url(data: bytes, media_type: str) -> str:
    """The inverse of `admit` for bytes, for clients and tests."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"

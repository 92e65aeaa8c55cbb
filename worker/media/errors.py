"""The one table of what can be wrong with an image: OpenAI's error codes and when each is used."""

from enum import StrEnum

from worker.errors import RequestRefused


class MediaCode(StrEnum):
    INVALID_IMAGE = "invalid_image"
    """The bytes are no image."""
    INVALID_FORMAT = "invalid_image_format"
    """They begin like an image whose inside is wrong."""
    INVALID_URL = "invalid_image_url"
    """The URL is malformed, or names a place that may not be read: a private address, a foreign port or folder."""
    UNSUPPORTED_TYPE = "unsupported_image_media_type"
    """An image, or another document, of a kind that is not accepted."""
    EMPTY_FILE = "empty_image_file"
    FILE_TOO_LARGE = "image_file_too_large"
    """More encoded bytes than allowed."""
    TOO_LARGE = "image_too_large"
    """More pixels, or more tiles, than allowed."""
    TOO_SMALL = "image_too_small"
    """No pixels at all."""
    PARSE_ERROR = "image_parse_error"
    """Truncated or damaged."""
    DOWNLOAD_FAILED = "failed_to_download_image"
    """The host says no, or does not exist."""
    FILE_NOT_FOUND = "image_file_not_found"
    """No such file or blob."""
    TOO_MANY = "too_many_images"
    """More images than a request may have."""


class MediaRefused(RequestRefused):
    """An image that can never be used."""

    def __init__(self, code: MediaCode, message: str) -> None:
        super().__init__(code.value, message, param="messages")

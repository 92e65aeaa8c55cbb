"""The tables of what can be wrong with an image (OpenAI's codes) and with a video (the same, by analogy)."""

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
    """More pixels, tiles, or time to decode, than allowed."""
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


class VideoCode(StrEnum):
    """Names that MediaCode has too mean the same of a video."""

    INVALID_VIDEO = "invalid_video"
    """No video, or one without pictures, or with a frame rate or times that make no sense."""
    INVALID_URL = "invalid_video_url"
    UNSUPPORTED_TYPE = "unsupported_video_media_type"
    """A container or a codec that is not accepted."""
    EMPTY_FILE = "empty_video_file"
    FILE_TOO_LARGE = "video_file_too_large"
    TOO_LARGE = "video_too_large"
    """More pixels, frames, seconds, or more tiles together with the images, than allowed."""
    PARSE_ERROR = "video_parse_error"
    DOWNLOAD_FAILED = "failed_to_download_video"
    FILE_NOT_FOUND = "video_file_not_found"
    TOO_MANY = "too_many_videos"
    TOO_SLOW = "video_decode_timeout"
    """Decoding took more processor time than allowed."""
    INVALID_BOUNDS = "invalid_video_bounds"
    """`start` or `end` lie outside the video, or more frames are asked for than allowed."""


class MediaRefused(RequestRefused):
    """An image or a video that can never be used."""

    def __init__(self, code: MediaCode | VideoCode, message: str) -> None:
        super().__init__(code.value, message, param="messages")
        self.media_code = code

    def of_video(self) -> "MediaRefused":
        """The same fault of a video's bytes, which are fetched as an image's are."""
        return MediaRefused(VideoCode[self.media_code.name], str(self))

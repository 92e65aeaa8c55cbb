"""Opens one encoded video within limits. Formats: MP4 and QuickTime, WebM and Matroska, animated GIF and WebP.

What the bytes are is read from the bytes, not from a name or a header.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from PIL import Image

from worker.media.animation import Animation
from worker.media.boxes import check_boxes
from worker.media.errors import MediaRefused, VideoCode
from worker.media.segments import Segments, frame_indices
from worker.media.stream import Stream
from worker.media.video_limits import VideoLimits

_ACCEPTED = "MP4, QuickTime, WebM, Matroska, animated GIF, animated WebP"
_FIRST_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")
_OTHERS = {
    b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP", b"FLV": "FLV", b"OggS": "Ogg", b"%PDF": "PDF",
    b"\0\0\1\xba": "MPEG-PS", b"\0\0\1\xb3": "MPEG video", b"\x47\x40": "MPEG-TS", b"ID3": "MP3",
    b"#EXTM3U": "HLS playlist", b"<?xml": "XML", b"<!DO": "HTML", b"<htm": "HTML", b"\x30\x26\xb2\x75": "ASF",
}  # fmt: skip


class Frames(Protocol):
    """An opened file. `rate` and `read` raise MediaRefused; `read` takes rising indices and yields RGB pictures."""

    frames: int

    def rate(self) -> float: ...

    def read(self, indices: Sequence[int]) -> Iterator[Image.Image]: ...

    def close(self) -> None: ...


class Video:
    """An opened video whose frames were counted and not decoded. `indices` are those the model will see."""

    def __init__(self, frames: Frames, segments: Segments) -> None:
        self._frames = frames
        # The frame rate matters for seconds alone; finding it may take a pass over the file.
        bounded = segments.start is not None or segments.end is not None
        self.indices = frame_indices(segments, frames.frames, frames.rate() if bounded else 1.0)

    def decode(self) -> Iterator[Image.Image]:
        """One RGB picture per index, one at a time. Raises MediaRefused. Can be called once."""
        try:
            yield from self._frames.read(self.indices)
        finally:
            self._frames.close()

    def close(self) -> None:
        """Instead of `decode`."""
        self._frames.close()


def open_video(data: bytes, segments: Segments, limits: VideoLimits) -> Video:
    """Reads headers and index alone. Raises MediaRefused."""
    frames = _opened(data, limits)
    try:
        return Video(frames, segments)
    except MediaRefused:
        frames.close()
        raise


def _opened(data: bytes, limits: VideoLimits) -> Frames:
    if data[:4] == b"GIF8" or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        return Animation(data, limits)
    if data[:4] == b"\x1a\x45\xdf\xa3":
        return Stream(data, "matroska", limits)
    if data[4:8] in _FIRST_BOXES and data[8:12] not in _PICTURE_BRANDS:
        check_boxes(data)
        return Stream(data, "mp4", limits)
    kind = next((name for magic, name in _OTHERS.items() if data.startswith(magic)), None)
    if data[4:8] == b"ftyp":
        kind = data[8:12].decode("latin-1")
    elif data[:4] == b"RIFF":
        kind = f"RIFF {data[8:12].decode('latin-1').strip()}"
    if kind is not None:
        raise MediaRefused(VideoCode.UNSUPPORTED_TYPE, f"files of type {kind} are not accepted; accepted: {_ACCEPTED}")
    raise MediaRefused(VideoCode.INVALID_VIDEO, f"the {len(data)} bytes are no video; accepted: {_ACCEPTED}")

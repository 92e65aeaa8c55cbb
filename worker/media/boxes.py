"""The boxes of an MP4 or QuickTime file, as far as needed to refuse one before a demuxer believes its numbers.

Source: ISO/IEC 14496-12. Reads no samples.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from worker.media.errors import MediaRefused, VideoCode

_CONTAINERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl"})
_SAMPLE_SIZES = b"stsz"
_MAX_BOXES = 10_000


@dataclass(frozen=True, slots=True)
class _Box:
    kind: bytes
    body: int
    end: int


def check_boxes(data: bytes) -> None:
    """Raises MediaRefused when the file ends before one of its boxes, or promises more samples than it has bytes for:
    a demuxer would make room for all of them."""
    seen = 0
    pending = list(_boxes(data, 0, len(data)))
    while pending:
        seen += 1
        if seen > _MAX_BOXES:
            raise MediaRefused(VideoCode.PARSE_ERROR, f"the video has more than {_MAX_BOXES} boxes")
        box = pending.pop()
        if box.kind in _CONTAINERS:
            pending += _boxes(data, box.body, box.end)
        elif box.kind == _SAMPLE_SIZES and box.end - box.body >= 12:
            _check_samples(data, box)


def _boxes(data: bytes, start: int, end: int) -> Iterator[_Box]:
    while end - start >= 8:
        size, kind = struct.unpack_from(">I4s", data, start)
        body = start + 8
        if size == 1 and end - start >= 16:
            (size,) = struct.unpack_from(">Q", data, body)
            body += 8
        stop = start + size if size else end
        if stop < body:
            raise MediaRefused(VideoCode.PARSE_ERROR, f"the video's box {kind!r} has the impossible size {size}")
        if stop > end:
            raise MediaRefused(
                VideoCode.PARSE_ERROR,
                f"the video is truncated: its box {kind!r} ends {stop - end} bytes after the file",
            )
        yield _Box(kind, body, stop)
        start = stop


def _check_samples(data: bytes, box: _Box) -> None:
    _, each, count = struct.unpack_from(">III", data, box.body)
    room = len(data) // each if each else (box.end - box.body - 12) // 4
    if count > room:
        raise MediaRefused(VideoCode.PARSE_ERROR, f"the video promises {count} samples and has room for {room}")

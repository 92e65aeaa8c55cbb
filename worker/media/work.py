"""What is asked about one medium's bytes, what comes of it, and the doing of it. Knows no processes."""

from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from worker.engine import generation
from worker.engine.config import TilingConfig
from worker.media.errors import MediaCode, MediaRefused, VideoCode
from worker.media.image import ImageLimits, open_image
from worker.media.segments import Segments
from worker.media.video import open_video
from worker.media.video_limits import VideoLimits
from worker.tiles import cut


@dataclass(frozen=True, slots=True)
class Cut:
    """How pictures become tiles, which are `size` pixels wide and high."""

    tiling: TilingConfig
    size: int


class ImageWork(msgspec.Struct, frozen=True, tag="image"):
    """Without `cut` only the size is asked for."""

    data: bytes
    limits: ImageLimits
    cut: Cut | None = None


class VideoWork(msgspec.Struct, frozen=True, tag="video"):
    """Without `cut` only the number of frames is asked for."""

    data: bytes
    segments: Segments
    limits: VideoLimits
    cut: Cut | None = None


Work: TypeAlias = ImageWork | VideoWork


class Size(msgspec.Struct, frozen=True, tag="size"):
    """Of an image, upright, in pixels."""

    width: int
    height: int


class Frames(msgspec.Struct, frozen=True, tag="frames"):
    """How many frames of a video the model will see."""

    count: int


class Pieces(msgspec.Struct, frozen=True, tag="pieces"):
    """One image's tiles, or those of each frame of a video."""

    images: list[generation.Image]


Result: TypeAlias = Size | Frames | Pieces


def perform(work: Work) -> Result:
    """Raises MediaRefused."""
    if isinstance(work, ImageWork):
        picture = open_image(work.data, work.limits)
        if work.cut is None:
            return Size(picture.width, picture.height)
        return Pieces([cut(picture.decode(), work.cut.tiling, work.cut.size)])
    video = open_video(work.data, work.segments, work.limits)
    if work.cut is None:
        video.close()
        return Frames(len(video.indices))
    return Pieces([cut(frame, work.cut.tiling, work.cut.size) for frame in video.decode()])


def too_slow(work: Work) -> MediaRefused:
    """What a medium is told whose work has used up its time."""
    if isinstance(work, ImageWork):
        return MediaRefused(
            MediaCode.TOO_LARGE,
            f"decoding the image took more than {work.limits.decode_s:g} s of processor time",
        )
    return MediaRefused(
        VideoCode.TOO_SLOW, f"decoding the video took more than {work.limits.decode_s:g} s of processor time"
    )


def crashed(work: Work, how: str) -> MediaRefused:
    """What a medium is told whose decoder has ended itself."""
    if isinstance(work, ImageWork):
        return MediaRefused(MediaCode.PARSE_ERROR, f"the image is damaged: {how}")
    return MediaRefused(VideoCode.PARSE_ERROR, f"the video is damaged: {how}")

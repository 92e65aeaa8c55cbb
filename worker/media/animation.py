"""An animated GIF or WebP as a video, with Pillow. Transparent pixels become white; a still picture is one frame."""

from collections.abc import Iterator, Sequence
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from worker.media.errors import MediaRefused, VideoCode
from worker.media.image import FAULTS, to_rgb
from worker.media.video_limits import VideoLimits

_SHORTEST_MS, _INSTEAD_MS = 10, 100
"""Browsers show a frame whose delay is at most the first for the second."""


class Animation:
    """One thread at a time. Frames build upon each other: each is decoded, the wanted ones are kept one by one."""

    def __init__(self, data: bytes, limits: VideoLimits) -> None:
        """Reads the headers. Raises MediaRefused."""
        self._limits = limits
        Image.MAX_IMAGE_PIXELS = None
        try:
            self._image = Image.open(BytesIO(data), formats=("GIF", "WEBP"))
            limits.check_size(*self._image.size)
            self.frames = int(getattr(self._image, "n_frames", 1))
        except UnidentifiedImageError as exc:
            raise MediaRefused(VideoCode.INVALID_VIDEO, f"the {len(data)} bytes are no animation") from exc
        except FAULTS as exc:
            raise MediaRefused(VideoCode.PARSE_ERROR, f"the animation is damaged: {exc}") from exc
        limits.check_frames(self.frames)

    def rate(self) -> float:
        """Frames per second on the average, from the delays of all frames. Raises MediaRefused."""
        delays_ms = [float(image.info.get("duration", 0) or 0) for image in self._walk(self.frames)]
        seconds = sum(delay if delay > _SHORTEST_MS else _INSTEAD_MS for delay in delays_ms) / 1000
        self._limits.check_duration(seconds)
        return self.frames / seconds

    def read(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        """The frames of rising indices, as RGB. Raises MediaRefused."""
        wanted = iter(indices)
        index = next(wanted, None)
        for k, image in enumerate(self._walk(max(indices) + 1)):
            if k != index:
                continue
            try:
                frame = to_rgb(image)
            except FAULTS as exc:
                raise MediaRefused(VideoCode.PARSE_ERROR, f"frame {k} of the animation is damaged: {exc}") from exc
            while k == index:
                yield frame
                index = next(wanted, None)

    def close(self) -> None:
        self._image.close()

    def _walk(self, frames: int) -> Iterator[Image.Image]:
        for k in range(frames):
            try:
                self._image.seek(k)
                self._image.load()
            except FAULTS as exc:
                raise MediaRefused(VideoCode.PARSE_ERROR, f"frame {k} of the animation is damaged: {exc}") from exc
            yield self._image

"""What a video may cost."""

from dataclasses import dataclass

from worker.media.errors import MediaRefused, VideoCode


@dataclass(frozen=True, slots=True)
class VideoLimits:
    """`max_pixels` counts one frame's; `max_frames` those of the file, seen or not; `decode_s` is processor
    time for one video, which whoever starts the decoding takes away when it is over."""

    max_pixels: int
    max_duration_s: float
    max_frames: int
    decode_s: float

    def check_size(self, width: int, height: int) -> None:
        """Raises MediaRefused."""
        if width < 1 or height < 1:
            raise MediaRefused(VideoCode.INVALID_VIDEO, f"the video's frames have {width} × {height} pixels")
        if width * height > self.max_pixels:
            raise MediaRefused(
                VideoCode.TOO_LARGE,
                f"the video's frames have {width} × {height} pixels, more than {self.max_pixels} in all",
            )

    def check_frames(self, frames: int) -> None:
        """Raises MediaRefused."""
        if frames < 1:
            raise MediaRefused(VideoCode.INVALID_VIDEO, "the video has no frames")
        if frames > self.max_frames:
            raise MediaRefused(VideoCode.TOO_LARGE, f"the video has more than {self.max_frames} frames")

    def check_duration(self, seconds: float) -> None:
        """Raises MediaRefused."""
        if seconds > self.max_duration_s:
            raise MediaRefused(
                VideoCode.TOO_LARGE, f"the video lasts {seconds:.1f} s, longer than {self.max_duration_s:g} s"
            )

"""Which frames of a video the model sees: the middle of each of so many equal segments. Knows no files."""

from dataclasses import dataclass

from worker.media.errors import MediaRefused, VideoCode


@dataclass(frozen=True, slots=True)
class Segments:
    """`start` and `end` are seconds of the video; None: its own bounds."""

    count: int
    start: float | None = None
    end: float | None = None


def frame_indices(segments: Segments, frames: int, fps: float) -> list[int]:
    """`segments.count` indices below `frames`, in rising order; a short video has the same index several times. Raises
    MediaRefused when `start` lies behind the last frame. Source: `get_index` of the model family's examples, which
    takes the last frame for the end and rounds halves to the even number."""
    last = frames - 1
    first = 0
    if segments.start is not None:
        if segments.start * fps >= frames:
            raise MediaRefused(
                VideoCode.INVALID_BOUNDS,
                f"start = {segments.start:g} lies behind the video's end: {frames} frames at {fps:g} per second",
            )
        first = min(max(0, round(segments.start * fps)), last)
    end = last if segments.end is None else max(first, min(round(segments.end * fps), last))
    size = (end - first) / segments.count
    return [int(first + size / 2 + round(size * k)) for k in range(segments.count)]

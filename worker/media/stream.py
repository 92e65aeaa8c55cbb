"""A video stream of an MP4, QuickTime, WebM or Matroska file, with PyAV (FFmpeg): counted without decoding, decoded
from the key frame before each wanted frame on."""

import contextlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO

import av
import av.error
import av.stream
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from worker.media.errors import MediaRefused, VideoCode
from worker.media.video_limits import VideoLimits

_MAX_RATE = 1000
_FAULTS = (av.error.FFmpegError, OSError, ValueError, LookupError, ArithmeticError, MemoryError, EOFError)
_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}


@dataclass(frozen=True, slots=True)
class _Key:
    """A key frame: when it is shown, and when it is decoded."""

    pts: int
    decoded: int


class Stream:
    """One thread at a time. Frames are counted as packets, in the order of their presentation times."""

    def __init__(self, data: bytes, container: str, limits: VideoLimits) -> None:
        """`container` is FFmpeg's name of the format: nothing is guessed from the bytes. Raises MediaRefused."""
        self._limits = limits
        with _faults_refused("the video"):
            self._container = av.open(BytesIO(data), "r", format=container, metadata_errors="ignore")
        try:
            with _faults_refused("the video"):
                self._stream = self._chosen()
                self._times, self._keys = self._packets()
            limits.check_frames(len(self._times))
            limits.check_duration(float((self._times[-1] - self._times[0]) * self._time_base))
        except MediaRefused:
            self.close()
            raise
        self.frames = len(self._times)

    def rate(self) -> float:
        """Frames per second on the average. Raises MediaRefused when there is no sensible one."""
        declared: Fraction | None = self._stream.average_rate
        span = (self._times[-1] - self._times[0]) * self._time_base
        if declared is None and span > 0:
            declared = (self.frames - 1) / span
        if declared is None and self.frames == 1:
            return 1.0
        if declared is None or not 0 < declared <= _MAX_RATE:
            raise MediaRefused(
                VideoCode.INVALID_VIDEO,
                f"the video's frame rate is {declared} per second; 'start' and 'end' need one of at most {_MAX_RATE}",
            )
        return float(declared)

    def read(self, indices: Sequence[int]) -> Iterator[Image.Image]:
        """The frames of rising indices, as RGB, turned as the file says. Raises MediaRefused."""
        reader = _Reader(self._container, self._stream, self._keys, self._limits)
        shown: tuple[int, Image.Image] | None = None
        for index in indices:
            if shown is None or shown[0] != index:
                with _faults_refused(f"frame {index} of the video"):
                    shown = index, _picture(reader.frame_at(self._times[index]))
            yield shown[1]

    def close(self) -> None:
        self._container.close()

    @property
    def _time_base(self) -> Fraction:
        return self._stream.time_base or Fraction(1, av.time_base)

    def _chosen(self) -> VideoStream:
        cover = av.stream.Disposition.attached_pic
        streams = [stream for stream in self._container.streams.video if not stream.disposition & cover]
        if not streams:
            kinds = ", ".join(sorted({stream.type for stream in self._container.streams})) or "nothing"
            raise MediaRefused(VideoCode.INVALID_VIDEO, f"the file has no video stream; it has: {kinds}")
        stream = streams[0]
        context = stream.codec_context
        if context is None or not av.codec.codec.Codec(context.name, "r").is_decoder:
            raise MediaRefused(VideoCode.UNSUPPORTED_TYPE, "the video's codec is not known")
        self._limits.check_size(context.width, context.height)
        if stream.duration and stream.time_base:
            self._limits.check_duration(float(stream.duration * stream.time_base))
        context.thread_count = 1
        context.options = {"max_pixels": str(self._limits.max_pixels + 1)}
        return stream

    def _packets(self) -> tuple[list[int], list[_Key]]:
        times: list[int] = []
        keys: list[_Key] = []
        for packet in self._container.demux(self._stream):
            if packet.size == 0 or packet.is_discard:
                continue
            if packet.pts is None:
                raise MediaRefused(VideoCode.INVALID_VIDEO, f"frame {len(times)} of the video has no time")
            if packet.is_corrupt:
                raise MediaRefused(VideoCode.PARSE_ERROR, f"frame {len(times)} of the video is damaged")
            times.append(packet.pts)
            if packet.is_keyframe:
                keys.append(_Key(packet.pts, packet.pts if packet.dts is None else min(packet.pts, packet.dts)))
            if len(times) > self._limits.max_frames:
                break
        return sorted(times), sorted(keys, key=lambda key: key.pts)


class _Reader:
    """Decodes forwards, and jumps to a key frame when one lies between here and the wanted frame."""

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        keys: list[_Key],
        limits: VideoLimits,
    ) -> None:
        self._container = container
        self._stream = stream
        self._keys = keys
        self._limits = limits
        self._frames: Iterator[VideoFrame] = iter(())
        self._last: VideoFrame | None = None
        self._at = 0

    def frame_at(self, time: int) -> VideoFrame:
        """The frame shown at this time, or the next one there is. Times rise from call to call."""
        if self._last is None or self._at < time:
            key = self._key_before(time)
            jump = self._last is None or (key is not None and self._at < key.pts)
            frame = self._jump(key, time) if jump else self._next()
            while frame is not None and self._at < time:
                frame = self._next()
        if self._last is None:
            raise MediaRefused(VideoCode.PARSE_ERROR, "the video ends before a frame that it promises")
        return self._last

    def _key_before(self, time: int) -> _Key | None:
        place = bisect_right([key.pts for key in self._keys], time)
        return self._keys[place - 1] if place else None

    def _jump(self, key: _Key | None, time: int) -> VideoFrame | None:
        """Formats differ in whether a seek means the time shown or the time decoded; a file whose index leads past the
        wanted frame both times is read from its beginning."""
        for place in () if key is None else dict.fromkeys((key.pts, key.decoded)):
            self._seek(place)
            frame = self._next()
            if frame is not None and self._at <= time:
                return frame
        self._seek(min((key.decoded for key in self._keys), default=0))
        return self._next()

    def _seek(self, time: int) -> None:
        self._container.seek(time, stream=self._stream, backward=True)
        self._frames = self._container.decode(self._stream)

    def _next(self) -> VideoFrame | None:
        frame = next(self._frames, None)
        if frame is not None:
            self._limits.check_size(frame.width, frame.height)
            self._last = frame
            self._at = self._at if frame.pts is None else frame.pts
        return frame


def _picture(frame: VideoFrame) -> Image.Image:
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    turn = _TURNS.get(round(frame.rotation / 90) * 90 % 360)
    return image if turn is None else image.transpose(turn)


@contextlib.contextmanager
def _faults_refused(what: str) -> Iterator[None]:
    try:
        yield
    except _FAULTS as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        raise MediaRefused(VideoCode.PARSE_ERROR, f"{what} is damaged: {reason}") from exc

"""From a request to what the engine runs: images and videos loaded, decoded and cut in parallel, prompt built.

Stops early when the job's ending is decided meanwhile. Knows no store and no engine process.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import msgspec

from jobs.counting import Counted
from jobs.request import ChatRequest, ImagePart, VideoPart
from jobs.tiling import tile_count
from worker.engine import generation
from worker.engine.config import TilingConfig
from worker.errors import MediaUnavailable
from worker.grammar_of import grammar_of
from worker.media.decoders import Decoding
from worker.media.errors import MediaCode, MediaRefused, VideoCode
from worker.media.fetch import host_of
from worker.media.image import ImageLimits
from worker.media.segments import Segments
from worker.media.sources import Sources
from worker.media.threads import MediaThreads
from worker.media.video_limits import VideoLimits
from worker.media.work import Cut, Frames, ImageWork, Pieces, Size, VideoWork, Work
from worker.prompt import MediaPart, Prompt, PromptBuilder, media_of
from worker.tiles import at_detail


@dataclass(frozen=True, slots=True)
class Prepared:
    """`images` are the tiles of images and of frames. `room` is how many tokens the answer may have, `grammar` what
    it must keep."""

    prompt: Prompt
    images: list[generation.Image]
    room: int
    grammar: generation.Grammar | None = None


@dataclass(frozen=True, slots=True)
class Geometry:
    """How the checkpoint sees pictures; `max_tiles` is the operator's limit per image."""

    tiling: TilingConfig
    tile_size: int
    max_tiles: int | None = None


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """`max_tiles` counts those of images and frames together; a frame is one. `segments` is how many frames of a video
    are seen when the request does not say; `max_segments` the most it may ask for."""

    max_images: int
    max_videos: int
    max_tiles: int
    segments: int
    max_segments: int
    image: ImageLimits
    video: VideoLimits


@dataclass(frozen=True, slots=True)
class Opened:
    """A medium whose bytes are here and whose size is known."""

    work: Work
    size: Size | Frames


class Preparer:
    """Thread-safe, for so many `jobs` at once: what is slow in one does not hold up the others."""

    def __init__(
        self,
        images: Sources,
        videos: Sources,
        decoders: Decoding,
        prompts: PromptBuilder,
        geometry: Geometry,
        limits: RequestLimits,
        jobs: int,
    ) -> None:
        self._images = images
        self._videos = videos
        self._decoders = decoders
        self._prompts = prompts
        self._geometry = geometry
        self._limits = limits
        self._threads = MediaThreads(jobs)

    def prepare(self, request: ChatRequest, ending: "Future[Any]") -> Prepared:
        """Raises RequestRefused, MediaUnavailable; Stopped as soon as `ending` is set."""
        parts = media_of(request.messages)
        self._check_count(parts)
        opened = self._all_open(parts, ending)
        self._check_tiles(parts, opened)
        cuts = self._threads.each(self._cut, list(zip(parts, opened, strict=True)), ending)
        images = [image for pieces in cuts for image in pieces]
        frames = [len(pieces) for part, pieces in zip(parts, cuts, strict=True) if isinstance(part, VideoPart)]
        prompt = self._prompts.build(request.messages, [image.tiles for image in images], frames, request.tools)
        room = self._prompts.room(prompt, request.max_tokens)
        return Prepared(prompt, images, room, grammar_of(request, self._prompts.has_token))

    def count(self, request: ChatRequest, ending: "Future[Any]") -> Counted:
        """The tokens that `prepare` would come to, from the sizes of the media alone. Raises as it does, but for a
        prompt that is too long."""
        parts = media_of(request.messages)
        self._check_count(parts)
        opened = self._all_open(parts, ending)
        self._check_tiles(parts, opened)
        counts = [self._tiles(part, media) for part, media in zip(parts, opened, strict=True)]
        frames = [count for part, count in zip(parts, counts, strict=True) if isinstance(part, VideoPart)]
        tiles = [
            tile
            for part, count in zip(parts, counts, strict=True)
            for tile in ([1] * count if isinstance(part, VideoPart) else [count])
        ]
        prompt = self._prompts.lay_out(request.messages, tiles, frames, request.tools)
        room = max(0, self._prompts.room(prompt, request.max_tokens))
        return Counted(len(prompt.ids), prompt.image_tokens, self._prompts.context_length, room)

    def count_text(self, text: str) -> Counted:
        """Plain text by itself."""
        tokens, context = self._prompts.count_text(text), self._prompts.context_length
        return Counted(tokens, 0, context, max(0, context - tokens))

    def close(self) -> None:
        self._threads.close()
        self._decoders.close()

    def _all_open(self, parts: Sequence[MediaPart], ending: "Future[Any]") -> list[Opened]:
        return self._threads.each(
            lambda part: self._open(part, ending.done), parts, ending, lambda part: host_of(part.source)
        )

    def _open(self, part: MediaPart, unwanted: Callable[[], bool]) -> Opened:
        work: Work
        if isinstance(part, ImagePart):
            work = ImageWork(self._images.load(part.source, unwanted), self._limits.image)
        else:
            segments = Segments(part.num_segments or self._limits.segments, part.start, part.end)
            work = VideoWork(self._video_bytes(part.source, unwanted), segments, self._limits.video)
        size = self._decoders.ask(work)
        assert not isinstance(size, Pieces)
        return Opened(work, size)

    def _video_bytes(self, source: str, unwanted: Callable[[], bool]) -> bytes:
        try:
            return self._videos.load(source, unwanted)
        except MediaRefused as exc:
            raise exc.of_video() from exc
        except MediaUnavailable as exc:
            raise MediaUnavailable(str(exc), VideoCode.DOWNLOAD_FAILED.value) from exc

    def _cut(self, item: tuple[MediaPart, Opened]) -> list[generation.Image]:
        part, opened = item
        how = Cut(self._tiling(part), self._geometry.tile_size)
        pieces = self._decoders.ask(msgspec.structs.replace(opened.work, cut=how))
        assert isinstance(pieces, Pieces)
        return pieces.images

    def _tiling(self, part: MediaPart) -> TilingConfig:
        detail = part.detail if isinstance(part, ImagePart) else "low"
        return at_detail(self._geometry.tiling, detail, self._geometry.max_tiles)

    def _tiles(self, part: MediaPart, opened: Opened) -> int:
        if isinstance(opened.size, Frames):
            return opened.size.count
        return tile_count(opened.size.width, opened.size.height, self._tiling(part), self._geometry.tile_size)

    def _check_count(self, parts: Sequence[MediaPart]) -> None:
        limits = self._limits
        images = sum(isinstance(part, ImagePart) for part in parts)
        if images > limits.max_images:
            raise MediaRefused(
                MediaCode.TOO_MANY, f"the request has {images} images; at most {limits.max_images} are allowed"
            )
        if len(parts) - images > limits.max_videos:
            raise MediaRefused(
                VideoCode.TOO_MANY,
                f"the request has {len(parts) - images} videos; at most {limits.max_videos} are allowed",
            )
        for part in parts:
            if isinstance(part, VideoPart) and (part.num_segments or 0) > limits.max_segments:
                raise MediaRefused(
                    VideoCode.INVALID_BOUNDS,
                    f"num_segments = {part.num_segments}: at most {limits.max_segments} frames of a video are seen",
                )

    def _check_tiles(self, parts: Sequence[MediaPart], opened: Sequence[Opened]) -> None:
        """Before anything is decoded."""
        tiles = [self._tiles(part, media) for part, media in zip(parts, opened, strict=True)]
        frames = sum(count for part, count in zip(parts, tiles, strict=True) if isinstance(part, VideoPart))
        if sum(tiles) <= self._limits.max_tiles:
            return
        images = sum(isinstance(part, ImagePart) for part in parts)
        whose = [f"{images} images"] * bool(images) + [f"{frames} frames of videos"] * bool(frames)
        raise MediaRefused(
            VideoCode.TOO_LARGE if frames and not images else MediaCode.TOO_LARGE,
            f"the request's {' and '.join(whose)} make {sum(tiles)} tiles, more than {self._limits.max_tiles}; "
            'send fewer or smaller images, or with detail "low", or videos with a smaller num_segments',
        )

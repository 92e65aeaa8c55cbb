"""From a request to what the engine runs: images loaded, decoded and cut in parallel, prompt built.

Stops early when the job's ending is decided meanwhile. Knows no store and no engine process.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

from jobs.request import ChatRequest, ImagePart
from worker.engine import generation
from worker.engine.config import TilingConfig
from worker.errors import Stopped
from worker.media.errors import MediaCode, MediaRefused
from worker.media.image import ImageLimits, Picture, open_image
from worker.media.sources import Sources
from worker.prompt import Prompt, PromptBuilder, images_of, pieces_of
from worker.tiles import at_detail, cut, tile_count

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Prepared:
    """`room` is how many tokens the answer may have."""

    prompt: Prompt
    images: list[generation.Image]
    room: int


@dataclass(frozen=True, slots=True)
class Geometry:
    """How the checkpoint sees pictures; `max_tiles` is the operator's limit per image."""

    tiling: TilingConfig
    tile_size: int
    max_tiles: int | None = None


@dataclass(frozen=True, slots=True)
class RequestLimits:
    max_images: int
    max_tiles: int
    image: ImageLimits


class Preparer:
    """Thread-safe. `threads` images are worked on at a time, of all jobs together."""

    def __init__(
        self, sources: Sources, prompts: PromptBuilder, geometry: Geometry, limits: RequestLimits, threads: int
    ) -> None:
        self._sources = sources
        self._prompts = prompts
        self._geometry = geometry
        self._limits = limits
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="media")

    def prepare(self, request: ChatRequest, ending: "Future[Any]") -> Prepared:
        """Raises RequestRefused, MediaUnavailable; Stopped as soon as `ending` is set."""
        parts = images_of(request.messages)
        self._check_count(len(parts))
        pieces_of(request.messages)
        pictures = self._all(self._open, parts, ending)
        self._check_tiles(parts, pictures)
        images = self._all(self._cut, list(zip(parts, pictures, strict=True)), ending)
        prompt = self._prompts.build(request.messages, [image.tiles for image in images])
        return Prepared(prompt, images, self._prompts.room(prompt, request.max_tokens))

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _all(self, work: Callable[[A], B], items: Sequence[A], ending: "Future[Any]") -> list[B]:
        """`work` on every item; the first error in order of items is raised."""
        futures: list[Future[B]] = [self._pool.submit(work, item) for item in items]
        pending: set[Future[Any]] = {future for future in futures if not future.done()}
        while pending and not ending.done():
            pending = wait({*pending, ending}, return_when=FIRST_COMPLETED).not_done - {ending}
        if pending or ending.done():
            for future in futures:
                future.cancel()
            raise Stopped
        return [future.result() for future in futures]

    def _open(self, part: ImagePart) -> Picture:
        return open_image(self._sources.load(part.source), self._limits.image)

    def _cut(self, item: tuple[ImagePart, Picture]) -> generation.Image:
        part, picture = item
        return cut(picture.decode(), self._tiling(part), self._geometry.tile_size)

    def _tiling(self, part: ImagePart) -> TilingConfig:
        return at_detail(self._geometry.tiling, part.detail, self._geometry.max_tiles)

    def _check_count(self, images: int) -> None:
        if images > self._limits.max_images:
            raise MediaRefused(
                MediaCode.TOO_MANY, f"the request has {images} images; at most {self._limits.max_images} are allowed"
            )

    def _check_tiles(self, parts: Sequence[ImagePart], pictures: Sequence[Picture]) -> None:
        tiles = sum(
            tile_count(picture.width, picture.height, self._tiling(part), self._geometry.tile_size)
            for part, picture in zip(parts, pictures, strict=True)
        )
        if tiles > self._limits.max_tiles:
            raise MediaRefused(
                MediaCode.TOO_LARGE,
                f"the request's {len(parts)} images make {tiles} tiles, more than {self._limits.max_tiles}; "
                'send fewer or smaller ones, or with detail "low"',
            )

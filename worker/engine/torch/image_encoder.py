"""Encodes the images that sequences are about to prefill: tiles of several sequences in one batch, each image once.

At most `tiles_per_step` tiles per step, so that a long video delays those who decode by one batch, not by all of it;
an image with more tiles than that is encoded over several steps. What the prefix cache covers is never encoded.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from worker.engine.torch.embedding_cache import EmbeddingCache, Key
from worker.engine.torch.model import Model
from worker.engine.torch.sequence import Sequence, Visual


class ImageEncoder:
    """`tiles_encoded` and `tiles_reused` count every tile of every image of the sequences seen, once each."""

    def __init__(self, model: Model, cache: EmbeddingCache, tiles_per_step: int) -> None:
        if tiles_per_step < 1:
            raise ValueError(f"tiles_per_step must be at least 1, got {tiles_per_step}")
        self._model = model
        self._cache = cache
        self._tiles_per_step = tiles_per_step
        self._parts: dict[Key, list[torch.Tensor]] = {}
        self.tiles_encoded = 0
        self.tiles_reused = 0

    def run(self, sequences: Iterable[Sequence]) -> None:
        """Gives the sequences' visuals their embeddings, as far as this step's tiles go."""
        wanted: dict[Key, list[Visual]] = {}
        sequences = list(sequences)
        self.release(sequences)
        for visual in _unserved(sequences):
            key = _key(visual)
            cached = None if key in wanted else self._cache.get(key)
            if cached is not None:
                self._serve(visual, cached, fresh=False)
            else:
                wanted.setdefault(key, []).append(visual)
        self._parts = {key: parts for key, parts in self._parts.items() if key in wanted}
        if wanted:
            self._encode(wanted)

    def release(self, sequences: Iterable[Sequence]) -> None:
        """Lets go of embeddings whose keys and values are computed: nobody reads them again, and a sequence may decode
        for long. Counts those as reused that the prefix cache covered before they were encoded."""
        for sequence in sequences:
            for visual in sequence.visuals:
                if visual.last < sequence.computed:
                    self._settle(visual, fresh=False)
                    visual.embedding = None

    def check_integrity(self) -> None:
        """Raises IntegrityError when the cache's account of its bytes is wrong."""
        self._cache.check_integrity()

    def _encode(self, wanted: dict[Key, list[Visual]]) -> None:
        pixels, takers = self._cut(wanted)
        size = self._model.tile_size
        tiles = torch.from_numpy(np.concatenate(pixels).reshape(-1, size, size, 3))
        encoded = self._model.encode_tiles(tiles.to(self._model.device))
        self.tiles_encoded += len(encoded)
        for key, part in zip(takers, torch.split(encoded, [len(p) for p in pixels]), strict=True):
            self._parts.setdefault(key, []).append(part)
        for key in takers:
            visuals = wanted[key]
            if sum(map(len, self._parts[key])) == visuals[0].image.tiles:
                embedding = torch.cat(self._parts.pop(key)).flatten(0, 1)
                self._cache.put(key, embedding)
                for n, visual in enumerate(visuals):
                    self._serve(visual, embedding, fresh=n == 0)

    def _cut(self, wanted: dict[Key, list[Visual]]) -> tuple[list[np.ndarray], list[Key]]:
        """This step's tiles as uint8 rows `[n, size × size × 3]`, one array per image, oldest sequence first."""
        pixels, takers = [], []
        room = self._tiles_per_step
        for key, visuals in wanted.items():
            image = visuals[0].image
            done = sum(map(len, self._parts.get(key, ())))
            rows = np.frombuffer(image.pixels, dtype=np.uint8).reshape(image.tiles, -1)[done : done + room]
            pixels.append(rows)
            takers.append(key)
            room -= len(rows)
            if room == 0:
                break
        return pixels, takers

    def _serve(self, visual: Visual, embedding: torch.Tensor, fresh: bool) -> None:
        visual.embedding = embedding
        self._settle(visual, fresh)

    def _settle(self, visual: Visual, fresh: bool) -> None:
        if not visual.settled:
            visual.settled = True
            self.tiles_reused += 0 if fresh else visual.image.tiles


def _unserved(sequences: Iterable[Sequence]) -> Iterator[Visual]:
    for sequence in sequences:
        yield from (v for v in sequence.visuals if v.embedding is None and v.last >= sequence.computed)


def _key(visual: Visual) -> Key:
    return visual.image.digest, visual.image.tiles, visual.salt

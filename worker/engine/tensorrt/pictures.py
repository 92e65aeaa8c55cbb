"""Encodes images on one thread beside the language model, several images' tiles in a batch, each image once.

Knows neither requests nor the executor.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from worker.engine.generation import Image
from worker.engine.torch.embedding_cache import EmbeddingCache, Key

Pixels = NDArray[np.uint8]


class Encoder(Protocol):
    """Driven by one thread. `max_tiles` is the most of one call."""

    max_tiles: int
    tile_size: int

    def encode(self, tiles: Pixels) -> torch.Tensor:
        """uint8 `[n, size, size, 3]` → `[n, tokens, hidden]`, finished when this returns. What it raises ends the
        engine: a GPU that fails once fails always."""
        ...

    def close(self) -> None: ...


class Pictures:
    """Thread-safe. `tiles_encoded` and `tiles_reused` count each image that was asked for."""

    def __init__(self, encoder: Encoder, cache: EmbeddingCache, on_news: Callable[[], None]) -> None:
        self._encoder = encoder
        self._cache = cache
        self._on_news = on_news
        self._wanted: OrderedDict[Key, tuple[Image, Future[torch.Tensor]]] = OrderedDict()
        self._changed = threading.Condition()
        self._closing = False
        self.tiles_encoded = 0
        self.tiles_reused = 0
        self._thread = threading.Thread(target=self._work, name="pictures", daemon=True)
        self._thread.start()

    def embedding(self, image: Image, salt: int) -> Future[torch.Tensor]:
        """`[tiles × tokens, hidden]`, now or as soon as it is encoded."""
        key = image.digest, image.tiles, salt
        with self._changed:
            if key in self._wanted:
                self.tiles_reused += image.tiles
                return self._wanted[key][1]
            found: Future[torch.Tensor] = Future()
            cached = self._cache.get(key)
            if cached is not None:
                self.tiles_reused += image.tiles
                found.set_result(cached)
            else:
                self._wanted[key] = image, found
                self._changed.notify()
            return found

    def check_integrity(self) -> None:
        """Raises IntegrityError when the cache's account of its bytes is wrong."""
        with self._changed:
            self._cache.check_integrity()

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._encoder.close()

    def _work(self) -> None:
        while batch := self._next():
            try:
                embeddings = self._encode([image for _, image, _ in batch])
            except Exception as exc:  # noqa: BLE001 - an outer edge: whoever waits for the future raises it
                self._finish(batch, exc)
            else:
                self._finish(batch, embeddings)
            self._on_news()

    def _next(self) -> list[tuple[Key, Image, "Future[torch.Tensor]"]]:
        """The oldest images that fit into one call, at least one. Empty: close."""
        with self._changed:
            self._changed.wait_for(lambda: self._wanted or self._closing)
            if self._closing:
                return []
            batch: list[tuple[Key, Image, Future[torch.Tensor]]] = []
            room = self._encoder.max_tiles
            for key, (image, found) in self._wanted.items():
                if batch and image.tiles > room:
                    break
                batch.append((key, image, found))
                room -= image.tiles
            return batch

    def _encode(self, images: list[Image]) -> list[torch.Tensor]:
        size, most = self._encoder.tile_size, self._encoder.max_tiles
        pixels = [np.frombuffer(image.pixels, dtype=np.uint8).reshape(-1, size, size, 3) for image in images]
        tiles = np.concatenate(pixels)
        encoded = [self._encoder.encode(tiles[first : first + most]) for first in range(0, len(tiles), most)]
        whole = encoded[0] if len(encoded) == 1 else torch.cat(encoded)
        # Copies, but for one alone: a part would keep the whole batch's memory as long as it is kept itself.
        parts = torch.split(whole, [image.tiles for image in images])
        return [part.flatten(0, 1) if len(parts) == 1 else part.flatten(0, 1).clone() for part in parts]

    def _finish(
        self, batch: list[tuple[Key, Image, "Future[torch.Tensor]"]], outcome: list[torch.Tensor] | Exception
    ) -> None:
        with self._changed:
            for place, (key, image, found) in enumerate(batch):
                del self._wanted[key]
                if isinstance(outcome, Exception):
                    found.set_exception(outcome)
                    continue
                self.tiles_encoded += image.tiles
                self._cache.put(key, outcome[place])
                found.set_result(outcome[place])

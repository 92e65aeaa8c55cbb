"""Keeps encoded images by digest up to a limit of bytes, least recently used out first. Knows no sequences.

Dropping an entry frees nothing that a sequence still holds: those who need an embedding keep their own reference.
"""

from collections import OrderedDict

import torch

from worker.engine.torch.block_cache import IntegrityError

Key = tuple[bytes, int, int]
"""(digest, tiles, salt): the count guards shapes against a digest that lies; nobody finds another salt's pictures."""


class EmbeddingCache:
    def __init__(self, limit_bytes: int) -> None:
        if limit_bytes < 0:
            raise ValueError(f"limit_bytes must not be negative, got {limit_bytes}")
        self._limit_bytes = limit_bytes
        self._entries: OrderedDict[Key, torch.Tensor] = OrderedDict()
        self.used_bytes = 0

    def get(self, key: Key) -> torch.Tensor | None:
        """`[tokens, hidden]`, now the most recently used."""
        embedding = self._entries.get(key)
        if embedding is not None:
            self._entries.move_to_end(key)
        return embedding

    def put(self, key: Key, embedding: torch.Tensor) -> None:
        """Stores or replaces; an embedding larger than the whole limit is not kept."""
        self._drop(key)
        size = embedding.nbytes
        if size > self._limit_bytes:
            return
        while self.used_bytes + size > self._limit_bytes:
            self._drop(next(iter(self._entries)))
        self._entries[key] = embedding
        self.used_bytes += size

    def check_integrity(self) -> None:
        """Raises IntegrityError when the bytes on record are not those kept, or are beyond the limit."""
        kept = sum(embedding.nbytes for embedding in self._entries.values())
        if kept != self.used_bytes or kept > self._limit_bytes:
            raise IntegrityError(f"embeddings of {kept} bytes, {self.used_bytes} on record, limit {self._limit_bytes}")

    def _drop(self, key: Key) -> None:
        embedding = self._entries.pop(key, None)
        if embedding is not None:
            self.used_bytes -= embedding.nbytes

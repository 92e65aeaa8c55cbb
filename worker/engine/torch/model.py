"""The whole InternVL model as the engine drives it: embed, encode tiles, forward over the paged cache, logits."""

from typing import Protocol

import torch

from worker.engine.torch.batch import ForwardBatch


class Model(Protocol):
    """`hidden` is the language model's width; all tensors live on `device` in `dtype` unless said otherwise. Beyond
    `trained_length` a token's keys depend on how long its sequence was: see ForwardBatch.lengths."""

    vocab_size: int
    hidden: int
    tokens_per_tile: int
    tile_size: int
    context_length: int
    trained_length: int
    device: torch.device
    dtype: torch.dtype

    def allocate_cache(self, pages: int, page_size: int) -> None:
        """Takes the memory of the KV cache: per layer `[pages, 2, page_size, kv_heads, head_dim]`, zeroed."""
        ...

    def cache_bytes_per_page(self, page_size: int) -> int: ...

    def copy_pages(self, sources: list[int], targets: list[int]) -> None:
        """Copies whole pages in every layer (for a prefix that ends inside a page)."""
        ...

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """int64 [T] below `vocab_size` → [T, hidden]."""
        ...

    def encode_tiles(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 [N, size, size, 3] → [N, tokens_per_tile, hidden]; normalises on the device."""
        ...

    def forward(self, embeds: torch.Tensor, batch: ForwardBatch) -> torch.Tensor:
        """[T, hidden] → last hidden states [T, hidden], after the final norm; writes keys and values to the cache."""
        ...

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[N, hidden] → float32 [N, vocab_size]."""
        ...

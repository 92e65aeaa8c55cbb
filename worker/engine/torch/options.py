"""How large one torch engine is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """`slots` sequences run at once; the KV cache has `pages` pages of `page_size` tokens. A step computes at most
    `prefill_chunk` prompt tokens and encodes at most `tiles_per_step` tiles: both bound how long one step keeps those
    who decode waiting. `embedding_bytes` limits the cache of encoded images. Without `prefix_reuse` every prompt is
    computed whole."""

    slots: int = 16
    pages: int = 1024
    page_size: int = 16
    prefill_chunk: int = 512
    tiles_per_step: int = 16
    embedding_bytes: int = 256 << 20
    prefix_reuse: bool = True

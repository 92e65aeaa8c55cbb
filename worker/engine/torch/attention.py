"""Attention over the paged cache: writes new keys and values, then lets each token see its own sequence up to itself.

Knows no weights. The cache is `[layers, pages, 2, page_size, kv_heads, head_dim]`, keys at 0 and values at 1.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from worker.engine.torch.batch import ForwardBatch


class AttentionPlan(Protocol):
    """What one forward needs in every layer, computed once."""

    def attend(self, layer: int, query: torch.Tensor, keys_values: torch.Tensor) -> torch.Tensor:
        """query `[T, heads, head_dim]` and keys_values `[T, 2, kv_heads, head_dim]`, both rotated → `[T, heads ×
        head_dim]`. Writes keys_values into the layer's cache first."""
        ...


class AttentionBackend(Protocol):
    """Owns the cache. A page that several sequences have is never written: its other owners would not notice."""

    def plan(self, batch: ForwardBatch) -> AttentionPlan: ...

    def copy_pages(self, sources: list[int], targets: list[int]) -> None: ...


class DecodePlan(Protocol):
    def attend(self, layer: int, query: torch.Tensor, keys_values: torch.Tensor) -> torch.Tensor:
        """As AttentionPlan.attend, for sequences with one new token each, which is in the paged cache already."""
        ...


class DecodeAttention(Protocol):
    """How sequences with one new token each see their keys and values."""

    def plan(self, pages: torch.Tensor, kv_lens: list[int]) -> DecodePlan:
        """`pages` `[B, P]` and `kv_lens` as in ForwardBatch. Called before any token of the forward is in the cache,
        and a sequence may begin with tokens that another one computes in this very forward."""
        ...

    def forget(self, pages: Iterable[int]) -> None:
        """These pages are about to be written by other means than a decode step."""
        ...


@dataclass(frozen=True, slots=True)
class _Prefill:
    """One sequence with several new tokens, rows `start:stop` of the batch. `halves` are rows of a layer's cache seen
    as `[pages × 2, page]`: its key pages, then its value pages. Without `mask` it starts at position 0."""

    start: int
    stop: int
    kv_len: int
    halves: torch.Tensor
    mask: torch.Tensor | None


class PagedAttention:
    """torch's scaled_dot_product_attention for sequences in prefill, one by one; `decode` for all others at once."""

    def __init__(self, caches: torch.Tensor, decode: DecodeAttention) -> None:
        self._caches = caches
        self._decode = decode
        self._page_size = caches.shape[3]

    def copy_pages(self, sources: list[int], targets: list[int]) -> None:
        self._decode.forget(targets)
        self._caches[:, targets] = self._caches[:, sources]

    def plan(self, batch: ForwardBatch) -> "PagedPlan":
        starts = [0]
        for q_len in batch.q_lens:
            starts.append(starts[-1] + q_len)
        several = [b for b, q_len in enumerate(batch.q_lens) if q_len > 1]
        for b in several:
            first = (batch.kv_lens[b] - batch.q_lens[b]) // self._page_size
            self._decode.forget(batch.pages[b, first : -(-batch.kv_lens[b] // self._page_size)].tolist())
        prefills = [self._plan_prefill(batch, b, starts[b]) for b in several]
        size = self._page_size
        rows = (batch.slots // size) * (2 * size) + batch.slots % size
        rows = torch.stack((rows, rows + size), dim=1).flatten()
        if batch.is_decode:
            return PagedPlan(self._caches, rows, prefills, self._decode.plan(batch.pages, list(batch.kv_lens)), None)
        singles = [b for b, q_len in enumerate(batch.q_lens) if q_len == 1]
        if not singles:
            return PagedPlan(self._caches, rows, prefills, None, None)
        decode = self._decode.plan(batch.pages[singles], [batch.kv_lens[b] for b in singles])
        tokens = torch.tensor([starts[b] for b in singles], device=batch.slots.device)
        return PagedPlan(self._caches, rows, prefills, decode, tokens)

    def _plan_prefill(self, batch: ForwardBatch, b: int, start: int) -> _Prefill:
        q_len, kv_len = batch.q_lens[b], batch.kv_lens[b]
        pages = batch.pages[b, : -(-kv_len // self._page_size)].long() * 2
        mask = None
        if q_len < kv_len:
            mask = torch.ones(q_len, kv_len, dtype=torch.bool, device=pages.device).tril_(kv_len - q_len)
        return _Prefill(start, start + q_len, kv_len, torch.cat((pages, pages + 1)), mask)


class PagedPlan:
    """`rows` are where the keys and values of the batch's tokens go, in a layer's cache seen as `[rows, kv_heads ×
    head_dim]`. `tokens` are the places of the sequences in decode, None when the whole batch is in decode."""

    def __init__(
        self,
        caches: torch.Tensor,
        rows: torch.Tensor,
        prefills: list[_Prefill],
        decode: DecodePlan | None,
        tokens: torch.Tensor | None,
    ) -> None:
        self._caches = caches
        self._rows = rows
        self._prefills = prefills
        self._decode = decode
        self._tokens = tokens

    def attend(self, layer: int, query: torch.Tensor, keys_values: torch.Tensor) -> torch.Tensor:
        cache = self._caches[layer]
        width = keys_values.shape[2] * keys_values.shape[3]
        cache.view(-1, width).index_copy_(0, self._rows, keys_values.reshape(-1, width))
        if self._decode is not None and self._tokens is None:
            return self._decode.attend(layer, query, keys_values)
        out = query.new_empty(query.shape[0], query.shape[1] * query.shape[2])
        if self._decode is not None and self._tokens is not None:
            attended = self._decode.attend(layer, query[self._tokens], keys_values[self._tokens])
            out.index_copy_(0, self._tokens, attended)
        for prefill in self._prefills:
            tokens = slice(prefill.start, prefill.stop)
            out[tokens] = _attend_prefill(prefill, query[tokens], keys_values[tokens], cache)
        return out


def _attend_prefill(
    plan: _Prefill, query: torch.Tensor, keys_values: torch.Tensor, cache: torch.Tensor
) -> torch.Tensor:
    if plan.mask is None:
        keys, values = keys_values.permute(1, 2, 0, 3)
    else:
        gathered = cache.view(cache.shape[0] * 2, -1).index_select(0, plan.halves)
        keys, values = gathered.view(2, -1, *cache.shape[3:])[:, : plan.kv_len].transpose(1, 2)
    out = F.scaled_dot_product_attention(
        query.transpose(0, 1)[None],
        keys[None],
        values[None],
        attn_mask=plan.mask,
        is_causal=plan.mask is None,
        enable_gqa=query.shape[1] != keys.shape[0],
    )
    return out[0].transpose(0, 1).reshape(query.shape[0], -1)

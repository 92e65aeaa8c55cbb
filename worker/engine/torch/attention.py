"""Attention over the paged cache: writes new keys and values, then lets each token see its own sequence up to itself.

Knows no weights. A cache is one layer's `[pages, 2, page_size, kv_heads, head_dim]`, keys at 0 and values at 1. The
last page belongs to this module: it holds zeros for ever and stands where a sequence has no page.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F

from worker.engine.torch.batch import ForwardBatch


class AttentionPlan(Protocol):
    """What one forward needs in every layer, computed once."""

    def attend(self, query: torch.Tensor, keys_values: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
        """query `[T, heads, head_dim]` and keys_values `[T, 2, kv_heads, head_dim]`, both rotated → `[T, heads ×
        head_dim]`. Writes keys_values into the cache first."""
        ...


class AttentionBackend(Protocol):
    def plan(self, batch: ForwardBatch) -> AttentionPlan: ...


@dataclass(frozen=True, slots=True)
class _Decode:
    """Sequences with one new token each. `tokens` are their rows among the batch's tokens, None when they are all of
    it. `halves` are rows of the cache seen as `[pages × 2, page]`: all key pages, then all value pages."""

    tokens: torch.Tensor | None
    halves: torch.Tensor
    stale: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True, slots=True)
class _Prefill:
    """One sequence with several new tokens, rows `start:stop` of the batch. Without `mask` it starts at position 0."""

    start: int
    stop: int
    kv_len: int
    halves: torch.Tensor
    mask: torch.Tensor | None


class SdpaAttention:
    """torch's scaled_dot_product_attention on any device. A decode step gathers the pages of all its sequences and
    attends in one call; sequences in prefill are attended one by one."""

    def __init__(self, page_size: int, zero_page: int, dtype: torch.dtype) -> None:
        self._page_size = page_size
        self._zero_page = zero_page
        self._dtype = dtype

    def plan(self, batch: ForwardBatch) -> "SdpaPlan":
        size = self._page_size
        rows = (batch.slots // size) * (2 * size) + batch.slots % size
        rows = torch.stack((rows, rows + size), dim=1).flatten()
        singles = [b for b, q_len in enumerate(batch.q_lens) if q_len == 1]
        starts = [0]
        for q_len in batch.q_lens:
            starts.append(starts[-1] + q_len)
        decode = None
        if singles:
            decode = self._plan_decode(batch, singles, None if batch.is_decode else [starts[b] for b in singles])
        prefills = [self._plan_prefill(batch, b, starts[b]) for b, q_len in enumerate(batch.q_lens) if q_len > 1]
        return SdpaPlan(rows, decode, prefills, size)

    def _plan_decode(self, batch: ForwardBatch, singles: list[int], tokens: list[int] | None) -> _Decode:
        device, size = batch.pages.device, self._page_size
        lens = [batch.kv_lens[b] for b in singles]
        pages_used = -(-max(lens) // size)
        length = pages_used * size
        kv_lens = torch.tensor(lens, device=device)
        pages = batch.pages[:, :pages_used].long()
        rows = None
        if tokens is not None:
            pages = pages[torch.tensor(singles, device=device)]
            rows = torch.tensor(tokens, device=device)
        absent = torch.arange(pages_used, device=device) * size >= kv_lens[:, None]
        halves = pages.masked_fill(absent, self._zero_page).flatten() * 2
        unseen = torch.arange(length, device=device) >= kv_lens[:, None]
        # The tail of a sequence's last page may hold anything, NaN too, and 0 × NaN is NaN: it is zeroed once gathered.
        stale = (unseen & ~absent.repeat_interleave(size, dim=1)).flatten().nonzero().flatten()
        mask = torch.zeros(unseen.shape, dtype=self._dtype, device=device).masked_fill_(unseen, float("-inf"))
        return _Decode(
            tokens=rows,
            halves=torch.cat((halves, halves + 1)),
            stale=torch.cat((stale, stale + unseen.numel())),
            mask=mask[:, None, None, :],
        )

    def _plan_prefill(self, batch: ForwardBatch, b: int, start: int) -> _Prefill:
        q_len, kv_len = batch.q_lens[b], batch.kv_lens[b]
        pages = batch.pages[b, : -(-kv_len // self._page_size)].long() * 2
        mask = None
        if q_len < kv_len:
            mask = torch.ones(q_len, kv_len, dtype=torch.bool, device=pages.device).tril_(kv_len - q_len)
        return _Prefill(start, start + q_len, kv_len, torch.cat((pages, pages + 1)), mask)


class SdpaPlan:
    """See AttentionPlan."""

    def __init__(self, rows: torch.Tensor, decode: _Decode | None, prefills: list[_Prefill], page_size: int) -> None:
        self._rows = rows
        self._decode = decode
        self._prefills = prefills
        self._page_size = page_size

    def attend(self, query: torch.Tensor, keys_values: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
        _, _, _, kv_heads, head_dim = cache.shape
        cache.view(-1, kv_heads * head_dim).index_copy_(0, self._rows, keys_values.reshape(-1, kv_heads * head_dim))
        if self._decode is not None and self._decode.tokens is None:
            return self._attend_decode(self._decode, query, cache)
        out = torch.empty_like(query).flatten(1)
        if self._decode is not None:
            out[self._decode.tokens] = self._attend_decode(self._decode, query[self._decode.tokens], cache)
        for prefill in self._prefills:
            tokens = slice(prefill.start, prefill.stop)
            out[tokens] = self._attend_prefill(prefill, query[tokens], keys_values[tokens], cache)
        return out

    def _attend_decode(self, plan: _Decode, query: torch.Tensor, cache: torch.Tensor) -> torch.Tensor:
        sequences, heads, head_dim = query.shape
        kv_heads = cache.shape[3]
        gathered = cache.view(cache.shape[0] * 2, -1).index_select(0, plan.halves).view(-1, kv_heads * head_dim)
        gathered.index_fill_(0, plan.stale, 0.0)
        keys, values = gathered.view(2, sequences, -1, kv_heads, head_dim).transpose(2, 3)
        # The heads that share a key head are its queries: grouped-query attention without copies of the keys.
        grouped = query.view(sequences, kv_heads, heads // kv_heads, head_dim)
        return F.scaled_dot_product_attention(grouped, keys, values, attn_mask=plan.mask).reshape(sequences, -1)

    def _attend_prefill(
        self, plan: _Prefill, query: torch.Tensor, keys_values: torch.Tensor, cache: torch.Tensor
    ) -> torch.Tensor:
        tokens = query.shape[0]
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
        return out[0].transpose(0, 1).reshape(tokens, -1)

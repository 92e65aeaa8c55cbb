"""Decode attention on any device: in each layer gathers the pages of all sequences and attends in one call."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F


class GatheredDecode:
    """See DecodeAttention. The cache's last page is this class's: it holds zeros and is never written."""

    def __init__(self, caches: torch.Tensor) -> None:
        self._caches = caches
        self._zero_page = caches.shape[1] - 1
        self._page_size = caches.shape[3]

    def forget(self, pages: Iterable[int]) -> None:
        """Nothing is kept from one step to the next."""

    def plan(self, pages: torch.Tensor, kv_lens: list[int]) -> "GatheredPlan":
        device, size = pages.device, self._page_size
        pages_used = -(-max(kv_lens) // size)
        lengths = torch.tensor(kv_lens, device=device)[:, None]
        absent = torch.arange(pages_used, device=device) * size >= lengths
        halves = pages[:, :pages_used].long().masked_fill(absent, self._zero_page).flatten() * 2
        unseen = torch.arange(pages_used * size, device=device) >= lengths
        # The tail of a sequence's last page may hold anything, NaN too, and 0 × NaN is NaN: it is zeroed once gathered.
        stale = (unseen & ~absent.repeat_interleave(size, dim=1)).flatten().nonzero().flatten()
        mask = torch.zeros(unseen.shape, dtype=self._caches.dtype, device=device).masked_fill_(unseen, float("-inf"))
        return GatheredPlan(
            self._caches,
            torch.cat((halves, halves + 1)),
            torch.cat((stale, stale + unseen.numel())),
            mask[:, None, None],
        )


class GatheredPlan:
    """`halves` are rows of a layer's cache seen as `[pages × 2, page]`: all key pages, then all value pages; `stale`
    are the gathered tokens that belong to nobody; `mask` is `[B, 1, 1, L]`."""

    def __init__(self, caches: torch.Tensor, halves: torch.Tensor, stale: torch.Tensor, mask: torch.Tensor) -> None:
        self._caches = caches
        self._halves = halves
        self._stale = stale
        self._mask = mask

    def attend(self, layer: int, query: torch.Tensor, keys_values: torch.Tensor) -> torch.Tensor:
        cache = self._caches[layer]
        sequences, heads, head_dim = query.shape
        kv_heads = keys_values.shape[2]
        gathered = cache.view(cache.shape[0] * 2, -1).index_select(0, self._halves).view(-1, kv_heads * head_dim)
        gathered.index_fill_(0, self._stale, 0.0)
        keys, values = gathered.view(2, sequences, -1, kv_heads, head_dim).transpose(2, 3)
        # The heads that share a key head are its queries: grouped-query attention without copies of the keys.
        grouped = query.reshape(sequences, kv_heads, heads // kv_heads, head_dim)
        return F.scaled_dot_product_attention(grouped, keys, values, attn_mask=self._mask).reshape(sequences, -1)

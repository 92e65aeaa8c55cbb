"""From logits to one token per row by inverse of the cumulative distribution: temperature, top_k, top_p, min_p.

Filters are thresholds on the value, so tokens of equal logits are kept or dropped together, and a draw walks the kept
tokens in the order of their ids: nothing depends on how a sort breaks ties, nor on what other rows ask for. The whole
vocabulary is sorted only for a row whose kept set is wider than `_WIDTHS`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

_WIDTHS = (256, 8192)
_BLOCK = 256
_BELOW_ONE = 1 - 2.0**-40


@dataclass(frozen=True, slots=True)
class Filters:
    """Per row: temperature float32 [R, 1]; top_k int64 [R], 0 off; top_p [R], 1 off; log_min_p [R], −inf off."""

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    log_min_p: torch.Tensor
    max_k: int
    needs_total: bool

    def take(self, rows: torch.Tensor) -> "Filters":
        return Filters(
            self.temperature[rows],
            self.top_k[rows],
            self.top_p[rows],
            self.log_min_p[rows],
            self.max_k,
            self.needs_total,
        )


def draw_unfiltered(logits: torch.Tensor, temperature: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """int64 [R] for `numbers` float64 [R] in [0, 1). Sums blocks in double, then walks the block that holds the target:
    a double for every token of the vocabulary would be the dearest part."""
    rows, vocab = logits.shape
    weights = _scale(logits, logits.amax(-1, keepdim=True), temperature).exp_()
    blocks = F.pad(weights, (0, -vocab % _BLOCK)).view(rows, -1, _BLOCK)
    ends = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    targets = numbers[:, None] * ends[:, -1:]
    block = torch.searchsorted(ends, targets, right=True).clamp_max(ends.shape[1] - 1)
    before = F.pad(ends, (1, 0)).gather(1, block)
    inside = blocks[torch.arange(rows, device=logits.device), block[:, 0]].cumsum(-1, dtype=torch.float64)
    # The two sums round differently: the target must stay below the walk's own end.
    place = torch.searchsorted(inside, torch.minimum(targets - before, inside[:, -1:] * _BELOW_ONE), right=True)
    return (block * _BLOCK + place)[:, 0].clamp_max(vocab - 1)


def draw_filtered(logits: torch.Tensor, filters: Filters, numbers: torch.Tensor, wider: int = 0) -> torch.Tensor:
    """int64 [R]. Looks at the largest values of each row; rows whose filters may keep more are drawn again, wider."""
    vocab = logits.shape[1]
    width = vocab if wider >= len(_WIDTHS) else min(vocab, max(_WIDTHS[wider], filters.max_k + 1))
    top = torch.topk(logits, width)
    scaled = _scale(top.values, top.values[:, :1], filters.temperature)
    total = None
    if filters.needs_total:
        total = _scale(logits, top.values[:, :1], filters.temperature).exp_().sum(-1, dtype=torch.float64)
    floor = _floor(scaled, filters, total)
    ids, order = top.indices.sort()
    kept = torch.where(scaled >= floor[:, None], scaled.exp(), 0.0).gather(1, order)
    cumulative = kept.cumsum(-1, dtype=torch.float64)
    place = torch.searchsorted(cumulative, numbers[:, None] * cumulative[:, -1:], right=True).clamp_max(width - 1)
    drawn = ids.gather(1, place)[:, 0]
    if width < vocab:
        # Nothing lies below −inf: such a row has all its tokens here.
        open_ended = torch.nonzero((scaled[:, -1] >= floor) & (scaled[:, -1] > -torch.inf))[:, 0]
        if len(open_ended):
            rest = draw_filtered(logits[open_ended], filters.take(open_ended), numbers[open_ended], wider + 1)
            drawn[open_ended] = rest
    return drawn


def _scale(logits: torch.Tensor, largest: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """Subtracting the largest before dividing keeps tiny temperatures finite."""
    return (logits - largest).div_(temperature)


def _floor(scaled: torch.Tensor, filters: Filters, total: torch.Tensor | None) -> torch.Tensor:
    """[R]: the least value kept. `scaled` holds each row's largest values, descending from 0; `total` [R] is the whole
    row's mass, for rows without top_k. The nucleus is those whose likelier ones sum to less than `top_p`."""
    width = scaled.shape[1]
    kth = scaled.gather(1, (filters.top_k - 1).clamp(0, width - 1)[:, None])[:, 0]
    floor = torch.where(filters.top_k > 0, kth, -torch.inf)
    masses = torch.where(scaled >= floor[:, None], scaled.exp(), 0.0).cumsum(-1, dtype=torch.float64)
    whole = masses[:, -1] if total is None else torch.where(filters.top_k > 0, masses[:, -1], total)
    inside = (masses < (filters.top_p * whole)[:, None]).sum(-1)
    last = scaled.gather(1, inside.clamp_max(width - 1)[:, None])[:, 0]
    nucleus = torch.where(filters.top_p < 1, last, -torch.inf)
    return torch.maximum(torch.maximum(floor, nucleus), filters.log_min_p)

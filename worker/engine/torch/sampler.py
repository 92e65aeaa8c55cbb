"""Draws one token per row of logits, all rows together on the device. Knows rows and slots, not requests.

Order, as transformers' processors and warpers: logit_bias, repetition penalty, presence and frequency penalties,
temperature, top_k, top_p, min_p. Filters are thresholds on the value, so tokens of equal logits are kept or dropped
together, and the draw walks the vocabulary in the order of ids: nothing depends on how a sort breaks ties, nor on
what other rows ask for.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from worker.engine.generation import SampledToken, Sampling, TopLogprob
from worker.engine.torch.random_numbers import uniforms
from worker.engine.torch.sampling_plan import SamplingPlan, is_penalised

NOT_FINITE = -1
_NUCLEUS_WIDTH = 256


@dataclass(frozen=True, slots=True)
class Draw:
    """`ids` int64 [B] on the device, `tokens` the same on the host: NOT_FINITE where the model's logits were not.
    `logprobs` by row, for the rows that want them: of the model's own distribution, before any processor."""

    ids: torch.Tensor
    tokens: list[int]
    logprobs: dict[int, SampledToken] = field(default_factory=dict)


class Sampler:
    """Keeps, per slot, what penalties need: which tokens occurred (prompt and generated, for repetition) and how often
    each was generated (presence, frequency). That memory, 5 bytes × slots × vocabulary, is taken at first use."""

    def __init__(self, slots: int, vocab_size: int, device: torch.device) -> None:
        self._slots = slots
        self._vocab_size = vocab_size
        self._device = device
        self._seen: torch.Tensor | None = None
        self._counts: torch.Tensor | None = None

    def open(self, slot: int, sampling: Sampling, text_ids: list[int], generated: list[int]) -> None:
        """Readies a slot for its next sequence. `text_ids` is the prompt without visual tokens: they do not count."""
        if not is_penalised(sampling):
            return
        seen, counts = self._history()
        seen[slot] = False
        counts[slot] = 0.0
        drawn = torch.tensor(generated, dtype=torch.int64, device=self._device)
        seen[slot, torch.tensor(text_ids, dtype=torch.int64, device=self._device)] = True
        seen[slot, drawn] = True
        counts[slot].index_add_(0, drawn, torch.ones(len(generated), device=self._device))

    def sample(self, logits: torch.Tensor, plan: SamplingPlan, positions: NDArray[np.int64]) -> Draw:
        """`logits` float32 [B, vocab], overwritten; `positions` int64 [B]: how many tokens each row generated before.
        A row is called not finite by its sum, which is so for NaN, infinities, and values beyond any use (10³³)."""
        finite = torch.isfinite(logits.sum(-1))
        reported = None
        if plan.logprobs is not None:
            reported = torch.log_softmax(logits[plan.logprobs], dim=-1)
        self._adjust(logits, plan)
        ids = self._choose(logits, plan, positions)
        if plan.penalised is not None:
            seen, counts = self._history()
            drawn = ids[plan.penalised]
            seen[plan.slots, drawn] = True
            counts[plan.slots, drawn] += 1.0
        ids = torch.where(finite, ids, NOT_FINITE)
        tokens: list[int] = ids.tolist()
        if reported is None or plan.logprobs is None:
            return Draw(ids, tokens)
        return Draw(ids, tokens, _report(reported, plan.logprobs.tolist(), plan.tops, tokens))

    def _history(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._seen is None or self._counts is None:
            shape = (self._slots, self._vocab_size)
            self._seen = torch.zeros(shape, dtype=torch.bool, device=self._device)
            self._counts = torch.zeros(shape, dtype=torch.float32, device=self._device)
        return self._seen, self._counts

    def _adjust(self, logits: torch.Tensor, plan: SamplingPlan) -> None:
        if plan.bias is not None:
            rows, ids, values = plan.bias
            logits.index_put_((rows, ids), values, accumulate=True)
        if plan.penalised is None:
            return
        all_seen, all_counts = self._history()
        seen, counts, x = all_seen[plan.slots], all_counts[plan.slots], logits[plan.penalised]
        x = torch.where(seen, torch.where(x > 0, x / plan.repetition, x * plan.repetition), x)
        logits[plan.penalised] = x - counts * plan.frequency - (counts > 0) * plan.presence

    def _choose(self, logits: torch.Tensor, plan: SamplingPlan, positions: NDArray[np.int64]) -> torch.Tensor:
        if plan.sampled is None:
            return logits.argmax(-1)
        numbers = uniforms(plan.words[plan.drawing], positions[plan.drawing])
        drawing = logits if plan.all_sampled else logits[plan.sampled]
        drawn = _draw(drawing, plan, torch.from_numpy(numbers).to(self._device))
        if plan.all_sampled:
            return drawn
        ids = logits.argmax(-1)
        ids[plan.sampled] = drawn
        return ids


def _draw(logits: torch.Tensor, plan: SamplingPlan, numbers: torch.Tensor) -> torch.Tensor:
    """Inverse of the cumulative distribution at `numbers` float64 [R]. Subtracting the maximum first keeps tiny
    temperatures finite; the sum is double so that a large vocabulary's tail is not lost."""
    scaled = (logits - logits.amax(-1, keepdim=True)) / plan.temperature
    weights = scaled.exp()
    floor = _floor(scaled, plan)
    if floor is not None:
        weights = torch.where(scaled >= floor[:, None], weights, 0.0)
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    targets = numbers[:, None] * cumulative[:, -1:]
    ids = torch.searchsorted(cumulative, targets, right=True)[:, 0]
    return ids.clamp_max(logits.shape[-1] - 1)


def _floor(scaled: torch.Tensor, plan: SamplingPlan) -> torch.Tensor | None:
    """[R]: the least value kept in each row whose maximum is 0; None when no row filters."""
    floor = None
    if plan.max_k or plan.has_top_p:
        width = max(plan.max_k, _NUCLEUS_WIDTH if plan.has_top_p else 0)
        top = torch.topk(scaled, min(width, scaled.shape[-1])).values
        kth = top.gather(1, (plan.top_k - 1).clamp(0, top.shape[1] - 1)[:, None])[:, 0]
        floor = torch.where(plan.top_k > 0, kth, -torch.inf)
        if plan.has_top_p:
            floor = torch.maximum(floor, _nucleus_floor(scaled, top, floor, plan.top_p))
    if plan.has_min_p:
        floor = plan.log_min_p if floor is None else torch.maximum(floor, plan.log_min_p)
    return floor


def _nucleus_floor(scaled: torch.Tensor, top: torch.Tensor, floor: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """The value of the last token of the nucleus: those whose likelier ones sum to less than `top_p`. `top` holds the
    largest values of each row, descending; a row whose nucleus is wider is sorted whole."""
    total = torch.where(scaled >= floor[:, None], scaled.exp(), 0.0).sum(-1, dtype=torch.float64)
    found, enough = _last_kept(top, floor, top_p, total)
    found = torch.where(top_p < 1, found, -torch.inf)
    short = torch.nonzero(~enough & (top_p < 1))[:, 0]
    if len(short) and top.shape[1] < scaled.shape[1]:
        whole = torch.sort(scaled[short], descending=True).values
        found[short] = _last_kept(whole, floor[short], top_p[short], total[short])[0]
    return found


def _last_kept(
    descending: torch.Tensor, floor: torch.Tensor, top_p: torch.Tensor, total: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    masses = torch.where(descending >= floor[:, None], descending.exp(), 0.0).cumsum(-1, dtype=torch.float64)
    reached = masses / total[:, None]
    kept = (reached < top_p[:, None]).sum(-1)
    last = kept.clamp_max(descending.shape[1] - 1)
    return descending.gather(1, last[:, None])[:, 0], reached[:, -1] >= top_p


def _report(reported: torch.Tensor, rows: list[int], tops: list[int], tokens: list[int]) -> dict[int, SampledToken]:
    best = torch.topk(reported, min(max(tops), reported.shape[1]))
    values, ids = best.values.tolist(), best.indices.tolist()
    chosen = torch.tensor([[max(tokens[row], 0)] for row in rows], device=reported.device)
    own = reported.gather(1, chosen)[:, 0].tolist()
    return {
        row: SampledToken(
            id=tokens[row],
            logprob=own[n],
            top=[TopLogprob(i, value) for i, value in zip(ids[n][: tops[n]], values[n], strict=False)],
        )
        for n, row in enumerate(rows)
    }

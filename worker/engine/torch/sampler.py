"""Draws one token per row of logits, all rows together on the device. Knows rows and slots, not requests.

Order, as transformers' processors and warpers: logit_bias, repetition penalty, presence and frequency penalties, what
must not be drawn, temperature, top_k, top_p, min_p (the last four in `drawing`). A row's token does not depend on what
other rows ask for.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from worker.engine.generation import SampledToken, Sampling, TopLogprob
from worker.engine.torch.drawing import draw_filtered, draw_unfiltered
from worker.engine.torch.random_numbers import uniforms
from worker.engine.torch.sampling_plan import HeldEntries, SamplingPlan, is_penalised
from worker.engine.torch.token_masks import TokenMasks

NOT_FINITE = -1


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

    def sample(
        self,
        logits: torch.Tensor,
        plan: SamplingPlan,
        positions: NDArray[np.int64],
        masks: TokenMasks | None = None,
    ) -> Draw:
        """`logits` float32 [B, vocab], overwritten; `positions` int64 [B]: how many tokens each row generated before.
        A row is called not finite by its sum, which is so for NaN, infinities, and values beyond any use (10³³)."""
        finite = torch.isfinite(logits.sum(-1))
        reported = None
        if plan.logprobs is not None:
            reported = torch.log_softmax(logits[plan.logprobs], dim=-1)
        self._adjust(logits, plan)
        if plan.held is not None:
            _hold_back(logits, plan.held, positions)
        if masks is not None:
            logits[masks.rows] = logits[masks.rows].masked_fill_(~masks.allowed, -torch.inf)
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
        x = logits[plan.penalised]
        if plan.has_repetition:
            seen = all_seen[plan.slots]
            x = torch.where(seen, torch.where(x > 0, x / plan.repetition, x * plan.repetition), x)
        if plan.has_counts:
            counts = all_counts[plan.slots]
            x = x - counts * plan.frequency - (counts > 0) * plan.presence
        logits[plan.penalised] = x

    def _choose(self, logits: torch.Tensor, plan: SamplingPlan, positions: NDArray[np.int64]) -> torch.Tensor:
        numbers = None
        ids = logits.argmax(-1) if plan.has_greedy else torch.empty(len(logits), dtype=torch.int64, device=self._device)
        for group in (plan.unfiltered, plan.filtered):
            if group is None:
                continue
            if numbers is None:
                numbers = torch.from_numpy(uniforms(plan.words, positions)).to(self._device)
            rows = slice(None) if group.rows is None else group.rows
            if group is plan.filtered:
                ids[rows] = draw_filtered(logits[rows], group.filters, numbers[rows])
            else:
                ids[rows] = draw_unfiltered(logits[rows], group.filters.temperature, numbers[rows])
        return ids


def _hold_back(logits: torch.Tensor, held: HeldEntries, positions: NDArray[np.int64]) -> None:
    early = np.flatnonzero(positions[held.host_rows] < held.until)
    if len(early):
        entries = torch.from_numpy(early).to(logits.device)
        logits[held.rows[entries], held.ids[entries]] = -torch.inf


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

"""What a batch of rows asks of the sampler, as tensors. Made when the batch's members change, not at every step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from worker.engine.generation import Sampling
from worker.engine.torch.drawing import Filters
from worker.engine.torch.random_numbers import seed_words
from worker.engine.torch.sequence import Sequence as Running


@dataclass(frozen=True, slots=True)
class Group:
    """Rows that are drawn by one call: `rows` int64 [R], None when they are all rows of the batch."""

    rows: torch.Tensor | None
    filters: Filters


@dataclass(frozen=True, slots=True)
class Held:
    """Ids that a row must not draw before it has generated `until` tokens."""

    row: int
    ids: Sequence[int]
    until: int


@dataclass(frozen=True, slots=True)
class HeldEntries:
    """One entry per held id: `rows` and `ids` int64 [E] on the device; `host_rows` and `until` [E] on the host."""

    rows: torch.Tensor
    ids: torch.Tensor
    host_rows: NDArray[np.int64]
    until: NDArray[np.int64]


class SamplingPlan:
    """Features that no row uses are None, and the sampler skips them. Row indices are int64 tensors on the device.

    unfiltered   rows with a temperature alone
    filtered     rows with top_k, top_p or min_p as well
    penalised    rows with a penalty; `slots` int64 [P], `repetition`, `presence`, `frequency` [P, 1] go with them
    bias         (rows, ids, values), one entry per biased token
    held         ids that rows must not draw yet
    logprobs     rows that want them; `tops` how many likeliest each
    """

    def __init__(
        self, slots: Sequence[int], samplings: Sequence[Sampling], device: torch.device, held: Sequence[Held] = ()
    ) -> None:
        self._device = device
        self._samplings = samplings
        self.words = seed_words([s.seed for s in samplings])
        drawn = [row for row, s in enumerate(samplings) if s.temperature > 0]
        self.unfiltered = self._group([row for row in drawn if not _is_filtered(samplings[row])])
        self.filtered = self._group([row for row in drawn if _is_filtered(samplings[row])])
        self.has_greedy = len(drawn) < len(samplings)
        self._plan_penalties(slots)
        self._plan_bias()
        self._plan_held(held)
        wanting = [row for row, s in enumerate(samplings) if s.logprobs is not None]
        self.logprobs = self._ints(wanting) if wanting else None
        self.tops = [samplings[row].logprobs or 0 for row in wanting]

    def _group(self, places: list[int]) -> Group | None:
        if not places:
            return None
        chosen = [self._samplings[place] for place in places]
        filters = Filters(
            # Below this a float cannot tell it from greedy, and 0 would divide by zero.
            temperature=self._floats([s.temperature for s in chosen])[:, None].clamp_min(1e-30),
            top_k=self._ints([s.top_k for s in chosen]),
            top_p=self._floats([s.top_p for s in chosen]),
            log_min_p=self._floats([s.min_p for s in chosen]).log(),
            max_k=max(s.top_k for s in chosen),
            needs_total=any(s.top_p < 1 and not s.top_k for s in chosen),
        )
        return Group(None if len(places) == len(self._samplings) else self._ints(places), filters)

    def _plan_penalties(self, slots: Sequence[int]) -> None:
        rows = [row for row, s in enumerate(self._samplings) if is_penalised(s)]
        chosen = [self._samplings[row] for row in rows]
        self.penalised = self._ints(rows) if rows else None
        self.slots = self._ints([slots[row] for row in rows])
        self.has_repetition = any(s.repetition_penalty != 1 for s in chosen)
        self.repetition = self._floats([s.repetition_penalty for s in chosen])[:, None]
        self.has_counts = any(s.presence_penalty or s.frequency_penalty for s in chosen)
        self.presence = self._floats([s.presence_penalty for s in chosen])[:, None]
        self.frequency = self._floats([s.frequency_penalty for s in chosen])[:, None]

    def _plan_bias(self) -> None:
        entries = [(row, i, value) for row, s in enumerate(self._samplings) for i, value in s.logit_bias.items()]
        self.bias: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        if entries:
            rows, ids, values = zip(*entries, strict=True)
            self.bias = self._ints(list(rows)), self._ints(list(ids)), self._floats(list(values))

    def _plan_held(self, held: Sequence[Held]) -> None:
        entries = [(hold.row, i, hold.until) for hold in held for i in hold.ids]
        self.held: HeldEntries | None = None
        if entries:
            rows, ids, until = zip(*entries, strict=True)
            self.held = HeldEntries(self._ints(list(rows)), self._ints(list(ids)), np.array(rows), np.array(until))

    def _ints(self, values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)

    def _floats(self, values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)


def plan_of(sequences: Sequence[Running], device: torch.device) -> SamplingPlan:
    """The plan of running sequences, one row each. A row that has its `min_tokens` is never held back again."""
    held = [
        Held(row, s.generation.stop_ids, s.generation.min_tokens)
        for row, s in enumerate(sequences)
        if s.generated < s.generation.min_tokens
    ]
    return SamplingPlan([s.slot for s in sequences], [s.generation.sampling for s in sequences], device, held)


def is_penalised(sampling: Sampling) -> bool:
    return sampling.repetition_penalty != 1 or sampling.presence_penalty != 0 or sampling.frequency_penalty != 0


def _is_filtered(sampling: Sampling) -> bool:
    return sampling.top_k > 0 or sampling.top_p < 1 or sampling.min_p > 0

"""What a batch of rows asks of the sampler, as tensors. Made when the batch's members change, not at every step."""

from collections.abc import Sequence

import torch

from worker.engine.generation import Sampling
from worker.engine.torch.random_numbers import seed_words


class SamplingPlan:
    """Features that no row uses are None, and the sampler skips them. Row indices are int64 tensors on the device.

    sampled      rows with a temperature; `temperature` [R, 1], `top_k` int64 [R], `top_p` and `min_p` [R] go with them
    penalised    rows with a penalty; `slots` int64 [P], `repetition`, `presence`, `frequency` [P, 1]
    bias         (rows, ids, values), one entry per biased token
    logprobs     rows that want them; `tops` how many likeliest each
    """

    def __init__(self, slots: Sequence[int], samplings: Sequence[Sampling], device: torch.device) -> None:
        self.rows = len(samplings)
        self.words = seed_words([s.seed for s in samplings])
        self._device = device
        self._plan_draw(samplings)
        self._plan_penalties(slots, samplings)
        self._plan_bias(samplings)
        wanting = [row for row, s in enumerate(samplings) if s.logprobs is not None]
        self.logprobs = self._ints(wanting) if wanting else None
        self.tops = [samplings[row].logprobs or 0 for row in wanting]

    def _plan_draw(self, samplings: Sequence[Sampling]) -> None:
        drawing = [row for row, s in enumerate(samplings) if s.temperature > 0]
        chosen = [samplings[row] for row in drawing]
        self.sampled = self._ints(drawing) if drawing else None
        self.all_sampled = len(drawing) == self.rows
        self.temperature = self._floats([s.temperature for s in chosen])[:, None].clamp_min(1e-30)
        self.max_k = max((s.top_k for s in chosen), default=0)
        self.top_k = self._ints([s.top_k for s in chosen])
        self.has_top_p = any(s.top_p < 1 for s in chosen)
        self.top_p = self._floats([s.top_p for s in chosen])
        self.has_min_p = any(s.min_p > 0 for s in chosen)
        self.log_min_p = self._floats([s.min_p for s in chosen]).log()
        self.drawing = drawing

    def _plan_penalties(self, slots: Sequence[int], samplings: Sequence[Sampling]) -> None:
        rows = [row for row, s in enumerate(samplings) if is_penalised(s)]
        chosen = [samplings[row] for row in rows]
        self.penalised = self._ints(rows) if rows else None
        self.slots = self._ints([slots[row] for row in rows])
        self.repetition = self._floats([s.repetition_penalty for s in chosen])[:, None]
        self.presence = self._floats([s.presence_penalty for s in chosen])[:, None]
        self.frequency = self._floats([s.frequency_penalty for s in chosen])[:, None]

    def _plan_bias(self, samplings: Sequence[Sampling]) -> None:
        entries = [(row, i, value) for row, s in enumerate(samplings) for i, value in s.logit_bias.items()]
        self.bias: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        if entries:
            rows, ids, values = zip(*entries, strict=True)
            self.bias = self._ints(list(rows)), self._ints(list(ids)), self._floats(list(values))

    def _ints(self, values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._device)

    def _floats(self, values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self._device)


def is_penalised(sampling: Sampling) -> bool:
    return sampling.repetition_penalty != 1 or sampling.presence_penalty != 0 or sampling.frequency_penalty != 0

"""How the executor draws: in its own order, which is not the torch engine's.

Bias, temperature, penalties (which count the prompt's tokens too), the end held back; then top_k, top_p, min_p. What is
drawn depends on the seed and on how many tokens this request has drawn: one that goes on where another stopped begins
anew.
"""

from collections import Counter
from collections.abc import Sequence as Many

import numpy as np
import torch

from tensorrt_llm.bindings.executor.sequence import Sequence
from worker.engine.generation import SampledToken, Sampling
from worker.engine.torch.sampler import Sampler
from worker.engine.torch.sampling_plan import SamplingPlan
from worker.engine.torch.token_masks import masks_of

_CPU = torch.device("cpu")
TOP_K_MAX = 1024
# Finite: the sampler takes an infinity for a fault of the model.
_NEVER = -1e30


@torch.inference_mode()
def draw(sequences: Many[Sequence], logits: torch.Tensor) -> list[SampledToken]:
    """`logits` float32 `[sequences, vocab]`, overwritten."""
    vocab = logits.shape[1]
    masks = masks_of(sequences, vocab, _CPU)  # type: ignore[arg-type]
    if masks is not None:
        logits[masks.rows] = logits[masks.rows].masked_fill_(~masks.allowed, _NEVER)
    for row, sequence in enumerate(sequences):
        _adjust(logits[row], sequence)
    plan = SamplingPlan(list(range(len(sequences))), [_filters(s) for s in sequences], _CPU)
    drawn = np.array([len(s.generated) for s in sequences], dtype=np.int64)
    found = Sampler(len(sequences), vocab, _CPU).sample(logits, plan, drawn)
    return [found.logprobs.get(row) or SampledToken(token) for row, token in enumerate(found.tokens)]


def _adjust(logits: torch.Tensor, sequence: Sequence) -> None:
    request, asked = sequence.request, sequence.request.sampling_config
    if request.embedding_bias is not None:
        logits += request.embedding_bias.flatten().float()
    if asked.temperature:
        logits /= asked.temperature + 1e-6
    repetition, presence = asked.repetition_penalty or 1.0, asked.presence_penalty or 0.0
    frequency = asked.frequency_penalty or 0.0
    if (repetition, presence, frequency) != (1.0, 0.0, 0.0):
        counts = Counter(token for token in sequence.ids if token < len(logits))
        ids = torch.tensor(list(counts))
        seen = logits[ids]
        seen = torch.where(seen < 0, seen * repetition, seen / repetition)
        logits[ids] = seen - presence - frequency * torch.tensor(list(counts.values()))
    if request.end_id is not None and len(sequence.generated) < (asked.min_tokens or 0):
        logits[request.end_id] = _NEVER


def _filters(sequence: Sequence) -> Sampling:
    """Neither top_k nor top_p: the likeliest token, whatever the temperature. A temperature of 0 makes those that are
    given 1: without top_k it is no greedy choice at all."""
    asked = sequence.request.sampling_config
    top_k, top_p = asked.top_k, asked.top_p
    if asked.temperature == 0.0:
        top_k, top_p = top_k and 1, top_p and 1.0
    logprobs = 0 if sequence.request.output_config.return_log_probs else None
    if top_k == 1 or (not top_k and not top_p):
        return Sampling(logprobs=logprobs)
    return Sampling(
        seed=(asked.seed or 0) + sequence.index,
        temperature=1.0,
        top_p=top_p or 1.0,
        # More are not looked at.
        top_k=min(top_k or 0, TOP_K_MAX),
        min_p=asked.min_p or 0.0,
        logprobs=logprobs,
    )

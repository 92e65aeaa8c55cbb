"""Sampling is the distribution it claims: chi-square of many draws against transformers' processors and warpers, and
against OpenAI's own formula for presence and frequency, which transformers does not have.

Seeds are fixed, so a result stays what it is. 30,000 draws each, of 300 seeds at 100 positions: both must be random.
"""

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from worker.engine.generation import Sampling
from worker.engine.torch.sampler import Sampler
from worker.engine.torch.sampling_plan import SamplingPlan

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")
SEEDS, POSITIONS = 300, 100
SIGNIFICANCE = 1e-3
PROMPT = [3, 9, 9, 11, 40]
GENERATED = [4, 4, 4, 5, 9, 17, 17, 30]

CASES = {
    "plain": Sampling(temperature=1.0),
    "cold": Sampling(temperature=0.6),
    "hot": Sampling(temperature=3.0),
    "one token": Sampling(temperature=2.0, top_k=1),
    "top_k": Sampling(temperature=1.0, top_k=7),
    "top_k hot": Sampling(temperature=2.5, top_k=40),
    "top_p": Sampling(temperature=1.0, top_p=0.9),
    "top_p narrow": Sampling(temperature=1.0, top_p=0.35),
    "top_p hot": Sampling(temperature=5.0, top_p=0.98),
    "min_p": Sampling(temperature=1.0, min_p=0.05),
    "min_p hot": Sampling(temperature=3.0, min_p=0.3),
    "all filters": Sampling(temperature=1.7, top_k=25, top_p=0.9, min_p=0.03),
    "top_k and top_p": Sampling(temperature=2.0, top_k=12, top_p=0.6),
    "top_p and min_p": Sampling(temperature=2.0, top_p=0.95, min_p=0.1),
    "repetition": Sampling(temperature=1.0, repetition_penalty=1.8),
    "repetition wanted": Sampling(temperature=1.0, repetition_penalty=0.6),
    "presence": Sampling(temperature=1.0, presence_penalty=1.5),
    "presence wanted": Sampling(temperature=1.0, presence_penalty=-1.0),
    "frequency": Sampling(temperature=1.0, frequency_penalty=0.9),
    "frequency wanted": Sampling(temperature=1.0, frequency_penalty=-0.5),
    "bias": Sampling(temperature=1.0, logit_bias={4: 2.5, 8: -3.0, 9: 1.0}),
    "everything": Sampling(
        temperature=1.4,
        top_k=30,
        top_p=0.93,
        min_p=0.02,
        repetition_penalty=1.3,
        presence_penalty=0.7,
        frequency_penalty=0.4,
        logit_bias={4: 3.0, 17: 2.0, 9: 2.0},
    ),
}


def _logits(vocab: int, spread: float) -> torch.Tensor:
    return torch.randn(1, vocab, generator=torch.Generator().manual_seed(vocab)) * spread


def _claimed(logits: torch.Tensor, sampling: Sampling) -> NDArray[np.float64]:
    """The distribution by transformers' own classes, in the order in which `generate` applies them."""
    scores = logits.clone()
    for token, value in sampling.logit_bias.items():
        scores[0, token] += value
    if sampling.repetition_penalty != 1:
        scores = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)(
            torch.tensor([PROMPT + GENERATED]), scores
        )
    # mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence, c[j]: how often j was sampled so far
    counts = torch.bincount(torch.tensor(GENERATED), minlength=scores.shape[1])
    scores = scores - counts * sampling.frequency_penalty - (counts > 0).float() * sampling.presence_penalty
    scores = TemperatureLogitsWarper(sampling.temperature)(None, scores)
    if sampling.top_k:
        scores = TopKLogitsWarper(sampling.top_k)(None, scores)
    if sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(None, scores)
    if sampling.min_p:
        scores = MinPLogitsWarper(sampling.min_p)(None, scores)
    return torch.softmax(scores[0].double(), -1).numpy()


def _drawn(logits: torch.Tensor, sampling: Sampling) -> NDArray[np.int64]:
    """How often each token comes, from `SEEDS × POSITIONS` rows that all begin with the same history."""
    seen = np.zeros(logits.shape[1], dtype=np.int64)
    sampler = Sampler(1, logits.shape[1], CPU)
    rows = [msgspec.structs.replace(sampling, seed=seed) for seed in range(SEEDS)]
    plan = SamplingPlan([0] * SEEDS, rows, CPU)
    for position in range(POSITIONS):
        sampler.open(0, sampling, PROMPT, GENERATED)
        tokens = sampler.sample(logits.repeat(SEEDS, 1), plan, np.full(SEEDS, position)).tokens
        seen += np.bincount(tokens, minlength=len(seen))
    return seen


def _p_value(seen: NDArray[np.int64], claimed: NDArray[np.float64]) -> float:
    """Of Pearson's test. Tokens expected fewer than ten times are one bin, with the next likelier ones if need be."""
    order = np.argsort(claimed)
    expected, got = claimed[order] * seen.sum(), seen[order]
    rare = int(np.searchsorted(np.cumsum(expected), 10.0)) + 1
    rare = max(rare, int((expected < 10.0).sum()))
    expected = np.concatenate(([expected[:rare].sum()], expected[rare:]))
    got = np.concatenate(([got[:rare].sum()], got[rare:]))
    freedom = len(expected) - 1
    if freedom == 0:
        return 1.0
    statistic = float(((got - expected) ** 2 / expected).sum())
    return float(torch.special.gammaincc(torch.tensor(freedom / 2.0).double(), torch.tensor(statistic / 2).double()))


@pytest.mark.parametrize(("vocab", "spread"), [(64, 2.0), (700, 3.0)])
@pytest.mark.parametrize("name", CASES)
def test_draws_follow_the_distribution_of_transformers_processors(name: str, vocab: int, spread: float) -> None:
    logits = _logits(vocab, spread)
    claimed = _claimed(logits, CASES[name])
    seen = _drawn(logits, CASES[name])
    assert seen.sum() == SEEDS * POSITIONS
    assert not seen[claimed == 0].any(), "a token that a filter drops was drawn"
    assert _p_value(seen, claimed) > SIGNIFICANCE


def test_the_chi_square_test_sees_a_temperature_that_is_three_per_cent_off() -> None:
    logits = _logits(64, 2.0)
    claimed = _claimed(logits, Sampling(temperature=1.0))
    assert _p_value(_drawn(logits, Sampling(temperature=1.03)), claimed) < SIGNIFICANCE


def test_rows_of_every_kind_in_one_batch_follow_each_their_own_distribution() -> None:
    """All cases side by side in each batch, each with a slot of its own."""
    logits, names = _logits(64, 2.0), list(CASES)
    seen = np.zeros((len(names), 64), dtype=np.int64)
    sampler = Sampler(len(names), 64, CPU)
    seeds = 50
    samplings = [msgspec.structs.replace(CASES[name], seed=seed) for name in names for seed in range(seeds)]
    plan = SamplingPlan([n for n in range(len(names)) for _ in range(seeds)], samplings, CPU)
    for position in range(200):
        for slot, name in enumerate(names):
            sampler.open(slot, CASES[name], PROMPT, GENERATED)
        draw = sampler.sample(logits.repeat(len(samplings), 1), plan, np.full(len(samplings), position))
        for n, tokens in enumerate(np.array(draw.tokens).reshape(len(names), seeds)):
            seen[n] += np.bincount(tokens, minlength=64)
    for n, name in enumerate(names):
        claimed = _claimed(logits, CASES[name])
        assert not seen[n][claimed == 0].any(), name
        assert _p_value(seen[n], claimed) > SIGNIFICANCE, name

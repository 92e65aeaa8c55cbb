import math

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from worker.engine.generation import Sampling
from worker.engine.torch.random_numbers import seed_words, uniforms
from worker.engine.torch.sampler import NOT_FINITE, Draw, Sampler
from worker.engine.torch.sampling_plan import SamplingPlan

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")
VOCAB = 50


def _logits(rows: int, vocab: int = VOCAB, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 3


def _sample(logits: torch.Tensor, samplings: list[Sampling], positions: list[int] | None = None) -> Draw:
    sampler = Sampler(len(samplings), logits.shape[1], CPU)
    for slot, sampling in enumerate(samplings):
        sampler.open(slot, sampling, [], [])
    plan = SamplingPlan(range(len(samplings)), samplings, CPU)
    return sampler.sample(logits.clone(), plan, np.array(positions or [0] * len(samplings)))


def _frequencies(row: torch.Tensor, sampling: Sampling, draws: int) -> np.ndarray:
    """How often each token is drawn from one row at `draws` positions."""
    plan_rows = [sampling] * draws
    tokens = _sample(row.repeat(draws, 1), plan_rows, list(range(draws))).tokens
    return np.bincount(tokens, minlength=row.shape[-1])


def test_greedy_rows_take_the_likeliest_token() -> None:
    logits = _logits(4)
    assert _sample(logits, [Sampling()] * 4).tokens == logits.argmax(-1).tolist()


def test_drawn_tokens_follow_the_softmax() -> None:
    row = _logits(1, vocab=8)
    draws = 4000
    expected = torch.softmax(row[0] / 1.5, -1).numpy() * draws
    seen = _frequencies(row, Sampling(seed=11, temperature=1.5), draws)
    chi_square = float(((seen - expected) ** 2 / expected).sum())
    assert chi_square < 24.3  # 7 degrees of freedom, one in a thousand


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.7, top_k=5),
        Sampling(temperature=1.3, top_p=0.8),
        Sampling(temperature=1.0, min_p=0.1),
        Sampling(temperature=2.0, top_k=20, top_p=0.9, min_p=0.02),
        Sampling(temperature=1.0, top_k=500),
        Sampling(temperature=4.0, top_p=0.97),
        Sampling(temperature=50.0, top_p=0.999),
    ],
)
@pytest.mark.parametrize(("vocab", "draws"), [(50, 3000), (600, 3000), (9000, 300)])
def test_filters_keep_what_transformers_keeps(sampling: Sampling, vocab: int, draws: int) -> None:
    row = _logits(1, vocab, seed=3)
    scores = TemperatureLogitsWarper(sampling.temperature)(None, row)
    if sampling.top_k:
        scores = TopKLogitsWarper(sampling.top_k)(None, scores)
    if sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(None, scores)
    if sampling.min_p:
        scores = MinPLogitsWarper(sampling.min_p)(None, scores)
    allowed = torch.softmax(scores[0], -1).numpy()
    seen = _frequencies(row, sampling, draws)
    assert not seen[allowed == 0].any()
    likely = allowed > 0.01
    assert np.abs(seen / draws - allowed).max() < 2 * draws**-0.5
    assert (seen[likely & (allowed * draws > 12)] > 0).all()


def test_a_large_vocabulary_is_drawn_in_proportion_across_its_blocks() -> None:
    row = torch.full((1, 1000), -torch.inf)
    row[0, [3, 255, 256, 700, 999]] = torch.tensor([1.0, 2.0, 4.0, 2.0, 1.0]).log()
    seen = _frequencies(row.clamp_min(-1e4), Sampling(seed=2, temperature=1.0), 2000)
    assert seen[[3, 255, 256, 700, 999]] / 2000 == pytest.approx([0.1, 0.2, 0.4, 0.2, 0.1], abs=0.03)
    assert seen.sum() == 2000


def test_top_p_zero_and_top_k_one_are_greedy() -> None:
    logits = _logits(2)
    drawn = _sample(logits, [Sampling(temperature=5.0, top_p=0.0), Sampling(temperature=5.0, top_k=1)])
    assert drawn.tokens == logits.argmax(-1).tolist()


def test_a_tiny_temperature_is_greedy_and_finite() -> None:
    logits = _logits(1)
    assert _sample(logits, [Sampling(temperature=1e-40)]).tokens == logits.argmax(-1).tolist()


def test_a_draw_does_not_depend_on_its_companions() -> None:
    row = _logits(1, 600, seed=9)
    sampling = Sampling(seed=7, temperature=1.5, top_p=0.9)
    alone = [_sample(row, [sampling], [p]).tokens[0] for p in range(40)]
    others = [
        Sampling(seed=1, temperature=1.0, top_k=400, logprobs=3),
        Sampling(),
        Sampling(seed=7, temperature=0.5, min_p=0.2, repetition_penalty=1.3),
    ]
    for position, token in enumerate(alone):
        batch = torch.cat((_logits(1, 600, position), _logits(1, 600, position + 1), row, _logits(1, 600, 77)))
        together = _sample(batch, [others[0], others[1], sampling, others[2]], [3, 4, position, 5])
        assert together.tokens[2] == token


def test_ties_at_the_edge_of_top_k_are_all_kept_whatever_the_batch_asks() -> None:
    row = torch.tensor([[5.0, 4.0, 4.0, 4.0, -9.0, -9.0]])
    seen = _frequencies(row, Sampling(temperature=3.0, top_k=2), 500)
    assert (seen[:4] > 0).all() and not seen[4:].any()


def test_another_seed_or_position_draws_other_numbers() -> None:
    words = seed_words([0, 1, -1, 2**63])
    table = np.array([uniforms(words, np.full(4, p)) for p in range(500)])
    assert len(np.unique(table)) == table.size
    assert np.abs(table.mean(0) - 0.5).max() < 0.06
    assert abs(np.corrcoef(table[:, 0], table[:, 1])[0, 1]) < 0.15
    assert abs(np.corrcoef(table[:-1, 0], table[1:, 0])[0, 1]) < 0.15


def test_random_numbers_stay_what_they_were() -> None:
    """A restart may run a newer build: the function must not change."""
    assert [int(u * 2**32) for u in uniforms(seed_words([0, 42]), np.array([0, 5]))] == [2802244911, 289954712]


def test_rows_that_are_not_finite_fail_alone() -> None:
    logits = _logits(4)
    clean = _sample(logits, [Sampling(seed=1, temperature=1.0)] * 4).tokens
    logits[1, 7] = math.nan
    logits[3, 0] = math.inf
    drawn = _sample(logits, [Sampling(seed=1, temperature=1.0)] * 4)
    assert drawn.tokens == [clean[0], NOT_FINITE, clean[2], NOT_FINITE]


def test_repetition_penalty_equals_transformers() -> None:
    logits = _logits(1)
    ids = [3, 9, 9, 11]
    expected = RepetitionPenaltyLogitsProcessor(1.8)(torch.tensor([ids]), logits.clone())
    sampling = Sampling(repetition_penalty=1.8, logprobs=None)
    sampler = Sampler(1, VOCAB, CPU)
    sampler.open(0, sampling, ids[:2], ids[2:])
    adjusted = logits.clone()
    sampler.sample(adjusted, SamplingPlan([0], [sampling], CPU), np.array([2]))
    assert torch.equal(adjusted, expected)


def test_presence_and_frequency_count_generated_tokens_alone() -> None:
    sampling = Sampling(presence_penalty=0.5, frequency_penalty=0.25)
    sampler = Sampler(1, VOCAB, CPU)
    sampler.open(0, sampling, [1, 1, 2], [4, 4, 5])
    logits = torch.zeros(1, VOCAB)
    sampler.sample(logits, SamplingPlan([0], [sampling], CPU), np.array([3]))
    assert logits[0, [1, 2, 4, 5]].tolist() == [0.0, 0.0, -1.0, -0.75]


def test_penalties_see_the_tokens_drawn_so_far_and_a_slot_forgets_its_last_user() -> None:
    sampling = Sampling(frequency_penalty=2.0)
    sampler = Sampler(1, VOCAB, CPU)
    plan = SamplingPlan([0], [sampling], CPU)
    row = torch.zeros(1, VOCAB)
    row[0, 8], row[0, 6] = 3.0, 2.0
    for _ in range(2):
        sampler.open(0, sampling, [], [])
        assert [sampler.sample(row.clone(), plan, np.array([p])).tokens[0] for p in range(3)] == [8, 6, 8]


def test_logit_bias_lifts_and_bans() -> None:
    logits = _logits(2)
    best = logits.argmax(-1).tolist()
    drawn = _sample(logits, [Sampling(logit_bias={17: 100.0}), Sampling(logit_bias={best[1]: -100.0})]).tokens
    assert drawn[0] == 17
    assert drawn[1] == logits[1].topk(2).indices[1].item()


def test_logprobs_are_of_the_models_own_distribution() -> None:
    logits = _logits(3)
    expected = torch.log_softmax(logits, -1)
    draw = _sample(
        logits, [Sampling(), Sampling(temperature=0.0, logprobs=2, logit_bias={5: 90.0}), Sampling(logprobs=0)]
    )
    assert set(draw.logprobs) == {1, 2}
    chosen = draw.logprobs[1]
    assert chosen.id == 5 and chosen.logprob == pytest.approx(expected[1, 5].item())
    assert [t.id for t in chosen.top] == expected[1].topk(2).indices.tolist()
    assert draw.logprobs[2].top == []

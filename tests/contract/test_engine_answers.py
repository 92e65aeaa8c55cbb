"""What the answer to a generation is, how it is drawn, where it ends and goes on. Every backend: the torch engine, and
TensorRT-LLM's executor over the fake, on the same checkpoint."""

import msgspec
import numpy as np
import pytest

from tests.fixtures.engines import (
    EngineKind,
    answer,
    ask,
    drive,
    picture,
    tokens_of,
)
from tests.fixtures.models import Reference, random_tiles
from worker.engine.generation import Finish, Image, Sampling, TokenOutput
from worker.engine.protocol import Rejected
from worker.engine.server import ServedEngine

pytestmark = pytest.mark.contract


# -- answers


@pytest.mark.parametrize("tiles", [(), (3,), (1, 2), (4, 1, 1)])
def test_greedy_answer_is_transformers_own(
    tiles: tuple[int, ...], engine: ServedEngine, tiny_reference: Reference
) -> None:
    asked = ask("a", 1, 20, [picture(50 + n, count) for n, count in enumerate(tiles)], max_tokens=16)
    shown = np.concatenate([random_tiles(50 + n, count) for n, count in enumerate(tiles)]) if tiles else None
    assert answer(engine, asked) == tiny_reference.generate(asked.prompt_ids, shown, 16)


def test_tokens_come_as_they_are_generated_and_the_last_output_tells_the_end(engine: ServedEngine) -> None:
    outputs = drive(engine, ask("a", 2, max_tokens=40))["a"]
    assert len(tokens_of(outputs)) == 40 and len(outputs) >= 10
    assert [output.finish for output in outputs] == [None] * (len(outputs) - 1) + [Finish.LENGTH]
    assert [output.cached_tokens for output in outputs] == [0] + [None] * (len(outputs) - 1)


@pytest.mark.parametrize("place", [0, 1])
def test_any_stop_id_ends_the_answer_and_is_its_last_token(place: int, engine: ServedEngine) -> None:
    whole = answer(engine, ask("a", 3, 30))
    end = next(token for n, token in enumerate(whole) if n > 1 and token not in whole[:n])
    never = next(token for token in range(5, 99) if token not in whole)
    stop_ids = [end, never] if place == 0 else [never, end]
    outputs = drive(engine, ask("a", 3, 30, stop_ids=stop_ids))["a"]
    assert tokens_of(outputs) == whole[: whole.index(end) + 1]
    assert outputs[-1].finish is Finish.STOP


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(seed=4, temperature=1.5)])
@pytest.mark.parametrize("known", [0, 2])
def test_no_stop_id_is_among_the_first_min_tokens(known: int, sampling: Sampling, engine: ServedEngine) -> None:
    asked = ask("a", 4, max_tokens=12, sampling=sampling)
    stop_ids = sorted({token for seed in range(3) for token in answer(engine, ask("a", 4, 12 + seed, max_tokens=12))})
    whole = answer(engine, msgspec.structs.replace(asked, stop_ids=stop_ids, min_tokens=9))
    assert len(whole) >= 9 and not set(whole[:9]) & set(stop_ids)
    rest = msgspec.structs.replace(asked, stop_ids=stop_ids, min_tokens=9, generated=whole[:known])
    assert not set(answer(engine, rest)[: 9 - known]) & set(stop_ids)


@pytest.mark.parametrize("images", [(), (picture(60, 2),)], ids=["text", "picture"])
def test_answer_goes_on_behind_the_tokens_of_an_earlier_attempt(
    images: tuple[Image, ...], engine: ServedEngine
) -> None:
    whole = answer(engine, ask("a", 5, images=images))
    for split in (1, 4, 7):
        assert answer(engine, ask("a", 5, images=images, generated=whole[:split])) == whole[split:]


def test_drawn_answer_goes_on_behind_the_tokens_of_an_earlier_attempt(kind: EngineKind, engine: ServedEngine) -> None:
    asked = ask("a", 6, sampling=Sampling(seed=2, temperature=1.5))
    whole = answer(engine, asked)
    rest = answer(engine, msgspec.structs.replace(asked, generated=whole[:3]))
    assert len(rest) == 5
    assert (rest == whole[3:]) is kind.draws_on


def test_answer_that_had_ended_ends_at_once_without_tokens(engine: ServedEngine) -> None:
    asked = [ask("full", 7, generated=[9] * 8), ask("stopped", 7, generated=[9, 7], stop_ids=[8, 7])]
    outputs = drive(engine, *asked)
    assert outputs == {
        "full": [TokenOutput("full", finish=Finish.LENGTH, cached_tokens=0)],
        "stopped": [TokenOutput("stopped", finish=Finish.STOP, cached_tokens=0)],
    }


def test_longest_prompt_gets_one_token_and_a_longer_one_is_refused_by_its_length(engine: ServedEngine) -> None:
    longest = engine.context_length - 1
    outputs = drive(engine, ask("a", 8, longest, max_tokens=100))["a"]
    assert (len(tokens_of(outputs)), outputs[-1].finish) == (1, Finish.LENGTH)
    with pytest.raises(Rejected, match=f"{longest + 1} tokens.*{longest + 1}") as caught:
        engine.submit(ask("b", 8, longest + 1))
    assert caught.value.code == "context_length_exceeded"


# -- sampling


def test_seed_gives_the_same_answer_again_and_another_seed_another_one(engine: ServedEngine) -> None:
    drawn = [answer(engine, ask("a", 9, sampling=Sampling(seed, temperature=1.5))) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert answer(engine, ask("a", 9)) not in drawn


@pytest.mark.parametrize("seed", [-1, 0, 2**63, 2**64 + 5])
def test_any_integer_is_a_seed(seed: int, engine: ServedEngine) -> None:
    sampling = Sampling(seed=seed, temperature=2.0)
    assert answer(engine, ask("a", 10, sampling=sampling)) == answer(engine, ask("b", 10, sampling=sampling))


GREEDY_IN_EFFECT = [
    Sampling(top_p=0.9, top_k=50),
    Sampling(temperature=1e-5),
    Sampling(temperature=1e-45),
    Sampling(temperature=1e-300, top_p=0.5),
    Sampling(temperature=1e-30, top_p=0.5, top_k=3, min_p=0.1),
    Sampling(temperature=5.0, top_p=0.0),
    Sampling(temperature=5.0, top_p=1e-300),
    Sampling(temperature=5.0, top_k=1),
    Sampling(temperature=5.0, min_p=1.0),
]


@pytest.mark.parametrize("sampling", GREEDY_IN_EFFECT, ids=str)
def test_sampling_with_one_token_left_is_greedy(sampling: Sampling, engine: ServedEngine) -> None:
    assert answer(engine, ask("a", 11, sampling=sampling)) == answer(engine, ask("a", 11))


def test_bias_decides_and_penalties_keep_what_was_drawn_away(engine: ServedEngine) -> None:
    biased = Sampling(seed=1, temperature=1.0, logit_bias={77: 100.0})
    assert answer(engine, ask("a", 12, sampling=biased)) == [77] * 8
    alike = dict.fromkeys(range(70, 82), 100.0)
    plain = answer(engine, ask("a", 12, sampling=Sampling(logit_bias=alike), max_tokens=12))
    for penalty in ({"frequency_penalty": 2.0}, {"presence_penalty": 2.0}, {"repetition_penalty": 50.0}):
        sampling = Sampling(logit_bias=alike, **penalty)  # type: ignore[arg-type]
        kept = answer(engine, ask("a", 12, sampling=sampling, max_tokens=12))
        assert len(set(kept)) > len(set(plain)) and set(kept) <= alike.keys(), penalty


def test_logprobs_come_with_the_tokens_or_are_refused_by_name(kind: EngineKind, engine: ServedEngine) -> None:
    asked = ask("a", 13, sampling=Sampling(logprobs=2))
    if not kind.logprobs:
        with pytest.raises(Rejected, match="logprobs = 2 cannot be had"):
            engine.submit(asked)
        return
    for output in drive(engine, asked)["a"]:
        (token,) = output.tokens
        assert token.logprob is not None and token.top[0].id == token.id and len(token.top) == 2


def test_top_k_is_kept_up_to_the_most_that_is_taken(kind: EngineKind, engine: ServedEngine) -> None:
    answer(engine, ask("a", 14, sampling=Sampling(temperature=1.0, top_k=kind.top_k)))
    with pytest.raises(Rejected, match=f"top_k is {kind.top_k + 1}") as caught:
        engine.submit(ask("b", 14, sampling=Sampling(temperature=1.0, top_k=kind.top_k + 1)))
    assert caught.value.code == "invalid_sampling"

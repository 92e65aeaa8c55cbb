"""The engine over a fake model of a few numbers: what it computes, in which batches, and what it refuses."""

import gc
import hashlib
from collections.abc import Iterable
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.model import POISON, TILE_SIZE, TOKENS_PER_TILE, VOCAB, FakeModel
from worker.engine.generation import Finish, Generation, Image, Sampling, TokenOutput
from worker.engine.torch.engine import TorchEngine
from worker.engine.torch.options import EngineOptions
from worker.engine.torch.sequence import Sequence

pytestmark = pytest.mark.unit

OPTIONS = EngineOptions(slots=4, pages=64, page_size=4, prefill_chunk=16, tiles_per_step=4)


def _engine(**changes: int | bool) -> TorchEngine:
    return TorchEngine(FakeModel(), replace(OPTIONS, **changes))


def _image(seed: int, tiles: int = 1) -> Image:
    size = 3 * TILE_SIZE**2 * tiles
    pixels = (hashlib.sha256(bytes([seed])).digest() * size)[:size]
    return Image(digest=hashlib.sha256(pixels).digest(), tiles=tiles, pixels=pixels)


def _prompt(text: list[int], images: Iterable[Image] = ()) -> list[int]:
    visual = sum(i.tiles for i in images) * TOKENS_PER_TILE
    return [text[0], *range(VOCAB, VOCAB + visual), *text[1:]]


def _ask(name: str, seed: int = 0, length: int = 9, images: tuple[Image, ...] = (), **changes: object) -> Generation:
    text = [t if t != POISON else 0 for t in ((seed * 31 + n * n * 7 + n) % VOCAB for n in range(length))]
    generation = Generation(name, _prompt(text, images), Sampling(), max_tokens=12, images=list(images))
    return msgspec.structs.replace(generation, **changes)


def _drive(engine: TorchEngine, steps: int = 10_000) -> dict[str, list[TokenOutput]]:
    outputs: dict[str, list[TokenOutput]] = {}
    while engine.has_work() and steps:
        for output in engine.step():
            outputs.setdefault(output.id, []).append(output)
        engine.check_integrity()
        steps -= 1
    return outputs


def _tokens(outputs: list[TokenOutput]) -> list[int]:
    return [token.id for output in outputs for token in output.tokens]


def _alone(generation: Generation, **changes: int | bool) -> list[int]:
    engine = _engine(**changes)
    engine.submit(generation)
    return _tokens(_drive(engine)[generation.id])


def test_idle_engine_holds_no_sequence_and_none_of_its_pictures() -> None:
    engine = _engine()
    for n in range(3):
        engine.submit(_ask(f"g{n}", images=(_image(n),)))
    _drive(engine)
    gc.collect()
    assert [held.id for held in gc.get_objects() if type(held) is Sequence] == []


MIXED = [
    _ask("greedy", 1, 30),
    _ask("drawn", 2, 5, sampling=Sampling(seed=3, temperature=1.2)),
    _ask("picture", 3, 6, (_image(1),)),
    _ask("album", 4, 7, (_image(1), _image(2, tiles=3)), sampling=Sampling(seed=9, temperature=0.8, top_p=0.9)),
    _ask("penalised", 5, 17, sampling=Sampling(repetition_penalty=1.5, frequency_penalty=0.7)),
    _ask("short", 6, 1, max_tokens=3),
    _ask("biased", 7, 12, sampling=Sampling(seed=5, temperature=1.0, min_p=0.05, logit_bias={4: 3.0})),
    _ask("long", 8, 70, max_tokens=20),
]


def test_a_generation_runs_to_its_length_and_frees_everything() -> None:
    engine = _engine()
    engine.submit(_ask("a"))
    outputs = _drive(engine)["a"]
    assert len(_tokens(outputs)) == 12
    assert [o.finish for o in outputs] == [None] * 11 + [Finish.LENGTH]
    assert [o.cached_tokens for o in outputs] == [0] + [None] * 11
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.generated_tokens, stats.prompt_tokens) == (0, 0, 12, 9)
    assert stats.pages_free + stats.pages_cached == stats.pages_total == 64


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(seed=4, temperature=1.5), Sampling(temperature=1.0, top_k=3)]
)
@pytest.mark.parametrize("least", [1, 6, 12, 30])
def test_no_stop_id_is_drawn_before_min_tokens(sampling: Sampling, least: int) -> None:
    stops = [i for i in range(VOCAB) if i != POISON and i % 3]
    asked = _ask("a", sampling=sampling, stop_ids=stops, min_tokens=least)
    engine = _engine()
    engine.submit(asked)
    engine.submit(_ask("beside", 4))
    outputs = _drive(engine)
    tokens = _tokens(outputs["a"])
    assert not set(tokens[:least]) & set(stops)
    assert len(tokens) > min(least, 11)
    assert _tokens(outputs["beside"]) == _alone(_ask("beside", 4))
    for split in range(1, len(tokens)):
        assert _alone(msgspec.structs.replace(asked, generated=tokens[:split])) == tokens[split:]


def test_logprobs_of_a_token_held_back_are_the_models_own() -> None:
    asked = _ask("a", sampling=Sampling(logprobs=20), max_tokens=1)
    stop = _alone(asked)[0]
    engine = _engine()
    engine.submit(msgspec.structs.replace(asked, stop_ids=[stop], min_tokens=1))
    (token,) = _drive(engine)["a"][0].tokens
    assert token.top[0].id == stop != token.id
    assert token.logprob is not None and token.logprob <= token.top[0].logprob


@pytest.mark.parametrize("chunk", [1, 3, 16, 200])
@pytest.mark.parametrize("slots", [1, 3, 8])
def test_answers_in_company_equal_those_alone(chunk: int, slots: int) -> None:
    engine = _engine(slots=slots, prefill_chunk=chunk, pages=200)
    for generation in MIXED:
        engine.submit(generation)
    outputs = _drive(engine)
    for generation in MIXED:
        assert _tokens(outputs[generation.id]) == _alone(generation, pages=200), generation.id


def test_sequences_join_and_leave_the_batch_between_tokens() -> None:
    engine = _engine(slots=4)
    for n in range(6):
        engine.submit(_ask(str(n), n, 3, max_tokens=4 + n))
    _drive(engine)
    by_batch = engine.stats().steps_by_batch
    assert set(by_batch) == {1, 2, 3, 4}
    assert sum(size * steps for size, steps in by_batch.items()) == sum(3 + n for n in range(6))


@pytest.mark.parametrize("generation", MIXED, ids=lambda g: g.id)
def test_a_continuation_from_any_token_gives_the_same_rest(generation: Generation) -> None:
    whole = _alone(generation)
    for split in range(1, len(whole)):
        rest = _alone(msgspec.structs.replace(generation, generated=whole[:split]))
        assert rest == whole[split:], split


def test_a_second_round_computes_only_what_is_new() -> None:
    first = _ask("one", 1, 21)
    engine = _engine()
    engine.submit(first)
    answer = _tokens(_drive(engine)["one"])
    second = msgspec.structs.replace(first, id="two", prompt_ids=[*first.prompt_ids, *answer, 5, 6, 7])
    engine.submit(second)
    outputs = _drive(engine)["two"]
    assert outputs[0].cached_tokens == (21 + 12 - 1) // 4 * 4
    assert _tokens(outputs) == _alone(second, prefix_reuse=False)


def test_a_picture_seen_before_is_neither_encoded_nor_computed_again() -> None:
    engine = _engine()
    engine.submit(_ask("one", 3, 6, (_image(1, tiles=2),)))
    one = _drive(engine)["one"]
    engine.submit(_ask("two", 3, 6, (_image(1, tiles=2),)))
    two = _drive(engine)["two"]
    assert _tokens(one) == _tokens(two)
    assert two[0].cached_tokens == 12
    assert (engine.stats().tiles_encoded, engine.stats().tiles_reused) == (2, 2)


def test_two_pictures_under_the_same_text_share_no_pages() -> None:
    engine = _engine()
    engine.submit(_ask("cat", 3, 6, (_image(1),)))
    _drive(engine)
    dog = _ask("dog", 3, 6, (_image(2),))
    engine.submit(dog)
    outputs = _drive(engine)["dog"]
    assert outputs[0].cached_tokens == 0
    assert _tokens(outputs) == _alone(dog)


def test_one_picture_in_two_waiting_requests_is_encoded_once_in_one_batch() -> None:
    model = FakeModel()
    engine = TorchEngine(model, replace(OPTIONS, prefix_reuse=False))
    for name, images in (("a", (_image(1), _image(2))), ("b", (_image(2), _image(3)))):
        engine.submit(_ask(name, 1, 5, images))
    _drive(engine)
    assert model.encoded == [3]
    assert engine.stats().tiles_reused == 1


def test_an_image_of_more_tiles_than_a_step_takes_is_encoded_over_several() -> None:
    model = FakeModel()
    engine = TorchEngine(model, OPTIONS)
    engine.submit(_ask("video", 1, 5, (_image(1, tiles=10), _image(2))))
    assert _drive(engine)["video"][-1].finish is Finish.LENGTH
    assert model.encoded == [4, 4, 3]


def test_decode_goes_on_while_a_long_prompt_is_computed() -> None:
    engine = _engine()
    engine.submit(_ask("first", 1, 4))
    engine.step()
    engine.submit(_ask("long", 2, 60))
    assert [[o.id for o in engine.step()] for _ in range(3)] == [["first"]] * 3


def test_a_poisoned_sequence_fails_alone_and_leaves_nothing_to_the_next() -> None:
    engine = _engine(pages=16, slots=2)
    good = _ask("good", 1, 8)
    bad = _ask("bad", 2, 10)
    poisoned = msgspec.structs.replace(bad, prompt_ids=[*bad.prompt_ids, POISON, 1, 2])
    for generation in (good, poisoned):
        engine.submit(generation)
    outputs = _drive(engine)
    assert outputs["bad"][-1].finish is Finish.ERROR
    assert "not finite" in outputs["bad"][-1].error
    assert _tokens(outputs["good"]) == _alone(good)
    for n in range(6):
        later = _ask(f"later{n}", n, 3 + n)
        engine.submit(later)
        assert _tokens(_drive(engine)[later.id]) == _alone(later)


def test_a_sequence_that_turns_bad_in_mid_answer_keeps_its_tokens_and_its_page_from_others() -> None:
    engine = _engine(pages=8, slots=2)
    engine.submit(_ask("bad", 2, 6, sampling=Sampling(logit_bias={POISON: 100.0})))
    companion = _ask("good", 1, 6)
    engine.submit(companion)
    outputs = _drive(engine)
    assert _tokens(outputs["bad"]) == [POISON]
    assert outputs["bad"][-1].finish is Finish.ERROR
    assert _tokens(outputs["good"]) == _alone(companion)
    for n in range(4):
        later = _ask(f"later{n}", n, 5 + n)
        engine.submit(later)
        assert _tokens(_drive(engine)[later.id]) == _alone(later)


def test_a_poison_cancelled_before_it_showed_leaves_nothing_to_the_next() -> None:
    engine = _engine(pages=8, slots=1, prefill_chunk=8)
    engine.submit(msgspec.structs.replace(_ask("bad", 2, 20), prompt_ids=[POISON] * 20))
    engine.step()
    engine.cancel("bad")
    later = _ask("later", 1, 5)
    engine.submit(later)
    assert _tokens(_drive(engine)["later"]) == _alone(later)


def test_cancel_frees_slot_and_pages_at_any_time() -> None:
    for steps in range(9):
        engine = _engine(slots=1)
        engine.submit(_ask("a", 1, 40))
        engine.submit(_ask("b", 2, 3))
        _drive(engine, steps)
        engine.cancel("a")
        engine.check_integrity()
        outputs = _drive(engine)
        assert outputs["a"] == [TokenOutput("a", finish=Finish.CANCELLED)]
        assert outputs["b"][-1].finish is Finish.LENGTH
        assert engine.stats().pages_free + engine.stats().pages_cached == 64


def test_an_answer_is_cut_where_the_cache_ends() -> None:
    engine = _engine(pages=5)
    engine.submit(_ask("a", 1, 15, max_tokens=1000))
    outputs = _drive(engine)["a"]
    assert len(_tokens(outputs)) == 5
    assert outputs[-1].finish is Finish.LENGTH


def test_many_sequences_through_few_pages_all_end() -> None:
    engine = _engine(pages=9, slots=4)
    for n in range(12):
        engine.submit(_ask(str(n), n, 5 + n, max_tokens=5))
    outputs = _drive(engine)
    assert all(_tokens(outputs[str(n)]) == _alone(_ask(str(n), n, 5 + n, max_tokens=5)) for n in range(12))


_REQUESTS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 20), st.integers(1, 9), st.integers(0, 15), st.booleans()),
    min_size=1,
    max_size=8,
)


@settings(max_examples=25, deadline=None)
@given(requests=_REQUESTS, slots=st.integers(1, 4), chunk=st.integers(1, 20))
def test_any_arrival_and_cancel_pattern_gives_each_survivor_its_own_answer(
    requests: list[tuple[int, int, int, int, bool]], slots: int, chunk: int
) -> None:
    engine = _engine(pages=12, slots=slots, prefill_chunk=chunk)
    asked = {
        str(n): _ask(str(n), seed, length, (_image(seed),) if seed else (), max_tokens=most)
        for n, (seed, length, most, _, _) in enumerate(requests)
    }
    outputs: dict[str, list[TokenOutput]] = {}
    for n, (_, _, _, wait, cancels) in enumerate(requests):
        engine.submit(asked[str(n)])
        for name, new in _drive(engine, wait).items():
            outputs.setdefault(name, []).extend(new)
        if cancels:
            engine.cancel(str(n))
            engine.check_integrity()
    for name, new in _drive(engine).items():
        outputs.setdefault(name, []).extend(new)
    for name, generation in asked.items():
        answer = _alone(generation)
        got = _tokens(outputs[name])
        assert outputs[name][-1].finish in (Finish.LENGTH, Finish.CANCELLED)
        assert got == answer[: len(got)]
        assert len(got) == len(answer) or outputs[name][-1].finish is Finish.CANCELLED

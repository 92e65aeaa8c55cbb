"""The torch engine on the tiny checkpoint against transformers' own InternVL, token for token."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from tests.fixtures.models import Reference, Tiles, random_tiles
from tools.tiny_model import TINY
from worker.engine.generation import Finish, Generation, Image, Sampling, TokenOutput
from worker.engine.torch.engine import TorchEngine
from worker.engine.torch.internvl import InternVL
from worker.engine.torch.options import EngineOptions

pytestmark = pytest.mark.integration

OPTIONS = EngineOptions(slots=32, pages=600, page_size=16, prefill_chunk=256, tiles_per_step=8)
NEW_TOKENS = 16
Asked = tuple[Generation, Tiles | None]


@pytest.fixture(scope="module")
def model(tiny_model: Path, device: torch.device) -> Iterator[InternVL]:
    """One set of weights; every engine made on it takes a new, empty cache."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield InternVL.load(tiny_model, device, torch.float32)
    torch.set_num_threads(threads)


def _text(seed: int, length: int) -> list[int]:
    return np.random.default_rng(seed).integers(5, 1500, length).tolist()


def _ask(name: str, seed: int, length: int, tile_counts: tuple[int, ...] = (), **changes: object) -> Asked:
    """A prompt that shows pictures with `tile_counts` tiles between its words."""
    parts = [random_tiles(1000 * seed + n, tiles) for n, tiles in enumerate(tile_counts)]
    images = [Image(hashlib.sha256(p.tobytes()).digest(), len(p), p.tobytes()) for p in parts]
    ids, virtual = _text(seed, length), TINY.vocab_size
    for n, tiles in enumerate(tile_counts):
        count = tiles * TINY.tokens_per_tile
        ids += [*range(virtual, virtual + count), *_text(seed + n + 500, 3)]
        virtual += count
    generation = Generation(name, ids, Sampling(), NEW_TOKENS, images=images)
    return msgspec.structs.replace(generation, **changes), np.concatenate(parts) if parts else None


KINDS = {
    "text": _ask("text", 1, 20),
    "long text": _ask("long text", 2, 400),
    "one image": _ask("one image", 3, 9, (3,)),
    "two images": _ask("two images", 4, 5, (1, 5)),
}


def _drive(engine: TorchEngine) -> dict[str, list[TokenOutput]]:
    outputs: dict[str, list[TokenOutput]] = {}
    while engine.has_work():
        for output in engine.step():
            outputs.setdefault(output.id, []).append(output)
    engine.check_integrity()
    return outputs


def _answers(engine: TorchEngine, *generations: Generation) -> dict[str, list[int]]:
    for generation in generations:
        engine.submit(generation)
    return {name: [t.id for o in outputs for t in o.tokens] for name, outputs in _drive(engine).items()}


@pytest.fixture(scope="module")
def crowd(tiny_reference: Reference) -> list[tuple[Generation, list[int]]]:
    """32 different requests, some with pictures, of different lengths, and what transformers answers to each."""
    asked = []
    for n in range(32):
        tiles = {0: (1,), 1: (2, 1)}.get(n % 8, ())
        asked.append(_ask(f"crowd{n}", 50 + n, 3 + 5 * n, tiles, max_tokens=6 + n % 9))
    return [(g, tiny_reference.generate(g.prompt_ids, tiles, g.max_tokens)) for g, tiles in asked]


@pytest.mark.parametrize("kind", KINDS)
def test_a_greedy_answer_alone_equals_transformers(kind: str, model: InternVL, tiny_reference: Reference) -> None:
    generation, tiles = KINDS[kind]
    expected = tiny_reference.generate(generation.prompt_ids, tiles, NEW_TOKENS)
    assert len(set(expected)) > 3
    assert _answers(TorchEngine(model, OPTIONS), generation) == {kind: expected}


@pytest.mark.parametrize("kind", KINDS)
def test_a_greedy_answer_among_others_that_join_and_leave_equals_transformers(
    kind: str, model: InternVL, tiny_reference: Reference, crowd: list[tuple[Generation, list[int]]]
) -> None:
    generation, tiles = KINDS[kind]
    engine = TorchEngine(model, replace(OPTIONS, slots=8, prefill_chunk=64))
    arriving = [g for g, _ in crowd[:31]]
    arriving.insert(9, generation)
    answers: dict[str, list[int]] = {}
    while arriving or engine.has_work():
        for _ in range(min(2, len(arriving))):
            engine.submit(arriving.pop(0))
        for output in engine.step():
            answers.setdefault(output.id, []).extend(t.id for t in output.tokens)
    assert answers[kind] == tiny_reference.generate(generation.prompt_ids, tiles, NEW_TOKENS)
    assert len(engine.stats().steps_by_batch) > 4


def test_32_submitted_together_share_a_batch_and_each_answers_as_alone(
    model: InternVL, crowd: list[tuple[Generation, list[int]]]
) -> None:
    engine = TorchEngine(model, replace(OPTIONS, prefill_chunk=1024))
    answers = _answers(engine, *(g for g, _ in crowd))
    assert answers == {g.id: expected for g, expected in crowd}
    by_batch = engine.stats().steps_by_batch
    assert max(by_batch) == 32 and len(by_batch) > 4
    assert sum(size * steps for size, steps in by_batch.items()) == sum(g.max_tokens - 1 for g, _ in crowd)


def test_a_second_round_equals_transformers_and_computes_only_what_is_new(
    model: InternVL, tiny_reference: Reference
) -> None:
    first, tiles = _ask("one", 7, 12, (4,))
    engine = TorchEngine(model, OPTIONS)
    answer = _answers(engine, first)["one"]
    second = msgspec.structs.replace(first, id="two", prompt_ids=[*first.prompt_ids, *answer, *_text(8, 10)])
    engine.submit(second)
    outputs = _drive(engine)["two"]
    known = len(first.prompt_ids) + len(answer) - 1
    assert outputs[0].cached_tokens == known // 16 * 16
    assert [t.id for o in outputs for t in o.tokens] == tiny_reference.generate(second.prompt_ids, tiles, NEW_TOKENS)
    assert engine.stats().tiles_encoded == 4


def test_two_pictures_under_the_same_text_share_no_pages(model: InternVL, tiny_reference: Reference) -> None:
    engine = TorchEngine(model, OPTIONS)
    cat, dog = _ask("cat", 9, 0, (2,)), _ask("dog", 10, 0, (2,))
    words = _text(11, 20)
    for generation, tiles in (cat, dog):
        ids = [*generation.prompt_ids[:32], *words]
        engine.submit(msgspec.structs.replace(generation, prompt_ids=ids))
        outputs = _drive(engine)[generation.id]
        assert outputs[0].cached_tokens == 0
        assert [t.id for o in outputs for t in o.tokens] == tiny_reference.generate(ids, tiles, NEW_TOKENS)


@pytest.mark.parametrize("page_size", [1, 5, 64])
def test_the_page_size_changes_no_answer(page_size: int, model: InternVL, tiny_reference: Reference) -> None:
    options = replace(OPTIONS, page_size=page_size, pages=-(-2000 // page_size), prefill_chunk=50)
    answers = _answers(TorchEngine(model, options), *(g for g, _ in KINDS.values()))
    assert answers == {
        kind: tiny_reference.generate(g.prompt_ids, tiles, NEW_TOKENS) for kind, (g, tiles) in KINDS.items()
    }


def test_twins_in_one_step_share_their_prefix_and_answer_alike(model: InternVL) -> None:
    engine = TorchEngine(model, OPTIONS)
    one, _ = _ask("one", 12, 50, (1,))
    answers = _answers(engine, one, msgspec.structs.replace(one, id="two"))
    assert answers["one"] == answers["two"]
    assert engine.stats().cached_tokens == (len(one.prompt_ids) - 1) // 16 * 16
    assert engine.stats().tiles_encoded == 1


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(seed=4, temperature=1.0, top_p=0.95),
        Sampling(seed=5, temperature=1.5, top_k=40, repetition_penalty=1.2),
        Sampling(frequency_penalty=1.0, presence_penalty=0.5),
    ],
)
def test_a_continuation_from_any_token_gives_the_same_rest(sampling: Sampling, model: InternVL) -> None:
    engine = TorchEngine(model, OPTIONS)
    generation, _ = _ask("whole", 13, 15, (1,), sampling=sampling)
    whole = _answers(engine, generation)["whole"]
    splits = range(1, len(whole))
    rests = _answers(
        TorchEngine(model, OPTIONS),
        *(msgspec.structs.replace(generation, id=str(n), generated=whole[:n]) for n in splits),
    )
    assert rests == {str(n): whole[n:] for n in splits}


def test_pages_and_slots_that_change_hands_all_the_time_change_no_answer(
    model: InternVL, crowd: list[tuple[Generation, list[int]]]
) -> None:
    """Twice over everyone through few pages; every third is cancelled after some steps and its room used again."""
    engine = TorchEngine(model, replace(OPTIONS, slots=5, pages=60, prefill_chunk=100))
    expected: dict[str, list[int]] = {}
    answers: dict[str, list[int]] = {}
    finishes: dict[str, Finish] = {}
    for n, (generation, answer) in enumerate([*crowd, *crowd[::-1]]):
        expected[str(n)] = answer
        engine.submit(msgspec.structs.replace(generation, id=str(n)))
        if n % 3 == 2:
            engine.cancel(str(n - n % 5))
        while engine.has_work() and (n % 4 == 3 or engine.stats().waiting > 2):
            for output in engine.step():
                answers.setdefault(output.id, []).extend(t.id for t in output.tokens)
                finishes |= {output.id: output.finish} if output.finish else {}
    assert len(finishes) == 64 and Finish.CANCELLED in finishes.values()
    for name, answer in answers.items():
        assert answer == expected[name][: len(answer)]
        assert len(answer) == len(expected[name]) or finishes[name] is Finish.CANCELLED


class Poisoned:
    """The real model, but the embedding of one token is NaN."""

    def __init__(self, model: InternVL, token: int) -> None:
        self._model, self._token = model, token

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self._model.embed(ids).masked_fill((ids == self._token)[:, None], torch.nan)


def test_a_poisoned_sequence_harms_neither_companions_nor_the_next_user_of_its_pages(
    model: InternVL, crowd: list[tuple[Generation, list[int]]]
) -> None:
    poison = 1999
    engine = TorchEngine(Poisoned(model, poison), replace(OPTIONS, slots=3, pages=40))  # type: ignore[arg-type]
    bad = Generation("bad", [*_text(14, 30), poison, *_text(15, 40)], Sampling(), 8)
    companions = crowd[2:6]
    engine.submit(bad)
    for generation, _ in companions:
        engine.submit(generation)
    outputs = _drive(engine)
    assert outputs["bad"][-1].finish is Finish.ERROR
    for generation, expected in companions:
        assert [t.id for o in outputs[generation.id] for t in o.tokens] == expected
    for generation, expected in crowd[6:10]:
        assert _answers(engine, msgspec.structs.replace(generation, id="next"))["next"] == expected

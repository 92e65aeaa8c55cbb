"""A result never depends on its companions: 200 random requests, each alone and then in 20 random interleavings.

A matrix product in fp32 rounds its last bits by the shape of the batch (the logits of these requests differ by up to
5e-5 from float64's). So the requests are such that no draw is a tie: moving all logits at random by 1e-4 changes no
token, which a test shows. What is asked then is equality, token for token, without exception.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from tests.fixtures.models import random_tiles
from tools.tiny_model import TINY
from worker.engine.generation import Finish, Generation, Grammar, GrammarKind, Image, Sampling
from worker.engine.grammar import Grammars
from worker.engine.torch.engine import TorchEngine
from worker.engine.torch.internvl import InternVL
from worker.engine.torch.options import EngineOptions
from worker.engine.torch.sampler import Sampler
from worker.engine.torch.sampling_plan import Held, SamplingPlan
from worker.engine.torch.token_masks import TokenMasks
from worker.tokenizer import ChatTokenizer

pytestmark = pytest.mark.integration

REQUESTS = 200
INTERLEAVINGS = 20
ALONE = EngineOptions(slots=1, pages=32, page_size=16, prefill_chunk=512, prefix_reuse=False)
TIE = 1e-4
CPU = torch.device("cpu")
JSON = Grammar(GrammarKind.JSON_OBJECT)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Watched:
    """The real model; keeps the logits it gave."""

    def __init__(self, model: InternVL) -> None:
        self._model = model
        self.rows: list[torch.Tensor] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = self._model.logits(hidden)
        self.rows.append(logits.clone())
        return logits


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> InternVL:
    return InternVL.load(tiny_model, CPU, torch.float32)


@pytest.fixture(scope="module")
def requests(tiny_model: Path) -> list[Generation]:
    return _requests(ChatTokenizer.load(tiny_model).id_of("<|im_end|>"))


@pytest.fixture(scope="module")
def grammars(tiny_model: Path) -> Grammars:
    return Grammars.load(tiny_model, TINY.vocab_size)


@dataclass(frozen=True)
class Alone:
    """A lone request's tokens, and the logits `[1, vocab]` each was drawn from."""

    tokens: list[int]
    logits: list[torch.Tensor]


@pytest.fixture(scope="module")
def alone(model: InternVL, grammars: Grammars, requests: list[Generation]) -> dict[str, Alone]:
    return {generation.id: _answer(model, grammars, generation) for generation in requests}


def _images(rng: random.Random) -> list[Image]:
    pictures = [random_tiles(seed, rng.choice([1, 1, 2, 3])) for seed in range(10)]
    return [Image(hashlib.sha256(p.tobytes()).digest(), len(p), p.tobytes()) for p in pictures]


def _prompt(rng: random.Random, openings: list[list[int]], images: list[Image]) -> list[int]:
    """Many begin alike, so that they share pages; pictures stand between words."""
    ids = list(rng.choice(openings)[: rng.randrange(1, 60)])
    virtual = TINY.vocab_size
    for image in images:
        count = image.tiles * TINY.tokens_per_tile
        ids += [*range(virtual, virtual + count), *rng.choice(openings)[: rng.randrange(4)]]
        virtual += count
    return ids + [rng.randrange(5, 1500) for _ in range(rng.choice([0, 1, 5, 30]))]


def _sampling(rng: random.Random, seed: int) -> Sampling:
    if rng.random() < 0.25:
        return Sampling(logprobs=rng.choice([None, 0, 3]))
    return Sampling(
        seed=seed,
        temperature=rng.choice([0.0, 1e-5, 0.3, 0.7, 1.0, 1.0, 2.0]),
        top_p=rng.choice([1.0, 1.0, 0.95, 0.5, 0.0]),
        top_k=rng.choice([0, 0, 1, 5, 300, 5000]),
        min_p=rng.choice([0.0, 0.0, 0.0, 0.05, 1.0]),
        repetition_penalty=rng.choice([1.0, 1.0, 1.3, 0.8]),
        presence_penalty=rng.choice([0.0, 0.0, 0.6, -1.0]),
        frequency_penalty=rng.choice([0.0, 0.0, 0.4, 2.0]),
        logprobs=rng.choice([None, None, 2]),
        logit_bias=rng.choice([{}, {}, {seed % 1500: 5.0, 7: -100.0}]),
    )


def _requests(end_id: int) -> list[Generation]:
    rng = random.Random(20)
    album = _images(rng)
    openings = [[rng.randrange(5, 1500) for _ in range(60)] for _ in range(5)]
    made = []
    for n in range(REQUESTS):
        images = rng.sample(album, rng.choice([0, 0, 0, 1, 1, 2]))
        ids = _prompt(rng, openings, images)
        most = rng.randrange(1, 13)
        stop_ids = rng.sample(range(5, 1500), 60)
        asked = Generation(str(n), ids, _sampling(rng, n), most, stop_ids, images, salt=rng.choice([0, 0, 0, 1]))
        if rng.random() < 0.1:
            asked = msgspec.structs.replace(asked, grammar=JSON, stop_ids=[end_id])
        elif rng.random() < 0.2:
            asked = msgspec.structs.replace(asked, min_tokens=rng.randrange(1, most + 1))
        made.append(asked)
    return made


def _answer(model: InternVL, grammars: Grammars, generation: Generation) -> Alone:
    watched = Watched(model)
    engine = TorchEngine(watched, ALONE, grammars)  # type: ignore[arg-type]
    engine.submit(generation)
    tokens = []
    while engine.has_work():
        tokens += [t.id for output in engine.step() for t in output.tokens]
    return Alone(tokens, watched.rows)


def _random_options(rng: random.Random) -> EngineOptions:
    page_size = rng.choice([1, 3, 16, 16, 50])
    return EngineOptions(
        slots=rng.randrange(1, 17),
        pages=-(-rng.choice([300, 600, 3000]) // page_size),
        page_size=page_size,
        prefill_chunk=rng.choice([19, 60, 300]),
        tiles_per_step=rng.choice([1, 4, 16]),
        embedding_bytes=rng.choice([0, 60_000, 1 << 24]),
        prefix_reuse=rng.random() < 0.7,
    )


@dataclass
class _Crowd:
    """One interleaving: what was asked (some go on from a token of an earlier attempt), and what came of it."""

    asked: dict[str, Generation] = field(default_factory=dict)
    tokens: dict[str, list[int]] = field(default_factory=dict)
    finishes: dict[str, Finish | None] = field(default_factory=dict)


def _mix(engine: TorchEngine, requests: list[Generation], alone: dict[str, Alone], rng: random.Random) -> _Crowd:
    crowd = _Crowd()
    arriving = rng.sample(requests, len(requests))
    cancels: dict[int, list[str]] = {}
    step, hurry = 0, rng.choice([0.5, 1.5, 6.0])
    while arriving or engine.has_work():
        for _ in range(min(len(arriving), int(rng.expovariate(1 / hurry) + 0.5))):
            generation = arriving.pop()
            known = alone[generation.id].tokens
            if rng.random() < 0.15:
                generation = msgspec.structs.replace(generation, generated=known[: rng.randrange(len(known) + 1)])
            if rng.random() < 0.1:
                cancels.setdefault(step + rng.randrange(30), []).append(generation.id)
            engine.submit(generation)
            crowd.asked[generation.id] = generation
            crowd.tokens[generation.id] = list(generation.generated)
        for name in cancels.pop(step, ()):
            engine.cancel(name)
        for output in engine.step():
            crowd.tokens[output.id] += [t.id for t in output.tokens]
            crowd.finishes[output.id] = output.finish
        step += 1
    engine.check_integrity()
    return crowd


def _check(crowd: _Crowd, alone: dict[str, Alone]) -> None:
    assert crowd.asked.keys() == crowd.finishes.keys()
    for name, generation in crowd.asked.items():
        got, whole = crowd.tokens[name], alone[name].tokens
        assert got == whole[: len(got)], (generation, got, whole)
        if crowd.finishes[name] is not Finish.CANCELLED:
            assert len(got) == len(whole)
            stopped = whole[-1] in generation.stop_ids
            assert crowd.finishes[name] is (Finish.STOP if stopped else Finish.LENGTH)


def test_no_draw_of_the_requests_is_a_tie(
    grammars: Grammars, requests: list[Generation], alone: dict[str, Alone]
) -> None:
    tries = 8
    sampler = Sampler(tries, TINY.vocab_size, CPU)
    noise = torch.Generator().manual_seed(1)
    for generation in requests:
        held = [Held(row, generation.stop_ids, generation.min_tokens) for row in range(tries)]
        plan = SamplingPlan(range(tries), [generation.sampling] * tries, CPU, held)
        text_ids = [i for i in generation.prompt_ids if i < TINY.vocab_size]
        lone = alone[generation.id]
        for place, (token, row) in enumerate(zip(lone.tokens, lone.logits, strict=True)):
            for slot in range(tries):
                sampler.open(slot, generation.sampling, text_ids, lone.tokens[:place])
            moved = row + TIE * (2 * torch.rand(tries, TINY.vocab_size, generator=noise) - 1)
            masks = _masks(grammars, generation, lone.tokens[:place], tries)
            drawn = sampler.sample(moved, plan, np.full(tries, place), masks).tokens
            assert set(drawn) == {token}, (generation, place)


def _masks(grammars: Grammars, generation: Generation, generated: list[int], rows: int) -> TokenMasks | None:
    """What the grammar allows after `generated`, for every row."""
    if generation.grammar is None:
        return None
    matcher = grammars.matcher(generation.grammar, generation.stop_ids)
    assert matcher.take(generated)
    bits = np.zeros((1, TINY.vocab_size // 32), dtype=np.int32)
    matcher.allow(bits, 0)
    allowed = torch.from_numpy(np.unpackbits(bits.view(np.uint8), bitorder="little")).bool()
    return TokenMasks(torch.arange(rows), allowed.repeat(rows, 1))


@pytest.mark.parametrize("seed", range(INTERLEAVINGS))
def test_every_answer_in_an_interleaving_equals_the_one_alone(
    seed: int, model: InternVL, grammars: Grammars, requests: list[Generation], alone: dict[str, Alone]
) -> None:
    rng = random.Random(seed)
    engine = TorchEngine(model, _random_options(rng), grammars)
    _check(_mix(engine, requests, alone, rng), alone)
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.pages_free + stats.pages_cached) == (0, 0, stats.pages_total)


def test_every_answer_equals_the_one_alone_when_prompts_are_computed_token_by_token(
    model: InternVL, grammars: Grammars, requests: list[Generation], alone: dict[str, Alone]
) -> None:
    rng = random.Random(100)
    options = EngineOptions(slots=5, pages=400, page_size=2, prefill_chunk=1)
    _check(_mix(TorchEngine(model, options, grammars), requests[:40], alone, rng), alone)


@pytest.mark.parametrize("seed", range(2))
def test_every_answer_equals_the_one_alone_with_the_other_decode_attention(
    seed: int, tiny_model: Path, grammars: Grammars, requests: list[Generation], alone: dict[str, Alone]
) -> None:
    """float64 attends as a GPU does, over gathered pages; as no draw is a tie, its tokens are float32's too."""
    rng = random.Random(seed)
    engine = TorchEngine(InternVL.load(tiny_model, CPU, torch.float64), _random_options(rng), grammars)
    _check(_mix(engine, requests, alone, rng), alone)

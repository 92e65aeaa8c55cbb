"""The engine at the edges of what it takes: the longest prompts, the shortest answers, the wildest sampling, full
slots, and cancels between any two things that it does."""

import hashlib
import math
from dataclasses import replace

import msgspec
import pytest
import torch

from tests.fakes.model import TILE_SIZE, TOKENS_PER_TILE, VOCAB, FakeModel
from worker.engine.generation import Finish, Generation, Image, Sampling, TokenOutput
from worker.engine.protocol import Rejected
from worker.engine.torch.engine import TorchEngine
from worker.engine.torch.options import EngineOptions

pytestmark = pytest.mark.unit

OPTIONS = EngineOptions(slots=3, pages=16, page_size=4, prefill_chunk=8, tiles_per_step=2)
CAPACITY = OPTIONS.pages * OPTIONS.page_size


def _engine(**changes: int | bool) -> TorchEngine:
    return TorchEngine(FakeModel(), replace(OPTIONS, **changes))


def _image(seed: int, tiles: int = 1) -> Image:
    size = 3 * TILE_SIZE**2 * tiles
    pixels = (hashlib.sha256(bytes([seed])).digest() * size)[:size]
    return Image(digest=hashlib.sha256(pixels).digest(), tiles=tiles, pixels=pixels)


def _ask(name: str, length: int = 9, *images: Image, **changes: object) -> Generation:
    words = [(n * n * 7 + length) % 11 for n in range(length)]
    visual = sum(i.tiles for i in images) * TOKENS_PER_TILE
    ids = [words[0], *range(VOCAB, VOCAB + visual), *words[1:]]
    return msgspec.structs.replace(Generation(name, ids, Sampling(), 6, images=list(images)), **changes)


def _drive(engine: TorchEngine) -> dict[str, list[TokenOutput]]:
    outputs: dict[str, list[TokenOutput]] = {}
    for _ in range(2000):
        for output in engine.step():
            outputs.setdefault(output.id, []).append(output)
        engine.check_integrity()
        if not engine.has_work():
            return outputs
    raise AssertionError("the engine never becomes idle")


def _tokens(outputs: list[TokenOutput]) -> list[int]:
    return [token.id for output in outputs for token in output.tokens]


def _alone(generation: Generation) -> list[int]:
    engine = _engine(prefix_reuse=False)
    engine.submit(generation)
    return _tokens(_drive(engine)[generation.id])


@pytest.mark.parametrize("page_size", [1, 3, 4, 5, 7, 64])
def test_a_prompt_that_leaves_room_for_one_token_gets_one(page_size: int) -> None:
    pages = CAPACITY // page_size
    engine = _engine(page_size=page_size, pages=pages)
    longest = pages * page_size - 1
    engine.submit(_ask("longest", longest, max_tokens=100))
    outputs = _drive(engine)["longest"]
    assert (len(_tokens(outputs)), outputs[-1].finish) == (1, Finish.LENGTH)
    with pytest.raises(Rejected, match=f"{longest + 1} tokens") as caught:
        engine.submit(_ask("longer", longest + 1))
    assert caught.value.code == "context_length_exceeded"


def test_the_models_own_context_is_the_limit_where_the_cache_has_room_for_more() -> None:
    engine = TorchEngine(FakeModel(context_length=20), replace(OPTIONS, page_size=8))
    engine.submit(_ask("a", 15, max_tokens=100))
    assert len(_tokens(_drive(engine)["a"])) == 5


def test_an_answer_of_one_token_needs_no_decode_step_and_frees_everything() -> None:
    engine = _engine()
    for n in range(5):
        engine.submit(_ask(str(n), 3 + n, max_tokens=1))
    outputs = _drive(engine)
    assert all(len(_tokens(o)) == 1 and o[-1].finish is Finish.LENGTH for o in outputs.values())
    stats = engine.stats()
    assert stats.steps_by_batch == {}
    assert stats.pages_free + stats.pages_cached == stats.pages_total


def test_all_slots_with_the_largest_reservations_end_one_after_another() -> None:
    """Each may need every page, so they run one at a time; none is thrown out and none waits for ever."""
    engine = _engine()
    asked = [_ask(str(n), 5 + n, max_tokens=1000) for n in range(5)]
    for generation in asked:
        engine.submit(generation)
    outputs = _drive(engine)
    for generation in asked:
        assert _tokens(outputs[generation.id]) == _alone(generation)
        assert len(_tokens(outputs[generation.id])) == CAPACITY - len(generation.prompt_ids)
    assert set(engine.stats().steps_by_batch) == {1}


def test_all_slots_with_reservations_that_fit_exactly_run_together() -> None:
    engine = _engine(pages=15, slots=3)
    for n in range(3):
        engine.submit(_ask(str(n), 8 + n, max_tokens=13 - n))
    outputs = _drive(engine)
    assert max(engine.stats().steps_by_batch) == 3
    assert [len(_tokens(outputs[str(n)])) for n in range(3)] == [13, 12, 11]


@pytest.mark.parametrize("gap", range(6))
def test_twins_with_the_same_pictures_answer_alike_whenever_the_second_comes(gap: int) -> None:
    model = FakeModel()
    engine = TorchEngine(model, OPTIONS)
    one = _ask("one", 9, _image(1, 3), _image(2, 2))
    engine.submit(one)
    outputs: dict[str, list[TokenOutput]] = {"one": [], "two": []}
    for _ in range(gap):
        for output in engine.step():
            outputs[output.id].append(output)
    engine.submit(msgspec.structs.replace(one, id="two"))
    for name, new in _drive(engine).items():
        outputs[name] += new
    assert _tokens(outputs["one"]) == _tokens(outputs["two"]) == _alone(one)
    assert sum(model.encoded) == 5
    assert (engine.stats().tiles_encoded, engine.stats().tiles_reused) == (5, 5)


@pytest.mark.parametrize("steps", range(7))
def test_the_first_of_twins_may_be_cancelled_at_any_step(steps: int) -> None:
    """The second has the first's pages, or waits for its pictures, or has computed nothing yet."""
    engine = _engine()
    one = _ask("one", 20, _image(1, 3))
    for name in ("one", "two"):
        engine.submit(msgspec.structs.replace(one, id=name))
    outputs: list[TokenOutput] = []
    for _ in range(steps):
        outputs += engine.step()
    engine.cancel("one")
    engine.check_integrity()
    outputs += _drive(engine)["two"]
    assert _tokens([o for o in outputs if o.id == "two"]) == _alone(one)


def test_a_cancel_before_the_first_step_computes_nothing() -> None:
    model = FakeModel()
    engine = TorchEngine(model, OPTIONS)
    engine.submit(_ask("a", 9, _image(1)))
    engine.cancel("a")
    assert engine.step() == [TokenOutput("a", finish=Finish.CANCELLED)]
    assert (model.forwards, model.encoded) == ([], [])
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.pages_free, stats.prompt_tokens) == (0, 0, OPTIONS.pages, 0)


def test_a_cancel_between_admission_and_the_first_prefill_frees_slot_and_pages() -> None:
    """Its first token is a picture that needs several steps: it is admitted and has computed next to nothing."""
    engine = _engine(slots=1)
    engine.submit(_ask("a", 9, _image(1, 7)))
    engine.step()
    assert engine.stats().running == 1
    engine.cancel("a")
    engine.submit(_ask("b", 5))
    assert engine.step()[0] == TokenOutput("a", finish=Finish.CANCELLED)
    assert _tokens(_drive(engine)["b"])[-1:] == _alone(_ask("b", 5))[-1:]
    stats = engine.stats()
    assert (stats.running, stats.waiting) == (0, 0)
    assert stats.pages_free + stats.pages_cached == stats.pages_total


def test_statistics_count_only_what_was_announced_and_drawn() -> None:
    engine = _engine()
    engine.submit(_ask("kept", 9))
    engine.submit(_ask("dropped", 30))
    drawn = 0
    for _ in range(4):
        drawn += sum(len(o.tokens) for o in engine.step())
    engine.cancel("dropped")
    drawn += sum(len(_tokens(o)) for o in _drive(engine).values())
    stats = engine.stats()
    assert stats.generated_tokens == drawn
    assert stats.prompt_tokens == 9
    assert (stats.running, stats.waiting) == (0, 0)


def test_filters_wider_than_the_vocabulary_filter_nothing() -> None:
    plain = _alone(_ask("a", sampling=Sampling(seed=4, temperature=3.0)))
    for wide in (
        Sampling(top_k=VOCAB),
        Sampling(top_k=2**31 - 1),
        Sampling(min_p=1e-300),
        Sampling(top_k=10**9, top_p=1),
    ):
        sampling = msgspec.structs.replace(wide, seed=4, temperature=3.0)
        assert _alone(_ask("a", sampling=sampling)) == plain


def test_a_bias_on_every_token_changes_nothing_and_the_largest_on_one_decides() -> None:
    sampling = Sampling(seed=1, temperature=1.0)
    everywhere = msgspec.structs.replace(sampling, logit_bias=dict.fromkeys(range(VOCAB), -100.0))
    assert _alone(_ask("a", sampling=everywhere)) == _alone(_ask("a", sampling=sampling))
    one = msgspec.structs.replace(sampling, logit_bias={7: 100.0})
    assert _alone(_ask("a", sampling=one)) == [7] * 6


class Broken(FakeModel):
    """Gives this value as the logit of token 5 in row `break_row` of a batch."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self._value = value
        self.break_row: int | None = None

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = super().logits(hidden)
        if self.break_row is not None and self.break_row < len(logits):
            logits[self.break_row, 5] = self._value
        return logits


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("wild", [False, True])
def test_one_row_of_logits_that_are_not_finite_ends_that_sequence_alone(value: float, wild: bool) -> None:
    """`wild`: every row samples, with penalties and filters, beside the broken one."""
    sampling = Sampling(seed=3, temperature=1.0, top_p=0.9, frequency_penalty=0.5, logprobs=2) if wild else Sampling()
    asked = [_ask(name, 5 + n, sampling=sampling) for n, name in enumerate("abc")]
    model = Broken(value)
    engine = TorchEngine(model, replace(OPTIONS, prefill_chunk=64))
    for generation in asked:
        engine.submit(generation)
    outputs: dict[str, list[TokenOutput]] = {name: [] for name in "abc"}
    for step in range(100):
        model.break_row = 1 if step == 2 else None
        for output in engine.step():
            outputs[output.id].append(output)
        engine.check_integrity()
        if not engine.has_work():
            break
    assert outputs["b"][-1].finish is Finish.ERROR
    assert "token 8 of this sequence" in outputs["b"][-1].error
    assert _tokens(outputs["b"]) == _alone(asked[1])[:2]
    for n in (0, 2):
        assert _tokens(outputs[asked[n].id]) == _alone(asked[n])

"""A conversation with two pictures, round after round: what is known is not computed again, and no answer changes.

Counted on the model itself: `computed` tokens went through the decoder, `encoded` tiles through the vision tower.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from tests.fixtures.models import Reference, Tiles, random_tiles
from tools.tiny_model import TINY
from worker.engine.generation import Generation, Image, Sampling
from worker.engine.torch.batch import ForwardBatch
from worker.engine.torch.engine import TorchEngine
from worker.engine.torch.internvl import InternVL
from worker.engine.torch.options import EngineOptions

pytestmark = pytest.mark.integration

PAGE = 16
OPTIONS = EngineOptions(slots=4, pages=40, page_size=PAGE, prefill_chunk=64, tiles_per_step=4)
CAT, DOG, SUN = (random_tiles(seed, tiles) for seed, tiles in ((1, 3), (2, 2), (3, 3)))


class Counted:
    """The real model; counts what it is made to do."""

    def __init__(self, model: InternVL) -> None:
        self._model = model
        self.computed = self.encoded = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    def encode_tiles(self, pixels: torch.Tensor) -> torch.Tensor:
        self.encoded += len(pixels)
        return self._model.encode_tiles(pixels)

    def forward(self, embeds: torch.Tensor, batch: ForwardBatch) -> torch.Tensor:
        self.computed += len(embeds)
        return self._model.forward(embeds, batch)


@pytest.fixture(scope="module")
def weights(tiny_model: Path) -> Iterator[InternVL]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield InternVL.load(tiny_model, torch.device("cpu"), torch.float32)
    torch.set_num_threads(threads)


@dataclass
class Conversation:
    """Grows by words, pictures and answers; `generation` asks for the next answer."""

    salt: int = 0
    ids: list[int] = field(default_factory=list)
    tiles: list[Tiles] = field(default_factory=list)

    def say(self, seed: int, words: int) -> None:
        self.ids += np.random.default_rng(seed).integers(5, 1500, words).tolist()

    def show(self, tiles: Tiles) -> None:
        first = TINY.vocab_size + TINY.tokens_per_tile * sum(map(len, self.tiles))
        self.ids += range(first, first + TINY.tokens_per_tile * len(tiles))
        self.tiles.append(tiles)

    def generation(self, **changes: object) -> Generation:
        images = [Image(hashlib.sha256(t.tobytes()).digest(), len(t), t.tobytes()) for t in self.tiles]
        asked = Generation("ask", list(self.ids), Sampling(), 10, images=images, salt=self.salt)
        return msgspec.structs.replace(asked, **changes)


def _first_round(*pictures: Tiles, salt: int = 0) -> Conversation:
    talk = Conversation(salt)
    talk.say(1, 11)
    for n, picture in enumerate(pictures):
        talk.show(picture)
        talk.say(2 + n, 5)
    return talk


@dataclass(frozen=True)
class Answer:
    tokens: list[int]
    cached_tokens: int | None


class Serving:
    """An engine on the shared weights; it takes their KV cache, so an older one must not go on."""

    def __init__(self, weights: InternVL, **changes: int | bool) -> None:
        self.model = Counted(weights)
        self.engine = TorchEngine(self.model, replace(OPTIONS, **changes))  # type: ignore[arg-type]

    def answer(self, generation: Generation) -> Answer:
        self.engine.submit(generation)
        outputs = []
        while self.engine.has_work():
            outputs += self.engine.step()
            self.engine.check_integrity()
        return Answer([t.id for output in outputs for t in output.tokens], outputs[0].cached_tokens)

    def push_everything_out(self) -> None:
        """One prompt that needs all pages."""
        other = Conversation(salt=99)
        other.say(77, OPTIONS.pages * PAGE - 2)
        self.answer(other.generation(max_tokens=1))


def test_three_rounds_compute_neither_pictures_nor_the_shared_prefix_again(
    weights: InternVL, tiny_reference: Reference
) -> None:
    serving, talk = Serving(weights), _first_round(CAT, DOG)
    rounds: list[tuple[Generation, list[int]]] = []
    known = 0
    for round_number in range(3):
        before = serving.model.computed
        generation = talk.generation()
        answer = serving.answer(generation)
        rounds.append((generation, answer.tokens))
        assert answer.tokens == tiny_reference.generate(talk.ids, np.concatenate(talk.tiles), 10)
        assert answer.cached_tokens == known // PAGE * PAGE
        # The prompt's rest, and each answered token but the last.
        assert serving.model.computed - before == len(talk.ids) - known // PAGE * PAGE + 9
        assert serving.model.encoded == len(CAT) + len(DOG)
        known = len(talk.ids) + 9
        talk.ids += answer.tokens
        talk.say(10 + round_number, 7)
    stats = serving.engine.stats()
    assert (stats.tiles_encoded, stats.tiles_reused) == (5, 10)
    plain = Serving(weights, prefix_reuse=False)
    assert [plain.answer(generation) for generation, _ in rounds] == [Answer(tokens, 0) for _, tokens in rounds]


@pytest.mark.parametrize("pictures", [(SUN, DOG), (CAT, SUN), (DOG, CAT)], ids=["first", "second", "swapped"])
def test_other_pictures_under_the_same_words_share_no_page_from_the_first_difference_on(
    pictures: tuple[Tiles, Tiles], weights: InternVL, tiny_reference: Reference
) -> None:
    serving = Serving(weights)
    serving.answer(_first_round(CAT, DOG).generation())
    talk = _first_round(*pictures)
    answer = serving.answer(talk.generation())
    alike = 11 + (TINY.tokens_per_tile * len(CAT) + 5 if pictures[0] is CAT else 0)
    assert answer.cached_tokens == alike // PAGE * PAGE
    assert answer.tokens == tiny_reference.generate(talk.ids, np.concatenate(talk.tiles), 10)


def test_two_pictures_at_work_together_hold_no_page_in_common(weights: InternVL) -> None:
    serving = Serving(weights)
    for name, picture in (("cat", CAT), ("sun", SUN)):
        talk = Conversation()
        talk.show(picture)
        talk.say(5, 20)
        serving.engine.submit(talk.generation(id=name))
    while serving.engine.stats().steps_by_batch.get(2, 0) < 3:
        serving.engine.step()
    stats = serving.engine.stats()
    # 68 tokens and three more each.
    assert stats.pages_total - stats.pages_free == 2 * 5
    assert stats.cached_tokens == 0


def test_another_salt_computes_everything_itself(weights: InternVL) -> None:
    serving = Serving(weights)
    mine = serving.answer(_first_round(CAT, DOG, salt=1).generation())
    theirs = serving.answer(_first_round(CAT, DOG, salt=2).generation())
    nobodys = serving.answer(_first_round(CAT, DOG).generation())
    assert [a.cached_tokens for a in (mine, theirs, nobodys)] == [0, 0, 0]
    assert mine.tokens == theirs.tokens == nobodys.tokens
    assert serving.model.encoded == 3 * (len(CAT) + len(DOG))
    again = serving.answer(_first_round(CAT, DOG, salt=1).generation())
    assert again.cached_tokens == (len(_first_round(CAT, DOG).ids) - 1) // PAGE * PAGE


def test_after_eviction_a_round_is_computed_again_and_answers_the_same(weights: InternVL) -> None:
    serving = Serving(weights)
    talk = _first_round(CAT, DOG)
    first = serving.answer(talk.generation())
    talk.ids += first.tokens
    talk.say(9, 6)
    second = talk.generation()
    warm = serving.answer(second)
    serving.push_everything_out()
    cold = serving.answer(second)
    assert (warm.cached_tokens, cold.cached_tokens) == ((len(talk.ids) - 7) // PAGE * PAGE, 0)
    assert cold.tokens == warm.tokens == Serving(weights, prefix_reuse=False).answer(second).tokens
    # The pages are gone, the encoded pictures are not.
    assert serving.model.encoded == len(CAT) + len(DOG)


def test_without_room_for_encoded_pictures_the_prefix_still_saves_them(weights: InternVL) -> None:
    serving = Serving(weights, embedding_bytes=0)
    talk = _first_round(CAT, DOG)
    talk.ids += serving.answer(talk.generation()).tokens
    talk.say(9, 6)
    serving.answer(talk.generation())
    assert serving.model.encoded == len(CAT) + len(DOG)
    serving.push_everything_out()
    serving.answer(talk.generation())
    assert serving.model.encoded == 2 * (len(CAT) + len(DOG))


def test_a_page_that_is_half_evicted_in_the_midst_of_a_conversation_changes_no_answer(weights: InternVL) -> None:
    """Pressure between the rounds takes the deepest pages first; what is left is a shorter prefix, inside a picture."""
    talk = _first_round(CAT, DOG)
    expected = Serving(weights, prefix_reuse=False).answer(talk.generation()).tokens
    cached = set()
    for pressure in range(30, 41):
        serving = Serving(weights)
        serving.answer(talk.generation())
        other = Conversation(salt=99)
        other.say(77, pressure * PAGE - 2)
        serving.answer(other.generation(max_tokens=1))
        answer = serving.answer(talk.generation())
        assert answer.tokens == expected
        cached.add(answer.cached_tokens)
    assert len(cached) > 3 and 0 in cached


def test_a_page_of_one_token_that_changed_hands_is_read_anew(weights: InternVL) -> None:
    """Two requests that begin alike come when both pages were others': the first writes the page, the second reads it
    in the same forward. What decode attention has copied of the page's last owner is no longer true."""

    def ask(name: str, *ids: int) -> Generation:
        return Generation(name, list(ids), Sampling(), max_tokens=1)

    def serve(*asked: Generation) -> dict[str, list[int]]:
        for generation in asked:
            engine.submit(generation)
        return {o.id: [t.id for t in o.tokens] for o in engine.step()}

    engine = TorchEngine(weights, replace(OPTIONS, page_size=1, pages=3))
    for n in range(3):
        serve(ask("old", 700 + n))
    answers = serve(ask("one", 5), ask("two", 5, 6))
    engine = TorchEngine(weights, OPTIONS)
    assert answers == {"one": serve(ask("one", 5))["one"], "two": serve(ask("two", 5, 6))["two"]}

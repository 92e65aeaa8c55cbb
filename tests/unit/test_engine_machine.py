"""A Hypothesis state machine drives scheduler, block cache and embedding cache through the engine: submit, step,
cancel, evict, in any order. After every step the accounts must agree; whoever ends has the answer of a lone run."""

import hashlib
from functools import cache

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from tests.fakes.model import POISON, TILE_SIZE, TOKENS_PER_TILE, VOCAB, FakeModel
from worker.engine.generation import Finish, Generation, Image, Sampling
from worker.engine.torch.engine import TorchEngine
from worker.engine.torch.options import EngineOptions

pytestmark = pytest.mark.unit

PAGES, PAGE_SIZE = 12, 4
TILE_BYTES = TOKENS_PER_TILE * 8 * 8  # of one encoded tile: hidden 8, float64
MAX_TOKENS = 6


@cache
def _image(seed: int, tiles: int) -> Image:
    size = 3 * TILE_SIZE**2 * tiles
    pixels = (hashlib.sha256(bytes([seed])).digest() * size)[:size]
    return Image(digest=hashlib.sha256(pixels).digest(), tiles=tiles, pixels=pixels)


def _generation(
    kind: int, length: int, pictures: tuple[tuple[int, int], ...], sampled: bool, poisoned: bool, salt: int, most: int
) -> Generation:
    """Prompts of one kind are prefixes of one another, pictures included, so that pages collide."""
    ids = [(kind * 17 + n) % 11 for n in range(length)]
    images = [_image(*picture) for picture in pictures]
    visual = sum(image.tiles for image in images) * TOKENS_PER_TILE
    ids = [*ids[:2], *range(VOCAB, VOCAB + visual), *ids[2:], *([POISON] if poisoned else [])]
    sampling = Sampling(seed=length, temperature=1.5, frequency_penalty=0.5) if sampled else Sampling()
    return Generation("?", ids, sampling, most, images=images, salt=salt)


@cache
def _alone(*asked: object) -> tuple[int, ...]:
    """What a generation gives in an engine of its own; with a poisoned prompt, nothing."""
    engine = TorchEngine(FakeModel(), EngineOptions(1, PAGES, PAGE_SIZE, 100, prefix_reuse=False))
    engine.submit(_generation(*asked))  # type: ignore[arg-type]
    tokens = []
    while engine.has_work():
        tokens += [t.id for output in engine.step() for t in output.tokens]
    return tuple(tokens)


ASKED = st.tuples(
    st.integers(0, 1),
    st.integers(1, 18),
    st.sampled_from([(), (), ((1, 1),), ((2, 1),), ((1, 1), (3, 3)), ((3, 3), (3, 3))]),
    st.booleans(),
    st.sampled_from([False, False, False, False, True]),
    st.sampled_from([0, 0, 0, 1]),
    st.integers(1, MAX_TOKENS),
)


class EngineMachine(RuleBasedStateMachine):
    """Twelve pages of four tokens: two or three sequences fill them, so most admissions evict."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.options = EngineOptions(
            slots=3,
            pages=PAGES,
            page_size=PAGE_SIZE,
            prefill_chunk=9,
            tiles_per_step=2,
            embedding_bytes=4 * TILE_BYTES,
        )
        self.engine = TorchEngine(FakeModel(), self.options)
        self.asked: dict[str, tuple[object, ...]] = {}
        self.tokens: dict[str, list[int]] = {}
        self.ended: dict[str, Finish] = {}
        self.cancelled: set[str] = set()

    @rule(target=ids, asked=ASKED, continued=st.sampled_from([0.0, 0.0, 0.5, 1.0]))
    def submit(self, asked: tuple[object, ...], continued: float) -> str:
        name = str(len(self.asked))
        generation = _generation(*asked)  # type: ignore[arg-type]
        known = list(_alone(*asked))
        known = known[: int(len(known) * continued)]
        self.asked[name] = asked
        self.tokens[name] = list(known)
        self.engine.submit(msgspec.structs.replace(generation, id=name, generated=known))
        return name

    @rule(name=consumes(ids))
    def cancel(self, name: str) -> None:
        if name not in self.ended:
            self.cancelled.add(name)
        self.engine.cancel(name)

    @rule(steps=st.integers(1, 4))
    def step(self, steps: int) -> None:
        for _ in range(steps):
            for output in self.engine.step():
                assert output.id not in self.ended, "an output after the last one"
                self.tokens[output.id] += [token.id for token in output.tokens]
                if output.finish:
                    self.ended[output.id] = output.finish
            self.engine.check_integrity()

    @rule()
    def evict(self) -> None:
        """Runs dry, then lets one prompt of all pages push everything else out."""
        self.run_dry()
        name = str(len(self.asked))
        self.asked[name] = (3, PAGES * PAGE_SIZE - 1, (), False, False, 2, 1)
        self.tokens[name] = []
        self.engine.submit(msgspec.structs.replace(_generation(*self.asked[name]), id=name))  # type: ignore[arg-type]
        self.run_dry()
        assert self.engine.stats().pages_free <= 1

    def run_dry(self) -> None:
        for _ in range(1000):
            if not self.engine.has_work():
                return
            self.step(1)
        raise AssertionError(f"never idle: {self.asked}")

    @invariant()
    def accounts_agree(self) -> None:
        self.engine.check_integrity()
        stats = self.engine.stats()
        assert stats.running <= self.options.slots
        waiting_or_running = self.asked.keys() - self.ended.keys() - self.cancelled
        assert stats.waiting + stats.running <= len(waiting_or_running)

    @invariant()
    def every_answer_is_that_of_a_lone_run(self) -> None:
        for name, finish in self.ended.items():
            whole = _alone(*self.asked[name])
            got = tuple(self.tokens[name])
            if finish is Finish.CANCELLED:
                assert name in self.cancelled and got == whole[: len(got)]
            else:
                assert got == whole
                assert finish is (Finish.LENGTH if whole else Finish.ERROR)

    @invariant()
    def nothing_is_kept_when_idle(self) -> None:
        if self.engine.has_work():
            return
        stats = self.engine.stats()
        assert self.asked.keys() == self.ended.keys()
        assert (stats.running, stats.waiting) == (0, 0)
        assert stats.pages_free + stats.pages_cached == stats.pages_total

    def teardown(self) -> None:
        self.run_dry()
        self.nothing_is_kept_when_idle()
        self.every_answer_is_that_of_a_lone_run()


TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

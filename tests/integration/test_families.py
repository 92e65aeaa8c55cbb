"""Every published model of the families, scaled down with its flags, computes what its reference does, token for token.

The reference is transformers where it has the model; for InternLM's own layouts a plain one of `tests.fixtures`.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from tests.fixtures.internlm import InternLM
from tests.fixtures.models import Reference, Tiles, random_tiles
from tests.fixtures.paged import PagedModel
from tools.tiny_model import MODELS, Geometry, Layout, scaled, write_checkpoint
from worker.engine.generation import Generation, Image, Sampling
from worker.engine.torch.engine import TorchEngine
from worker.engine.torch.internvl import InternVL
from worker.engine.torch.options import EngineOptions

pytestmark = pytest.mark.integration

_NEW_TOKENS = 5
_OPTIONS = EngineOptions(slots=4, pages=160, page_size=16, prefill_chunk=48, tiles_per_step=8)


@dataclass(frozen=True, slots=True)
class Family:
    geometry: Geometry
    original: Path
    native: Path
    reference: Reference
    plain: InternLM | None

    def logits(self, ids: list[int], tiles: Tiles | None) -> torch.Tensor:
        if self.plain is None:
            return self.reference.logits(ids, tiles)
        return self.plain.logits(ids, self._visual(tiles))

    def generate(self, ids: list[int], tiles: Tiles | None) -> list[int]:
        if self.plain is None:
            return self.reference.generate(ids, tiles, _NEW_TOKENS)
        return self.plain.generate(ids, self._visual(tiles), _NEW_TOKENS)

    def _visual(self, tiles: Tiles | None) -> torch.Tensor | None:
        return None if tiles is None else self.reference.visual_tokens(tiles)


@pytest.fixture(scope="module", params=MODELS)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    geometry = scaled(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    original = write_checkpoint(folder / "original", geometry)
    native = write_checkpoint(folder / "native", geometry, Layout.NATIVE)
    plain = InternLM(original) if geometry.family != "qwen2" else None
    yield Family(geometry, original, native, Reference(native), plain)
    torch.set_num_threads(threads)


def _text(seed: int, length: int) -> list[int]:
    return np.random.default_rng(seed).integers(5, 700, length).tolist()


def _shown(geometry: Geometry, seed: int, tile_counts: tuple[int, ...]) -> tuple[list[int], Tiles, list[Image]]:
    """A prompt that shows pictures of so many tiles, each after two words."""
    parts = [random_tiles(100 * seed + n, tiles, geometry) for n, tiles in enumerate(tile_counts)]
    ids, virtual = _text(seed, 6), geometry.vocab_size
    for n, tiles in enumerate(tile_counts):
        count = tiles * geometry.tokens_per_tile
        ids += [*_text(seed + n + 50, 2), *range(virtual, virtual + count)]
        virtual += count
    images = [Image(hashlib.sha256(p.tobytes()).digest(), len(p), p.tobytes()) for p in parts]
    return ids + _text(seed + 90, 7), np.concatenate(parts), images


def _answer(engine: TorchEngine, name: str, ids: list[int], images: list[Image]) -> list[int]:
    tokens = _drive(engine, Generation(name, ids, Sampling(), _NEW_TOKENS, images=images))[name]
    engine.check_integrity()
    return tokens


def _drive(engine: TorchEngine, *generations: Generation) -> dict[str, list[int]]:
    """The tokens of each, all in the engine together."""
    drawn: dict[str, list[int]] = {generation.id: [] for generation in generations}
    for generation in generations:
        engine.submit(generation)
    while engine.has_work():
        for output in engine.step():
            drawn[output.id] += [token.id for token in output.tokens]
    return drawn


def _check(family: Family, cases: dict[str, tuple[list[int], Tiles | None, list[Image]]]) -> None:
    """Greedy tokens through the engine, and every logit of the prompt, in both layouts."""
    expected = {name: family.generate(ids, tiles) for name, (ids, tiles, _) in cases.items()}
    wanted = {name: family.logits(ids, tiles) for name, (ids, tiles, _) in cases.items()}
    for folder in (family.original, family.native):
        model = InternVL.load(folder, torch.device("cpu"), torch.float32)
        engine = TorchEngine(model, _OPTIONS)
        assert {name: _answer(engine, name, ids, images) for name, (ids, _, images) in cases.items()} == expected
        paged = PagedModel(model, pages=160)
        for name, (ids, tiles, _) in cases.items():
            ours = paged.whole(paged.sequence(ids, tiles))
            assert (ours - wanted[name]).abs().max().item() <= 1e-3, name


def test_a_family_member_answers_as_its_reference(family: Family) -> None:
    geometry = family.geometry
    _check(
        family,
        {
            "text": (_text(1, 40), None, []),
            "one image": _shown(geometry, 2, (7,)),
            "three images": _shown(geometry, 3, (1, 3, 5)),
            "video": _shown(geometry, 4, (1,) * 8),
        },
    )


def test_a_family_member_answers_three_rounds_as_its_reference(family: Family) -> None:
    ids, tiles, images = _shown(family.geometry, 5, (3, 1))
    folders = (family.original, family.native)
    models = [InternVL.load(folder, torch.device("cpu"), torch.float32) for folder in folders]
    engines = [TorchEngine(model, _OPTIONS) for model in models]
    for number in range(3):
        expected = family.generate(ids, tiles)
        assert [_answer(engine, str(number), ids, images) for engine in engines] == [expected, expected]
        ids = [*ids, *expected, *_text(60 + number, 9)]
    wanted = family.logits(ids, tiles)
    for engine, model in zip(engines, models, strict=True):
        assert engine.stats().tiles_encoded == 4
        assert engine.stats().cached_tokens > 0
        paged = PagedModel(model, pages=160)
        assert (paged.whole(paged.sequence(ids, tiles)) - wanted).abs().max().item() <= 1e-3


def test_a_continuation_beyond_the_trained_length_gives_the_same_rest(tmp_path: Path) -> None:
    """From any token, whether the prompt itself is beyond or only the answer goes there."""
    geometry = scaled("InternVL3-9B")
    model = InternVL.load(write_checkpoint(tmp_path, geometry), torch.device("cpu"), torch.float32)
    for length in (geometry.context_length - 4, geometry.context_length + 20):
        asked = Generation("whole", _text(length, length), Sampling(seed=1, temperature=1.0), 12)
        whole = _drive(TorchEngine(model, _OPTIONS), asked)["whole"]
        rests = [msgspec.structs.replace(asked, id=str(n), generated=whole[:n]) for n in range(1, 12)]
        assert _drive(TorchEngine(model, _OPTIONS), *rests) == {str(n): whole[n:] for n in range(1, 12)}


def test_a_family_member_beyond_its_trained_length_answers_as_its_reference(family: Family) -> None:
    trained = family.geometry.context_length
    if family.geometry.rope_factor is None:
        model = InternVL.load(family.native, torch.device("cpu"), torch.float32)
        assert TorchEngine(model, _OPTIONS).context_length == trained
        return
    ids, tiles, images = _shown(family.geometry, 6, (13, 13, 13, 13, 4))
    grown = ids + _text(8, trained - 2 - len(ids))
    # The first goes beyond while it decodes; the others share words with it and with each other, but no keys.
    _check(
        family,
        {
            "grows beyond": (grown, tiles, images),
            "is beyond": (grown + _text(9, 20), tiles, images),
            "is far beyond": (grown + _text(9, 90), tiles, images),
            "is beyond again": (grown + _text(9, 20), tiles, images),
        },
    )


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry(family="internlm2", layers=1, out_bias=True),
        Geometry(family="internlm3", layers=1, out_bias=True),
        Geometry(family="internlm3", layers=1, qkv_bias=False, out_bias=True, head_dim=16),
    ],
    ids=["2", "3: all biases", "3: all but query, key, value"],
)
def test_internlm_with_biases_answers_as_its_reference(tmp_path: Path, geometry: Geometry) -> None:
    original = write_checkpoint(tmp_path, geometry)
    ids = _text(1, 20)
    paged = PagedModel(InternVL.load(original, torch.device("cpu"), torch.float32), pages=8)
    ours = paged.whole(paged.sequence(ids))
    assert (ours - InternLM(original).logits(ids)).abs().max().item() <= 1e-3

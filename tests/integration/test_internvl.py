"""Our InternVL computes what transformers' does, however its tokens are cut into forwards and packed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.fixtures.models import Reference, random_tiles
from tests.fixtures.paged import PagedModel, PagedSequence
from tools.tiny_model import Geometry, Layout, write_checkpoint
from worker.engine.torch.batch import ForwardBatch
from worker.engine.torch.internvl import InternVL

pytestmark = pytest.mark.integration

_CPU = torch.device("cpu")
_VOCAB = 2048
_TEXT = [300 + 7 * i for i in range(45)]
_IMAGE = [300, 301, *range(_VOCAB, _VOCAB + 48), 302, 303, 304]
_TWO_IMAGES = [310, *range(_VOCAB, _VOCAB + 16), 311, *range(_VOCAB + 16, _VOCAB + 48), 312, 313]
_PROMPTS = [(_TEXT, 0), (_IMAGE, 3), (_TWO_IMAGES, 3)]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> InternVL:
    torch.set_num_threads(1)
    return InternVL.load(tiny_model, _CPU, torch.float32)


def _sequence(paged: PagedModel, ids: list[int], tiles: int, room: int = 0) -> PagedSequence:
    return paged.sequence(ids, random_tiles(1, tiles) if tiles else None, room)


def _close(ours: torch.Tensor, theirs: torch.Tensor, limit: float = 1e-4) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max().item() <= limit


@pytest.mark.parametrize(("ids", "tiles"), _PROMPTS, ids=["text", "one image", "two images"])
def test_internvl_logits_equal_transformers(
    model: InternVL, tiny_reference: Reference, ids: list[int], tiles: int
) -> None:
    paged = PagedModel(model)
    ours = paged.whole(_sequence(paged, ids, tiles))
    _close(ours, tiny_reference.logits(ids, random_tiles(1, tiles) if tiles else None))


def test_internvl_native_layout_gives_identical_logits(model: InternVL, tiny_model_native: Path) -> None:
    native = InternVL.load(tiny_model_native, _CPU, torch.float32)
    outputs = []
    for loaded in (model, native):
        paged = PagedModel(loaded)
        outputs.append(paged.whole(_sequence(paged, _IMAGE, 3)))
    assert torch.equal(*outputs)


@pytest.mark.parametrize("chunk", [1, 2, 7, 16, 17, 40])
@pytest.mark.parametrize("page_size", [8, 16])
def test_internvl_chunked_prefill_equals_one_forward(model: InternVL, chunk: int, page_size: int) -> None:
    paged = PagedModel(model, page_size=page_size)
    whole = paged.whole(_sequence(paged, _IMAGE, 3))
    sequence = _sequence(paged, _IMAGE, 3)
    parts = []
    while sequence.length < len(_IMAGE):
        parts += paged.forward([(sequence, min(chunk, len(_IMAGE) - sequence.length))])
    _close(torch.cat(parts), whole)


def test_internvl_decode_through_the_cache_equals_transformers_generate(
    model: InternVL, tiny_reference: Reference
) -> None:
    expected = {i: tiny_reference.generate(ids, random_tiles(1, n) if n else None, 24) for i, (ids, n) in _enumerated()}
    paged = PagedModel(model)
    sequences = {i: _sequence(paged, ids, n, room=24) for i, (ids, n) in _enumerated()}
    drawn = {i: [int(paged.whole(sequence)[-1].argmax())] for i, sequence in sequences.items()}
    for _ in range(23):
        for i, sequence in sequences.items():
            paged.append(sequence, drawn[i][-1:])
        outputs = paged.forward([(sequence, 1) for sequence in sequences.values()])
        for i, logits in zip(sequences, outputs, strict=True):
            drawn[i].append(int(logits[-1].argmax()))
    assert drawn == expected


def _enumerated() -> list[tuple[int, tuple[list[int], int]]]:
    return list(enumerate(_PROMPTS))


def test_internvl_packed_prefills_and_decodes_equal_each_alone(model: InternVL) -> None:
    paged = PagedModel(model)
    alone = [paged.whole(_sequence(paged, ids, n)) for ids, n in _PROMPTS]
    first, second, third = (_sequence(paged, ids, n) for ids, n in _PROMPTS)
    start = paged.forward([(first, 20), (third, 50)])
    mixed = paged.forward([(first, 1), (second, 30), (third, 1)])
    again = paged.forward([(second, 1), (first, 24)])
    _close(torch.cat((start[0], mixed[0], again[1])), alone[0])
    _close(torch.cat((mixed[1], again[0])), alone[1][:31])
    _close(torch.cat((start[1], mixed[2])), alone[2][:51])


def test_internvl_decode_batch_of_uneven_lengths_equals_each_alone(model: InternVL) -> None:
    paged = PagedModel(model, pages=128)
    lengths = [1, 2, 15, 16, 17, 31, 32, 33, 90]
    rng = np.random.default_rng(5)
    prompts = [rng.integers(0, 2000, length + 3).tolist() for length in lengths]
    alone = [paged.whole(paged.sequence(ids)) for ids in prompts]
    sequences = [paged.sequence(ids) for ids in prompts]
    for sequence, length in zip(sequences, lengths, strict=True):
        paged.forward([(sequence, length)])
    steps = [paged.forward([(sequence, 1) for sequence in sequences]) for _ in range(3)]
    for b, length in enumerate(lengths):
        _close(torch.cat([step[b] for step in steps]), alone[b][length:])


def test_internvl_nan_in_one_sequence_never_reaches_another(model: InternVL) -> None:
    paged = PagedModel(model)
    alone = paged.whole(paged.sequence(_TEXT))
    bad, good = paged.sequence(_TEXT), paged.sequence(_TEXT)
    bad.embeds[3] = float("nan")
    parts = [paged.forward([(bad, 20), (good, 20)])[1]]
    parts += [paged.forward([(good, 1), (bad, 1)])[0] for _ in range(10)]
    bad_logits, good_logits = paged.forward([(bad, 15), (good, 15)])
    _close(torch.cat((*parts, good_logits)), alone)
    assert bad_logits.isnan().all()


def test_internvl_reused_page_of_a_nan_sequence_is_harmless(model: InternVL) -> None:
    paged = PagedModel(model)
    alone = paged.whole(paged.sequence(_TEXT))
    bad = paged.sequence(_TEXT)
    bad.embeds[:] = float("nan")
    paged.whole(bad)
    good = PagedSequence(paged.sequence(_TEXT).embeds, bad.pages)
    parts = [paged.forward([(good, 5)])[0]] + [paged.forward([(good, 1)])[0] for _ in range(40)]
    _close(torch.cat(parts), alone)


def test_internvl_copied_pages_continue_like_their_source(model: InternVL) -> None:
    paged = PagedModel(model)
    source = paged.sequence(_TEXT)
    alone = paged.whole(paged.sequence(_TEXT))
    paged.forward([(source, 40)])
    copy = paged.sequence(_TEXT)
    model.copy_pages(source.pages, copy.pages)
    copy.length = 40
    _close(paged.forward([(copy, 5)])[0], alone[40:])


def test_internvl_decode_after_pages_were_rewritten_sees_the_new_tokens(model: InternVL) -> None:
    paged = PagedModel(model)
    other = [1700 - 3 * i for i in range(45)]
    alone = paged.whole(paged.sequence(other))
    first = paged.sequence(_TEXT)
    paged.forward([(first, 40)])
    paged.forward([(first, 1)])
    second = PagedSequence(paged.sequence(other).embeds, first.pages)
    paged.forward([(second, 41)])
    _close(paged.forward([(second, 1)])[0], alone[41:42])


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry(tied=True, layers=2),
        Geometry(vision_rms_norm=True, vision_qk_norm=True, vision_qkv_bias=False, layers=2),
        Geometry(select_layer=-2, vision_layers=3, layers=1),
        Geometry(select_layer=1, vision_layers=3, layers=1),
        Geometry(downsample_ratio=0.25, layers=1),
        Geometry(heads=4, kv_heads=4, layers=1),
        Geometry(heads=4, kv_heads=1, layers=1),
        Geometry(image_size=56, rope_theta=10_000.0, layers=1),
    ],
    ids=["tied", "vision of the 6B", "select -2", "select 1", "quarter", "no groups", "one kv head", "small tiles"],
)
def test_internvl_of_other_geometry_equals_transformers(tmp_path: Path, geometry: Geometry) -> None:
    original = write_checkpoint(tmp_path / "original", geometry)
    native = write_checkpoint(tmp_path / "native", geometry, Layout.NATIVE)
    tiles = random_tiles(3, 2, geometry)
    ids = [300, *range(_VOCAB, _VOCAB + 2 * geometry.tokens_per_tile), 302, 303]
    paged = PagedModel(InternVL.load(original, _CPU, torch.float32))
    _close(paged.whole(paged.sequence(ids, tiles)), Reference(native).logits(ids, tiles))


def test_internvl_first_unshuffle_version_swaps_rows_and_columns(tmp_path: Path) -> None:
    tokens = []
    for version in ("v1", "v2"):
        folder = write_checkpoint(tmp_path / version, Geometry(ps_version=version, layers=1))
        tokens.append(InternVL.load(folder, _CPU, torch.float32).encode_tiles(torch.from_numpy(random_tiles(1, 2))))
    first, second = (each.view(2, 4, 4, -1) for each in tokens)
    assert torch.equal(first.transpose(1, 2), second)


def test_internvl_describes_itself_from_the_checkpoint(model: InternVL) -> None:
    described = (model.vocab_size, model.hidden, model.tokens_per_tile, model.tile_size, model.context_length)
    assert described == (_VOCAB, 128, 16, 112, 4096)
    assert model.cache_bytes_per_page(16) == 3 * 2 * 16 * 2 * 32 * 4


def test_internvl_in_bfloat16_stays_near_float32(tiny_model: Path, model: InternVL) -> None:
    half = PagedModel(InternVL.load(tiny_model, _CPU, torch.bfloat16))
    full = PagedModel(model)
    ours, theirs = (paged.whole(_sequence(paged, _IMAGE, 3)) for paged in (half, full))
    assert ours.dtype == torch.float32
    assert (ours - theirs).abs().mean().item() < 0.2


def test_internvl_forward_without_a_cache_says_so(tiny_model: Path) -> None:
    fresh = InternVL.load(tiny_model, _CPU, torch.float32)
    one = torch.zeros(1, dtype=torch.int64)
    batch = ForwardBatch(one, one, one[None].int(), (1,), (1,))
    with pytest.raises(RuntimeError, match="allocate_cache"):
        fresh.forward(torch.zeros(1, fresh.hidden), batch)

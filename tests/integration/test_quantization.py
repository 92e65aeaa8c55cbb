"""8-bit weights: smaller in memory, near in their answers, refused by name where the machine has no such numbers."""

from pathlib import Path

import pytest
import torch

from tests.fixtures.models import random_tiles
from tests.fixtures.paged import PagedModel
from tools.tiny_model import Geometry, write_checkpoint
from worker.engine.torch.internvl import InternVL
from worker.engine.torch.quantization import Quantization, QuantizationError

pytestmark = pytest.mark.integration

_CPU = torch.device("cpu")
_GEOMETRY = Geometry(hidden=256, head_dim=64, mlp=1024, layers=2, vocab_size=512)
_IDS = [300, *range(512, 544), *range(60, 100)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("eight"), _GEOMETRY)


def _logits(model: InternVL) -> torch.Tensor:
    paged = PagedModel(model, pages=16)
    return paged.whole(paged.sequence(_IDS, random_tiles(1, 2, _GEOMETRY)))


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 0.25), (torch.bfloat16, 0.5)])
def test_int8_layers_take_a_quarter_of_float32_and_half_of_bfloat16(
    folder: Path, dtype: torch.dtype, share: float
) -> None:
    whole = InternVL.load(folder, _CPU, dtype)
    small = InternVL.load(folder, _CPU, dtype, quantization=Quantization.INT8)
    kv = _GEOMETRY.kv_heads * _GEOMETRY.head_dim
    per_layer = 256 * (256 + 2 * kv) + 256 * 256 + 3 * 256 * 1024
    eight_bit = _GEOMETRY.layers * per_layer * dtype.itemsize
    saved = whole.weight_bytes() - small.weight_bytes()
    assert saved == pytest.approx(eight_bit * (1 - share), rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_int8_logits_stay_near_those_of_whole_weights(folder: Path, dtype: torch.dtype) -> None:
    whole, small = (
        _logits(InternVL.load(folder, _CPU, dtype, quantization=each))
        for each in (Quantization.NONE, Quantization.INT8)
    )
    spread = whole.std().item()
    assert 0 < (whole - small).abs().mean().item() < 0.1 * spread


def test_fp8_without_a_gpu_that_has_it_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(QuantizationError, match=r'quantization = "fp8" needs a GPU .* the device is cpu'):
        InternVL.load(folder, _CPU, torch.float32, quantization=Quantization.FP8)

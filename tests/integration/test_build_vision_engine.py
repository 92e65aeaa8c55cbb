"""The vision engine's graph computes what torch does, and TensorRT-RTX builds it as it is written, without a GPU."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch

from tests.fixtures.models import random_tiles
from tools.build_vision_engine.build import Order, build
from tools.build_vision_engine.compare import TOLERANCE, compare_onnx, relative_error, tiles_to_compare
from tools.build_vision_engine.engine_file import BuildError, build_engine, profiles
from tools.build_vision_engine.library import Library, LibraryError, TensorRT, find_tensorrt
from tools.build_vision_engine.vision_graph import write_vision
from tools.gpu import Gpu
from tools.tiny_model import TINY, Layout, write_checkpoint
from worker.engine.config import VisionConfig
from worker.engine.tensorrt.fingerprint import fingerprint
from worker.engine.tensorrt.manifest import VisionManifest, read_manifest
from worker.engine.torch.tower import load_vision
from worker.engine.torch.vision import Vision

pytestmark = pytest.mark.integration

DEMO = Path("models/vlmq-demo")
_300M = VisionConfig(
    image_size=448,
    patch_size=14,
    hidden=1024,
    layers=2,
    heads=16,
    mlp=4096,
    eps=1e-6,
    rms_norm=False,
    qk_norm=False,
    qkv_bias=True,
    select_layer=-1,
    downsample_ratio=0.5,
    ps_version="v2",
)
# Every width of the 6B and its norms. One layer on tiles of 112 pixels, for the sake of two cores: what the tile's
# size decides, the 300M shows at full size.
_6B = replace(
    _300M, image_size=112, hidden=3200, layers=1, heads=25, mlp=12800, rms_norm=True, qk_norm=True, qkv_bias=False
)
SHAPES = {"ViT-300M": (_300M, 896), "ViT-6B": (_6B, 1024)}


def _quiet(done: float, what: str) -> None:
    pass


def _random(config: VisionConfig, hidden: int, dtype: torch.dtype) -> Vision:
    """Weights scaled so that every part of the tower matters to what comes out."""
    generator = torch.Generator().manual_seed(7)
    vision = Vision(config, hidden).requires_grad_(False).eval()
    for name, parameter in vision.named_parameters():
        if "norm" in name and name.endswith("weight"):
            parameter.normal_(1.0, 0.1, generator=generator)
        elif "scale" in name:
            parameter.normal_(0.8, 0.1, generator=generator)
        elif parameter.dim() == 2 and name != "positions":
            parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)
        else:
            parameter.normal_(0.0, 0.3, generator=generator)
    return vision.to(dtype)


@pytest.fixture(scope="module")
def trt() -> TensorRT:
    try:
        return find_tensorrt(Library.TENSORRT_RTX)
    except LibraryError as exc:
        pytest.skip(str(exc))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_onnx_of_a_published_towers_shape_equals_torch(shape: str, dtype: torch.dtype, tmp_path: Path) -> None:
    config, hidden = SHAPES[shape]
    vision = _random(config, hidden, dtype)
    path = write_vision(vision, config, tmp_path, _quiet)
    assert compare_onnx(path, vision, tiles_to_compare(1, config.image_size), threads=1) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_onnx_of_the_demo_model_equals_torch_on_several_tiles(dtype: torch.dtype, tmp_path: Path) -> None:
    vision, config = load_vision(DEMO, dtype, _quiet)
    path = write_vision(vision, config.vision, tmp_path, _quiet)
    for count in (1, 3):
        tiles = tiles_to_compare(count, config.vision.image_size, seed=count)
        assert compare_onnx(path, vision, tiles, threads=1) <= TOLERANCE[dtype]


@pytest.mark.parametrize(
    "changed",
    [{"ps_version": "v1"}, {"select_layer": -2}, {"select_layer": 1}, {"downsample_ratio": 0.25}],
    ids=lambda changed: "-".join(map(str, *changed.items())),
)
def test_onnx_of_a_checkpoint_with_other_flags_equals_torch(changed: dict[str, object], tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "model", replace(TINY, **changed))  # type: ignore[arg-type]
    vision, config = load_vision(checkpoint, torch.float32, _quiet)
    path = write_vision(vision, config.vision, tmp_path, _quiet)
    assert compare_onnx(path, vision, torch.from_numpy(random_tiles(3, 2)), threads=1) <= TOLERANCE[torch.float32]


def test_both_layouts_write_the_same_graph_and_weights(
    tiny_model: Path, tiny_model_native: Path, tmp_path: Path
) -> None:
    for name, checkpoint in ((Layout.ORIGINAL, tiny_model), (Layout.NATIVE, tiny_model_native)):
        vision, config = load_vision(checkpoint, torch.float32, _quiet)
        (tmp_path / name).mkdir()
        write_vision(vision, config.vision, tmp_path / name, _quiet)
    for file in ("vision.onnx", "vision.weights"):
        assert (tmp_path / "original" / file).read_bytes() == (tmp_path / "native" / file).read_bytes()


def test_comparison_sees_a_wrong_weight(tmp_path: Path) -> None:
    vision, config = load_vision(DEMO, torch.bfloat16, _quiet)
    path = write_vision(vision, config.vision, tmp_path, _quiet)
    vision.layers[1].fc1.bias.data += 0.5
    assert compare_onnx(path, vision, tiles_to_compare(1, config.vision.image_size), threads=1) > 2e-2


def test_relative_error_is_the_differences_length_over_the_expected_ones() -> None:
    assert relative_error(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == pytest.approx(0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_graph_takes_bytes_and_keeps_its_matrices_in_the_dtype_asked_for(dtype: torch.dtype, tmp_path: Path) -> None:
    vision, config = load_vision(DEMO, dtype, _quiet)
    graph = onnx.load(write_vision(vision, config.vision, tmp_path, _quiet), load_external_data=False).graph
    asked = onnx.TensorProto.BFLOAT16 if dtype is torch.bfloat16 else onnx.TensorProto.FLOAT16
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    assert graph.output[0].type.tensor_type.elem_type == asked
    matrices = [weight for weight in graph.initializer if len(weight.dims) == 2]
    assert len(matrices) == 4 * config.vision.layers + 3
    assert {weight.data_type for weight in matrices} == {asked}


@pytest.mark.parametrize("shape", SHAPES)
def test_tensorrt_rtx_builds_a_strongly_typed_engine_of_a_published_towers_shape(
    trt: TensorRT, shape: str, tmp_path: Path
) -> None:
    config, hidden = SHAPES[shape]
    config = replace(config, layers=1)
    path = write_vision(_random(config, hidden, torch.bfloat16), config, tmp_path, _quiet)
    told: list[float] = []
    size = build_engine(
        trt, path, tmp_path / "engine", config.image_size, 4, ("SM89",), lambda done, _: told.append(done)
    )
    weights = (tmp_path / "vision.weights").stat().st_size
    assert size == (tmp_path / "engine").stat().st_size > 0.9 * weights
    assert told == sorted(told) and told[-1] == 1.0


def test_graph_that_tensorrt_cannot_parse_is_refused_in_its_own_words(trt: TensorRT, tmp_path: Path) -> None:
    path = tmp_path / "vision.onnx"
    node = onnx.helper.make_node("NoSuchOperator", ["tiles"], ["out"])
    value = onnx.helper.make_tensor_value_info("tiles", onnx.TensorProto.FLOAT, [1])
    out = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [1])
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [value], [out])), path)
    with pytest.raises(BuildError, match="NoSuchOperator"):
        build_engine(trt, path, tmp_path / "engine", 120, 1, ("SM89",), _quiet)


def test_gpu_that_tensorrt_rtx_does_not_know_is_refused_by_name(trt: TensorRT, tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match=r"no compute capability SM90; it has .*SM89"):
        build_engine(trt, tmp_path / "none.onnx", tmp_path / "engine", 120, 1, ("SM90",), _quiet)


def test_gpu_that_is_not_known_is_refused_before_anything_is_written(trt: TensorRT, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(LibraryError, match="no compute capability SM90"):
        build(Order(DEMO, out, torch.bfloat16, 6, ("SM89", "SM90")), trt, None, lambda _: _quiet)
    assert not out.exists()


def test_gpu_of_the_machine_that_tensorrt_rtx_does_not_know_is_refused_by_name(trt: TensorRT, tmp_path: Path) -> None:
    order = Order(DEMO, tmp_path, torch.bfloat16, 6, ())
    with pytest.raises(LibraryError, match=r"does not know NVIDIA H200 \(SM90\); it knows .*SM89"):
        build(order, trt, Gpu("NVIDIA H200", "SM90"), lambda _: _quiet)
    with pytest.raises(LibraryError, match=r"no GPU here to build for; --gpu .*SM89"):
        build(order, trt, None, lambda _: _quiet)


def test_profiles_begin_at_one_tile_and_end_at_the_most() -> None:
    assert profiles(1) == ((1, 1, 1),)
    assert profiles(4) == ((1, 4, 4),)
    assert profiles(32) == ((1, 4, 4), (1, 32, 32))


def _command(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.build_vision_engine", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=150)


def test_command_builds_compares_and_writes_the_manifest(trt: TensorRT, tmp_path: Path) -> None:
    out = tmp_path / "vision"
    done = _command(DEMO, out, "--library", "tensorrt_rtx", "--gpu", "SM89", "--max-tiles", 6, "--check")
    assert done.returncode == 0, done.stderr
    assert "ONNX on the CPU: relative error" in done.stdout and "within 0.02" in done.stdout
    assert "vision: engine 100 %" in done.stderr
    manifest = read_manifest(out, VisionManifest)
    assert manifest.checkpoint == fingerprint(DEMO)
    assert (manifest.library, manifest.gpus, manifest.dtype) == ("tensorrt_rtx", ("SM89",), "bfloat16")
    assert (manifest.tile_size, manifest.tokens_per_tile, manifest.hidden, manifest.max_tiles) == (120, 36, 256, 6)
    assert manifest.versions == {"tensorrt_rtx": trt.version}
    assert json.loads((out / "vlmq.json").read_text())["kind"] == "vision"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_check_without_a_gpu_says_what_it_skips() -> None:
    command = [sys.executable, "-m", "tools.build_vision_engine.on_gpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stdout) == (0, "vision engine of the demo model: skipped, torch sees no GPU here\n")


def test_command_says_by_name_what_is_missing(tmp_path: Path) -> None:
    absent = _command(DEMO, tmp_path / "out", "--library", "tensorrt")
    assert absent.returncode == 1 and "cannot import tensorrt" in absent.stderr and "install" in absent.stderr


def test_command_refuses_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    empty = _command(tmp_path, tmp_path / "out", "--onnx-only")
    assert empty.returncode == 1 and "config.json: no such file" in empty.stderr

"""`python -m tools.build_vision_engine CHECKPOINT OUT [--dtype bfloat16] [--max-tiles 32] [--gpu SM89] [--check]`."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from tools.build_vision_engine.build import ENGINE, Order, build, export_onnx
from tools.build_vision_engine.engine_file import BuildError
from tools.build_vision_engine.library import Library, LibraryError, find_tensorrt
from tools.gpu import find_gpu
from tools.progress import Progress
from worker.engine.config import CheckpointError
from worker.engine.torch.vision import Vision

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.build_vision_engine", description="Builds the vision engine of a checkpoint."
    )
    parser.add_argument("checkpoint", type=Path, help="folder of an InternVL checkpoint, either layout")
    parser.add_argument("out", type=Path, help="folder for the engine")
    parser.add_argument("--dtype", choices=list(_DTYPES), default="bfloat16")
    parser.add_argument("--max-tiles", type=int, default=32, help="the most tiles of one run (default 32)")
    parser.add_argument("--library", type=Library, choices=list(Library), help="left out: the first that is installed")
    parser.add_argument("--gpu", action="append", default=[], metavar="SM89", help="build for this GPU, without one")
    parser.add_argument("--onnx-only", action="store_true", help="write the ONNX graph, build nothing")
    parser.add_argument("--check", action="store_true", help="compare ONNX with torch, and the engine where a GPU is")
    parser.add_argument("--check-tiles", type=int, default=2, help="tiles to compare on (default 2)")
    return parser


def _tell(step: str) -> Callable[[float, str], None]:
    return Progress(f"vision: {step}").tell


def main() -> None:
    parser = _parser()
    options = parser.parse_args()
    if options.max_tiles < 1 or options.check_tiles < 1:
        parser.error("--max-tiles and --check-tiles are at least 1")
    order = Order(options.checkpoint, options.out, _DTYPES[options.dtype], options.max_tiles, tuple(options.gpu))
    try:
        sys.exit(_run(options, order))
    except (CheckpointError, BuildError, LibraryError) as exc:
        sys.exit(f"build_vision_engine: {exc}")


def _run(options: argparse.Namespace, order: Order) -> int:
    if options.onnx_only:
        path, vision, _ = export_onnx(order, _tell)
        print(f"wrote {path}")
        return _check_onnx(options, order, vision) if options.check else 0
    trt = find_tensorrt(options.library)
    vision, manifest = build(order, trt, find_gpu(), _tell)
    size = manifest.files[ENGINE] / (1 << 20)
    print(f"wrote {order.out / ENGINE}: {size:.0f} MiB, {trt.library} {trt.version}, for {', '.join(manifest.gpus)}")
    if not options.check:
        return 0
    return _check_onnx(options, order, vision) | _check_engine(options, order, vision)


def _check_onnx(options: argparse.Namespace, order: Order, vision: Vision) -> int:
    # Late: onnxruntime is needed for this alone.
    from tools.build_vision_engine.compare import compare_onnx, tiles_to_compare

    tiles = tiles_to_compare(options.check_tiles, vision.tile_size)
    return _verdict("ONNX on the CPU", compare_onnx(order.out / "vision.onnx", vision, tiles), order.dtype)


def _check_engine(options: argparse.Namespace, order: Order, vision: Vision) -> int:
    from tools.build_vision_engine.compare import tiles_to_compare
    from tools.build_vision_engine.engine_run import EngineRun, EngineRunError, compare_engine

    if find_gpu() is None:
        print("engine: not compared, there is no GPU here")
        return 0
    tiles = tiles_to_compare(min(options.check_tiles, order.max_tiles), vision.tile_size)
    try:
        run = EngineRun(find_tensorrt(options.library), order.out / ENGINE, order.dtype)
        error = compare_engine(run, vision, tiles)
    except EngineRunError as exc:
        sys.exit(f"build_vision_engine: {exc}")
    return _verdict("engine on the GPU", error, order.dtype)


def _verdict(what: str, error: float, dtype: torch.dtype) -> int:
    """0 when the error is within the tolerance."""
    from tools.build_vision_engine.compare import TOLERANCE

    good = error <= TOLERANCE[dtype]
    print(f"{what}: relative error {error:.2g} against torch, {'within' if good else 'ABOVE'} {TOLERANCE[dtype]:g}")
    return 0 if good else 1


if __name__ == "__main__":
    main()

"""`python -m tools.build_vision_engine.on_gpu`: the demo model's vision engine built on this machine's GPU, compared
with torch, and both measured. Where that cannot be, it says what is missing, and that is no failure."""

import sys
import tempfile
from pathlib import Path

import torch

from tools.build_vision_engine.build import ENGINE, Order, build
from tools.build_vision_engine.compare import TOLERANCE, tiles_to_compare
from tools.build_vision_engine.engine_run import EngineRun, compare_engine, tiles_per_second
from tools.build_vision_engine.library import Library, LibraryError, TensorRT, find_tensorrt
from tools.gpu import Gpu, find_gpu
from tools.progress import Progress
from worker.engine.torch.vision import Vision

_DEMO = Path("models/vlmq-demo")
_MAX_TILES = 32
_WHAT = "vision engine of the demo model"


def main() -> None:
    gpu = find_gpu()
    if gpu is None:
        print(f"{_WHAT}: skipped, torch sees no GPU here")
        return
    try:
        trt = _library_for(gpu)
    except LibraryError as exc:
        print(f"{_WHAT}: skipped on {gpu.name}, {exc}")
        return
    with tempfile.TemporaryDirectory() as folder:
        order = Order(_DEMO, Path(folder), torch.bfloat16, _MAX_TILES, ())
        vision, _ = build(order, trt, gpu, lambda step: Progress(f"vision: {step}").tell)
        sys.exit(_compare(EngineRun(trt, order.out / ENGINE, order.dtype), vision, f"{trt.library} on {gpu.name}"))


def _library_for(gpu: Gpu) -> TensorRT:
    """The first that is installed and knows this GPU."""
    problems = []
    for library in Library:
        try:
            trt = find_tensorrt(library)
        except LibraryError as exc:
            problems.append(str(exc))
            continue
        if gpu.capability in (trt.capabilities() or (gpu.capability,)):
            return trt
        problems.append(f"{library} {trt.version} does not know {gpu.capability}")
    raise LibraryError("; ".join(problems))


def _compare(run: EngineRun, vision: Vision, where: str) -> int:
    error = compare_engine(run, vision, tiles_to_compare(13, vision.tile_size))
    print(f"{_WHAT}, {where}: relative error {error:.2g} against torch, allowed {TOLERANCE[torch.bfloat16]:g}")
    for count in (1, 4, _MAX_TILES):
        tiles = tiles_to_compare(count, vision.tile_size)
        engine, plain = tiles_per_second(run, tiles), tiles_per_second(vision, tiles)
        print(f"{count} tiles at once: engine {engine:,.0f} tiles per second, torch {plain:,.0f}")
    return 0 if error <= TOLERANCE[torch.bfloat16] else 1


if __name__ == "__main__":
    main()

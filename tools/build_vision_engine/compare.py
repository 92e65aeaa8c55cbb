"""Whether an ONNX graph computes what torch does: onnxruntime on the CPU, on pictures of many shapes."""

from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from tools.build_vision_engine.vision_graph import INPUT
from tools.build_vision_engine.widened import widened
from worker.engine.torch.vision import Vision

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-2}


def tiles_to_compare(count: int, size: int, seed: int = 0) -> Tensor:
    """uint8 `[count, size, size, 3]`: noise over slopes, so that tiles differ as wholes and in their details."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0, 1, size)
    corners = rng.uniform(0, 255, (count, 4, 3))
    weights = np.stack(
        [np.multiply.outer(a, b) for a in (1 - slope, slope) for b in (1 - slope, slope)]
    )  # [4, size, size]
    smooth = np.einsum("kyx,nkc->nyxc", weights, corners)
    return torch.from_numpy((smooth + rng.normal(0, 20, smooth.shape)).clip(0, 255).astype(np.uint8))


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Of all values together: the length of the difference over the length of what is expected."""
    difference = (found.double() - expected.double()).norm() / expected.double().norm()
    return float(difference)


def onnx_output(path: Path, tiles: Tensor, threads: int = 0) -> Tensor:
    """float32 `[n, tokens, hidden]`. Where the graph is in 16 bits: see `widened`."""
    options = onnxruntime.SessionOptions()
    # Optimised, a round trip through 16 bits is taken for nothing; the rounding is what is to be seen.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    wide = widened(path)
    try:
        session = onnxruntime.InferenceSession(str(wide), options, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {INPUT: tiles.numpy()})
        return torch.from_numpy(found)
    finally:
        wide.unlink()


def compare_onnx(path: Path, vision: Vision, tiles: Tensor, threads: int = 0) -> float:
    """The relative error of the graph against `vision`, which is in the graph's dtype."""
    with torch.inference_mode():
        expected = vision(tiles)
    return relative_error(onnx_output(path, tiles, threads), expected)

"""An engine run once on this machine's GPU, to compare it with torch. Serving has its own, with streams and graphs."""

from pathlib import Path

import torch
from torch import Tensor

from tools.build_vision_engine.compare import relative_error
from tools.build_vision_engine.library import TensorRT
from tools.build_vision_engine.vision_graph import INPUT, OUTPUT
from worker.engine.torch.vision import Vision


class EngineRunError(Exception):
    """TensorRT refused the engine, its input or its execution on this GPU."""


def engine_output(
    trt: TensorRT, engine_path: Path, tiles: Tensor, shape: tuple[int, ...], dtype: torch.dtype
) -> Tensor:
    """What the engine gives for uint8 `[n, size, size, 3]`, on the GPU. Raises EngineRunError."""
    api = trt.api
    runtime = api.Runtime(api.Logger(api.Logger.WARNING))
    engine = runtime.deserialize_cuda_engine(engine_path.read_bytes())
    if engine is None:
        raise EngineRunError(f"{trt.library} {trt.version} cannot load {engine_path} on this GPU")
    context = engine.create_execution_context()
    given, found = tiles.cuda(), torch.empty(shape, dtype=dtype, device="cuda")
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    context.set_optimization_profile_async(engine.num_optimization_profiles - 1, stream.cuda_stream)
    ready = (
        context.set_input_shape(INPUT, tuple(given.shape))
        and context.set_tensor_address(INPUT, given.data_ptr())
        and context.set_tensor_address(OUTPUT, found.data_ptr())
    )
    if not ready or not context.execute_async_v3(stream.cuda_stream):
        raise EngineRunError(f"{engine_path} does not run on tiles {list(given.shape)}")
    stream.synchronize()
    return found


def compare_engine(trt: TensorRT, engine_path: Path, vision: Vision, tiles: Tensor) -> float:
    """The relative error of the engine against `vision` on the same GPU."""
    with torch.inference_mode():
        expected = vision.cuda()(tiles.cuda())
    found = engine_output(trt, engine_path, tiles, tuple(expected.shape), expected.dtype)
    return relative_error(found, expected)

"""An engine run on this machine's GPU, to compare it with torch and to time it. Serving has its own."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from tools.build_vision_engine.compare import relative_error
from tools.build_vision_engine.library import TensorRT
from tools.build_vision_engine.vision_graph import INPUT, OUTPUT
from worker.engine.torch.vision import Vision

_WARM_RUNS, _TIMED_RUNS = 5, 20


class EngineRunError(Exception):
    """TensorRT refused the engine, its input or its execution on this GPU."""


class EngineRun:
    """The engine's widest profile on a stream of its own. Raises EngineRunError, here and when called."""

    def __init__(self, trt: TensorRT, path: Path, dtype: torch.dtype) -> None:
        self._runtime = trt.api.Runtime(trt.api.Logger(trt.api.Logger.WARNING))
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise EngineRunError(f"{trt.library} {trt.version} cannot load {path} on this GPU")
        self._path, self._dtype = path, dtype
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._context = self._engine.create_execution_context()
        self._context.set_optimization_profile_async(self._engine.num_optimization_profiles - 1, self._handle)

    @property
    def _handle(self) -> int:
        handle: int = self._stream.cuda_stream
        return handle

    def __call__(self, tiles: Tensor) -> Tensor:
        """uint8 `[n, size, size, 3]` on the GPU → `[n, tokens, hidden]`, finished when this returns."""
        context = self._context
        self._stream.wait_stream(torch.cuda.current_stream())
        ready = context.set_input_shape(INPUT, tuple(tiles.shape))
        found = torch.empty(tuple(context.get_tensor_shape(OUTPUT)), dtype=self._dtype, device="cuda")
        ready = ready and context.set_tensor_address(INPUT, tiles.data_ptr())
        ready = ready and context.set_tensor_address(OUTPUT, found.data_ptr())
        if not ready or not context.execute_async_v3(self._handle):
            raise EngineRunError(f"{self._path} does not run on tiles {list(tiles.shape)}")
        self._stream.synchronize()
        return found


def compare_engine(run: EngineRun, vision: Vision, tiles: Tensor) -> float:
    """The relative error of the engine against `vision` on the same GPU."""
    with torch.inference_mode():
        expected = vision.cuda()(tiles.cuda())
    return relative_error(run(tiles.cuda()), expected)


def tiles_per_second(encode: Callable[[Tensor], Tensor], tiles: Tensor) -> float:
    """Of the median run, after some that are not counted."""
    given, times = tiles.cuda(), []
    with torch.inference_mode():
        for number in range(_WARM_RUNS + _TIMED_RUNS):
            torch.cuda.synchronize()
            began = time.perf_counter()
            encode(given)
            torch.cuda.synchronize()
            if number >= _WARM_RUNS:
                times.append(time.perf_counter() - began)
    return len(tiles) / sorted(times)[_TIMED_RUNS // 2]

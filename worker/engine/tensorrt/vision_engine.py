"""InternViT and its projector as a TensorRT engine: uint8 tiles in, visual tokens out.

A call runs on a stream of its own and has finished when it returns. Each profile has its execution context; batches of
few tiles, where launching takes longer than computing, are replayed as CUDA graphs, captured while nothing else runs.
"""

from pathlib import Path
from typing import Any

import torch

from worker.engine.tensorrt.manifest import VisionManifest
from worker.engine.tensorrt.pictures import Pixels

FILE, INPUT, OUTPUT = "vision.engine", "tiles", "visual_tokens"
"""As the tool that builds it has them."""

GRAPH_TILES = 4
"""The most tiles of a call that is replayed. Beyond, the GPU is busy while the next kernel is launched."""


class VisionEngineFault(Exception):
    """TensorRT refused the engine, a shape, or to run."""


class VisionEngine:
    """Implements `pictures.Encoder`. Not thread-safe."""

    def __init__(self, api: Any, folder: Path, manifest: VisionManifest, graph_tiles: int = GRAPH_TILES) -> None:
        self._name = str(folder / FILE)
        self.max_tiles = manifest.max_tiles
        self.tile_size = manifest.tile_size
        self._profiles = manifest.profiles
        self._runtime = api.Runtime(api.Logger(api.Logger.WARNING))
        self._engine = self._runtime.deserialize_cuda_engine((folder / FILE).read_bytes())
        if self._engine is None:
            raise VisionEngineFault(f"TensorRT cannot load {self._name} on this GPU")
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        size, most = manifest.tile_size, manifest.max_tiles
        # Of fixed addresses, which graphs hold.
        self._tiles = torch.empty((most, size, size, 3), dtype=torch.uint8, device="cuda")
        self._host = torch.empty((most, size, size, 3), dtype=torch.uint8, pin_memory=True)
        shape = (most, manifest.tokens_per_tile, manifest.hidden)
        self._tokens = torch.empty(shape, dtype=getattr(torch, manifest.dtype), device="cuda")
        self._contexts = [self._new_context(profile) for profile in range(len(self._profiles))]
        self._graphs = {count: self._captured(count) for count in range(1, min(graph_tiles, most) + 1)}

    def encode(self, tiles: Pixels) -> torch.Tensor:
        """Raises VisionEngineFault."""
        count = len(tiles)
        self._host[:count].copy_(torch.from_numpy(tiles))
        with torch.cuda.stream(self._stream):
            self._tiles[:count].copy_(self._host[:count], non_blocking=True)
            self._run(count)
            encoded = self._tokens[:count].clone()
        self._stream.synchronize()
        return encoded

    def close(self) -> None:
        """Graphs first: they run in the contexts' memory."""
        self._graphs.clear()
        self._contexts.clear()

    def _run(self, count: int) -> None:
        if count in self._graphs:
            self._graphs[count][0].replay()
        else:
            self._execute(self._contexts[profile_of(self._profiles, count)], count)

    def _captured(self, count: int) -> tuple[torch.cuda.CUDAGraph, Any]:
        """With a context of its own, which must live as long: what another shape sets would be in the graph's way. The
        first run is not captured; in it TensorRT does what it does once."""
        context = self._new_context(profile_of(self._profiles, count))
        self._execute(context, count)
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            self._launch(context, count)
        return graph, context

    def _execute(self, context: Any, count: int) -> None:
        size = self.tile_size
        if not context.set_input_shape(INPUT, (count, size, size, 3)):
            raise VisionEngineFault(f"{self._name} takes no {count} tiles of {size} pixels")
        context.set_tensor_address(INPUT, self._tiles.data_ptr())
        context.set_tensor_address(OUTPUT, self._tokens.data_ptr())
        self._launch(context, count)

    def _launch(self, context: Any, count: int) -> None:
        if not context.execute_async_v3(self._stream.cuda_stream):
            raise VisionEngineFault(f"{self._name} did not run on {count} tiles")

    def _new_context(self, profile: int) -> Any:
        context = self._engine.create_execution_context()
        if context is None or not context.set_optimization_profile_async(profile, self._stream.cuda_stream):
            raise VisionEngineFault(f"{self._name} gives no execution context for profile {profile}")
        return context


def profile_of(profiles: tuple[tuple[int, int, int], ...], count: int) -> int:
    """The narrowest that takes so many tiles. Raises VisionEngineFault."""
    fitting = [(most, place) for place, (least, _, most) in enumerate(profiles) if least <= count <= most]
    if not fitting:
        raise VisionEngineFault(f"no profile of {profiles} takes {count} tiles")
    return min(fitting)[1]

"""The ONNX graph parsed and built into a strongly typed engine. Knows no model but the graph's one input."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.build_vision_engine.library import TensorRT
from tools.build_vision_engine.vision_graph import INPUT

Shape = tuple[int, ...]
# Pictures of few tiles are frequent: an engine for many has a second profile for them.
SMALL_BATCH = 4


class BuildError(Exception):
    """TensorRT refused the graph or could not build it; its own words are in the message or on the terminal."""


def profiles(max_tiles: int) -> tuple[tuple[int, int, int], ...]:
    """Least, best and most tiles of each profile, the widest last. Each starts at 1, so any profile takes any batch
    up to its most."""
    widest = (1, max_tiles, max_tiles)
    return ((1, SMALL_BATCH, SMALL_BATCH), widest) if max_tiles > SMALL_BATCH else (widest,)


def build_engine(
    trt: TensorRT,
    onnx_path: Path,
    out: Path,
    tile_size: int,
    max_tiles: int,
    capabilities: tuple[str, ...],
    progress: Callable[[float, str], None],
) -> int:
    """Writes `out` and returns its size in bytes. `capabilities` name GPUs, such as `SM89`; none means the GPU here.
    Raises BuildError, LibraryError."""
    api = trt.api
    trt.check(capabilities)
    builder = api.Builder(api.Logger(api.Logger.WARNING))
    network = builder.create_network(1 << int(api.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(api, network, onnx_path)
    config = builder.create_builder_config()
    for least, best, most in profiles(max_tiles):
        profile = builder.create_optimization_profile()
        profile.set_shape(INPUT, *((count, tile_size, tile_size, 3) for count in (least, best, most)))
        config.add_optimization_profile(profile)
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
        for place, name in enumerate(capabilities):
            config.set_compute_capability(getattr(api.ComputeCapability, name), place)
    config.progress_monitor = _monitor(api, progress)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise BuildError(f"{trt.library} {trt.version} built no engine from {onnx_path}; it has said why above")
    content = memoryview(engine)
    out.write_bytes(content)
    return content.nbytes


def _parse(api: Any, network: Any, path: Path) -> None:
    parser = api.OnnxParser(network, api.Logger(api.Logger.WARNING))
    if not parser.parse_from_file(str(path)):
        errors = (parser.get_error(n) for n in range(parser.num_errors))
        raise BuildError(f"{path}: " + "; ".join(f"{error.node_operator()}: {error.desc()}" for error in errors))


def _monitor(api: Any, progress: Callable[[float, str], None]) -> Any:
    """TensorRT's phases contain one another; the outermost one's steps are the bar."""

    class Monitor(api.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._outer: tuple[str, int] | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if self._outer is None:
                self._outer = (phase_name, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if self._outer is not None and self._outer[0] == phase_name:
                progress((step + 1) / max(self._outer[1], 1), phase_name)
            return True

        def phase_finish(self, phase_name: str) -> None:
            if self._outer is not None and self._outer[0] == phase_name:
                self._outer = None
                progress(1.0, phase_name)

    return Monitor()

"""One checkpoint to one folder: `vision.onnx`, `vision.weights`, `vision.engine`, `vlmq.json`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from tools.build_vision_engine.engine_file import build_engine, profiles
from tools.build_vision_engine.library import LibraryError, TensorRT
from tools.build_vision_engine.vision_graph import write_vision
from tools.gpu import Gpu
from worker.engine.config import InternVLConfig
from worker.engine.tensorrt.fingerprint import fingerprint
from worker.engine.tensorrt.manifest import FORMAT, VisionManifest, write_manifest
from worker.engine.torch.tower import load_vision
from worker.engine.torch.vision import Vision

ENGINE = "vision.engine"
Tell = Callable[[str], Callable[[float, str], None]]


@dataclass(frozen=True, slots=True)
class Order:
    """`capabilities` name the GPUs to build for without one of them; none: the GPU of this machine."""

    checkpoint: Path
    out: Path
    dtype: torch.dtype
    max_tiles: int
    capabilities: tuple[str, ...]


def export_onnx(order: Order, tell: Tell) -> tuple[Path, Vision, InternVLConfig]:
    """Into `out`. `tell` gives the progress of a step by its name. Raises CheckpointError."""
    vision, config = load_vision(order.checkpoint, order.dtype, tell("load"))
    order.out.mkdir(parents=True, exist_ok=True)
    return write_vision(vision, config.vision, order.out, tell("ONNX")), vision, config


def build(order: Order, trt: TensorRT, gpu: Gpu | None, tell: Tell) -> tuple[Vision, VisionManifest]:
    """The finished folder's manifest, and the torch module that it was made from. What stood in `out` under the same
    names is replaced; the manifest comes last. Raises CheckpointError, BuildError, LibraryError."""
    trt.check(order.capabilities)
    targets = order.capabilities or _capability_of(gpu, trt)
    (order.out / "vlmq.json").unlink(missing_ok=True)
    onnx_path, vision, config = export_onnx(order, tell)
    size = build_engine(
        trt,
        onnx_path,
        order.out / ENGINE,
        config.vision.image_size,
        order.max_tiles,
        order.capabilities,
        tell("engine"),
    )
    manifest = VisionManifest(
        format=FORMAT,
        model=order.checkpoint.resolve().name,
        checkpoint=fingerprint(order.checkpoint),
        versions={str(trt.library): trt.version},
        gpu=gpu.name if gpu and not order.capabilities else "",
        gpus=targets,
        dtype=str(order.dtype).removeprefix("torch."),
        files={ENGINE: size},
        library=str(trt.library),
        profiles=profiles(order.max_tiles),
        tile_size=config.vision.image_size,
        tokens_per_tile=config.vision.tokens_per_tile,
        hidden=config.decoder.hidden,
    )
    write_manifest(order.out, manifest)
    return vision, manifest


def _capability_of(gpu: Gpu | None, trt: TensorRT) -> tuple[str, ...]:
    known = trt.capabilities()
    if gpu is None:
        other = f"; --gpu {'|'.join(known)} builds without one" if known else ""
        raise LibraryError(f"there is no GPU here to build for{other}")
    if known and gpu.capability not in known:
        raise LibraryError(
            f"{trt.library} {trt.version} does not know {gpu.name} ({gpu.capability}); it knows {', '.join(known)}"
        )
    return (gpu.capability,)

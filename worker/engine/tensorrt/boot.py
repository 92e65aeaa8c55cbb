"""From folders to an engine that serves: everything is compared first, then the vision encoder is loaded, then the
language model, which takes the memory that is left."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worker.engine.config import InternVLConfig, load_config
from worker.engine.grammar import Grammars
from worker.engine.limits import Limits
from worker.engine.tensorrt import installed
from worker.engine.tensorrt.engine import TensorRTEngine
from worker.engine.tensorrt.executor import ExecutorOptions, Requests, start_executor
from worker.engine.tensorrt.fingerprint import fingerprint
from worker.engine.tensorrt.guidance import Guidance
from worker.engine.tensorrt.installed import NotUsable
from worker.engine.tensorrt.manifest import (
    LanguageManifest,
    ManifestError,
    Surroundings,
    VisionManifest,
    check_manifest,
    read_manifest,
)
from worker.engine.tensorrt.pictures import Encoder, Pictures
from worker.engine.tensorrt.recorded_api import TENSORRT_LLM
from worker.engine.tensorrt.torch_encoder import TorchEncoder
from worker.engine.tensorrt.vision_engine import VisionEngine
from worker.engine.torch.embedding_cache import EmbeddingCache

Progress = Callable[[float, str], None]

_VISION_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class BootOptions:
    """`engines` is the folder with `llm` and `vision`. `vision` is `tensorrt` or `torch`; for the latter count `device`
    and `tiles_per_step`. `slots`, `cache_share` and `prefix_reuse` are the executor's, and `ranks` the processes that
    were started for it."""

    checkpoint: Path
    engines: Path
    vision: str
    device: str
    tiles_per_step: int
    embedding_bytes: int
    slots: int
    cache_share: float
    prefix_reuse: bool
    ranks: int = 1

    @property
    def language_folder(self) -> Path:
        return self.engines / "llm"

    @property
    def vision_folder(self) -> Path:
        return self.engines / "vision"


@dataclass(frozen=True, slots=True)
class Plan:
    """What was found and fits together."""

    api: Any
    config: InternVLConfig
    language: LanguageManifest
    vision: VisionManifest | None
    guidance: Guidance
    gpu: str

    def executor_options(self, options: BootOptions) -> ExecutorOptions:
        return ExecutorOptions(
            options.language_folder,
            options.slots,
            options.cache_share,
            options.prefix_reuse,
            self.language.tensor_parallel,
        )


def inspect(options: BootOptions) -> Plan:
    """Loads nothing. Raises NotUsable or CheckpointError with the list of what does not fit."""
    config = load_config(options.checkpoint)
    api = installed.find_executor()
    name, capability, gpus = installed.gpu()
    here = Surroundings(fingerprint(options.checkpoint), installed.versions(), capability, gpus)
    try:
        language = read_manifest(options.language_folder, LanguageManifest)
        check_manifest(language, here)
        vision = _vision_manifest(options, here)
    except ManifestError as exc:
        raise NotUsable(str(exc)) from exc
    if wrong := [*_contradictions(options, config, language), *_vision_contradictions(language, vision)]:
        raise NotUsable(f"{options.engines} cannot be used:\n  " + "\n  ".join(wrong))
    return Plan(api, config, language, vision, Guidance.load(options.checkpoint, language.vocab_size), name)


def start(options: BootOptions, progress: Progress, silence: Callable[[float, str], None]) -> TensorRTEngine:
    """`silence` is told before what keeps the interpreter. Raises NotUsable, CheckpointError."""
    plan = inspect(options)
    news = threading.Event()
    encoder = _encoder(plan, options, lambda done, what: progress(_VISION_SHARE * done, what))
    silence(_VISION_SHARE, "language engine")
    executor = start_executor(plan.api, plan.executor_options(options), plan.guidance)
    manifest, vision = plan.language, plan.config.vision
    engine = TensorRTEngine(
        executor=executor,
        requests=Requests(plan.api, manifest.vocab_size, plan.guidance),
        manifest=manifest,
        limits=Limits(manifest.vocab_size, manifest.max_seq_len, vision.tokens_per_tile, vision.image_size),
        slots=options.slots,
        pictures=Pictures(encoder, EmbeddingCache(options.embedding_bytes), news.set),
        grammars=Grammars.load(options.checkpoint, manifest.vocab_size),
        news=news,
        device=f"TensorRT-LLM {TENSORRT_LLM} on {plan.gpu}",
    )
    progress(1.0, "language engine")
    return engine


def follow(options: BootOptions) -> None:
    """A rank beside the first: takes its part of the language model and computes until the first one ends."""
    plan = inspect(options)
    executor = start_executor(plan.api, plan.executor_options(options), plan.guidance)
    if executor.can_enqueue_requests():
        raise NotUsable("this process was started to follow, and TensorRT-LLM takes it for the first of the group")
    executor.shutdown()


def _vision_manifest(options: BootOptions, here: Surroundings) -> VisionManifest | None:
    if options.vision != "tensorrt":
        return None
    manifest = read_manifest(options.vision_folder, VisionManifest)
    found = {manifest.library: installed.find_tensorrt(manifest.library).__version__}
    check_manifest(manifest, Surroundings(here.checkpoint, found, here.gpu, here.gpus))
    return manifest


def _contradictions(options: BootOptions, config: InternVLConfig, language: LanguageManifest) -> list[str]:
    """The manifest, the engine's own description, the checkpoint and the settings must say the same."""
    path = options.language_folder / "config.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        own = {name: described["pretrained_config"][name] for name in ("vocab_size", "dtype")}
        own |= {name: described["build_config"][name] for name in _BUILT}
    except (OSError, ValueError, KeyError, TypeError) as exc:
        return [f"{path} is no description of an engine: {type(exc).__name__}: {exc}"]
    expected = {"vocab_size": language.vocab_size, "dtype": language.dtype}
    expected |= {name: getattr(language, name) for name in _BUILT}
    wrong = [
        f"{name} is {own[name]} in {path}, {value} in the manifest"
        for name, value in expected.items()
        if own[name] != value
    ]
    if language.vocab_size != config.decoder.vocab_size:
        wrong.append(f"vocab_size is {language.vocab_size}, the checkpoint's {config.decoder.vocab_size}")
    if language.tokens_per_tile != config.vision.tokens_per_tile:
        wrong.append(f"tokens_per_tile is {language.tokens_per_tile}, the checkpoint's {config.vision.tokens_per_tile}")
    if options.ranks != language.tensor_parallel:
        wrong.append(f"tensor_parallel = {options.ranks}, the engine was built for {language.tensor_parallel}")
    if options.slots > language.max_batch_size:
        wrong.append(f"slots = {options.slots}, the engine was built for max_batch_size = {language.max_batch_size}")
    return wrong


_BUILT = ("max_batch_size", "max_input_len", "max_seq_len", "max_num_tokens", "max_prompt_embedding_table_size")


def _vision_contradictions(language: LanguageManifest, vision: VisionManifest | None) -> list[str]:
    if vision is None:
        return []
    return [
        f"{name} is {getattr(vision, name)} in the vision engine, {getattr(language, name)} in the language engine"
        for name in ("dtype", "hidden", "tokens_per_tile")
        if getattr(vision, name) != getattr(language, name)
    ]


def _encoder(plan: Plan, options: BootOptions, progress: Progress) -> Encoder:
    if plan.vision is not None:
        progress(0.0, "vision engine")
        library = installed.find_tensorrt(plan.vision.library)
        return VisionEngine(library, options.vision_folder, plan.vision)
    dtype = getattr(torch, plan.language.dtype)
    return TorchEncoder.load(options.checkpoint, torch.device(options.device), dtype, options.tiles_per_step, progress)

"""What the worker's processes are told: limits (`[worker]`, `VLMQ_WORKER_…`), its model's file,
and the maintenance process (`[maintenance]`).

Reads files and the environment, once; imports neither torch nor Celery.
"""

import os
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import pydantic
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import SettingsConfigDict

from jobs.settings import CONF, FileSettings, Names, SettingsError, environment_without_ours, fault_of
from jobs.tools import ToolFormat

MIB = 1 << 20

SPARE_PLACES = 2
"""Jobs beyond the engine's slots whose media are made ready while the slots are taken."""

EXPRESS_THREADS = 1
"""Jobs beyond these that are run only when somebody waits for them."""


class WorkerSettings(FileSettings):
    """Table `[worker]`, environment `VLMQ_WORKER_…`."""

    table: ClassVar[str] = "worker"
    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="VLMQ_WORKER_")

    model: str = Field(default="vlmq-demo", min_length=1, description="The model this worker serves.")
    path: str = Field(default="", description="Checkpoint folder, instead of the model file's own.")
    engine: str = Field(
        default="",
        pattern="^(torch|tensorrt_llm|)$",
        description="Backend of the engine, instead of the model file's own.",
    )
    engines: str = Field(default="", description="Folder of built engines, instead of the model file's own.")
    device: str = Field(
        default="",
        pattern="^(cpu|cuda(:[0-9]+)?|)$",
        description="Where the engine computes, instead of the model file's own: cpu, cuda or cuda:<n>.",
    )
    gpu: str = Field(default="", description="CUDA_VISIBLE_DEVICES of the engine process; empty: as inherited.")
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="What is logged.")

    grace_s: float = Field(default=20.0, ge=0, description="How long running jobs may go on after SIGTERM.")
    tick_s: float = Field(default=1.0, gt=0, description="How often the store is asked which jobs to stop.")
    partials_s: float = Field(default=2.0, gt=0, description="How often partial answers are stored.")
    flush_ms: float = Field(default=25.0, gt=0, description="How long tokens are gathered before they are published.")
    media_backoff_s: float = Field(default=1.0, ge=0, description="Pause before a job goes back for its media host.")

    engine_start_s: float = Field(default=900.0, gt=0, description="How long the engine may take to load.")
    engine_silence_s: float = Field(default=60.0, gt=0, description="Silence of an engine that gets it killed.")
    engine_restarts: int = Field(default=3, ge=0, description="Failed starts in a row after which the worker exits.")

    max_images: int = Field(default=32, ge=0, description="Images per request.")
    max_request_tiles: int = Field(
        default=64, ge=1, description="Tiles of all images and frames of a request together; a frame is one."
    )
    max_image_bytes: int = Field(default=20 * MIB, ge=1, description="Bytes of one encoded image.")
    max_image_pixels: int = Field(default=50_000_000, ge=1, description="Width times height of one image.")
    image_decode_s: float = Field(default=10.0, gt=0, description="Processor time that decoding one image may take.")
    max_videos: int = Field(default=4, ge=0, description="Videos per request.")
    video_segments: int = Field(default=8, ge=1, description="Frames seen of a video, unless the request says.")
    max_video_segments: int = Field(default=32, ge=1, description="Frames of one video that a request may ask for.")
    max_video_bytes: int = Field(default=40 * MIB, ge=1, description="Bytes of one encoded video.")
    max_video_pixels: int = Field(default=8_900_000, ge=1, description="Width times height of one frame.")
    max_video_frames: int = Field(default=36_000, ge=1, description="Frames of a video, seen or not.")
    max_video_s: float = Field(default=1200.0, gt=0, description="Duration of a video.")
    video_decode_s: float = Field(default=30.0, gt=0, description="Processor time that decoding one video may take.")
    exif_orientation: bool = Field(default=True, description="Turn pictures as their EXIF orientation says.")

    connect_timeout_s: float = Field(default=5.0, gt=0, description="Resolving and connecting to a media host.")
    read_timeout_s: float = Field(default=10.0, gt=0, description="Silence of a media host.")
    fetch_timeout_s: float = Field(default=20.0, gt=0, description="One file from first look-up to last byte.")
    max_redirects: int = Field(default=3, ge=0, description="Redirects that are followed for one file.")
    media_ports: Names = Field(default=("80", "443"), description="Ports that media URLs may name.")
    allowed_file_roots: Names = Field(default=(), description="Folders that file:// URLs may read.")
    allowed_private_hosts: Names = Field(
        default=(), description="Hosts (host or host:port) that may have private addresses and other ports."
    )

    @model_validator(mode="after")
    def _default_segments_are_allowed(self) -> Self:
        if self.video_segments > self.max_video_segments:
            raise ValueError(
                f"video_segments = {self.video_segments} is more than max_video_segments = {self.max_video_segments}"
            )
        return self


class MaintenanceSettings(FileSettings):
    """Table `[maintenance]`, environment `VLMQ_MAINTENANCE_…`."""

    table: ClassVar[str] = "maintenance"
    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix="VLMQ_MAINTENANCE_")

    sweep_s: float = Field(default=1.0, gt=0, description="Pause between two looks for lost and late jobs and bells.")
    clean_s: float = Field(default=60.0, gt=0, description="How often what is kept no longer is removed.")
    clean_slice_s: float = Field(
        default=1.0,
        gt=0,
        description="How long removing may take at once, before leases and bells are looked at again.",
    )
    blob_age_s: float = Field(default=3600.0, gt=0, description="How long media that no job refers to are kept.")
    batch_retention_s: float = Field(default=30 * 86400.0, gt=0, description="How long an ended batch is kept.")


class TensorRTSettings(BaseModel):
    """Table `[tensorrt_llm]` of a model's file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path | None = Field(
        default=None, description="Folder with the engines `llm` and `vision`; None: `var/engines/<name>`."
    )
    vision: str = Field(
        default="tensorrt", pattern="^(tensorrt|torch)$", description="What encodes pictures beside TensorRT-LLM."
    )
    slots: int = Field(default=16, ge=1, description="Sequences that decode together; at most max_batch_size as built.")
    tensor_parallel: int = Field(default=1, ge=1, description="GPUs that share the model, as built.")
    cache_share: float = Field(
        default=0.9, gt=0, lt=1, description="Part of the GPU memory left by the weights that is for keys and values."
    )


class ModelSettings(BaseModel):
    """`conf/models/<name>.toml`: only what differs from these defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    path: Path = Field(description="Checkpoint folder.")
    engine: str = Field(
        default="torch",
        pattern="^(torch|tensorrt_llm)$",
        description="Backend of the engine process. For tensorrt_llm what was built decides over dtype, quantization, "
        "pages, page_size and prefill_chunk, and the table [tensorrt_llm] over slots.",
    )
    device: str = Field(default="cpu", description="cpu, cuda or cuda:<n>.")
    dtype: str = Field(default="float32", pattern="^(float32|bfloat16|float16)$", description="Weights and cache.")
    quantization: str = Field(
        default="none", pattern="^(none|int8|fp8)$", description="8 bits for the language model's weights."
    )
    slots: int = Field(default=16, ge=1, description="Sequences that decode together.")
    pages: int = Field(default=2048, ge=1, description="Pages of the KV cache.")
    page_size: int = Field(default=16, ge=1, description="Tokens per page.")
    prefill_chunk: int = Field(default=512, ge=1, description="Prompt tokens per step.")
    tiles_per_step: int = Field(default=16, ge=1, description="Tiles encoded per step.")
    embedding_mib: int = Field(default=256, ge=0, description="Memory for encoded images, MiB.")
    prefix_reuse: bool = Field(default=True, description="Keep the keys and values of prompts for later ones.")
    threads: int = Field(default=0, ge=0, description="CPU threads of the engine; 0: torch's own choice.")
    max_tiles: int | None = Field(default=None, ge=1, description="Tiles per image; None: the checkpoint's.")
    system_prompt: str | None = Field(default=None, description="Instead of the family's default system message.")
    tool_format: ToolFormat | None = Field(
        default=None, description="How it calls functions: qwen, internlm; None: it does not."
    )

    tensorrt_llm: TensorRTSettings = Field(
        default=TensorRTSettings(), description='For engine = "tensorrt_llm"; its keys are below.'
    )

    @property
    def sequences(self) -> int:
        """That decode together."""
        return self.slots if self.engine == "torch" else self.tensorrt_llm.slots

    @property
    def places(self) -> int:
        """Jobs of any lane that a worker runs at once."""
        return self.sequences + SPARE_PLACES

    @property
    def engines(self) -> Path:
        """Folder of what was built for TensorRT-LLM."""
        return self.tensorrt_llm.folder or CONF.parent / "var" / "engines" / self.name

    @property
    def job_threads(self) -> int:
        """All jobs that it may run at once."""
        return self.places + EXPRESS_THREADS

    @model_validator(mode="after")
    def _holds_a_sequence(self) -> Self:
        if self.pages * self.page_size < self.prefill_chunk:
            raise ValueError(
                f"pages = {self.pages} × page_size = {self.page_size} is less than prefill_chunk = {self.prefill_chunk}"
            )
        return self

    @classmethod
    def load(
        cls, name: str, path: str = "", conf: Path = CONF, engine: str = "", engines: str = "", device: str = ""
    ) -> Self:
        """The file's settings; `path` replaces the checkpoint folder, `engine` the backend, `engines` the folder of
        built engines, `device` where it computes. Raises SettingsError naming file, key, value."""
        file = conf / "models" / f"{name}.toml"
        if Path(name).name != name or not file.is_file():
            known = ", ".join(sorted(p.stem for p in (conf / "models").glob("*.toml")))
            raise SettingsError(f"VLMQ_WORKER_MODEL = {name!r}: no such model in conf/models; there are: {known}")
        try:
            table = tomllib.loads(file.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as exc:
            raise SettingsError(f"conf/models/{file.name}: {exc}") from exc
        told = {"path": path, "engine": engine, "device": device}
        values = {**table, "name": name} | {key: value for key, value in told.items() if value}
        built = values.get("tensorrt_llm", {})
        if engines and isinstance(built, dict):
            values["tensorrt_llm"] = built = {**built, "folder": engines}
        for place, key in ((values, "path"), (built, "folder")):
            if isinstance(place, dict) and isinstance(place.get(key), str):
                # A relative path counts from the project's folder, wherever the process was started.
                place[key] = conf.parent / place[key]
        return cls._checked(file.name, values)

    @classmethod
    def of(cls, worker: WorkerSettings) -> Self:
        """What this worker serves. Raises SettingsError."""
        return cls.load(worker.model, worker.path, engine=worker.engine, engines=worker.engines, device=worker.device)

    @classmethod
    def _checked(cls, file: str, values: dict[str, Any]) -> Self:
        try:
            return cls(**values)
        except pydantic.ValidationError as exc:
            lines = [fault_of(cls, error) for error in exc.errors()]
            raise SettingsError(f"conf/models/{file}:\n  " + "\n  ".join(lines)) from exc


@dataclass(frozen=True, slots=True)
class EngineCommand:
    """How the engine process is started, but for its socket. Several `ranks` are processes of one MPI group, of which
    the first has the socket."""

    arguments: tuple[str, ...]
    environment: dict[str, str]
    ranks: int = 1

    @classmethod
    def of(cls, worker: WorkerSettings, model: ModelSettings) -> Self:
        pinned = {"CUDA_VISIBLE_DEVICES": worker.gpu} if worker.gpu else {}
        arguments = [
            *("--backend", model.engine, "--model", str(model.path), "--device", model.device),
            *("--slots", str(model.sequences), "--threads", str(model.threads)),
            *("--tiles-per-step", str(model.tiles_per_step), "--embedding-mib", str(model.embedding_mib)),
            "--prefix-reuse" if model.prefix_reuse else "--no-prefix-reuse",
        ]
        if model.engine == "torch":
            return cls((*arguments, *_torch_arguments(model)), {**os.environ, **pinned})
        # A group that this process belongs to itself is not its engine's.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(MPI_VARIABLES)}
        ranks = model.tensorrt_llm.tensor_parallel
        return cls((*arguments, *_tensorrt_arguments(model)), {**inherited, **pinned}, ranks)

    def program(self, socket: Path) -> list[str]:
        """Program and arguments. The ranks are tied to their launcher, which is tied to the worker."""
        server = [sys.executable, "-m", "worker.engine.server"]
        first = [*server, "--socket", str(socket), *self.arguments]
        if self.ranks == 1:
            return first
        tied = [sys.executable, "-m", "worker.engine_child", "0"]
        launcher = ["mpirun", "--allow-run-as-root", "--bind-to", "none"]
        others = [*tied, *server, "--follow", *self.arguments]
        return [*launcher, "-n", "1", *tied, *first, ":", "-n", str(self.ranks - 1), *others]


def decoder_environment() -> dict[str, str]:
    """Of the process that decodes media: none of our settings, among which are passwords, and no threads of a library
    that it does not compute with."""
    return environment_without_ours() | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


MPI_VARIABLES = ("OMPI_", "PMIX_", "PMI_", "SLURM_")
"""Beginnings of what launchers of MPI leave in the environment."""


def _torch_arguments(model: ModelSettings) -> tuple[str, ...]:
    return (
        *("--dtype", model.dtype, "--quantization", model.quantization),
        *("--pages", str(model.pages), "--page-size", str(model.page_size)),
        *("--prefill-chunk", str(model.prefill_chunk)),
    )


def _tensorrt_arguments(model: ModelSettings) -> tuple[str, ...]:
    built = model.tensorrt_llm
    return (
        *("--engines", str(model.engines), "--vision", built.vision),
        *("--cache-share", str(built.cache_share), "--ranks", str(built.tensor_parallel)),
    )

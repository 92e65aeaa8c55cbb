"""What stands beside a built engine: for what and with what it was built. The tools write it; the worker reads it and
refuses an engine that is not for its checkpoint, its libraries or its GPU. Knows no TensorRT."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

FILE = "vlmq.json"
FORMAT = 1
_ENCODER = msgspec.json.Encoder()


class ManifestError(Exception):
    """The folder holds no engine that can be used here; the message names every reason."""


class _Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """`checkpoint` is its fingerprint. `versions` of the packages that an engine is tied to. `gpus` are compute
    capabilities such as `SM89`, `gpu` the name of the one it was built on, empty where none was there. `files` are
    the engine's, with their sizes in bytes."""

    format: int
    model: str
    checkpoint: str
    versions: dict[str, str]
    gpu: str
    gpus: tuple[str, ...]
    dtype: str
    files: dict[str, int]


class VisionManifest(_Manifest, frozen=True, tag="vision"):
    """`profiles` are least, best and most tiles. `library` is `tensorrt` or `tensorrt_rtx`."""

    library: str
    profiles: tuple[tuple[int, int, int], ...]
    tile_size: int
    tokens_per_tile: int
    hidden: int

    @property
    def max_tiles(self) -> int:
        return max(most for _, _, most in self.profiles)


class LanguageManifest(_Manifest, frozen=True, tag="language"):
    """Sizes as in TensorRT-LLM's BuildConfig. `tiles` is the most of one request: its rows of the prompt table are
    `tiles × tokens_per_tile`, and the table has `max_batch_size` times that."""

    quantization: str
    tensor_parallel: int
    vocab_size: int
    hidden: int
    tiles: int
    tokens_per_tile: int
    max_batch_size: int
    max_input_len: int
    max_seq_len: int
    max_num_tokens: int
    max_prompt_embedding_table_size: int


Manifest = TypeVar("Manifest", VisionManifest, LanguageManifest)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a worker finds at its start. `gpu` is the compute capability, such as `SM89`; None: not known."""

    checkpoint: str
    versions: dict[str, str] = field(default_factory=dict)
    gpu: str | None = None
    gpus: int | None = None


def write_manifest(folder: Path, manifest: VisionManifest | LanguageManifest) -> None:
    """Last of all: a folder without it is unfinished."""
    (folder / FILE).write_bytes(msgspec.json.format(_ENCODER.encode(manifest), indent=2) + b"\n")


def read_manifest(folder: Path, kind: type[Manifest]) -> Manifest:
    """Raises ManifestError when it is absent, of another kind or format, or when a file of the engine is not there in
    its whole size."""
    path = folder / FILE
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError as exc:
        raise ManifestError(f"{path}: no such file; the folder holds no engine, or an unfinished one") from exc
    except (OSError, msgspec.DecodeError) as exc:
        raise ManifestError(f"{path}: {exc}") from exc
    if manifest.format != FORMAT:
        raise ManifestError(f"{path}: format {manifest.format}, this vlmq reads {FORMAT}; build the engine again")
    for name, size in manifest.files.items():
        found = (folder / name).stat().st_size if (folder / name).is_file() else None
        if found != size:
            there = "absent" if found is None else f"{found} bytes"
            raise ManifestError(f"{folder / name} is {there}, {FILE} says {size} bytes")
    return manifest


def check_manifest(manifest: VisionManifest | LanguageManifest, here: Surroundings) -> None:
    """Raises ManifestError with every difference between what the engine was built for and what is here."""
    wrong = []
    if manifest.checkpoint != here.checkpoint:
        wrong.append(f"it was built from checkpoint {manifest.checkpoint}, here is {here.checkpoint}")
    for package, version in sorted(manifest.versions.items()):
        found = here.versions.get(package, "absent")
        if found != version:
            wrong.append(f"it was built with {package} {version}, here is {found}")
    if here.gpu is not None and manifest.gpus and here.gpu not in manifest.gpus:
        wrong.append(f"it was built for {', '.join(manifest.gpus)}, here is {here.gpu}")
    needed = manifest.tensor_parallel if isinstance(manifest, LanguageManifest) else 1
    if here.gpus is not None and here.gpus < needed:
        wrong.append(f"it needs {needed} GPUs, here are {here.gpus}")
    if wrong:
        raise ManifestError(f"the engine of {manifest.model} cannot be used: " + "; ".join(wrong))

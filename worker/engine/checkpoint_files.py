"""A checkpoint's safetensors as files: which ones, and what their headers say. Reads no tensor, needs no torch.

Format: eight bytes with the length of a JSON header, the header, the tensors' bytes.
"""

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from worker.engine.config_file import CheckpointError

# Derived from the config; old checkpoints carry them all the same.
DERIVED = ".rotary_emb.inv_freq"
_NAMES_SHOWN = 5
_LONGEST_HEADER = 100 << 20


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor as its file's header describes it; `dtype` is safetensors' word, such as `BF16`."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return prod(self.shape)


def shard_files(folder: Path) -> list[Path]:
    """The safetensors files: those of the index, or the only one."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        single = folder / "model.safetensors"
        if not single.exists():
            raise CheckpointError(f"{folder}: neither model.safetensors nor model.safetensors.index.json is here")
        return [single]
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = [folder / name for name in sorted(set(weight_map.values()))]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise CheckpointError(f"{index}: no usable weight_map: {exc!r}") from exc
    for file in files:
        if file.parent != folder or not file.exists():
            raise CheckpointError(f"{index}: names {file.name!r}, which is not in the folder")
    return files


def stored_tensors(file: Path) -> dict[str, Stored]:
    """Every tensor of the file but derived ones. Raises CheckpointError when the header cannot be, or when the file
    ends before its tensors do, as an unfinished download does."""
    header, _ = _header(file)
    try:
        found = {name: Stored(entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}
    except (KeyError, TypeError) as exc:
        raise CheckpointError(f"{file}: no usable header: {exc!r}") from exc
    return {name: tensor for name, tensor in found.items() if not name.endswith(DERIVED)}


def tensor_offsets(file: Path) -> dict[str, tuple[int, int]]:
    """Where each tensor begins and ends in the file, in bytes. Raises CheckpointError as `stored_tensors` does."""
    header, start = _header(file)
    return {
        name: (start + entry["data_offsets"][0], start + entry["data_offsets"][1]) for name, entry in header.items()
    }


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """The entries of the file's tensors, and where the tensors begin."""
    try:
        with file.open("rb") as content:
            length = int.from_bytes(content.read(8), "little")
            if length > _LONGEST_HEADER:
                raise CheckpointError(f"{file}: a header of {length} bytes; this is no safetensors file")
            header = json.loads(content.read(length))
        header.pop("__metadata__", None)
        end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as exc:
        raise CheckpointError(f"{file}: no usable header: {exc!r}") from exc
    size = file.stat().st_size
    if size < end:
        raise CheckpointError(f"{file}: has {size} bytes, its header promises {end}; an unfinished download?")
    return header, 8 + length


def check_names(folder: Path, expected: set[str], found: set[str]) -> None:
    """Raises CheckpointError naming what is missing or unexpected."""
    for what, names in (("missing", expected - found), ("unexpected", found - expected)):
        if names:
            shown = ", ".join(sorted(names)[:_NAMES_SHOWN])
            more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
            raise CheckpointError(f"{folder}: {what} tensors: {shown}{more}")

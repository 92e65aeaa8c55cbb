"""Which tensors go into which safetensors file, and the files written. Holds one file's tensors at a time."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

Tensors = Iterator[tuple[str, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor of the checkpoint: its file, its name there, and the bytes that it will take."""

    file: Path
    name: str
    size: int


def plan_shards(sources: Iterable[Source], largest: int) -> list[list[Source]]:
    """In the order given, no shard above `largest` bytes unless a single tensor is."""
    shards: list[list[Source]] = []
    filled = 0
    for source in sources:
        if not shards or filled + source.size > largest:
            shards.append([])
            filled = 0
        shards[-1].append(source)
        filled += source.size
    return shards


def write_shards(folder: Path, shards: list[list[Source]], read: Callable[[list[Source]], Tensors]) -> None:
    """`read` gives what one shard's sources become. One shard has no index."""
    weight_map: dict[str, str] = {}
    total = 0
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors" if len(shards) > 1 else "model.safetensors"
        tensors = dict(read(shard))
        save_file(tensors, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, file)
        total += sum(tensor.nbytes for tensor in tensors.values())
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")

"""A checkpoint looked at without loading it: its config, and whether its tensors are the ones that the config needs."""

from dataclasses import dataclass, replace
from pathlib import Path

from worker.engine.checkpoint_files import Stored, check_names, shard_files, stored_tensors
from worker.engine.config import CheckpointError, InternVLConfig, load_config
from worker.engine.torch.tensor_names import plain_name, stores_head, targets

_FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """`config` says of ties what is true of the files; `tensors` have the names that `targets` gives."""

    config: InternVLConfig
    files: tuple[Path, ...]
    tensors: dict[str, Stored]

    @property
    def parameters(self) -> int:
        return sum(tensor.elements for tensor in self.tensors.values())


def inspect(folder: Path) -> Checkpoint:
    """Raises CheckpointError naming the file, key or tensors that are absent, misshapen or not supported: the same that
    loading would refuse."""
    config = load_config(folder)
    files = shard_files(folder)
    stored = {file: stored_tensors(file) for file in files}
    tied = config.decoder.tied and not stores_head(config.layout, (name for each in stored.values() for name in each))
    config = replace(config, decoder=replace(config.decoder, tied=tied))
    expected = targets(config)
    tensors: dict[str, Stored] = {}
    for file, found in stored.items():
        for name, tensor in found.items():
            plain = plain_name(config.layout, name)
            tensors[plain] = tensor
            if plain in expected:
                _check(f"{file}: {name}", tensor, expected[plain].shape)
    check_names(folder, set(expected), set(tensors))
    return Checkpoint(config, tuple(files), tensors)


def _check(name: str, tensor: Stored, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise CheckpointError(f"{name} has shape {list(tensor.shape)}, expected {list(shape)} by config.json")
    if tensor.dtype not in _FLOATS:
        raise CheckpointError(f"{name} is {tensor.dtype}, expected floating point")

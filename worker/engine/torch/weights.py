"""Fills the modules from a checkpoint's safetensors, tensor by tensor, and refuses what does not fit by name.

Knows files and shapes; what the names mean is in `tensor_names`.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from worker.engine.checkpoint_files import DERIVED, check_names, shard_files
from worker.engine.config import CheckpointError, InternVLConfig
from worker.engine.torch.placement import Placement
from worker.engine.torch.tensor_names import Target, plain_name, stores_head, targets

Progress = Callable[[float, str], None]


def load_weights(
    module: nn.Module, folder: Path, config: InternVLConfig, placement: Placement, progress: Progress, part: str = ""
) -> None:
    """Fills `module`, which is on the meta device, from every tensor of the checkpoint, in its own dtype. A parameter
    takes memory when its first tensor comes, and a linear layer is settled as soon as it is whole. So beside what is
    loaded, the host holds one tensor, and of the mapped file what has been read. With `part`, such as `vision.`, only
    the parameters whose names begin so are filled; the others need not be in `module`.

    `progress` gets the share that is done, 0 to 1. Raises CheckpointError naming the missing, unexpected or misshapen
    tensors."""
    expected = targets(config)
    files = shard_files(folder)
    names = {file: _names(file) for file in files}
    found = {plain_name(config.layout, name) for file in files for name in names[file]}
    check_names(folder, set(expected), found)
    expected = {name: target for name, target in expected.items() if target.parameter.startswith(part)}
    places = _Places(module, expected, placement)
    done, total = 0, len(expected)
    for file in files:
        with _opened(file) as tensors:
            for name in names[file]:
                target = expected.get(plain_name(config.layout, name))
                if target is not None:
                    places.fill(target, _tensor(tensors, name), f"{file}: {name}")
                    done += 1
                    progress(done / total, file.name)


class _Places:
    """The parameters of a module while they are filled."""

    def __init__(self, module: nn.Module, expected: dict[str, Target], placement: Placement) -> None:
        self._module = module
        self._placement = placement
        self._pending = Counter(_owner(target) for target in expected.values())

    def fill(self, target: Target, tensor: torch.Tensor, name: str) -> None:
        """`name` is for errors."""
        owner, _, attribute = target.parameter.rpartition(".")
        holder = self._module.get_submodule(owner)
        parameter: nn.Parameter = getattr(holder, attribute)
        if parameter.is_meta:
            parameter = self._placement.empty(owner, parameter, isinstance(holder, nn.Linear))
            setattr(holder, attribute, parameter)
        _fill(parameter, target, tensor, name)
        self._pending[owner] -= 1
        if not self._pending[owner] and isinstance(holder, nn.Linear):
            self._placement.settle(owner, holder)


def _owner(target: Target) -> str:
    """The module that has the parameter."""
    return target.parameter.rpartition(".")[0]


def has_own_head(folder: Path, config: InternVLConfig) -> bool:
    """See `tensor_names.stores_head`."""
    return stores_head(config.layout, (name for file in shard_files(folder) for name in _names(file)))


@contextmanager
def _opened(file: Path) -> Iterator[safe_open]:
    try:
        with safe_open(str(file), framework="pt") as tensors:
            yield tensors
    except (OSError, SafetensorError) as exc:
        raise CheckpointError(f"{file}: {exc}") from exc


def _names(file: Path) -> list[str]:
    with _opened(file) as tensors:
        names: list[str] = tensors.offset_keys()  # type: ignore[no-untyped-call]
    return [name for name in names if not name.endswith(DERIVED)]


def _tensor(tensors: safe_open, name: str) -> torch.Tensor:
    tensor: torch.Tensor = tensors.get_tensor(name)  # type: ignore[no-untyped-call]
    return tensor


def _fill(parameter: nn.Parameter, target: Target, tensor: torch.Tensor, name: str) -> None:
    if tuple(tensor.shape) != target.shape:
        raise CheckpointError(f"{name} has shape {list(tensor.shape)}, expected {list(target.shape)} by config.json")
    if not tensor.is_floating_point():
        raise CheckpointError(f"{name} is {tensor.dtype}, expected floating point")
    into = parameter.data
    if target.row is not None:
        into = into.narrow(0, target.row, target.shape[0])
    if target.groups is None:
        into.copy_(tensor.reshape(into.shape))
        return
    kv_heads, queries = target.groups
    grouped = tensor.reshape(kv_heads, queries + 2, -1, *tensor.shape[1:])
    row = 0
    for part in (grouped[:, :queries], grouped[:, queries], grouped[:, queries + 1]):
        rows = part.reshape(-1, *tensor.shape[1:])
        into.narrow(0, row, rows.shape[0]).copy_(rows)
        row += rows.shape[0]

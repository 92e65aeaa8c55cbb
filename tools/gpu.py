"""The GPU of this machine, as TensorRT's names have it."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Gpu:
    """`capability` is such as `SM89`."""

    name: str
    capability: str


def find_gpu() -> Gpu | None:
    """The first one; None where torch sees none."""
    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability(0)
    return Gpu(torch.cuda.get_device_name(0), f"SM{major}{minor}")

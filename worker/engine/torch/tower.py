"""The vision tower of a checkpoint as a torch module, the language model's tensors left where they are."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from worker.engine.checkpoint import inspect
from worker.engine.config import InternVLConfig
from worker.engine.torch.placement import Placement
from worker.engine.torch.quantization import Quantization
from worker.engine.torch.vision import Vision
from worker.engine.torch.weights import load_weights

_CPU = torch.device("cpu")


class Tower(nn.Module):
    """Named as `tensor_names` expects it."""

    def __init__(self, config: InternVLConfig) -> None:
        super().__init__()
        self.vision = Vision(config.vision, config.decoder.hidden)


def load_vision(
    checkpoint: Path, dtype: torch.dtype, progress: Callable[[float, str], None], device: torch.device = _CPU
) -> tuple[Vision, InternVLConfig]:
    """Raises CheckpointError."""
    config = inspect(checkpoint).config
    with torch.device("meta"):
        tower = Tower(config).to(dtype).requires_grad_(False).eval()
    placement = Placement(device, dtype, Quantization.NONE)
    load_weights(tower, checkpoint, config, placement, progress, part="vision.")
    return tower.vision, config

"""The vision encoder in torch, for the language engine: where no TensorRT is, or none that knows the GPU."""

from collections.abc import Callable
from pathlib import Path

import torch

from worker.engine.tensorrt.pictures import Pixels
from worker.engine.torch.tower import load_vision


class TorchEncoder:
    """Implements `pictures.Encoder`. Not thread-safe."""

    def __init__(self, vision: torch.nn.Module, tile_size: int, max_tiles: int, device: torch.device) -> None:
        self._vision, self._device = vision, device
        self.tile_size = tile_size
        self.max_tiles = max_tiles

    @classmethod
    def load(
        cls,
        checkpoint: Path,
        device: torch.device,
        dtype: torch.dtype,
        max_tiles: int,
        progress: Callable[[float, str], None],
    ) -> "TorchEncoder":
        """The encoder alone; the language model's tensors are not read. Raises CheckpointError."""
        vision, config = load_vision(checkpoint, dtype, progress, device)
        return cls(vision, config.vision.image_size, max_tiles, device)

    @torch.inference_mode()
    def encode(self, tiles: Pixels) -> torch.Tensor:
        encoded: torch.Tensor = self._vision(torch.from_numpy(tiles).to(self._device))
        if encoded.is_cuda:
            torch.cuda.current_stream(self._device).synchronize()
        return encoded

    def close(self) -> None: ...

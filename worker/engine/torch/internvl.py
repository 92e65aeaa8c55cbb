"""InternVL as the engine drives it (see `model.Model`): a vision tower, a decoder, and the paged KV cache's memory."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from worker.engine.config import InternVLConfig, load_config
from worker.engine.torch.attention import AttentionBackend, PagedAttention
from worker.engine.torch.batch import ForwardBatch
from worker.engine.torch.decoder import Decoder
from worker.engine.torch.dense_decode import DenseDecode
from worker.engine.torch.gathered_decode import GatheredDecode
from worker.engine.torch.placement import Placement
from worker.engine.torch.quantization import Quantization
from worker.engine.torch.rope import Rope
from worker.engine.torch.vision import Vision
from worker.engine.torch.weights import has_own_head, load_weights


def _no_progress(done: float, what: str) -> None:
    pass


class _Parts(nn.Module):
    """What a checkpoint fills; `tensor_names` knows these names."""

    def __init__(self, config: InternVLConfig) -> None:
        super().__init__()
        self.vision = Vision(config.vision, config.decoder.hidden)
        self.decoder = Decoder(config.decoder)


class InternVL:
    """Implements `Model`. Not thread-safe."""

    def __init__(self, config: InternVLConfig, parts: _Parts, device: torch.device, dtype: torch.dtype) -> None:
        self.config = config
        self.vocab_size = config.decoder.vocab_size
        self.hidden = config.decoder.hidden
        self.tokens_per_tile = config.vision.tokens_per_tile
        self.tile_size = config.vision.image_size
        self.context_length = config.decoder.context_length
        self.trained_length = config.decoder.trained_length
        self.device = device
        self.dtype = dtype
        self._vision = parts.vision
        self._decoder = parts.decoder
        self._rope = Rope(config.decoder, device, dtype)
        self._attention: AttentionBackend | None = None

    @classmethod
    def load(
        cls,
        folder: Path,
        device: torch.device,
        dtype: torch.dtype,
        progress: Callable[[float, str], None] = _no_progress,
        quantization: Quantization = Quantization.NONE,
    ) -> "InternVL":
        """Reads a checkpoint of either layout. `progress` is called with the share done (0 to 1) and a file's name.
        Raises CheckpointError naming what is wrong with the checkpoint, QuantizationError."""
        placement = Placement(device, dtype, quantization)
        config = load_config(folder)
        tied = config.decoder.tied and not has_own_head(folder, config)
        config = replace(config, decoder=replace(config.decoder, tied=tied))
        with torch.device("meta"):
            parts = _Parts(config).to(dtype).requires_grad_(False).eval()
        load_weights(parts, folder, config, placement, progress)
        return cls(config, parts, device, dtype)

    def allocate_cache(self, pages: int, page_size: int) -> None:
        d = self.config.decoder
        # One page more than asked for: see GatheredDecode.
        shape = (d.layers, pages + 1, 2, page_size, d.kv_heads, d.head_dim)
        caches = torch.zeros(shape, device=self.device, dtype=self.dtype)
        dense = self.device.type == "cpu" and self.dtype == torch.float32
        self._attention = PagedAttention(caches, DenseDecode(caches) if dense else GatheredDecode(caches))

    @property
    def _backend(self) -> AttentionBackend:
        if self._attention is None:
            raise RuntimeError("no KV cache: allocate_cache comes first")
        return self._attention

    def cache_bytes_per_page(self, page_size: int) -> int:
        """Of the paged cache alone: in fp32 on a CPU, DenseDecode adds at most twice the bytes of the pages in use."""
        d = self.config.decoder
        return d.layers * 2 * page_size * d.kv_heads * d.head_dim * self.dtype.itemsize

    def weight_bytes(self) -> int:
        """What the weights take on the device."""
        return sum(_bytes_of(parameter) for parts in (self._vision, self._decoder) for parameter in parts.parameters())

    @torch.inference_mode()
    def copy_pages(self, sources: list[int], targets: list[int]) -> None:
        if sources:
            self._backend.copy_pages(sources, targets)

    @torch.inference_mode()
    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self._decoder.table.index_select(0, ids)

    @torch.inference_mode()
    def encode_tiles(self, pixels: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = self._vision(pixels)
        return tokens

    @torch.inference_mode()
    def forward(self, embeds: torch.Tensor, batch: ForwardBatch) -> torch.Tensor:
        plan = self._backend.plan(batch)
        hidden: torch.Tensor = self._decoder(embeds, self._rope.at(batch.positions, batch.lengths), plan)
        return hidden

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._decoder.logits(hidden)


def _bytes_of(parameter: torch.Tensor) -> int:
    """Of a quantised weight, the bytes of the tensors that it is made of."""
    if not is_traceable_wrapper_subclass(parameter):
        return parameter.untyped_storage().nbytes()
    names, _ = parameter.__tensor_flatten__()
    return sum(_bytes_of(getattr(parameter, name)) for name in names)

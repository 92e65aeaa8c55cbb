"""What a checkpoint is, read from its own `config.json`. No torch, no code from the checkpoint.

Formats: `InternVLChatModel` (`model_type: internvl_chat`, the original layout) and
`InternVLForConditionalGeneration` (`model_type: internvl`, transformers' native layout).
"""

from dataclasses import dataclass
from enum import StrEnum


class Layout(StrEnum):
    """Which names the checkpoint's tensors have."""

    ORIGINAL = "internvl_chat"
    NATIVE = "internvl"


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """InternViT. `rms_norm` and `qk_norm` are the 6B's; `select_layer` −1 is the last layer's output."""

    image_size: int
    patch_size: int
    hidden: int
    layers: int
    heads: int
    mlp: int
    eps: float
    rms_norm: bool
    qk_norm: bool
    qkv_bias: bool
    select_layer: int
    downsample_ratio: float
    ps_version: str

    @property
    def tokens_per_tile(self) -> int:
        return int((self.image_size // self.patch_size * self.downsample_ratio) ** 2)


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """A Llama-family decoder; `family` is the checkpoint's own `model_type` (`qwen2`, `internlm2`, `internlm3`)."""

    family: str
    vocab_size: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    eps: float
    rope_theta: float
    context_length: int
    qkv_bias: bool
    out_bias: bool
    tied: bool


@dataclass(frozen=True, slots=True)
class TilingConfig:
    """How a picture becomes tiles."""

    min_tiles: int
    max_tiles: int
    use_thumbnail: bool


@dataclass(frozen=True, slots=True)
class InternVLConfig:
    layout: Layout
    vision: VisionConfig
    decoder: DecoderConfig
    tiling: TilingConfig

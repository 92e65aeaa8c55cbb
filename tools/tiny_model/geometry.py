"""How large each part of a made-up InternVL is, and which structural flags it has."""

from dataclasses import dataclass

FAMILIES = ("qwen2", "internlm2", "internlm3")


@dataclass(frozen=True, slots=True)
class Geometry:
    """The vision flags are InternViT-300M's by default (LayerNorm, qkv bias); the 6B has `vision_rms_norm`,
    `vision_qk_norm` and no `vision_qkv_bias`. `family` is the original layout's `model_type` of the language model;
    the biases are for InternLM (`out_bias` is the MLP's too in InternLM3), Qwen2 has `qkv_bias` alone. `rope_factor`
    makes RoPE scale dynamically beyond `context_length`. `end_gain` scales the output row of `<|im_end|>`: 0 never
    ends by itself, around 1.6 ends after some dozens of tokens."""

    family: str = "qwen2"

    vocab_size: int = 2048
    hidden: int = 128
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    mlp: int = 256
    context_length: int = 4096
    rope_theta: float = 1_000_000.0
    rope_factor: float | None = None
    qkv_bias: bool = True
    out_bias: bool = False
    tied: bool = False
    end_gain: float = 0.0
    image_size: int = 112
    patch_size: int = 14
    vision_hidden: int = 64
    vision_layers: int = 2
    vision_heads: int = 4
    vision_mlp: int = 128
    vision_rms_norm: bool = False
    vision_qk_norm: bool = False
    vision_qkv_bias: bool = True
    select_layer: int = -1
    downsample_ratio: float = 0.5
    ps_version: str = "v2"
    min_tiles: int = 1
    max_tiles: int = 12
    use_thumbnail: bool = True

    def __post_init__(self) -> None:
        for name, whole, parts in (
            ("heads", self.heads, self.kv_heads),
            ("vision_hidden", self.vision_hidden, self.vision_heads),
            ("image_size", self.image_size, self.patch_size),
        ):
            if whole % parts:
                raise ValueError(f"{name} {whole} is not a multiple of {parts}")
        if self.family not in FAMILIES:
            raise ValueError(f"family {self.family!r} is none of {', '.join(FAMILIES)}")

    @property
    def mlp_bias(self) -> bool:
        return self.out_bias and self.family == "internlm3"

    @property
    def patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2

    @property
    def tokens_per_tile(self) -> int:
        return int(self.patches * self.downsample_ratio**2)

    @property
    def unshuffled(self) -> int:
        """The width of a visual token before the projector."""
        return self.vision_hidden * round(1 / self.downsample_ratio) ** 2


TINY = Geometry()
BENCH = Geometry(vocab_size=4096, hidden=256, layers=8, heads=4, kv_heads=2, head_dim=64, mlp=1024)

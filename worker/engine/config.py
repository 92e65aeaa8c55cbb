"""What a checkpoint is, read from its own `config.json`. No torch, no code from the checkpoint.

Formats: `InternVLChatModel` (`model_type: internvl_chat`, the original layout) and
`InternVLForConditionalGeneration` (`model_type: internvl`, transformers' native layout).
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from worker.engine.config_file import CheckpointError, Section, read_json

__all__ = [
    "CheckpointError",
    "DecoderConfig",
    "InternVLConfig",
    "Layout",
    "TilingConfig",
    "VisionConfig",
    "load_config",
]

# What transformers' processor and OpenGVLab's code use where a native checkpoint says nothing about tiles.
_MIN_TILES, _MAX_TILES = 1, 12
_ROPE_KINDS = ("default", "dynamic")
_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


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

    @property
    def layers_used(self) -> int:
        """Hidden states are counted from the embeddings, 0, to the last layer's output, `layers`."""
        return self.select_layer + self.layers + 1 if self.select_layer < 0 else self.select_layer


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """A Llama-family decoder; `family` is the checkpoint's own `model_type`: `qwen2`, `internlm2`, `internlm3`, or
    `llama`, which is what InternLM is called in the native layout.

    Where RoPE scales dynamically, `rope_factor` times the trained length fits; otherwise the trained length."""

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
    rope_factor: float | None
    trained_length: int
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    tied: bool

    @property
    def context_length(self) -> int:
        """The most tokens of a sequence, prompt and answer together."""
        return int(self.trained_length * (self.rope_factor or 1.0))


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


def load_config(folder: Path) -> InternVLConfig:
    """Reads `config.json` (and the native layout's `preprocessor_config.json`) of a checkpoint folder.

    Raises CheckpointError naming file, key and value for whatever is absent, malformed, contradictory or not
    supported.
    """
    root = read_json(folder / "config.json")
    layout = Layout(root.choice("model_type", tuple(layout.value for layout in Layout)))
    config = _original(root) if layout is Layout.ORIGINAL else _native(root)
    _check_vision(root, config.vision)
    if config.tiling.min_tiles > config.tiling.max_tiles:
        raise CheckpointError(
            f"{root.file}: at least {config.tiling.min_tiles} tiles but at most {config.tiling.max_tiles}"
        )
    return config


def _original(root: Section) -> InternVLConfig:
    vision = root.section("vision_config")
    vision.choice("hidden_act", ("gelu",), "gelu")
    vision.choice("num_channels", (3,), 3)
    image_size = vision.positive("image_size")
    root.choice("force_image_size", (image_size,), image_size)
    root.choice("template", ("internvl2_5",), "internvl2_5")
    root.choice("dynamic_image_size", (True,), True)
    root.choice("pad2square", (False,), False)
    return InternVLConfig(
        layout=Layout.ORIGINAL,
        # What is absent has the defaults of the reference's InternVisionConfig, which are the 6B's.
        vision=VisionConfig(
            image_size=image_size,
            patch_size=vision.positive("patch_size"),
            hidden=vision.positive("hidden_size"),
            layers=vision.positive("num_hidden_layers"),
            heads=vision.positive("num_attention_heads"),
            mlp=vision.positive("intermediate_size"),
            eps=vision.number("layer_norm_eps", 1e-6),
            rms_norm=vision.choice("norm_type", ("rms_norm", "layer_norm"), "rms_norm") == "rms_norm",
            qk_norm=vision.flag("qk_normalization", True),
            qkv_bias=vision.flag("qkv_bias", False),
            select_layer=root.integer("select_layer", -1),
            downsample_ratio=root.number("downsample_ratio", 0.5),
            ps_version=root.choice("ps_version", ("v1", "v2"), "v1"),
        ),
        decoder=_decoder(root.section("llm_config"), tied_by_default=False),
        tiling=TilingConfig(
            min_tiles=root.positive("min_dynamic_patch", _MIN_TILES),
            max_tiles=root.positive("max_dynamic_patch", _MAX_TILES),
            use_thumbnail=root.flag("use_thumbnail", False),
        ),
    )


def _native(root: Section) -> InternVLConfig:
    vision = root.section("vision_config")
    vision.choice("hidden_act", ("gelu",), "gelu")
    vision.choice("num_channels", (3,), 3)
    vision.choice("use_absolute_position_embeddings", (True,), True)
    vision.choice("use_mask_token", (False,), False)
    vision.choice("use_mean_pooling", (True,), True)
    root.choice("projector_hidden_act", ("gelu",), "gelu")
    root.choice("vision_feature_select_strategy", ("default",), "default")
    config = InternVLConfig(
        layout=Layout.NATIVE,
        vision=VisionConfig(
            image_size=vision.side("image_size"),
            patch_size=vision.side("patch_size"),
            hidden=vision.positive("hidden_size"),
            layers=vision.positive("num_hidden_layers"),
            heads=vision.positive("num_attention_heads"),
            mlp=vision.positive("intermediate_size"),
            eps=vision.number("layer_norm_eps", 1e-6),
            rms_norm=vision.choice("norm_type", ("rms_norm", "layer_norm"), "layer_norm") == "rms_norm",
            qk_norm=vision.flag("use_qk_norm", False),
            qkv_bias=vision.flag("attention_bias", False),
            select_layer=root.integer("vision_feature_layer", -1),
            downsample_ratio=root.number("downsample_ratio", 0.5),
            ps_version="v2",
        ),
        decoder=_decoder(root.section("text_config"), tied_by_default=root.flag("tie_word_embeddings", True)),
        tiling=_native_tiling(root.file.parent),
    )
    root.choice("image_seq_length", (config.vision.tokens_per_tile,), config.vision.tokens_per_tile)
    return config


def _native_tiling(folder: Path) -> TilingConfig:
    path = folder / "preprocessor_config.json"
    if not path.exists():
        return TilingConfig(_MIN_TILES, _MAX_TILES, use_thumbnail=True)
    processor = read_json(path)
    for key, expected in zip(("image_mean", "image_std"), _IMAGENET, strict=True):
        processor.choice(key, (expected,), expected)
    return TilingConfig(
        min_tiles=processor.positive("min_patches", _MIN_TILES),
        max_tiles=processor.positive("max_patches", _MAX_TILES),
        use_thumbnail=True,
    )


def _decoder(text: Section, tied_by_default: bool) -> DecoderConfig:
    family = text.choice("model_type", ("qwen2", "internlm2", "internlm3", "llama"))
    text.choice("hidden_act", ("silu",), "silu")
    text.choice("use_sliding_window", (False,), False)
    if set(text.strings("layer_types")) - {"full_attention"}:
        raise text.error("layer_types", "supported: full_attention in every layer")
    hidden, heads = text.positive("hidden_size"), text.positive("num_attention_heads")
    kv_heads = text.positive("num_key_value_heads", heads)
    if heads % kv_heads:
        raise text.error("num_key_value_heads", f"does not divide num_attention_heads {heads}")
    head_dim = text.positive("head_dim", hidden // heads)
    if head_dim % 2:
        raise text.error("head_dim", f"gives heads of {head_dim}; RoPE needs an even width")
    theta, factor = _rope(text)
    qkv_bias, out_bias, mlp_bias = _biases(text, family)
    return DecoderConfig(
        family=family,
        vocab_size=text.positive("vocab_size"),
        hidden=hidden,
        layers=text.positive("num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp=text.positive("intermediate_size"),
        eps=text.number("rms_norm_eps"),
        rope_theta=theta,
        rope_factor=factor,
        trained_length=text.positive("max_position_embeddings"),
        qkv_bias=qkv_bias,
        out_bias=out_bias,
        mlp_bias=mlp_bias,
        tied=text.flag("tie_word_embeddings", tied_by_default),
    )


def _biases(text: Section, family: str) -> tuple[bool, bool, bool]:
    """Of the query, key and value, of the output, and of the MLP's projections. What is absent has the default of the
    family's own configuration class."""
    match family:
        case "internlm2":
            attention = text.flag("bias", True)
            return attention, attention, False
        case "internlm3":
            rest = text.flag("bias", False)
            return text.flag("qkv_bias", False), rest, rest
        case "llama":
            attention = text.flag("attention_bias", False)
            return attention, attention, text.flag("mlp_bias", False)
    return True, False, False


def _rope(text: Section) -> tuple[float, float | None]:
    """RoPE's base, and the factor of its dynamic scaling beyond the trained length. transformers 5 writes both into
    `rope_parameters`; before, `rope_theta` stood beside `rope_scaling`, whose kind was once called `type`."""
    if text.has("rope_parameters"):
        rope = text.section("rope_parameters")
        return rope.number("rope_theta"), _dynamic_factor(rope, rope.choice("rope_type", _ROPE_KINDS, "default"))
    theta = text.number("rope_theta")
    if not text.has("rope_scaling"):
        return theta, None
    scaling = text.section("rope_scaling")
    kind = scaling.choice("rope_type" if scaling.has("rope_type") else "type", _ROPE_KINDS)
    return theta, _dynamic_factor(scaling, kind)


def _dynamic_factor(scaling: Section, kind: str) -> float | None:
    if kind == "default":
        return None
    factor = scaling.number("factor")
    if factor < 1:
        raise scaling.error("factor", "expected a number of at least 1")
    return factor


def _check_vision(root: Section, vision: VisionConfig) -> None:
    if vision.image_size % vision.patch_size:
        raise CheckpointError(
            f"{root.file}: image_size {vision.image_size} is no multiple of patch_size {vision.patch_size}"
        )
    if vision.hidden % vision.heads:
        raise CheckpointError(f"{root.file}: vision hidden_size {vision.hidden} is no multiple of {vision.heads} heads")
    grid = vision.image_size // vision.patch_size
    factor = 1 / vision.downsample_ratio if vision.downsample_ratio > 0 else 0.0
    if factor < 1 or factor != int(factor) or grid % int(factor):
        raise root.error("downsample_ratio", f"does not divide the grid of {grid} × {grid} patches")
    if not -vision.layers - 1 <= vision.select_layer <= vision.layers:
        raise CheckpointError(f"{root.file}: select_layer {vision.select_layer} of {vision.layers} vision layers")

"""Where each tensor of a checkpoint goes: both layouts' names against the modules' own. Opens no file."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from worker.engine.config import DecoderConfig, InternVLConfig, Layout, VisionConfig


@dataclass(frozen=True, slots=True)
class Target:
    """A checkpoint tensor of `shape` fills the module parameter `parameter`, or its rows from `row` on.

    `groups` is set where the tensor's rows are InternLM2's: for each of `groups[0]` key-value heads its `groups[1]`
    query heads, its key, its value. The parameter has all queries, then all keys, then all values."""

    parameter: str
    shape: tuple[int, ...]
    row: int | None = None
    groups: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class _Names:
    """What a family calls the parts of its decoder."""

    table: str
    head: str
    input_norm: str
    mlp_norm: str
    out: str
    gate: str
    up: str
    down: str


_LLAMA = _Names(
    table="embed_tokens",
    head="lm_head",
    input_norm="input_layernorm",
    mlp_norm="post_attention_layernorm",
    out="self_attn.o_proj",
    gate="mlp.gate_proj",
    up="mlp.up_proj",
    down="mlp.down_proj",
)
_INTERNLM2 = _Names(
    table="tok_embeddings",
    head="output",
    input_norm="attention_norm",
    mlp_norm="ffn_norm",
    out="attention.wo",
    gate="feed_forward.w1",
    up="feed_forward.w3",
    down="feed_forward.w2",
)


def targets(config: InternVLConfig) -> dict[str, Target]:
    """The tensors that a checkpoint of this config must have, by the names that `plain_name` gives."""
    vision = _original_vision if config.layout is Layout.ORIGINAL else _native_vision
    pairs = [*vision(config.vision), *_projector(config), *_decoder(config.decoder)]
    return dict(pairs)


def plain_name(layout: Layout, name: str) -> str:
    """transformers has written native checkpoints with several prefixes; this is the one that `targets` knows."""
    if layout is Layout.ORIGINAL:
        return name
    name = name.removeprefix("model.")
    name = re.sub(r"^lm_head\.", "language_model.lm_head.", name)
    return re.sub(r"^language_model\.(?=embed_tokens\.|layers\.|norm\.)", "language_model.model.", name)


def stores_head(layout: Layout, names: Iterable[str]) -> bool:
    """Whether a checkpoint with these tensors has an output head. Where one is stored it counts, whatever the config
    says of ties: transformers does the same."""
    heads = {f"language_model.{family.head}.weight" for family in (_LLAMA, _INTERNLM2)}
    return any(plain_name(layout, name) in heads for name in names)


def _vector(name: str, target: str, width: int, bias: bool = True) -> Iterator[tuple[str, Target]]:
    """A norm's weight and bias."""
    yield f"{name}.weight", Target(f"{target}.weight", (width,))
    if bias:
        yield f"{name}.bias", Target(f"{target}.bias", (width,))


def _linear(
    name: str, target: str, shape: tuple[int, int], bias: bool, row: int | None = None
) -> Iterator[tuple[str, Target]]:
    yield f"{name}.weight", Target(f"{target}.weight", shape, row)
    if bias:
        yield f"{name}.bias", Target(f"{target}.bias", shape[:1], row)


def _original_vision(c: VisionConfig) -> Iterator[tuple[str, Target]]:
    root, width = "vision_model.embeddings", c.hidden
    yield f"{root}.class_embedding", Target("vision.class_token", (1, 1, width))
    yield f"{root}.position_embedding", Target("vision.positions", (1, _patches(c) + 1, width))
    yield from _patch(f"{root}.patch_embedding", c)
    for i in range(c.layers):
        layer, own = f"vision_model.encoder.layers.{i}", f"vision.layers.{i}"
        yield from _vector(f"{layer}.norm1", f"{own}.norm1", width, bias=not c.rms_norm)
        yield from _vector(f"{layer}.norm2", f"{own}.norm2", width, bias=not c.rms_norm)
        yield from _linear(f"{layer}.attn.qkv", f"{own}.qkv", (3 * width, width), c.qkv_bias)
        yield from _linear(f"{layer}.attn.proj", f"{own}.out", (width, width), bias=True)
        if c.qk_norm:
            yield from _vector(f"{layer}.attn.q_norm", f"{own}.query_norm", width, bias=False)
            yield from _vector(f"{layer}.attn.k_norm", f"{own}.key_norm", width, bias=False)
        yield from _mlp(layer, own, c)
        yield f"{layer}.ls1", Target(f"{own}.scale1", (width,))
        yield f"{layer}.ls2", Target(f"{own}.scale2", (width,))


def _native_vision(c: VisionConfig) -> Iterator[tuple[str, Target]]:
    root, width = "vision_tower.embeddings", c.hidden
    yield f"{root}.cls_token", Target("vision.class_token", (1, 1, width))
    yield f"{root}.position_embeddings", Target("vision.positions", (1, _patches(c) + 1, width))
    yield from _patch(f"{root}.patch_embeddings.projection", c)
    for i in range(c.layers):
        layer, own = f"vision_tower.encoder.layer.{i}", f"vision.layers.{i}"
        yield from _vector(f"{layer}.layernorm_before", f"{own}.norm1", width, bias=not c.rms_norm)
        yield from _vector(f"{layer}.layernorm_after", f"{own}.norm2", width, bias=not c.rms_norm)
        for part, name in enumerate(("q_proj", "k_proj", "v_proj")):
            square = (width, width)
            yield from _linear(f"{layer}.attention.{name}", f"{own}.qkv", square, c.qkv_bias, part * width)
        yield from _linear(f"{layer}.attention.projection_layer", f"{own}.out", (width, width), bias=True)
        if c.qk_norm:
            yield from _vector(f"{layer}.attention.q_norm", f"{own}.query_norm", width, bias=False)
            yield from _vector(f"{layer}.attention.k_norm", f"{own}.key_norm", width, bias=False)
        yield from _mlp(layer, own, c)
        yield f"{layer}.lambda_1", Target(f"{own}.scale1", (width,))
        yield f"{layer}.lambda_2", Target(f"{own}.scale2", (width,))


def _patches(c: VisionConfig) -> int:
    return (c.image_size // c.patch_size) ** 2


def _patch(name: str, c: VisionConfig) -> Iterator[tuple[str, Target]]:
    yield f"{name}.weight", Target("vision.patch.weight", (c.hidden, 3, c.patch_size, c.patch_size))
    yield f"{name}.bias", Target("vision.patch.bias", (c.hidden,))


def _mlp(layer: str, own: str, c: VisionConfig) -> Iterator[tuple[str, Target]]:
    yield from _linear(f"{layer}.mlp.fc1", f"{own}.fc1", (c.mlp, c.hidden), bias=True)
    yield from _linear(f"{layer}.mlp.fc2", f"{own}.fc2", (c.hidden, c.mlp), bias=True)


def _projector(config: InternVLConfig) -> Iterator[tuple[str, Target]]:
    names = ("mlp1.0", "mlp1.1", "mlp1.3")
    if config.layout is Layout.NATIVE:
        root = "multi_modal_projector"
        names = (f"{root}.layer_norm", f"{root}.linear_1", f"{root}.linear_2")
    width, hidden = config.vision.hidden * round(1 / config.vision.downsample_ratio) ** 2, config.decoder.hidden
    yield from _vector(names[0], "vision.projector_norm", width)
    yield from _linear(names[1], "vision.projector1", (hidden, width), bias=True)
    yield from _linear(names[2], "vision.projector2", (hidden, hidden), bias=True)


def _decoder(c: DecoderConfig) -> Iterator[tuple[str, Target]]:
    names = _INTERNLM2 if c.family == "internlm2" else _LLAMA
    yield f"language_model.model.{names.table}.weight", Target("decoder.table", (c.vocab_size, c.hidden))
    yield "language_model.model.norm.weight", Target("decoder.norm", (c.hidden,))
    if not c.tied:
        yield f"language_model.{names.head}.weight", Target("decoder.head.weight", (c.vocab_size, c.hidden))
    for i in range(c.layers):
        layer, own = f"language_model.model.layers.{i}", f"decoder.layers.{i}"
        yield f"{layer}.{names.input_norm}.weight", Target(f"{own}.input_norm", (c.hidden,))
        yield f"{layer}.{names.mlp_norm}.weight", Target(f"{own}.mlp_norm", (c.hidden,))
        yield from _query_key_value(layer, own, c)
        yield from _linear(f"{layer}.{names.out}", f"{own}.out", (c.hidden, c.heads * c.head_dim), c.out_bias)
        inner, outer = (c.mlp, c.hidden), (c.hidden, c.mlp)
        yield from _linear(f"{layer}.{names.gate}", f"{own}.gate_up", inner, c.mlp_bias, row=0)
        yield from _linear(f"{layer}.{names.up}", f"{own}.gate_up", inner, c.mlp_bias, row=c.mlp)
        yield from _linear(f"{layer}.{names.down}", f"{own}.down", outer, c.mlp_bias)


def _query_key_value(layer: str, own: str, c: DecoderConfig) -> Iterator[tuple[str, Target]]:
    query, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    if c.family == "internlm2":
        rows, name, target = query + 2 * kv, f"{layer}.attention.wqkv", f"{own}.qkv"
        groups = (c.kv_heads, c.heads // c.kv_heads)
        yield f"{name}.weight", Target(f"{target}.weight", (rows, c.hidden), groups=groups)
        if c.qkv_bias:
            yield f"{name}.bias", Target(f"{target}.bias", (rows,), groups=groups)
        return
    for part, row, rows in (("q_proj", 0, query), ("k_proj", query, kv), ("v_proj", query + kv, kv)):
        yield from _linear(f"{layer}.self_attn.{part}", f"{own}.qkv", (rows, c.hidden), c.qkv_bias, row)

"""Random tensors under the original layout's names, scaled so that greedy output varies and depends on the picture.
The decoder's names are those of Qwen2 and InternLM3."""

import zlib

import numpy as np
import numpy.typing as npt

from tools.tiny_model.geometry import Geometry

Array = npt.NDArray[np.float32]
# Queries and keys larger than usual make attention pick tokens rather than average them all.
_ATTENTION_GAIN = 2.0
_LOGIT_STD = 5.0


class _Maker:
    """Draws each tensor from its own generator, so that a tensor depends on the seed, its name and shape alone."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.tensors: dict[str, Array] = {}

    def normal(self, name: str, *shape: int, std: float = 1.0, mean: float = 0.0) -> None:
        rng = np.random.Generator(np.random.PCG64([self._seed, zlib.crc32(name.encode())]))
        self.tensors[name] = (mean + std * rng.standard_normal(shape)).astype(np.float32)

    def linear(self, name: str, rows: int, columns: int, bias: bool = True, gain: float = 1.0) -> None:
        self.normal(f"{name}.weight", rows, columns, std=gain * columns**-0.5)
        if bias:
            self.normal(f"{name}.bias", rows, std=0.1)

    def norm(self, name: str, width: int, bias: bool) -> None:
        self.normal(f"{name}.weight", width, mean=1.0, std=0.1)
        if bias:
            self.normal(f"{name}.bias", width, std=0.1)


def make_tensors(geometry: Geometry, seed: int, silent_ids: list[int], end_id: int) -> dict[str, Array]:
    """Every tensor of the checkpoint. The rows of `silent_ids` in the output head are zero: greedy never draws them.
    A tied model has no head of its own, so there they can be drawn."""
    maker = _Maker(seed)
    _vision(maker, geometry)
    _projector(maker, geometry)
    _decoder(maker, geometry)
    if not geometry.tied:
        maker.normal("language_model.lm_head.weight", geometry.vocab_size, geometry.hidden)
        head = maker.tensors["language_model.lm_head.weight"]
        head *= _LOGIT_STD * geometry.hidden**-0.5
        head[end_id] *= geometry.end_gain
        head[silent_ids] = 0.0
    return maker.tensors


def _vision(maker: _Maker, g: Geometry) -> None:
    width, root = g.vision_hidden, "vision_model"
    maker.normal(f"{root}.embeddings.class_embedding", 1, 1, width)
    maker.normal(f"{root}.embeddings.position_embedding", 1, g.patches + 1, width, std=0.3)
    patch = 3 * g.patch_size**2
    maker.normal(f"{root}.embeddings.patch_embedding.weight", width, 3, g.patch_size, g.patch_size, std=4 * patch**-0.5)
    maker.normal(f"{root}.embeddings.patch_embedding.bias", width, std=0.1)
    for i in range(g.vision_layers):
        layer = f"{root}.encoder.layers.{i}"
        maker.norm(f"{layer}.norm1", width, bias=not g.vision_rms_norm)
        maker.norm(f"{layer}.norm2", width, bias=not g.vision_rms_norm)
        maker.linear(f"{layer}.attn.qkv", 3 * width, width, g.vision_qkv_bias)
        maker.linear(f"{layer}.attn.proj", width, width)
        if g.vision_qk_norm:
            maker.norm(f"{layer}.attn.q_norm", width, bias=False)
            maker.norm(f"{layer}.attn.k_norm", width, bias=False)
        maker.linear(f"{layer}.mlp.fc1", g.vision_mlp, width)
        maker.linear(f"{layer}.mlp.fc2", width, g.vision_mlp)
        maker.normal(f"{layer}.ls1", width, mean=0.8, std=0.1)
        maker.normal(f"{layer}.ls2", width, mean=0.8, std=0.1)


def _projector(maker: _Maker, g: Geometry) -> None:
    maker.norm("mlp1.0", g.unshuffled, bias=True)
    maker.linear("mlp1.1", g.hidden, g.unshuffled, gain=2.0)
    maker.linear("mlp1.3", g.hidden, g.hidden, gain=1.5)


def _decoder(maker: _Maker, g: Geometry) -> None:
    root, query, kv = "language_model.model", g.heads * g.head_dim, g.kv_heads * g.head_dim
    # A tied table is the head too: its scale must give well separated logits after the final norm.
    std = _LOGIT_STD * g.hidden**-0.5 if g.tied else 1.0
    maker.normal(f"{root}.embed_tokens.weight", g.vocab_size, g.hidden, std=std)
    for i in range(g.layers):
        layer = f"{root}.layers.{i}"
        maker.norm(f"{layer}.input_layernorm", g.hidden, bias=False)
        maker.norm(f"{layer}.post_attention_layernorm", g.hidden, bias=False)
        maker.linear(f"{layer}.self_attn.q_proj", query, g.hidden, g.qkv_bias, gain=_ATTENTION_GAIN)
        maker.linear(f"{layer}.self_attn.k_proj", kv, g.hidden, g.qkv_bias)
        maker.linear(f"{layer}.self_attn.v_proj", kv, g.hidden, g.qkv_bias, gain=1.5)
        maker.linear(f"{layer}.self_attn.o_proj", g.hidden, query, g.out_bias, gain=1.5)
        maker.linear(f"{layer}.mlp.gate_proj", g.mlp, g.hidden, g.mlp_bias)
        maker.linear(f"{layer}.mlp.up_proj", g.mlp, g.hidden, g.mlp_bias)
        maker.linear(f"{layer}.mlp.down_proj", g.hidden, g.mlp, g.mlp_bias, gain=1.5)
    maker.norm(f"{root}.norm", g.hidden, bias=False)

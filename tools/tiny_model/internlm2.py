"""A decoder's tensors under InternLM2's names, with query, key and value packed into one `wqkv`."""

import re

import numpy as np

from tools.tiny_model.geometry import Geometry
from tools.tiny_model.weights import Array

_NAMES = (
    (r"model\.embed_tokens\.", "model.tok_embeddings."),
    (r"\.lm_head\.", ".output."),
    (r"\.input_layernorm\.", ".attention_norm."),
    (r"\.post_attention_layernorm\.", ".ffn_norm."),
    (r"\.self_attn\.o_proj\.", ".attention.wo."),
    (r"\.mlp\.gate_proj\.", ".feed_forward.w1."),
    (r"\.mlp\.up_proj\.", ".feed_forward.w3."),
    (r"\.mlp\.down_proj\.", ".feed_forward.w2."),
)
_PARTS = re.compile(r"(language_model\..*)\.self_attn\.([qkv])_proj\.(weight|bias)")


def to_internlm2(tensors: dict[str, Array], geometry: Geometry) -> dict[str, Array]:
    """The rows of `wqkv` come key-value head by key-value head: its queries, its key, its value."""
    named: dict[str, Array] = {}
    parts: dict[str, dict[str, Array]] = {}
    for name, tensor in tensors.items():
        found = _PARTS.fullmatch(name)
        if found:
            layer, part, kind = found.groups()
            parts.setdefault(f"{layer}.attention.wqkv.{kind}", {})[part] = tensor
        else:
            named[_rename(name)] = tensor
    for name, projections in parts.items():
        grouped = [_by_head(projections[part], geometry) for part in "qkv"]
        rows = np.concatenate(grouped, axis=1)
        named[name] = np.ascontiguousarray(rows.reshape(-1, *rows.shape[3:]))
    return named


def _by_head(tensor: Array, geometry: Geometry) -> Array:
    """`[kv_heads, heads of the group, head_dim, …]`."""
    return tensor.reshape(geometry.kv_heads, -1, geometry.head_dim, *tensor.shape[1:])


def _rename(name: str) -> str:
    if name.startswith("language_model."):
        for pattern, target in _NAMES:
            name = re.sub(pattern, target, name)
    return name

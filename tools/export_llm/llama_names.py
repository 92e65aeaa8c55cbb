"""An InternVL checkpoint's decoder tensors under the names of Qwen2 and Llama. Opens no file.

InternLM2's `wqkv` has, for each key-value head, the rows of its query heads, of its key, of its value.
"""

import re
from collections.abc import Iterator

import torch

from worker.engine.config import DecoderConfig

PREFIX = "language_model."
_INTERNLM2 = (
    (r"^model\.tok_embeddings\.", "model.embed_tokens."),
    (r"^output\.", "lm_head."),
    (r"\.attention_norm\.", ".input_layernorm."),
    (r"\.ffn_norm\.", ".post_attention_layernorm."),
    (r"\.attention\.wo\.", ".self_attn.o_proj."),
    (r"\.feed_forward\.w1\.", ".mlp.gate_proj."),
    (r"\.feed_forward\.w3\.", ".mlp.up_proj."),
    (r"\.feed_forward\.w2\.", ".mlp.down_proj."),
)
_PACKED = ".attention.wqkv."


def is_language(name: str) -> bool:
    """`name` as `tensor_names.plain_name` gives it."""
    return name.startswith(PREFIX)


def llama_tensors(name: str, tensor: torch.Tensor, config: DecoderConfig) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensor, or the three that are packed in it, by their names in the exported folder."""
    name = name.removeprefix(PREFIX)
    if config.family != "internlm2":
        yield name, tensor
    elif _PACKED in name:
        yield from _unpacked(name, tensor, config)
    else:
        for pattern, target in _INTERNLM2:
            name = re.sub(pattern, target, name)
        yield name, tensor


def _unpacked(name: str, tensor: torch.Tensor, config: DecoderConfig) -> Iterator[tuple[str, torch.Tensor]]:
    queries, rest = config.heads // config.kv_heads, tensor.shape[1:]
    grouped = tensor.reshape(config.kv_heads, queries + 2, config.head_dim, *rest)
    for part, rows in (
        ("q", grouped[:, :queries]),
        ("k", grouped[:, queries]),
        ("v", grouped[:, queries + 1]),
    ):
        yield name.replace(_PACKED, f".self_attn.{part}_proj."), rows.reshape(-1, *rest)


def zero_biases(config: DecoderConfig, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Llama has biases on all four projections of attention or on none; where an InternLM3 has some of them, zeros
    stand for the others."""
    if is_qwen2(config) or config.qkv_bias == config.out_bias:
        return {}
    query, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    widths = {"o": config.hidden} if config.qkv_bias else {"q": query, "k": kv, "v": kv}
    return {
        f"model.layers.{layer}.self_attn.{part}_proj.bias": torch.zeros(width, dtype=dtype)
        for layer in range(config.layers)
        for part, width in widths.items()
    }


def is_qwen2(config: DecoderConfig) -> bool:
    """Qwen2 stays Qwen2; everything else becomes Llama."""
    return config.family == "qwen2"

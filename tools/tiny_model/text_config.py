"""The language model's part of `config.json`, with each family's own keys."""

from typing import Any

from tools.tiny_model.geometry import Geometry

_CLASSES = {"qwen2": "Qwen2ForCausalLM", "internlm2": "InternLM2ForCausalLM", "internlm3": "InternLM3ForCausalLM"}


def original_text_config(g: Geometry) -> dict[str, Any]:
    own: dict[str, Any]
    match g.family:
        case "internlm2":
            scaling = None if g.rope_factor is None else {"type": "dynamic", "factor": g.rope_factor}
            own = {"bias": g.qkv_bias, "rope_scaling": scaling}
        case "internlm3":
            own = {"qkv_bias": g.qkv_bias, "bias": g.out_bias, "head_dim": g.head_dim, "rope_scaling": _scaling(g)}
        case _:
            own = {"use_sliding_window": False, **_qwen2_head_dim(g), "rope_scaling": _scaling(g)}
    return {"architectures": [_CLASSES[g.family]], "model_type": g.family, **_common(g), **own}


def native_text_config(g: Geometry) -> dict[str, Any]:
    """transformers has no InternLM: converted, it is a Llama."""
    if g.family == "qwen2":
        return original_text_config(g)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **_common(g),
        "attention_bias": g.qkv_bias,
        "mlp_bias": g.mlp_bias,
        "head_dim": g.head_dim,
        "rope_scaling": _scaling(g),
    }


def _common(g: Geometry) -> dict[str, Any]:
    return {
        "vocab_size": g.vocab_size,
        "hidden_size": g.hidden,
        "intermediate_size": g.mlp,
        "num_hidden_layers": g.layers,
        "num_attention_heads": g.heads,
        "num_key_value_heads": g.kv_heads,
        "max_position_embeddings": g.context_length,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": g.rope_theta,
        "tie_word_embeddings": g.tied,
        "torch_dtype": "float32",
    }


def _scaling(g: Geometry) -> dict[str, Any] | None:
    return None if g.rope_factor is None else {"factor": g.rope_factor, "rope_type": "dynamic", "type": "dynamic"}


def _qwen2_head_dim(g: Geometry) -> dict[str, Any]:
    """Qwen2's own files say nothing when the width is what hidden size and heads give."""
    return {} if g.head_dim * g.heads == g.hidden else {"head_dim": g.head_dim}

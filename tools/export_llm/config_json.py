"""`config.json` of the language model alone, in the keys that transformers 4 and 5 both read."""

from typing import Any

from tools.export_llm.llama_names import is_qwen2
from worker.engine.config import DecoderConfig

# Kept as the checkpoint has them.
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def llm_config(source: dict[str, Any], decoder: DecoderConfig, dtype: str) -> dict[str, Any]:
    """`source` is the checkpoint's own `llm_config` or `text_config`; `decoder` what was understood of it, with `tied`
    true of the files. `dtype` is torch's word for it."""
    return {
        **(_qwen2() if is_qwen2(decoder) else _llama(decoder)),
        "vocab_size": decoder.vocab_size,
        "hidden_size": decoder.hidden,
        "intermediate_size": decoder.mlp,
        "num_hidden_layers": decoder.layers,
        "num_attention_heads": decoder.heads,
        "num_key_value_heads": decoder.kv_heads,
        **_head_dim(decoder),
        "hidden_act": "silu",
        "rms_norm_eps": decoder.eps,
        "rope_theta": decoder.rope_theta,
        "rope_scaling": _scaling(decoder),
        "max_position_embeddings": decoder.trained_length,
        "tie_word_embeddings": decoder.tied,
        "attention_dropout": 0.0,
        "initializer_range": source.get("initializer_range", 0.02),
        "torch_dtype": dtype,
        "use_cache": True,
        **{key: source[key] for key in _IDS if source.get(key) is not None},
    }


def _qwen2() -> dict[str, Any]:
    return {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "use_sliding_window": False}


def _llama(decoder: DecoderConfig) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": decoder.qkv_bias or decoder.out_bias,
        "mlp_bias": decoder.mlp_bias,
    }


def _head_dim(decoder: DecoderConfig) -> dict[str, int]:
    """Qwen2's own files say nothing where the width is what hidden size and heads give."""
    if is_qwen2(decoder) and decoder.head_dim * decoder.heads == decoder.hidden:
        return {}
    return {"head_dim": decoder.head_dim}


def _scaling(decoder: DecoderConfig) -> dict[str, Any] | None:
    if decoder.rope_factor is None:
        return None
    return {"factor": decoder.rope_factor, "rope_type": "dynamic", "type": "dynamic"}

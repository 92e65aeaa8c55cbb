"""Writes the trained model in the original InternVL layout: bfloat16 weights, configuration, tokenizer."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from tools.demo_model.geometry import Geometry
from tools.demo_model.tokenizer import END_OF_TEXT, IM_END, SPECIALS


def _vision(g: Geometry) -> dict[str, Any]:
    return {
        "architectures": ["InternVisionModel"],
        "model_type": "intern_vit_6b",
        "hidden_size": g.vision_hidden,
        "num_hidden_layers": g.vision_layers,
        "num_attention_heads": g.vision_heads,
        "intermediate_size": g.vision_mlp,
        "image_size": g.tile,
        "patch_size": g.patch,
        "num_channels": 3,
        "hidden_act": "gelu",
        "layer_norm_eps": g.eps,
        "norm_type": "layer_norm",
        "qkv_bias": True,
        "qk_normalization": False,
        "attention_dropout": 0.0,
        "dropout": 0.0,
        "drop_path_rate": 0.0,
        "initializer_factor": 0.5,
        "initializer_range": 0.02,
        "use_flash_attn": False,
        "torch_dtype": "bfloat16",
    }


def _decoder(g: Geometry, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": g.hidden,
        "num_hidden_layers": g.layers,
        "num_attention_heads": g.heads,
        "num_key_value_heads": g.kv_heads,
        "head_dim": g.head_dim,
        "intermediate_size": g.mlp,
        "hidden_act": "silu",
        "rms_norm_eps": g.eps,
        "rope_theta": g.rope_theta,
        "max_position_embeddings": g.context_length,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "bos_token_id": tokenizer.token_to_id(END_OF_TEXT),
        "eos_token_id": tokenizer.token_to_id(IM_END),
        "use_cache": True,
        "torch_dtype": "bfloat16",
    }


def config_of(g: Geometry, tokenizer: Tokenizer) -> dict[str, Any]:
    """`config.json` of an `InternVLChatModel`."""
    return {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "template": "internvl2_5",
        "downsample_ratio": 0.5,
        "ps_version": "v2",
        "select_layer": -1,
        "force_image_size": g.tile,
        "dynamic_image_size": True,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": g.max_tiles,
        "use_thumbnail": True,
        "pad2square": False,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vision_config": _vision(g),
        "llm_config": _decoder(g, tokenizer),
    }


def _tokenizer_config(tokenizer: Tokenizer, g: Geometry) -> dict[str, Any]:
    ids = {token: tokenizer.token_to_id(token) for token in SPECIALS}
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "added_tokens_decoder": {str(number): {"content": token, **flags} for token, number in ids.items()},
        "additional_special_tokens": list(SPECIALS[1:]),
        "bos_token": None,
        "eos_token": IM_END,
        "pad_token": END_OF_TEXT,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": g.context_length,
    }


def export(state: dict[str, Tensor], tokenizer: Tokenizer, g: Geometry, folder: Path) -> None:
    """Fills `folder`; what is there under the same names is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().to("cpu", torch.bfloat16).contiguous() for name, tensor in state.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(folder / "config.json", config_of(g, tokenizer))
    _write(folder / "tokenizer_config.json", _tokenizer_config(tokenizer, g))
    ends = [tokenizer.token_to_id(IM_END), tokenizer.token_to_id(END_OF_TEXT)]
    _write(folder / "generation_config.json", {"do_sample": False, "eos_token_id": ends})


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")

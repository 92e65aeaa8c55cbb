"""Writes a checkpoint folder: `config.json`, safetensors (one file or shards with an index), tokenizer."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from tools.tiny_model.geometry import TINY, Geometry
from tools.tiny_model.internlm2 import to_internlm2
from tools.tiny_model.native import to_native
from tools.tiny_model.text_config import native_text_config, original_text_config
from tools.tiny_model.tokenizer import added_ids, build_tokenizer, write_tokenizer
from tools.tiny_model.weights import Array, make_tensors


class Layout(StrEnum):
    ORIGINAL = "original"
    NATIVE = "native"


def write_checkpoint(
    folder: Path, geometry: Geometry = TINY, layout: Layout = Layout.ORIGINAL, seed: int = 0, shards: int = 1
) -> Path:
    """Writes into `folder` (created if absent) and returns it. Raises ValueError for what the layout cannot say."""
    if layout is Layout.NATIVE and geometry.ps_version != "v2":
        raise ValueError(f"ps_version {geometry.ps_version!r}: the native layout knows v2 alone")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(geometry.vocab_size)
    ids = added_ids(tokenizer)
    end = ids["<|im_end|>"]
    unused = range(tokenizer.get_vocab_size(), geometry.vocab_size)
    silent = [i for i in (*ids.values(), *unused) if i != end]
    tensors = make_tensors(geometry, seed, silent, end)
    if layout is Layout.NATIVE:
        tensors = to_native(tensors)
        config = _native_config(geometry, ids)
        preprocessor = _preprocessor(geometry)
        _write_json(folder / "preprocessor_config.json", preprocessor)
    else:
        if geometry.family == "internlm2":
            tensors = to_internlm2(tensors, geometry)
        config = _original_config(geometry)
    _write_json(folder / "config.json", config)
    _write_json(folder / "generation_config.json", {"eos_token_id": [end, ids["<|endoftext|>"]], "do_sample": False})
    write_tokenizer(tokenizer, folder, geometry.context_length)
    _write_tensors(folder, tensors, shards)
    return folder


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _write_tensors(folder: Path, tensors: dict[str, Array], shards: int) -> None:
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    files: dict[str, str] = {}
    for i in range(shards):
        part = names[i::shards]
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(part, file)
    size = sum(tensor.nbytes for tensor in tensors.values())
    _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": files})


def _original_config(g: Geometry) -> dict[str, Any]:
    return {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "downsample_ratio": g.downsample_ratio,
        "dynamic_image_size": True,
        "force_image_size": g.image_size,
        "llm_config": original_text_config(g),
        "max_dynamic_patch": g.max_tiles,
        "min_dynamic_patch": g.min_tiles,
        "ps_version": g.ps_version,
        "select_layer": g.select_layer,
        "template": "internvl2_5",
        "tie_word_embeddings": g.tied,
        "torch_dtype": "float32",
        "use_thumbnail": g.use_thumbnail,
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            "hidden_act": "gelu",
            "hidden_size": g.vision_hidden,
            "image_size": g.image_size,
            "intermediate_size": g.vision_mlp,
            "layer_norm_eps": 1e-6,
            "norm_type": "rms_norm" if g.vision_rms_norm else "layer_norm",
            "num_attention_heads": g.vision_heads,
            "num_channels": 3,
            "num_hidden_layers": g.vision_layers,
            "patch_size": g.patch_size,
            "qk_normalization": g.vision_qk_norm,
            "qkv_bias": g.vision_qkv_bias,
        },
    }


def _native_config(g: Geometry, ids: dict[str, int]) -> dict[str, Any]:
    return {
        "architectures": ["InternVLForConditionalGeneration"],
        "model_type": "internvl",
        "downsample_ratio": g.downsample_ratio,
        "image_seq_length": g.tokens_per_tile,
        "image_token_id": ids["<IMG_CONTEXT>"],
        "projector_hidden_act": "gelu",
        "text_config": native_text_config(g),
        "tie_word_embeddings": g.tied,
        "torch_dtype": "float32",
        "vision_feature_layer": g.select_layer,
        "vision_feature_select_strategy": "default",
        "vision_config": {
            "architectures": ["InternVLVisionModel"],
            "model_type": "internvl_vision",
            "attention_bias": g.vision_qkv_bias,
            "hidden_act": "gelu",
            "hidden_size": g.vision_hidden,
            "image_size": [g.image_size, g.image_size],
            "intermediate_size": g.vision_mlp,
            "layer_norm_eps": 1e-6,
            "norm_type": "rms_norm" if g.vision_rms_norm else "layer_norm",
            "num_attention_heads": g.vision_heads,
            "num_channels": 3,
            "num_hidden_layers": g.vision_layers,
            "patch_size": [g.patch_size, g.patch_size],
            "use_absolute_position_embeddings": True,
            "use_mask_token": False,
            "use_mean_pooling": True,
            "use_qk_norm": g.vision_qk_norm,
        },
    }


def _preprocessor(g: Geometry) -> dict[str, Any]:
    return {
        "crop_to_patches": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_processor_type": "GotOcr2ImageProcessor",
        "image_std": [0.229, 0.224, 0.225],
        "max_patches": g.max_tiles,
        "min_patches": g.min_tiles,
        "size": {"height": g.image_size, "width": g.image_size},
    }

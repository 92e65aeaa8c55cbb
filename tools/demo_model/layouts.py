"""`python -m tools.demo_model.layouts native models/vlmq-demo var/models/vlmq-demo-hf`: the checkpoint in the other
layout, bit for bit the same weights. `original` goes back. Knows the demo's geometry alone."""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from tools.demo_model.export import config_of
from tools.demo_model.geometry import DEMO, Geometry
from tools.demo_model.model import MEAN, STD
from tools.demo_model.tokenizer import IMG_CONTEXT

# Original and native parts of a tensor's name; a longer part stands before one that it contains.
_NAMES = (
    ("vision_model.embeddings.class_embedding", "vision_tower.embeddings.cls_token"),
    ("vision_model.embeddings.position_embedding", "vision_tower.embeddings.position_embeddings"),
    ("vision_model.embeddings.patch_embedding.", "vision_tower.embeddings.patch_embeddings.projection."),
    ("vision_model.encoder.layers.", "vision_tower.encoder.layer."),
    (".attn.proj.", ".attention.projection_layer."),
    (".attn.", ".attention."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".ls1", ".lambda_1"),
    (".ls2", ".lambda_2"),
    ("mlp1.0.", "multi_modal_projector.layer_norm."),
    ("mlp1.1.", "multi_modal_projector.linear_1."),
    ("mlp1.3.", "multi_modal_projector.linear_2."),
)
_PARTS = ("q_proj", "k_proj", "v_proj")


def native_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """transformers' names; the vision tower's `qkv` in its three parts."""
    native = {}
    for name, tensor in tensors.items():
        for original, other in _NAMES:
            name = name.replace(original, other)
        if ".attention.qkv." in name:
            for part, rows in zip(_PARTS, tensor.chunk(3), strict=True):
                native[name.replace("qkv", part)] = rows.contiguous()
        else:
            native[name] = tensor
    return native


def original_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `native_tensors`."""
    original = {}
    for name, tensor in tensors.items():
        vision = ".attention." in name
        if vision and any(part in name for part in _PARTS[1:]):
            continue
        if vision and _PARTS[0] in name:
            tensor = torch.cat([tensors[name.replace(_PARTS[0], part)] for part in _PARTS])
            name = name.replace(_PARTS[0], "qkv")
        for back, other in _NAMES:
            name = name.replace(other, back)
        original[name] = tensor
    return original


def native_config(g: Geometry, tokenizer: Tokenizer) -> dict[str, Any]:
    """`config.json` of an `InternVLForConditionalGeneration`."""
    original = config_of(g, tokenizer)
    same = ("hidden_act", "hidden_size", "intermediate_size", "layer_norm_eps", "norm_type", "num_channels")
    vision = {key: original["vision_config"][key] for key in (*same, "num_attention_heads", "num_hidden_layers")}
    return {
        "architectures": ["InternVLForConditionalGeneration"],
        "model_type": "internvl",
        "downsample_ratio": original["downsample_ratio"],
        "image_seq_length": g.tokens_per_tile,
        "image_token_id": tokenizer.token_to_id(IMG_CONTEXT),
        "projector_hidden_act": "gelu",
        "text_config": original["llm_config"],
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vision_feature_layer": original["select_layer"],
        "vision_feature_select_strategy": "default",
        "vision_config": vision
        | {
            "architectures": ["InternVLVisionModel"],
            "model_type": "internvl_vision",
            "attention_bias": True,
            "image_size": [g.tile, g.tile],
            "patch_size": [g.patch, g.patch],
            "use_absolute_position_embeddings": True,
            "use_mask_token": False,
            "use_mean_pooling": True,
            "use_qk_norm": False,
        },
    }


def _preprocessor(g: Geometry) -> dict[str, Any]:
    return {
        "image_processor_type": "GotOcr2ImageProcessor",
        "crop_to_patches": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "max_patches": g.max_tiles,
        "min_patches": 1,
        "size": {"height": g.tile, "width": g.tile},
    }


def to_native(source: Path, target: Path) -> None:
    """Writes the folder `source`, in the original layout, into `target` in transformers'."""
    tokenizer = _begin(source, target)
    save_file(native_tensors(load_file(source / "model.safetensors")), target / "model.safetensors", {"format": "pt"})
    _write(target / "config.json", native_config(DEMO, tokenizer))
    _write(target / "preprocessor_config.json", _preprocessor(DEMO))


def to_original(source: Path, target: Path) -> None:
    """Writes the folder `source`, in transformers' layout, into `target` in the original one."""
    tokenizer = _begin(source, target)
    save_file(original_tensors(load_file(source / "model.safetensors")), target / "model.safetensors", {"format": "pt"})
    _write(target / "config.json", config_of(DEMO, tokenizer))


def _begin(source: Path, target: Path) -> Tokenizer:
    target.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(source / name, target / name)
    return Tokenizer.from_file(str(source / "tokenizer.json"))


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("layout", choices=("native", "original"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    (to_native if options.layout == "native" else to_original)(options.source, options.target)


if __name__ == "__main__":
    main()

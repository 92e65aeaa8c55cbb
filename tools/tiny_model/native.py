"""The original layout's tensors under the names of transformers' InternVLForConditionalGeneration."""

import re

import numpy as np

from tools.tiny_model.weights import Array

_NAMES = (
    (r"^vision_model\.embeddings\.class_embedding$", "vision_tower.embeddings.cls_token"),
    (r"^vision_model\.embeddings\.position_embedding$", "vision_tower.embeddings.position_embeddings"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "vision_tower.embeddings.patch_embeddings.projection."),
    (r"^vision_model\.encoder\.layers\.", "vision_tower.encoder.layer."),
    (r"^(vision_tower\..*)\.attn\.proj\.", r"\1.attention.projection_layer."),
    (r"^(vision_tower\..*)\.attn\.", r"\1.attention."),
    (r"^(vision_tower\..*)\.norm1\.", r"\1.layernorm_before."),
    (r"^(vision_tower\..*)\.norm2\.", r"\1.layernorm_after."),
    (r"^(vision_tower\..*)\.ls([12])$", r"\1.lambda_\2"),
    (r"^mlp1\.0\.", "multi_modal_projector.layer_norm."),
    (r"^mlp1\.1\.", "multi_modal_projector.linear_1."),
    (r"^mlp1\.3\.", "multi_modal_projector.linear_2."),
)


def to_native(tensors: dict[str, Array]) -> dict[str, Array]:
    """Renames every tensor and splits the vision tower's `qkv` into its three projections."""
    named = {_rename(name): tensor for name, tensor in tensors.items()}
    native: dict[str, Array] = {}
    for name, tensor in named.items():
        if ".attention.qkv." not in name:
            native[name] = tensor
            continue
        for part, rows in zip("qkv", np.split(tensor, 3), strict=True):
            native[name.replace(".qkv.", f".{part}_proj.")] = np.ascontiguousarray(rows)
    return native


def _rename(name: str) -> str:
    for pattern, target in _NAMES:
        name = re.sub(pattern, target, name)
    return name

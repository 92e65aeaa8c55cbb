"""A built engine as it lies on disk: sizes, and the converted weights in our decoder."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from worker.engine.config import DecoderConfig
from worker.engine.torch.decoder import Decoder

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_HEAD = "lm_head.weight"
_PARTS = {
    "self_attn.q_proj": "qkv",
    "self_attn.k_proj": "qkv",
    "self_attn.v_proj": "qkv",
    "self_attn.o_proj": "out",
    "mlp.gate_proj": "gate_up",
    "mlp.up_proj": "gate_up",
    "mlp.down_proj": "down",
}
_NORMS = {"input_layernorm": "input_norm", "post_attention_layernorm": "mlp_norm"}


class EngineFolder:
    """Raises RuntimeError for an engine of another version."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        config = json.loads((folder / "config.json").read_text())
        if config["version"] != "1.2.1":
            raise RuntimeError(f"engine of version {config['version']} cannot be deserialized by 1.2.1")
        self.build: dict[str, Any] = config["build_config"]
        pretrained = config["pretrained_config"]
        self.vocab_size: int = pretrained["vocab_size"]
        self.dtype = _DTYPES[pretrained["dtype"]]
        self.world_size: int = pretrained["mapping"]["world_size"]
        self.decoder_config = _decoder_config(pretrained["hf_config"])
        self.tokens_per_block: int = (self.build["plugin_config"] or {}).get("tokens_per_block", 32)

    def head_rows(self, rank: int) -> torch.Tensor:
        """A rank's share of the output head; none where the first has it with its table."""
        tensors = load_file(self.folder / f"rank{rank}.engine")
        return tensors.get(_HEAD, torch.zeros(0, self.decoder_config.hidden))

    def load(self) -> Decoder:
        """The first rank's. In float32, whatever the engine's dtype: a GPU's sums are as wide."""
        tensors = load_file(self.folder / "rank0.engine")
        with torch.device("meta"):
            decoder = Decoder(self.decoder_config)
            if decoder.head is not None:
                decoder.head = torch.nn.Linear(self.decoder_config.hidden, len(tensors[_HEAD]), bias=False)
            decoder.requires_grad_(False).eval()
        decoder.to_empty(device="cpu")
        parameters = dict(decoder.named_parameters())
        filled: dict[str, int] = {}
        for name in sorted(tensors, key=_order):
            target = _target(name)
            first = filled.get(target, 0)
            rows = tensors[name].shape[0]
            parameters[target][first : first + rows] = tensors[name]
            filled[target] = first + rows
        assert filled == {name: len(parameter) for name, parameter in parameters.items()}
        return decoder


def _order(name: str) -> tuple[str, int]:
    """Parts of one matrix in the order of its rows: query, key, value; gate, up."""
    places = {part: place for place, part in enumerate(_PARTS)}
    part = ".".join(name.split(".")[3:5])
    return _target(name), places.get(part, 0)


def _target(name: str) -> str:
    words = name.split(".")
    if words[1] != "layers":
        return {"embed_tokens": "table", "norm": "norm", "weight": "head.weight"}[words[1]]
    layer = ".".join(words[1:3])
    if words[3] in _NORMS:
        return f"{layer}.{_NORMS[words[3]]}"
    return f"{layer}.{_PARTS['.'.join(words[3:5])]}.{words[5]}"


def _decoder_config(hf: dict[str, Any]) -> DecoderConfig:
    heads = hf["num_attention_heads"]
    is_qwen2 = hf["model_type"] == "qwen2"
    return DecoderConfig(
        family=hf["model_type"],
        vocab_size=hf["vocab_size"],
        hidden=hf["hidden_size"],
        layers=hf["num_hidden_layers"],
        heads=heads,
        kv_heads=hf["num_key_value_heads"],
        head_dim=hf.get("head_dim") or hf["hidden_size"] // heads,
        mlp=hf["intermediate_size"],
        eps=hf["rms_norm_eps"],
        rope_theta=hf["rope_theta"],
        rope_factor=None,
        trained_length=hf["max_position_embeddings"],
        qkv_bias=is_qwen2 or hf["attention_bias"],
        out_bias=not is_qwen2 and hf["attention_bias"],
        mlp_bias=not is_qwen2 and hf["mlp_bias"],
        tied=hf["tie_word_embeddings"],
    )

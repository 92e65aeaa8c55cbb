"""A model as it is converted: its output head shared out by rows, the norms on every rank, the rest on rank 0."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file

from tensorrt_llm.mapping import Mapping
from tensorrt_llm.quantization.mode import QuantAlgo

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_HEAD = "lm_head.weight"


@dataclass
class QuantConfig:
    quant_algo: QuantAlgo | None = None
    kv_cache_quant_algo: QuantAlgo | None = None


class PretrainedModel:
    architecture: ClassVar[str]

    def __init__(self, config: dict[str, Any], mapping: Mapping, tensors: dict[str, torch.Tensor]) -> None:
        self.config, self.mapping, self.tensors = config, mapping, tensors
        self.built = False

    @classmethod
    def from_hugging_face(
        cls,
        hf_model_or_dir: str,
        dtype: str = "auto",
        mapping: Mapping | None = None,
        quant_config: QuantConfig | None = None,
    ) -> "PretrainedModel":
        folder, mapping = Path(hf_model_or_dir), mapping or Mapping()
        hf = json.loads((folder / "config.json").read_text())
        if hf["architectures"] != [cls.architecture]:
            raise ValueError(f"{cls.__name__} cannot load {hf['architectures']}")
        tensors = {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}
        strange = [name for name in tensors if not name.startswith(("model.", "lm_head."))]
        if strange:
            raise KeyError(f"no parameter for {strange}")
        if mapping.rank:
            tensors = {name: tensor for name, tensor in tensors.items() if "norm" in name or name == _HEAD}
        if _HEAD in tensors:
            tensors[_HEAD] = tensors[_HEAD].tensor_split(mapping.world_size)[mapping.rank].clone()
        config = {
            "architecture": cls.architecture,
            "dtype": dtype,
            "vocab_size": hf["vocab_size"],
            "hidden_size": hf["hidden_size"],
            "mapping": mapping.to_dict(),
            "quantization": {"quant_algo": quant_config.quant_algo if quant_config else None},
            "hf_config": hf,
        }
        return cls(config, mapping, {name: tensor.to(_DTYPES[dtype]) for name, tensor in tensors.items()})

    def save_checkpoint(self, output_dir: str, save_config: bool = True) -> None:
        save_file(self.tensors, Path(output_dir) / f"rank{self.mapping.rank}.safetensors")
        if save_config:
            (Path(output_dir) / "config.json").write_text(json.dumps(self.config))

    @classmethod
    def quantize(
        cls,
        hf_model_dir: str,
        output_dir: str,
        dtype: str = "auto",
        mapping: Mapping | None = None,
        quant_config: QuantConfig | None = None,
        *,
        calib_dataset: str = "cnn_dailymail",
    ) -> None:
        if quant_config is None or quant_config.quant_algo is not QuantAlgo.FP8:
            raise ValueError("modelopt quantizes to FP8 here")
        whole = mapping or Mapping()
        for rank in range(whole.world_size):
            part = Mapping(whole.world_size, rank, whole.tp_size)
            model = cls.from_hugging_face(hf_model_dir, dtype, part, quant_config)
            model.config["calibrated_on"] = calib_dataset
            model.save_checkpoint(output_dir, save_config=rank == 0)

    @classmethod
    def from_checkpoint(
        cls,
        ckpt_dir: str,
        rank: int | None = None,
        config: None = None,
        *,
        preprocess_weights_hook: None = None,
    ) -> "PretrainedModel":
        loaded = json.loads((Path(ckpt_dir) / "config.json").read_text())
        mapping = Mapping(**loaded["mapping"], rank=rank or 0)
        file = Path(ckpt_dir) / f"rank{mapping.rank}.safetensors"
        assert file.is_file()
        return cls(loaded, mapping, load_file(file))

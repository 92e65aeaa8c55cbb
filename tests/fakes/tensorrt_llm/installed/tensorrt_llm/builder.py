"""Engines: of the fake, the converted weights and what they were built with."""

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from tensorrt_llm.models.modeling_utils import PretrainedModel


@dataclass
class BuildConfig:
    max_input_len: int = 1024
    max_seq_len: int | None = None
    opt_batch_size: int = 8
    max_batch_size: int = 2048
    max_beam_width: int = 1
    max_num_tokens: int = 8192
    opt_num_tokens: int | None = None
    max_prompt_embedding_table_size: int = 0
    kv_cache_type: str | None = None
    gather_context_logits: bool = False
    gather_generation_logits: bool = False
    strongly_typed: bool = True
    force_num_profiles: int | None = None
    profiling_verbosity: str = "layer_names_only"
    enable_debug_output: bool = False
    max_draft_len: int = 0
    speculative_decoding_mode: int = 1
    use_refit: bool = False
    input_timing_cache: str | None = None
    output_timing_cache: str = "model.cache"
    lora_config: Any = None
    weight_sparsity: bool = False
    weight_streaming: bool = False
    plugin_config: Any = None
    use_strip_plan: bool = False
    max_encoder_input_len: int = 1024
    dry_run: bool = False
    visualize_network: str | None = None
    monitor_memory: bool = False
    use_mrope: bool = False


class Engine:
    def __init__(self, model: PretrainedModel, build_config: BuildConfig) -> None:
        self._model, self._build_config = model, build_config

    def save(self, engine_dir: str) -> None:
        folder, rank = Path(engine_dir), self._model.mapping.rank
        folder.mkdir(parents=True, exist_ok=True)
        if rank == 0:
            config = {
                "version": "1.2.1",
                "pretrained_config": self._model.config,
                "build_config": asdict(self._build_config),
            }
            (folder / "config.json").write_text(json.dumps(config))
        save_file(self._model.tensors, folder / f"rank{rank}.engine")


def build(model: PretrainedModel, build_config: BuildConfig) -> Engine:
    if model.built:
        raise RuntimeError("building has changed this model; load it again")
    model.built = True
    config = copy.deepcopy(build_config)
    config.kv_cache_type = config.kv_cache_type or "PAGED"
    if config.max_seq_len is None:
        config.max_seq_len = model.config["hf_config"]["max_position_embeddings"]
    return Engine(model, config)

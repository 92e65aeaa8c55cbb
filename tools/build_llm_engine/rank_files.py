"""What TensorRT-LLM does for every rank: convert the exported model, then build the engine. One rank at a time, so that
the machine holds one rank's weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tools.build_llm_engine.package import Package
from tools.build_llm_engine.plan import Plan, Quantization

# QuantAlgo's names.
_ALGORITHMS = {Quantization.INT8: "W8A16", Quantization.INT4: "W4A16", Quantization.FP8: "FP8"}


def convert(
    package: Package, plan: Plan, exported: Path, converted: Path, progress: Callable[[float, str], None]
) -> None:
    """`exported` is what `export_llm` wrote; `converted` gets `rank<n>.safetensors` and `config.json`."""
    converted.mkdir()
    model_class, order = _model_class(package, plan), plan.order
    ranks = order.tensor_parallel
    quant_config = _quant_config(package, order.quantization)
    if order.quantization is Quantization.FP8:
        mapping = package.mapping.Mapping(world_size=ranks, rank=0, tp_size=ranks)
        model_class.quantize(
            str(exported),
            str(converted),
            dtype=order.dtype,
            mapping=mapping,
            quant_config=quant_config,
            calib_dataset=order.calibration,
        )
        progress(1.0, "calibrated")
        return
    for rank in range(ranks):
        mapping = package.mapping.Mapping(world_size=ranks, rank=rank, tp_size=ranks)
        model = model_class.from_hugging_face(
            str(exported), dtype=order.dtype, mapping=mapping, quant_config=quant_config
        )
        model.save_checkpoint(str(converted), save_config=rank == 0)
        del model
        progress((rank + 1) / ranks, f"rank {rank}")


def build(package: Package, plan: Plan, converted: Path, out: Path, progress: Callable[[float, str], None]) -> None:
    """`out` gets `rank<n>.engine` and `config.json`. A model is built from once: building changes it."""
    model_class, ranks = _model_class(package, plan), plan.order.tensor_parallel
    for rank in range(ranks):
        model = model_class.from_checkpoint(str(converted), rank=rank)
        engine = package.builder.build(model, _build_config(package, plan))
        engine.save(str(out))
        del model, engine
        progress((rank + 1) / ranks, f"rank {rank}")


def _model_class(package: Package, plan: Plan) -> Any:
    """`export_llm` makes Llama of everything that is not Qwen2."""
    return package.models.QWenForCausalLM if plan.decoder.family == "qwen2" else package.models.LLaMAForCausalLM


def _quant_config(package: Package, quantization: Quantization) -> Any:
    if quantization is Quantization.NONE:
        return None
    algorithm = getattr(package.quantization.QuantAlgo, _ALGORITHMS[quantization])
    return package.modeling.QuantConfig(quant_algo=algorithm)


def _build_config(package: Package, plan: Plan) -> Any:
    """`kv_cache_type` stays out: a decoder's is paged. Everything else that is left out has TensorRT-LLM's default."""
    return package.builder.BuildConfig(
        max_input_len=plan.max_input_len,
        max_seq_len=plan.max_seq_len,
        max_batch_size=plan.order.max_batch_size,
        max_beam_width=1,
        max_num_tokens=plan.max_num_tokens,
        max_prompt_embedding_table_size=plan.max_prompt_embedding_table_size,
    )

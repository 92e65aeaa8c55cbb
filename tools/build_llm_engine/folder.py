"""From a checkpoint to a finished engine folder: every step in its order, the manifest last."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from tools.build_llm_engine.package import Package
from tools.build_llm_engine.plan import Plan, PlanError, Quantization
from tools.build_llm_engine.rank_files import build, convert
from tools.export_llm import export_llm
from tools.gpu import Gpu
from worker.engine.tensorrt.fingerprint import fingerprint
from worker.engine.tensorrt.manifest import FORMAT, LanguageManifest, write_manifest

Tell = Callable[[str], Callable[[float, str], None]]
# The first GPUs with fp8: Ada.
_FP8 = 89


class EngineError(Exception):
    """TensorRT-LLM has built something else than was ordered."""


def build_folder(checkpoint: Path, out: Path, plan: Plan, package: Package, gpu: Gpu, tell: Tell) -> LanguageManifest:
    """Writes `out`, which must not exist; until all is done its name ends in `.partial`. `tell` gives the progress of
    a step by its name. Raises CheckpointError, ExportError, PlanError, EngineError."""
    if out.exists():
        raise PlanError(f"{out} exists already")
    if plan.order.quantization is Quantization.FP8 and int(gpu.capability.removeprefix("SM")) < _FP8:
        raise PlanError(f"fp8 needs SM{_FP8} or later; {gpu.name} is {gpu.capability}; int8 works")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    work = partial / "work"
    work.mkdir(parents=True)
    exported = export_llm(checkpoint, work / "exported", plan.order.dtype, progress=tell("export"))
    convert(package, plan, exported, work / "converted", tell("convert"))
    build(package, plan, work / "converted", partial, tell("build"))
    shutil.rmtree(work)
    _check(partial / "config.json", plan)
    manifest = _manifest(checkpoint, partial, plan, package, gpu)
    write_manifest(partial, manifest)
    partial.rename(out)
    return manifest


def _check(path: Path, plan: Plan) -> None:
    """The engine's own description must be what the worker will count on."""
    config = json.loads(path.read_text(encoding="utf-8"))
    model, built = config["pretrained_config"], config["build_config"]
    expected = {
        "vocab_size": (model["vocab_size"], plan.decoder.vocab_size),
        "max_batch_size": (built["max_batch_size"], plan.order.max_batch_size),
        "max_seq_len": (built["max_seq_len"], plan.max_seq_len),
        "max_prompt_embedding_table_size": (
            built["max_prompt_embedding_table_size"],
            plan.max_prompt_embedding_table_size,
        ),
    }
    wrong = [f"{name} {found}, ordered {wanted}" for name, (found, wanted) in expected.items() if found != wanted]
    if wrong:
        raise EngineError(f"{path}: the engine has " + "; ".join(wrong))


def _manifest(checkpoint: Path, folder: Path, plan: Plan, package: Package, gpu: Gpu) -> LanguageManifest:
    order = plan.order
    return LanguageManifest(
        format=FORMAT,
        model=checkpoint.resolve().name,
        checkpoint=fingerprint(checkpoint),
        versions=package.versions,
        gpu=gpu.name,
        gpus=(gpu.capability,),
        dtype=order.dtype,
        files={file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.is_file()},
        quantization=str(order.quantization),
        tensor_parallel=order.tensor_parallel,
        vocab_size=plan.decoder.vocab_size,
        hidden=plan.decoder.hidden,
        tiles=order.tiles,
        tokens_per_tile=plan.tokens_per_tile,
        max_batch_size=order.max_batch_size,
        max_input_len=plan.max_input_len,
        max_seq_len=plan.max_seq_len,
        max_num_tokens=plan.max_num_tokens,
        max_prompt_embedding_table_size=plan.max_prompt_embedding_table_size,
    )

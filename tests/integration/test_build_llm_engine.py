"""Engines built through a TensorRT-LLM that takes exactly what is written down of 1.2.1."""

import inspect
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.fakes.tensorrt_llm import INSTALLED
from tools.build_llm_engine.folder import EngineError, build_folder
from tools.build_llm_engine.package import PackageError, find_package
from tools.build_llm_engine.plan import Order, PlanError, Quantization, make_plan
from tools.gpu import Gpu
from tools.tiny_model import Layout, scaled, write_checkpoint
from worker.engine.config import load_config
from worker.engine.tensorrt.fingerprint import fingerprint
from worker.engine.tensorrt.manifest import LanguageManifest, Surroundings, check_manifest, read_manifest
from worker.engine.tensorrt.recorded_api import BUILDING
from worker.engine.tensorrt.signatures import differences, resolve

pytestmark = pytest.mark.integration

_GPU = Gpu("NVIDIA L40S", "SM89")
# 4 visual tokens per tile and a trained length of 256.
_ORDER = Order(max_batch_size=4, tiles=6, max_input_len=100, max_seq_len=200)


def _build(checkpoint: Path, out: Path, order: Order, gpu: Gpu = _GPU) -> LanguageManifest:
    plan = make_plan(load_config(checkpoint), order)
    told: dict[str, list[float]] = {}
    manifest = build_folder(
        checkpoint, out, plan, find_package(), gpu, lambda step: lambda done, _: told.setdefault(step, []).append(done)
    )
    assert list(told) == ["export", "convert", "build"]
    assert all(step == sorted(step) and step[-1] == 1.0 for step in told.values())
    return manifest


@pytest.mark.usefixtures("tensorrt_llm")
@pytest.mark.parametrize("model", ["InternVL3-1B", "InternVL2_5-2B", "InternVL3-9B"])
@pytest.mark.parametrize("layout", list(Layout))
def test_engine_of_every_family_and_layout_is_built_with_the_ordered_sizes(
    model: str, layout: Layout, tmp_path: Path
) -> None:
    checkpoint = write_checkpoint(tmp_path / model, scaled(model), layout)
    manifest = _build(checkpoint, tmp_path / "engine", _ORDER)
    config = json.loads((tmp_path / "engine" / "config.json").read_text())
    built = config["build_config"]
    assert built["max_prompt_embedding_table_size"] == 4 * 6 * 4 == manifest.max_prompt_embedding_table_size
    assert (built["max_batch_size"], built["max_input_len"], built["max_seq_len"]) == (4, 100, 200)
    assert (built["max_beam_width"], built["max_num_tokens"], built["kv_cache_type"]) == (1, 8192, "PAGED")
    names = {"InternVL3-1B": "Qwen2ForCausalLM"}
    assert config["pretrained_config"]["architecture"] == names.get(model, "LlamaForCausalLM")
    tensors = load_file(tmp_path / "engine" / "rank0.engine")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert manifest.vocab_size == scaled(model).vocab_size


@pytest.mark.usefixtures("tensorrt_llm")
def test_manifest_names_everything_that_a_worker_checks(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "engine"
    built = _build(tiny_model, out, replace(_ORDER, max_seq_len=300))
    manifest = read_manifest(out, LanguageManifest)
    assert manifest == built
    assert manifest.checkpoint == fingerprint(tiny_model)
    assert manifest.versions["tensorrt_llm"] == "1.2.1"
    assert (manifest.gpu, manifest.gpus) == ("NVIDIA L40S", ("SM89",))
    assert set(manifest.files) == {"rank0.engine", "config.json"}
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "rank0.engine", "vlmq.json"]
    check_manifest(manifest, Surroundings(manifest.checkpoint, manifest.versions, "SM89", gpus=1))


@pytest.mark.usefixtures("tensorrt_llm")
def test_tensor_parallel_engine_has_a_file_for_every_rank(tiny_model: Path, tmp_path: Path) -> None:
    manifest = _build(tiny_model, tmp_path / "engine", replace(_ORDER, tensor_parallel=2, max_seq_len=300))
    assert {"rank0.engine", "rank1.engine"} < set(manifest.files)
    mapping = json.loads((tmp_path / "engine" / "config.json").read_text())["pretrained_config"]["mapping"]
    assert (mapping["world_size"], mapping["tp_size"]) == (2, 2)


@pytest.mark.usefixtures("tensorrt_llm")
@pytest.mark.parametrize(
    ("quantization", "algorithm"),
    [(Quantization.NONE, None), (Quantization.INT8, "W8A16"), (Quantization.INT4, "W4A16"), (Quantization.FP8, "FP8")],
)
def test_quantization_reaches_tensorrt_llm_by_its_own_name(
    quantization: Quantization, algorithm: str | None, tiny_model: Path, tmp_path: Path
) -> None:
    texts = "texts" if quantization is Quantization.FP8 else None
    order = replace(_ORDER, max_seq_len=300, quantization=quantization, calibration=texts, tensor_parallel=2)
    manifest = _build(tiny_model, tmp_path / "engine", order)
    config = json.loads((tmp_path / "engine" / "config.json").read_text())["pretrained_config"]
    assert config["quantization"]["quant_algo"] == algorithm
    assert config.get("calibrated_on") == texts
    assert manifest.quantization == quantization and len(manifest.files) == 3


@pytest.mark.usefixtures("tensorrt_llm")
def test_fp8_on_a_gpu_without_it_is_refused_by_name(tiny_model: Path, tmp_path: Path) -> None:
    order = replace(_ORDER, max_seq_len=300, quantization=Quantization.FP8, calibration="texts")
    with pytest.raises(PlanError, match="fp8 needs SM89 or later; NVIDIA A100 is SM80; int8 works"):
        _build(tiny_model, tmp_path / "engine", order, Gpu("NVIDIA A100", "SM80"))


@pytest.mark.usefixtures("tensorrt_llm")
def test_folder_that_exists_is_left_alone(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="exists already"):
        _build(tiny_model, tmp_path, replace(_ORDER, max_seq_len=300))


@pytest.mark.usefixtures("tensorrt_llm")
def test_engine_that_is_not_what_was_ordered_leaves_no_finished_folder(tiny_model: Path, tmp_path: Path) -> None:
    package = find_package()
    package = replace(package, builder=_Forgetful(package.builder))
    plan = make_plan(load_config(tiny_model), replace(_ORDER, max_seq_len=300))
    with pytest.raises(EngineError, match="max_prompt_embedding_table_size 0, ordered"):
        build_folder(tiny_model, tmp_path / "engine", plan, package, _GPU, lambda _: lambda *_: None)
    assert not (tmp_path / "engine").exists()


class _Forgetful:
    """A builder that drops the prompt table."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder
        self.build = builder.build

    def BuildConfig(self, **sizes: int) -> Any:
        return self._builder.BuildConfig(**sizes | {"max_prompt_embedding_table_size": 0})


@pytest.mark.usefixtures("tensorrt_llm")
def test_fake_takes_exactly_what_is_written_down() -> None:
    assert differences(BUILDING) == []
    for path, parameters in BUILDING.items():
        found = _signature(path)
        written = [f"{name}{'' if each.default is each.empty else '='}" for name, each in found.items()]
        assert written == parameters.split(), path


def _signature(path: str) -> dict[str, inspect.Parameter]:
    found = inspect.signature(resolve(path)).parameters
    return {name: each for name, each in found.items() if name not in ("self", "cls")}


@pytest.mark.usefixtures("tensorrt_llm")
def test_installed_api_that_differs_is_refused_with_a_list() -> None:
    known = {"tensorrt_llm.builder.build": "model build_config"}
    assert differences({"tensorrt_llm.builder.build": "model build_config cache="}) == [
        "tensorrt_llm.builder.build takes no cache"
    ]
    assert differences({"tensorrt_llm.builder.build": "model"}) == ["tensorrt_llm.builder.build wants build_config"]
    assert differences({"tensorrt_llm.builder.compile": "model"})[0].startswith(
        "tensorrt_llm.builder.compile is absent"
    )
    assert differences(known) == []


@pytest.mark.usefixtures("tensorrt_llm")
def test_another_version_of_tensorrt_llm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorrt_llm

    monkeypatch.setattr(tensorrt_llm, "__version__", "1.3.0")
    with pytest.raises(PackageError, match=r"tensorrt_llm is 1.3.0; engines are built with 1.2.1"):
        find_package()


def _command(*words: object, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.build_llm_engine", *map(str, words)]
    env = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    return subprocess.run(command, capture_output=True, text=True, timeout=90, env=env)


def test_dry_run_needs_the_config_alone(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "whole", scaled("InternVL3-8B"))
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "config.json").write_bytes((tmp_path / "whole" / "config.json").read_bytes())
    done = _command(tmp_path / "alone", tmp_path / "out", "--dry-run", "--tiles", 4, "--max-batch-size", 8)
    assert done.returncode == 0, done.stderr
    assert "128 rows = 8 requests × 4 tiles × 4 tokens" in done.stdout
    assert "cache on GPUs of 24 GiB" in done.stdout
    assert "dry run: nothing was built" in done.stdout and not (tmp_path / "out").exists()


def test_command_without_tensorrt_llm_or_gpu_says_so(tiny_model: Path, tmp_path: Path) -> None:
    absent = _command(tiny_model, tmp_path / "out", "--max-seq-len", 3000)
    assert absent.returncode == 1
    assert "cannot import tensorrt_llm" in absent.stderr and "--dry-run needs neither" in absent.stderr
    bad = _command(tiny_model, tmp_path / "out", "--tiles", 0)
    assert bad.returncode == 1 and bad.stderr == "build_llm_engine: tiles is 0, at least 1 is needed\n"
    if not torch.cuda.is_available():
        without = _command(tiny_model, tmp_path / "out", "--max-seq-len", 3000, path=INSTALLED)
        assert without.returncode == 1 and "there is no NVIDIA GPU here" in without.stderr

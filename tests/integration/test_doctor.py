"""`vlmq doctor` says what a checkpoint is and needs, and finds what is wrong with it, each by name."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file, save_file

from cli import doctor, machine
from cli.errors import CommandError
from jobs.settings import CONF
from tools.tiny_model import MODELS, Geometry, Layout, write_checkpoint
from worker.engine.checkpoint import inspect
from worker.engine.memory import Load, memory_of, parameter_count
from worker.engine.torch.internvl import InternVL
from worker.engine.torch.quantization import Quantization
from worker.settings import ModelSettings

pytestmark = pytest.mark.integration

_LOAD = Load("float32", False, slots=4, cache_tokens=64, prefill_chunk=8, tiles_per_step=1, embedding_bytes=0)


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def _problems(folder: Path, capsys: pytest.CaptureFixture[str], model: str = "vlmq-tiny") -> str:
    """What is printed of a checkpoint that cannot be served."""
    with pytest.raises(CommandError, match="cannot be served here"):
        doctor.run(model, str(folder))
    return capsys.readouterr().out


def test_doctor_of_a_whole_checkpoint_says_what_it_is_and_ends_with_zero(tiny_model: Path) -> None:
    command = [sys.executable, "-m", "cli.main", "doctor", "vlmq-tiny", "--path", str(tiny_model)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    for words in ("Qwen2.5, 3 layers of 128, 4/2 heads", "16 tokens per tile", "<img>", "per 1,000", "main memory"):
        assert words in told.stdout


def test_doctor_of_an_absent_checkpoint_ends_with_one_and_names_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cli.main", "doctor", "InternVL3-8B", "--path", str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert told.returncode == 1
    assert f"{tmp_path / 'config.json'}: no such file" in told.stdout
    assert "2 problems" in told.stderr


def test_doctor_names_missing_tensors_without_loading_any(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = load_file(copy / "model.safetensors")
    del tensors["mlp1.1.bias"]
    save_file(tensors, copy / "model.safetensors")
    assert "missing tensors: mlp1.1.bias" in _problems(copy, capsys)


def test_doctor_names_a_misshapen_tensor(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = load_file(copy / "model.safetensors")
    tensors["mlp1.3.weight"] = tensors["mlp1.3.weight"][:5].copy()
    save_file(tensors, copy / "model.safetensors")
    assert "mlp1.3.weight has shape [5, 128], expected [128, 128]" in _problems(copy, capsys)


def test_doctor_finds_an_unfinished_download(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    assert "an unfinished download?" in _problems(copy, capsys)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>", b"\x02\0\0\0\0\0\0\0[]"])
def test_doctor_finds_a_file_that_is_no_safetensors(
    copy: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (copy / "model.safetensors").write_bytes(content)
    assert "model.safetensors: " in _problems(copy, capsys)


def test_doctor_names_the_command_for_an_older_tokenizer(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "tokenizer.json").unlink()
    (copy / "vocab.json").write_text("{}")
    assert "python -m tools.tokenizer_json" in _problems(copy, capsys)


def test_doctor_names_a_special_token_that_the_tokenizer_lacks(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    definition = json.loads((copy / "tokenizer.json").read_text())
    definition["added_tokens"] = [each for each in definition["added_tokens"] if each["content"] != "</img>"]
    (copy / "tokenizer.json").write_text(json.dumps(definition))
    assert "no token '</img>'" in _problems(copy, capsys)


def test_doctor_says_that_a_machine_without_a_gpu_cannot_serve_on_one(
    tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if machine.gpus():
        pytest.skip("this machine has a GPU")
    assert "device = 'cuda', but nvidia-smi finds no GPU" in _problems(tiny_model, capsys, "InternVL3-8B")


@pytest.mark.parametrize("quantization", [Quantization.NONE, Quantization.INT8])
@pytest.mark.parametrize("family", ["qwen2", "internlm2", "internlm3"])
def test_memory_of_weights_is_what_loading_takes(tmp_path: Path, family: str, quantization: Quantization) -> None:
    geometry = Geometry(family=family, layers=2, hidden=256, head_dim=64, mlp=512, vocab_size=512)
    geometry = replace(geometry, out_bias=family == "internlm2")
    folder = write_checkpoint(tmp_path, geometry)
    model = InternVL.load(folder, torch.device("cpu"), torch.float32, quantization=quantization)
    load = Load("float32", quantization is not Quantization.NONE, 4, 64, 8, 1, 0)
    memory = memory_of(inspect(folder).config, load)
    assert memory.weights == pytest.approx(model.weight_bytes(), rel=0.001)
    assert memory.cache_per_token * 16 == model.cache_bytes_per_page(16)


def test_inspected_checkpoints_of_both_layouts_are_one_model(tiny_model: Path, tiny_model_native: Path) -> None:
    one, other = inspect(tiny_model), inspect(tiny_model_native)
    assert one.parameters == other.parameters == parameter_count(one.config)
    assert memory_of(one.config, _LOAD) == memory_of(other.config, _LOAD)


def test_inspected_tied_checkpoint_has_no_head(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, Geometry(tied=True, layers=1), Layout.NATIVE)
    assert inspect(folder).config.decoder.tied


def test_gpus_are_read_from_the_drivers_tool() -> None:
    listed = "NVIDIA H200, 143771, 143000, 9.0\nTesla T4, 15360, 15000, 7.5\nBroken, [N/A], 1, 9.0\n"
    found = machine.parse_gpus(listed)
    assert [(gpu.name, gpu.total >> 20, gpu.has_fp8) for gpu in found] == [
        ("NVIDIA H200", 143771, True),
        ("Tesla T4", 15360, False),
    ]


@pytest.mark.parametrize("file", sorted((CONF / "models").glob("InternVL*.toml")), ids=lambda file: file.stem)
def test_every_preset_is_for_a_gpu_in_bfloat16(file: Path) -> None:
    settings = ModelSettings.load(file.stem)
    assert (settings.device, settings.dtype, settings.path.name) == ("cuda", "bfloat16", file.stem)


def test_every_published_model_has_a_preset_and_is_listed() -> None:
    command = [sys.executable, "-m", "cli.main", "models"]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.split()
    assert {*MODELS, "vlmq-demo", "vlmq-tiny"} <= set(listed)

"""The exported language model is what transformers loads by itself, and computes what the whole checkpoint does."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.fixtures.internlm import InternLM
from tests.fixtures.paged import PagedModel
from tools.export_llm import ExportError, export_llm
from tools.tiny_model import TINY, Geometry, Layout, scaled, write_checkpoint
from worker.engine.config import CheckpointError
from worker.engine.torch.internvl import InternVL

pytestmark = pytest.mark.integration

# One of every family and flag: biases, dynamic RoPE, a width of heads of its own, a tied head.
_QWEN2 = scaled("InternVL3-1B")
_INTERNLM2 = scaled("InternVL2_5-2B")
_INTERNLM3 = scaled("InternVL3-9B")
GEOMETRIES = {
    "qwen2": _QWEN2,
    "qwen2 tied": replace(_QWEN2, tied=True),
    "qwen2 wide heads": TINY,
    "internlm2": _INTERNLM2,
    "internlm2 with biases": replace(_INTERNLM2, qkv_bias=True, out_bias=True),
    "internlm3": _INTERNLM3,
    "internlm3 with biases": replace(_INTERNLM3, qkv_bias=True, out_bias=True),
    "internlm3 with query biases": replace(_INTERNLM3, qkv_bias=True),
    "internlm3 with other biases": replace(_INTERNLM3, out_bias=True),
}
# In the native layout InternLM is a Llama, whose attention has all biases or none.
NATIVE = ("qwen2", "qwen2 tied", "internlm2", "internlm2 with biases", "internlm3")
_IDS = [7, 301, 12, 455, 99, 512, 77, 3, 600, 45]


def _logits(folder: Path, ids: list[int]) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([ids])).logits[0]
    return logits


def _engine_logits(checkpoint: Path, ids: list[int]) -> torch.Tensor:
    paged = PagedModel(InternVL.load(checkpoint, torch.device("cpu"), torch.float32))
    return paged.whole(paged.sequence(ids))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_exported_model_has_the_logits_of_the_original_checkpoint(name: str, tmp_path: Path) -> None:
    geometry = GEOMETRIES[name]
    checkpoint = write_checkpoint(tmp_path / "whole", geometry)
    exported = _logits(export_llm(checkpoint, tmp_path / "llm"), _IDS)
    assert (exported - _engine_logits(checkpoint, _IDS)).abs().max().item() <= 1e-3
    if geometry.family != "qwen2" and not geometry.tied:
        assert (exported - InternLM(checkpoint).logits(_IDS)).abs().max().item() <= 1e-3


@pytest.mark.parametrize("name", NATIVE)
def test_exported_model_has_the_logits_of_the_native_checkpoint(name: str, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "whole", GEOMETRIES[name], Layout.NATIVE)
    exported = _logits(export_llm(checkpoint, tmp_path / "llm"), _IDS)
    assert (exported - _engine_logits(checkpoint, _IDS)).abs().max().item() <= 1e-3


@pytest.mark.parametrize("geometry", [_QWEN2, _INTERNLM3], ids=["qwen2", "internlm3"])
def test_exported_model_beyond_the_trained_length_has_the_same_logits(geometry: Geometry, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "whole", geometry)
    ids = [(17 * n) % 700 for n in range(geometry.context_length + 40)]
    exported = _logits(export_llm(checkpoint, tmp_path / "llm"), ids)
    assert (exported - _engine_logits(checkpoint, ids)).abs().max().item() <= 1e-3


def test_both_layouts_export_the_same_tensors(tiny_model: Path, tiny_model_native: Path, tmp_path: Path) -> None:
    folders = [export_llm(tiny_model, tmp_path / "one"), export_llm(tiny_model_native, tmp_path / "two")]
    one, two = (load_file(folder / "model.safetensors") for folder in folders)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not [name for name in one if name.startswith(("language_model.", "vision_model.", "mlp1."))]


def test_shards_hold_each_tensor_once_and_none_is_too_large(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "whole", TINY, shards=3)
    whole = load_file(export_llm(checkpoint, tmp_path / "one") / "model.safetensors")
    largest = max(tensor.nbytes for tensor in whole.values())
    told: list[float] = []
    out = export_llm(checkpoint, tmp_path / "many", shard_bytes=largest, progress=lambda done, _: told.append(done))
    index = json.loads((out / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 2 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
    shards = {file: load_file(out / file) for file in files}
    assert all(sum(tensor.nbytes for tensor in shard.values()) <= largest for shard in shards.values())
    assert sorted(name for shard in shards.values() for name in shard) == sorted(whole)
    assert torch.equal(_logits(out, _IDS), _logits(tmp_path / "one", _IDS))
    assert told == sorted(told) and told[-1] == 1.0


def test_exported_tokenizer_keeps_vocabulary_and_special_ids(tiny_model: Path, tmp_path: Path) -> None:
    out = export_llm(tiny_model, tmp_path / "llm")
    ours, theirs = Tokenizer.from_file(str(tiny_model / "tokenizer.json")), AutoTokenizer.from_pretrained(out)
    text = "<|im_start|>user\n<img><IMG_CONTEXT></img>What is this? 图片<|im_end|>"
    assert theirs(text, add_special_tokens=False)["input_ids"] == ours.encode(text, add_special_tokens=False).ids
    assert theirs.convert_tokens_to_ids("<IMG_CONTEXT>") == ours.token_to_id("<IMG_CONTEXT>")
    assert theirs.eos_token == "<|im_end|>"
    ends = json.loads((out / "generation_config.json").read_text())["eos_token_id"]
    assert ends == [ours.token_to_id("<|im_end|>"), ours.token_to_id("<|endoftext|>")]


def test_tokenizer_of_the_checkpoints_own_code_becomes_the_plain_one(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "whole", _INTERNLM2)
    path = checkpoint / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"tokenizer_class": "InternLM2Tokenizer"}
    path.write_text(json.dumps(config | {"auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer"]}}))
    (checkpoint / "tokenization_internlm2.py").write_text("raise RuntimeError('this code must never run')\n")
    out = export_llm(checkpoint, tmp_path / "llm")
    assert not list(out.glob("*.py"))
    ours, theirs = Tokenizer.from_file(str(checkpoint / "tokenizer.json")), AutoTokenizer.from_pretrained(out)
    assert theirs("<|im_start|>two cats")["input_ids"] == ours.encode("<|im_start|>two cats").ids


def test_dtype_is_converted_when_asked(tiny_model: Path, tmp_path: Path) -> None:
    out = export_llm(tiny_model, tmp_path / "llm", "bfloat16")
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_mixed_dtypes_are_refused_until_one_is_named(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "whole", _QWEN2)
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["language_model.model.norm.weight"] = tensors["language_model.model.norm.weight"].bfloat16()
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(ExportError, match=r"stored as BF16, F32; name one: --dtype"):
        export_llm(checkpoint, tmp_path / "llm")
    assert export_llm(checkpoint, tmp_path / "llm", "float32").exists()


def test_folder_that_exists_is_left_alone(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "llm").mkdir()
    with pytest.raises(ExportError, match="llm exists already"):
        export_llm(tiny_model, tmp_path / "llm")


def test_broken_checkpoint_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "whole", _QWEN2)
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer.json; python -m tools.tokenizer_json"):
        export_llm(checkpoint, tmp_path / "llm")
    assert not (tmp_path / "llm").exists()


def test_command_writes_the_folder_and_says_what_is_wrong(tiny_model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.export_llm"]
    done = subprocess.run(
        [*command, str(tiny_model), str(tmp_path / "llm")], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0 and "wrote" in done.stdout and "export 100 %" in done.stderr
    bad = subprocess.run([*command, str(tmp_path), str(tmp_path / "no")], capture_output=True, text=True, timeout=90)
    assert bad.returncode == 1 and bad.stderr.startswith("export_llm: ") and "config.json" in bad.stderr

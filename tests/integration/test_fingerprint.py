"""A checkpoint's fingerprint tells other weights, not other shards."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tools.tiny_model import TINY, write_checkpoint
from worker.engine.checkpoint_files import tensor_offsets
from worker.engine.config import CheckpointError
from worker.engine.tensorrt.fingerprint import fingerprint

pytestmark = pytest.mark.integration


def test_fingerprint_is_the_same_for_the_same_weights_in_other_shards(tiny_model: Path, tmp_path: Path) -> None:
    again = fingerprint(write_checkpoint(tmp_path / "again"))
    sharded = fingerprint(write_checkpoint(tmp_path / "sharded", TINY, shards=3))
    assert fingerprint(tiny_model) == again == sharded
    assert again.startswith("sha256:") and len(again) == 71


def test_fingerprint_differs_for_another_seed_one_changed_tensor_and_another_config(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "one")
    seen = {fingerprint(folder), fingerprint(write_checkpoint(tmp_path / "two", seed=1))}
    tensors = load_file(folder / "model.safetensors")
    tensors["language_model.model.layers.1.mlp.up_proj.weight"] *= 1.01
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    seen.add(fingerprint(folder))
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    seen.add(fingerprint(folder))
    assert len(seen) == 4


def test_offsets_are_where_the_tensors_bytes_are(tiny_model: Path) -> None:
    file = tiny_model / "model.safetensors"
    content, offsets = file.read_bytes(), tensor_offsets(file)
    for name, tensor in load_file(file).items():
        start, end = offsets[name]
        assert content[start:end] == tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def test_fingerprint_of_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config.json"):
        fingerprint(tmp_path)

"""A checkpoint's tensors are all used, and refused by name when one is missing, unexpected or misshapen."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from tests.fixtures.models import Reference
from tests.fixtures.paged import PagedModel
from tools.tiny_model import Geometry, Layout, write_checkpoint
from tools.tiny_model.weights import Array
from worker.engine.config import CheckpointError
from worker.engine.torch.internvl import InternVL

pytestmark = pytest.mark.integration

_SMALL = Geometry(layers=1, vision_layers=1)
_IDS = list(range(300, 330))


def _load(folder: Path) -> InternVL:
    return InternVL.load(folder, torch.device("cpu"), torch.float32)


def _logits(folder: Path) -> torch.Tensor:
    paged = PagedModel(_load(folder), pages=8)
    return paged.whole(paged.sequence(_IDS))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("small"), _SMALL)


def _with_tensors(source: Path, folder: Path, tensors: dict[str, Array]) -> Path:
    shutil.copytree(source, folder, dirs_exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_weights_missing_tensors_are_named(small: Path, tmp_path: Path) -> None:
    tensors = load_file(small / "model.safetensors")
    del tensors["mlp1.1.bias"], tensors["language_model.model.layers.0.self_attn.k_proj.bias"]
    with pytest.raises(CheckpointError, match=r"missing tensors: .*layers\.0\.self_attn\.k_proj\.bias, mlp1\.1\.bias$"):
        _load(_with_tensors(small, tmp_path, tensors))


def test_weights_unexpected_tensors_are_named(small: Path, tmp_path: Path) -> None:
    tensors = load_file(small / "model.safetensors")
    tensors["vision_model.encoder.layers.7.ls1"] = np.zeros(64, np.float32)
    with pytest.raises(CheckpointError, match=r"unexpected tensors: vision_model\.encoder\.layers\.7\.ls1$"):
        _load(_with_tensors(small, tmp_path, tensors))


def test_weights_of_the_other_layout_are_refused(small: Path, tmp_path: Path) -> None:
    native = write_checkpoint(tmp_path / "native", _SMALL, Layout.NATIVE)
    with pytest.raises(CheckpointError, match=r"missing tensors: .* and \d+ more"):
        _load(_with_tensors(small, tmp_path / "mixed", load_file(native / "model.safetensors")))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("mlp1.3.weight", (128, 64), r"mlp1.3.weight has shape \[128, 64\], expected \[128, 128\]"),
        ("language_model.model.layers.0.self_attn.v_proj.weight", (128, 128), r"expected \[64, 128\]"),
        ("vision_model.embeddings.position_embedding", (1, 257, 64), r"expected \[1, 65, 64\]"),
    ],
)
def test_weights_misshapen_tensor_is_named_with_both_shapes(
    small: Path, tmp_path: Path, name: str, shape: tuple[int, ...], message: str
) -> None:
    tensors = load_file(small / "model.safetensors")
    tensors[name] = np.zeros(shape, np.float32)
    with pytest.raises(CheckpointError, match=message):
        _load(_with_tensors(small, tmp_path, tensors))


def test_weights_quantised_tensor_is_refused(small: Path, tmp_path: Path) -> None:
    tensors = load_file(small / "model.safetensors")
    whole = np.zeros((128, 128), np.int8)
    with pytest.raises(CheckpointError, match=r"mlp1.3.weight is torch.int8, expected floating point"):
        _load(_with_tensors(small, tmp_path, tensors | {"mlp1.3.weight": whole}))  # type: ignore[dict-item]


def test_weights_in_shards_equal_those_in_one_file(small: Path, tmp_path: Path) -> None:
    sharded = write_checkpoint(tmp_path, _SMALL, shards=3)
    assert len(list(sharded.glob("model-*.safetensors"))) == 3
    assert torch.equal(_logits(sharded), _logits(small))


def test_weights_index_that_names_an_absent_shard_is_refused(tmp_path: Path) -> None:
    sharded = write_checkpoint(tmp_path, _SMALL, shards=2)
    (sharded / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"names 'model-00002-of-00002.safetensors', which is not in the folder"):
        _load(sharded)


def test_weights_index_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    sharded = write_checkpoint(tmp_path / "in", _SMALL, shards=2)
    index = sharded / "model.safetensors.index.json"
    shutil.move(sharded / "model-00002-of-00002.safetensors", tmp_path / "out.safetensors")
    changed = json.loads(index.read_text().replace("model-00002-of-00002", "../out"))
    index.write_text(json.dumps(changed))
    with pytest.raises(CheckpointError, match="not in the folder"):
        _load(sharded)


@pytest.mark.parametrize("content", ["{", "{}", '{"weight_map": []}', '{"weight_map": {"a": 3}}'])
def test_weights_index_without_a_usable_map_is_refused(small: Path, tmp_path: Path, content: str) -> None:
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match="no usable weight_map"):
        _load(tmp_path)


def test_weights_truncated_file_is_refused_by_name(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: "):
        _load(tmp_path)


def test_weights_absent_altogether_are_refused(small: Path, tmp_path: Path) -> None:
    shutil.copy(small / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors nor"):
        _load(tmp_path)


_MEASURE = """
import sys, torch
from pathlib import Path
from worker.engine.torch.internvl import InternVL
torch.set_num_threads(1)
status = Path("/proc/self/status").read_text
load = lambda folder: InternVL.load(Path(folder), torch.device("cpu"), torch.float32)
load(sys.argv[1])  # what the libraries take once
before = int(status().split("VmRSS:")[1].split()[0])
Path("/proc/self/clear_refs").write_text("5")
model = load(sys.argv[2])
peak = int(status().split("VmHWM:")[1].split()[0])
print((peak - before) * 1024 - model.weight_bytes())
"""


def test_weights_are_loaded_with_little_more_than_a_shard_beside_them(tiny_model: Path, tmp_path: Path) -> None:
    geometry = Geometry(hidden=768, head_dim=192, mlp=3072, layers=5, vocab_size=512, vision_layers=1)
    folder = write_checkpoint(tmp_path, geometry, shards=4)
    largest = max(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert largest > 40 << 20
    measured = subprocess.run(
        [sys.executable, "-c", _MEASURE, tiny_model, folder], capture_output=True, text=True, check=True, timeout=120
    )
    print(f"{int(measured.stdout) / largest:.2f} of the largest shard")
    assert int(measured.stdout) <= 1.2 * largest


def test_weights_progress_rises_to_one(small: Path) -> None:
    seen: list[float] = []
    InternVL.load(small, torch.device("cpu"), torch.float32, lambda done, what: seen.append(done))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_weights_stored_head_counts_although_the_config_says_tied(small: Path, tmp_path: Path) -> None:
    shutil.copytree(small, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["llm_config"]["tie_word_embeddings"] = True
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert torch.equal(_logits(tmp_path), _logits(small))


def test_weights_saved_by_transformers_itself_load(tmp_path: Path) -> None:
    native = write_checkpoint(tmp_path / "native", _SMALL, Layout.NATIVE)
    Reference(native).model.save_pretrained(tmp_path / "saved")
    assert torch.equal(_logits(tmp_path / "saved"), _logits(native))


def test_config_is_read_without_torch() -> None:
    code = "import sys, worker.engine.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0

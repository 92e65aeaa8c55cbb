"""The manifest beside an engine: read back as written, and every difference refused by name."""

from pathlib import Path

import msgspec
import pytest

from worker.engine.tensorrt.manifest import (
    FORMAT,
    LanguageManifest,
    ManifestError,
    Surroundings,
    VisionManifest,
    check_manifest,
    read_manifest,
    write_manifest,
)

pytestmark = pytest.mark.unit

VISION = VisionManifest(
    format=FORMAT,
    model="InternVL3-8B",
    checkpoint="sha256:aa",
    versions={"tensorrt": "10.14.1"},
    gpu="NVIDIA L40S",
    gpus=("SM89",),
    dtype="bfloat16",
    files={"vision.engine": 3},
    library="tensorrt",
    profiles=((1, 4, 4), (1, 32, 32)),
    tile_size=448,
    tokens_per_tile=256,
    hidden=3584,
)
LANGUAGE = LanguageManifest(
    format=FORMAT,
    model="InternVL3-8B",
    checkpoint="sha256:aa",
    versions={"tensorrt_llm": "1.2.1"},
    gpu="NVIDIA H100",
    gpus=("SM90",),
    dtype="bfloat16",
    files={"rank0.engine": 3, "rank1.engine": 3},
    quantization="none",
    tensor_parallel=2,
    vocab_size=151_674,
    hidden=3584,
    tiles=13,
    tokens_per_tile=256,
    max_batch_size=16,
    max_input_len=5376,
    max_seq_len=7424,
    max_num_tokens=8192,
    max_prompt_embedding_table_size=53_248,
)


def _written(folder: Path, manifest: VisionManifest | LanguageManifest) -> Path:
    for name in manifest.files:
        (folder / name).write_bytes(b"123")
    write_manifest(folder, manifest)
    return folder


def test_manifest_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_manifest(_written(tmp_path, VISION), VisionManifest) == VISION
    assert VISION.max_tiles == 32
    assert read_manifest(_written(tmp_path, LANGUAGE), LanguageManifest) == LANGUAGE


def test_folder_without_a_manifest_holds_no_engine(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"vlmq.json: no such file; the folder holds no engine"):
        read_manifest(tmp_path, VisionManifest)


def test_manifest_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"vlmq.json: .*vision"):
        read_manifest(_written(tmp_path, VISION), LanguageManifest)


def test_manifest_with_an_unknown_field_or_another_format_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, msgspec.structs.replace(VISION, format=2))
    with pytest.raises(ManifestError, match="format 2, this vlmq reads 1"):
        read_manifest(tmp_path, VisionManifest)
    (tmp_path / "vlmq.json").write_text('{"kind": "vision", "colour": "red"}')
    with pytest.raises(ManifestError, match="colour"):
        read_manifest(tmp_path, VisionManifest)


def test_engine_file_that_is_absent_or_cut_short_is_refused(tmp_path: Path) -> None:
    _written(tmp_path, LANGUAGE)
    (tmp_path / "rank1.engine").write_bytes(b"12")
    with pytest.raises(ManifestError, match=r"rank1.engine is 2 bytes, vlmq.json says 3"):
        read_manifest(tmp_path, LanguageManifest)
    (tmp_path / "rank1.engine").unlink()
    with pytest.raises(ManifestError, match=r"rank1.engine is absent"):
        read_manifest(tmp_path, LanguageManifest)


def test_engine_that_fits_what_is_here_passes() -> None:
    check_manifest(VISION, Surroundings("sha256:aa", {"tensorrt": "10.14.1", "torch": "2.13"}, "SM89"))
    check_manifest(LANGUAGE, Surroundings("sha256:aa", {"tensorrt_llm": "1.2.1"}, "SM90", gpus=2))


def test_every_difference_is_named_at_once() -> None:
    with pytest.raises(ManifestError) as refused:
        check_manifest(LANGUAGE, Surroundings("sha256:bb", {}, "SM89", gpus=1))
    message = str(refused.value)
    for part in (
        "checkpoint sha256:aa, here is sha256:bb",
        "tensorrt_llm 1.2.1, here is absent",
        "built for SM90, here is SM89",
        "needs 2 GPUs, here are 1",
    ):
        assert part in message

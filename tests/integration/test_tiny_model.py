"""The tiny checkpoint is deterministic, complete, and its greedy output is fit for comparisons."""

import filecmp
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from tests.fixtures.models import Reference, random_tiles
from tools.tiny_model import MODELS, Geometry, Layout, scaled, write_checkpoint

pytestmark = pytest.mark.integration


def test_tiny_model_written_twice_has_equal_files(tiny_model: Path, tmp_path: Path) -> None:
    again = write_checkpoint(tmp_path)
    names = sorted(path.name for path in again.iterdir())
    assert filecmp.cmpfiles(tiny_model, again, names, shallow=False) == (names, [], [])


def test_tiny_tokenizer_has_a_whole_vocabulary_and_internvl_s_special_tokens(tiny_model: Path) -> None:
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    vocab_size = json.loads((tiny_model / "config.json").read_text())["llm_config"]["vocab_size"]
    assert tokenizer.get_vocab_size() == vocab_size
    ids = tokenizer.encode("<|im_start|>user\n<img><IMG_CONTEXT></img><|im_end|>").tokens
    assert ids[0] == "<|im_start|>"
    assert ids[-4:] == ["<img>", "<IMG_CONTEXT>", "</img>", "<|im_end|>"]


@pytest.mark.parametrize("text", ["What does the picture show?", "图片里有什么？ 3 cats", "🦊 d'été\n\n  x\ty", "é"])
def test_tiny_tokenizer_encoding_then_decoding_gives_the_text(tiny_model: Path, text: str) -> None:
    tokenizer = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_tiny_model_greedy_output_varies_and_depends_on_the_picture(tiny_reference: Reference) -> None:
    image = [2048 + i for i in range(32)]
    prompt = [300, 301, *image, 302, 303, 304]
    first = tiny_reference.generate(prompt, random_tiles(1, 2), 64)
    second = tiny_reference.generate(prompt, random_tiles(2, 2), 64)
    assert len(first) == 64
    assert len(set(first)) > 32
    assert first != second


def test_scaled_models_keep_every_count_of_heads_and_flag() -> None:
    for name, whole in MODELS.items():
        small = scaled(name)
        kept = ("family", "heads", "kv_heads", "vision_heads", "vision_rms_norm", "vision_qk_norm", "vision_qkv_bias")
        kept += ("rope_factor", "rope_theta", "qkv_bias", "out_bias", "tied", "select_layer", "ps_version")
        assert [getattr(small, each) for each in kept] == [getattr(whole, each) for each in kept]


def test_tiny_model_native_layout_of_a_v1_unshuffle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ps_version 'v1'"):
        write_checkpoint(tmp_path, Geometry(ps_version="v1"), Layout.NATIVE)

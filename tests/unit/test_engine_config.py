"""A checkpoint's config.json is read whole, and refused by file, key and value when it cannot be served."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from worker.engine.config import CheckpointError, DecoderConfig, Layout, TilingConfig, VisionConfig, load_config

pytestmark = pytest.mark.unit

_VISION = VisionConfig(
    image_size=112,
    patch_size=14,
    hidden=64,
    layers=2,
    heads=4,
    mlp=128,
    eps=1e-6,
    rms_norm=False,
    qk_norm=False,
    qkv_bias=True,
    select_layer=-1,
    downsample_ratio=0.5,
    ps_version="v2",
)
_DECODER = DecoderConfig(
    family="qwen2",
    vocab_size=2048,
    hidden=128,
    layers=3,
    heads=4,
    kv_heads=2,
    head_dim=32,
    mlp=256,
    eps=1e-6,
    rope_theta=1_000_000.0,
    rope_factor=None,
    trained_length=4096,
    qkv_bias=True,
    out_bias=False,
    mlp_bias=False,
    tied=False,
)
_ABSENT = object()


def _changed(source: Path, folder: Path, path: str, value: object, file: str = "config.json") -> Path:
    """A copy of the checkpoint's JSON files where the key at `path` (dotted) has another value or is absent."""
    for each in source.glob("*.json"):
        shutil.copy(each, folder)
    config = json.loads((folder / file).read_text())
    *parents, key = path.split(".")
    section: dict[str, Any] = config
    for parent in parents:
        section = section[parent]
    if value is _ABSENT:
        del section[key]
    else:
        section[key] = value
    (folder / file).write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("layout", list(Layout))
def test_config_of_either_layout_has_the_same_geometry(
    layout: Layout, tiny_model: Path, tiny_model_native: Path
) -> None:
    config = load_config(tiny_model if layout is Layout.ORIGINAL else tiny_model_native)
    assert config.layout is layout
    assert config.vision == _VISION
    assert config.vision.tokens_per_tile == 16
    assert config.decoder == _DECODER
    assert config.tiling == TilingConfig(min_tiles=1, max_tiles=12, use_thumbnail=True)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model_type", "llava", "model_type is 'llava': supported: 'internvl_chat', 'internvl'"),
        ("model_type", _ABSENT, "model_type is absent"),
        ("llm_config", _ABSENT, "llm_config is absent"),
        ("llm_config", [], r"llm_config is \[\]: expected an object"),
        ("llm_config.model_type", "mamba", "llm_config.model_type is 'mamba': supported: 'qwen2'"),
        ("llm_config.vocab_size", _ABSENT, "llm_config.vocab_size is absent: needed"),
        ("llm_config.vocab_size", None, "llm_config.vocab_size is None: needed"),
        ("llm_config.vocab_size", "2048", "llm_config.vocab_size is '2048': expected an integer"),
        ("llm_config.vocab_size", True, "llm_config.vocab_size is True: expected an integer"),
        ("llm_config.num_hidden_layers", 0, "llm_config.num_hidden_layers is 0: expected an integer above 0"),
        ("llm_config.num_key_value_heads", 3, "num_key_value_heads is 3: does not divide num_attention_heads 4"),
        ("llm_config.num_attention_heads", 6, "head_dim is absent: gives heads of 21"),
        ("llm_config.hidden_act", "gelu", "llm_config.hidden_act is 'gelu': supported: 'silu'"),
        ("llm_config.use_sliding_window", True, "llm_config.use_sliding_window is True"),
        ("llm_config.rms_norm_eps", -1.0, "llm_config.rms_norm_eps is -1.0: expected a number above 0"),
        ("llm_config.rope_theta", _ABSENT, "llm_config.rope_theta is absent"),
        ("llm_config.rope_scaling", {"type": "yarn"}, "llm_config.rope_scaling.type is 'yarn'"),
        ("llm_config.tie_word_embeddings", "no", "tie_word_embeddings is 'no': expected true or false"),
        ("vision_config.hidden_act", "relu", "vision_config.hidden_act is 'relu'"),
        ("vision_config.norm_type", "batch_norm", "vision_config.norm_type is 'batch_norm'"),
        ("vision_config.num_channels", 1, "vision_config.num_channels is 1"),
        ("vision_config.num_attention_heads", 5, "vision hidden_size 64 is no multiple of 5 heads"),
        ("vision_config.patch_size", 15, "image_size 112 is no multiple of patch_size 15"),
        ("force_image_size", 448, "force_image_size is 448: supported: 112"),
        ("template", "internlm2-chat", "template is 'internlm2-chat': supported: 'internvl2_5'"),
        ("dynamic_image_size", False, "dynamic_image_size is False"),
        ("downsample_ratio", 0.3, "downsample_ratio is 0.3: does not divide the grid of 8 × 8"),
        ("downsample_ratio", 2, "downsample_ratio is 2: does not divide"),
        ("ps_version", "v3", "ps_version is 'v3'"),
        ("select_layer", -4, "select_layer -4 of 2 vision layers"),
        ("min_dynamic_patch", 13, "at least 13 tiles but at most 12"),
    ],
)
def test_config_with_a_bad_value_is_refused_by_key_and_value(
    tiny_model: Path, tmp_path: Path, path: str, value: object, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load_config(_changed(tiny_model, tmp_path, path, value))
    assert str(tmp_path / "config.json") in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("text_config", _ABSENT, "text_config is absent"),
        ("text_config.model_type", "gemma", "text_config.model_type is 'gemma'"),
        ("text_config.layer_types", ["full_attention", "sliding_attention"], "layer_types"),
        ("vision_feature_layer", [-2, -1], r"vision_feature_layer is \[-2, -1\]: expected an integer"),
        ("vision_feature_select_strategy", "full", "vision_feature_select_strategy is 'full'"),
        ("projector_hidden_act", "relu", "projector_hidden_act is 'relu'"),
        ("image_seq_length", 256, "image_seq_length is 256: supported: 16"),
        ("vision_config.image_size", [112, 224], r"image_size is \[112, 224\]: expected an integer above 0 or two"),
        ("vision_config.use_mask_token", True, "use_mask_token is True"),
        ("vision_config.use_mean_pooling", False, "use_mean_pooling is False"),
    ],
)
def test_native_config_with_a_bad_value_is_refused_by_key_and_value(
    tiny_model_native: Path, tmp_path: Path, path: str, value: object, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_config(_changed(tiny_model_native, tmp_path, path, value))


def test_native_config_with_other_pixel_means_is_refused(tiny_model_native: Path, tmp_path: Path) -> None:
    folder = _changed(tiny_model_native, tmp_path, "image_mean", [0.5, 0.5, 0.5], "preprocessor_config.json")
    with pytest.raises(CheckpointError, match=r"image_mean is \[0.5, 0.5, 0.5\]"):
        load_config(folder)


def test_native_config_reads_the_tile_limits_of_its_preprocessor(tiny_model_native: Path, tmp_path: Path) -> None:
    folder = _changed(tiny_model_native, tmp_path, "max_patches", 6, "preprocessor_config.json")
    assert load_config(folder).tiling.max_tiles == 6
    (folder / "preprocessor_config.json").unlink()
    assert load_config(folder).tiling.max_tiles == 12


def test_native_config_reads_rope_where_transformers_5_writes_it(tiny_model_native: Path, tmp_path: Path) -> None:
    rope = {"rope_type": "default", "rope_theta": 5000.0}
    folder = _changed(tiny_model_native, tmp_path, "text_config.rope_parameters", rope)
    assert load_config(folder).decoder.rope_theta == 5000.0


@pytest.mark.parametrize("key", ["rope_type", "type"])
def test_config_with_dynamic_rope_scaling_serves_its_multiple_of_the_trained_length(
    key: str, tiny_model: Path, tmp_path: Path
) -> None:
    scaling = {"factor": 2.0, key: "dynamic"}
    decoder = load_config(_changed(tiny_model, tmp_path, "llm_config.rope_scaling", scaling)).decoder
    assert decoder == replace(_DECODER, rope_factor=2.0)
    assert (_DECODER.context_length, decoder.context_length) == (4096, 8192)


@pytest.mark.parametrize("factor", [0.5, None, "2"])
def test_config_with_dynamic_rope_scaling_by_no_factor_is_refused(
    factor: object, tiny_model: Path, tmp_path: Path
) -> None:
    scaling = {"factor": factor, "type": "dynamic"}
    with pytest.raises(CheckpointError, match=f"rope_scaling.factor is {factor!r}"):
        load_config(_changed(tiny_model, tmp_path, "llm_config.rope_scaling", scaling))


@pytest.mark.parametrize(
    ("family", "flags", "biases"),
    [
        ("internlm2", {}, (True, True, False)),
        ("internlm2", {"bias": False}, (False, False, False)),
        ("internlm3", {}, (False, False, False)),
        ("internlm3", {"bias": True}, (False, True, True)),
        ("internlm3", {"qkv_bias": True}, (True, False, False)),
        ("llama", {"attention_bias": True}, (True, True, False)),
        ("llama", {"mlp_bias": True}, (False, False, True)),
    ],
)
def test_config_of_a_family_has_its_own_bias_flags(
    family: str, flags: dict[str, bool], biases: tuple[bool, ...], tiny_model: Path, tmp_path: Path
) -> None:
    text = json.loads((tiny_model / "config.json").read_text())["llm_config"]
    text |= {"model_type": family, **flags}
    decoder = load_config(_changed(tiny_model, tmp_path, "llm_config", text)).decoder
    assert (decoder.family, (decoder.qkv_bias, decoder.out_bias, decoder.mlp_bias)) == (family, biases)


@pytest.mark.parametrize(
    ("key", "field"), [("norm_type", "rms_norm"), ("qk_normalization", "qk_norm"), ("qkv_bias", "qkv_bias")]
)
def test_original_vision_flag_left_out_is_the_6b_s(tiny_model: Path, tmp_path: Path, key: str, field: str) -> None:
    vision = load_config(_changed(tiny_model, tmp_path, f"vision_config.{key}", _ABSENT)).vision
    assert getattr(vision, field) is (field != "qkv_bias")


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "Expecting"), ("[]", "expected a JSON object"), ("\xff", "codec"), (None, "no such file")],
)
def test_config_file_that_is_no_json_object_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError, match=message):
        load_config(tmp_path)

"""What an engine will be and what memory it takes: sizes and numbers worked out by hand from the published configs."""

from dataclasses import replace
from pathlib import Path

import pytest

from tools.build_llm_engine.memory import memory_of
from tools.build_llm_engine.plan import Order, Plan, PlanError, Quantization, make_plan
from tools.build_llm_engine.report import report
from tools.tiny_model import MODELS
from worker.engine.config import DecoderConfig, InternVLConfig, Layout, TilingConfig, VisionConfig

pytestmark = pytest.mark.unit

PAGE = Path("docs/tensorrt-llm.md")
GIB = 1 << 30
GPUS = (24, 48, 80, 141)


def _config(model: str) -> InternVLConfig:
    g = MODELS[model]
    vision = VisionConfig(
        image_size=g.image_size,
        patch_size=g.patch_size,
        hidden=g.vision_hidden,
        layers=g.vision_layers,
        heads=g.vision_heads,
        mlp=g.vision_mlp,
        eps=1e-6,
        rms_norm=g.vision_rms_norm,
        qk_norm=g.vision_qk_norm,
        qkv_bias=g.vision_qkv_bias,
        select_layer=-1,
        downsample_ratio=0.5,
        ps_version="v2",
    )
    decoder = DecoderConfig(
        family=g.family,
        vocab_size=g.vocab_size,
        hidden=g.hidden,
        layers=g.layers,
        heads=g.heads,
        kv_heads=g.kv_heads,
        head_dim=g.head_dim,
        mlp=g.mlp,
        eps=1e-6,
        rope_theta=g.rope_theta,
        rope_factor=g.rope_factor,
        trained_length=g.context_length,
        qkv_bias=g.qkv_bias,
        out_bias=g.out_bias,
        mlp_bias=g.mlp_bias,
        tied=g.tied,
    )
    return InternVLConfig(Layout.ORIGINAL, vision, decoder, TilingConfig(1, 12, use_thumbnail=True))


def _plan(model: str, **order: object) -> Plan:
    return make_plan(_config(model), Order(**order))  # type: ignore[arg-type]


def test_prompt_table_has_batch_times_tiles_times_256_rows() -> None:
    plan = _plan("InternVL3-8B", max_batch_size=16, tiles=13)
    assert plan.rows_per_request == 13 * 256
    assert plan.max_prompt_embedding_table_size == 16 * 13 * 256 == 53_248


def test_lengths_left_out_leave_room_for_tiles_text_and_answer() -> None:
    plan = _plan("InternVL3-8B", tiles=13)
    assert (plan.max_input_len, plan.max_seq_len, plan.max_num_tokens) == (5376, 7424, 8192)
    many = _plan("InternVL3-8B", tiles=64)
    assert (many.max_input_len, many.max_seq_len, many.max_num_tokens) == (18_432, 20_480, 18_432)


def test_memory_of_8b_is_what_its_published_sizes_give() -> None:
    memory = memory_of(_plan("InternVL3-8B", max_batch_size=16, tiles=13))
    # 28 layers of 233,046,016 + 11,776 elements, two tables of 151,674 × 3,584, one norm: 7.61 billion, two bytes each.
    assert memory.weights == 2 * 7_612_820_992
    assert memory.table == 53_248 * 3584 * 2
    assert memory.cache_per_token == 57_344
    # 8,192 tokens × (6 × 3,584 + 3 × 18,944) × 2, and 16 rows of logits in four bytes.
    assert memory.work == 1_283_457_024 + 9_707_136
    assert memory.least == 15_225_641_984 + 381_681_664 + 1_293_164_160 + 57_344 * 7424
    assert memory.full - memory.fixed == 16 * 57_344 * 7424
    assert memory.host == 2 * memory.weights and memory.disk == 3 * memory.weights


def test_memory_in_8_bits_has_a_byte_per_element_and_a_scale_per_row() -> None:
    # A layer: 233,046,016 + 2 × 49,664 rows + 2 × 11,776 of norms and biases. Tables and last norm keep two bytes.
    memory = memory_of(_plan("InternVL3-8B", quantization=Quantization.INT8))
    assert memory.weights == 28 * 233_168_896 + 2_174_405_632 == 8_703_134_720
    fp8 = memory_of(_plan("InternVL3-8B", quantization=Quantization.FP8, calibration="texts"))
    assert fp8.weights == 28 * (233_046_016 + 5 * 8 + 23_552) + 2_174_405_632


def test_memory_in_4_bits_of_internlm_is_half_a_byte_per_element() -> None:
    # 26B: a layer of 390,070,272 elements in 53,248 rows, two norms of 6,144, no biases; tables of 92,553 × 6,144.
    memory = memory_of(_plan("InternVL2_5-26B", quantization=Quantization.INT4))
    assert memory.weights == 48 * (195_035_136 + 106_496 + 24_576) + 2_274_594_816 == 11_642_572_800


def test_memory_of_a_gpu_among_four_has_a_quarter_of_the_layers_and_the_whole_table() -> None:
    memory = memory_of(_plan("InternVL3-78B", tensor_parallel=4))
    # 80 layers of 219,414,528 + 18,944 elements; 151,674 + 37,919 rows of 8,192; one norm.
    assert memory.weights == 2 * (80 * 219_433_472 + 189_593 * 8192 + 8192) == 38_215_663_616
    assert memory.cache_per_token == 80 * 2 * 2 * 128 * 2


def test_more_gpus_than_key_value_heads_have_one_each() -> None:
    memory = memory_of(_plan("InternVL3-9B", tensor_parallel=4))
    assert memory.cache_per_token == 48 * 2 * 1 * 128 * 2


@pytest.mark.parametrize("model", MODELS)
def test_every_published_model_has_a_plan_and_a_report(model: str) -> None:
    text = report(_plan(model))
    assert "16 requests × 13 tiles × 256 tokens" in text and "GiB" in text


def test_report_says_what_fits_on_a_gpu_and_what_does_not() -> None:
    lines = report(_plan("InternVL3-14B")).splitlines()
    fits = {line.split("GPUs of ")[1].split(" GiB")[0]: line.split("  ")[-1] for line in lines if "GPUs of" in line}
    assert fits["24"].strip() == "does not fit"
    assert fits["80"].strip().endswith("tokens")


def test_memory_table_of_the_documentation_is_current() -> None:
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| InternVL")]
    assert [row[0] for row in rows] == list(MODELS)
    for name, weights, int8, table, step, cache, *tokens in rows:
        whole, small = memory_of(_plan(name)), memory_of(_plan(name, quantization=Quantization.INT8))
        assert (weights, int8) == (f"{whole.weights / GIB:.1f}", f"{small.weights / GIB:.1f}"), name
        assert (table, step) == (f"{whole.table / GIB:.2f}", f"{whole.work / GIB:.1f}"), name
        assert cache == f"{1000 * whole.cache_per_token / (1 << 20):.0f}", name
        assert tokens == [_cell(*(each.cache_tokens(gpu * GIB) for each in (whole, small))) for gpu in GPUS], name


def _cell(whole: int, small: int) -> str:
    words = [f"{tokens:,}" if tokens else "–" for tokens in (whole, small)]
    return words[0] if words[0] == words[1] else " / ".join(words)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ({"tiles": 0}, "tiles is 0"),
        ({"max_batch_size": 0}, "max_batch_size is 0"),
        ({"tensor_parallel": 3}, "3 GPUs cannot share 28 attention heads"),
        ({"max_seq_len": 40_000}, "max_seq_len 40000 is beyond the trained length 32768"),
        ({"max_input_len": 3000}, "13 tiles are 3328 tokens; they must fit max_input_len 3000"),
        ({"max_input_len": 9000, "max_seq_len": 9000}, "must be less than max_seq_len 9000"),
        ({"max_num_tokens": 4096}, "max_num_tokens 4096 is less than max_input_len 5376"),
        ({"quantization": Quantization.FP8}, "fp8 needs texts to calibrate"),
        ({"calibration": "texts"}, "calibration 'texts' is for fp8 alone"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_order_that_contradicts_itself_or_the_model_is_refused(order: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        _plan("InternVL3-8B", **order)


def test_key_value_heads_that_cannot_be_shared_are_refused() -> None:
    config = _config("InternVL3-8B")
    odd = replace(config, decoder=replace(config.decoder, heads=36, kv_heads=4, mlp=18_960))
    with pytest.raises(PlanError, match="6 GPUs can neither share nor repeat 4 key-value heads"):
        make_plan(odd, Order(tensor_parallel=6))

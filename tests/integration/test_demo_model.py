"""The bundled checkpoint through the product's own preprocessing and engine. Any loss on the way costs answers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.fixtures.engines import one_thread
from tools.demo_model.conversation import Conversation, Task, is_right
from tools.demo_model.evaluate import CHECKPOINT
from tools.demo_model.layouts import to_native, to_original
from tools.demo_model.product import Product, tensorrt_engine, torch_engine
from tools.demo_model.sample import draw_held_out

pytestmark = pytest.mark.integration

PER_TASK = 4


@pytest.fixture(scope="module")
def product() -> Iterator[Product]:
    with one_thread():
        yield Product(CHECKPOINT, torch_engine(CHECKPOINT, slots=8)[0])


@pytest.fixture(scope="module")
def drawn() -> list[Conversation]:
    return [draw_held_out(task, 500 + seed) for task in Task for seed in range(PER_TASK)]


@pytest.fixture(scope="module")
def answers(product: Product, drawn: list[Conversation]) -> list[str]:
    """The torch engine's."""
    return [answer for first in range(0, len(drawn), 8) for answer in product.last_answers(drawn[first : first + 8])]


def test_demo_model_answers_held_out_questions_of_every_task(drawn, answers):
    wrong = [
        (conversation.rounds[-1].answer, answer)
        for conversation, answer in zip(drawn, answers, strict=True)
        if not is_right(answer, conversation.rounds[-1].answer)
    ]
    assert len(wrong) <= 0.05 * len(drawn), wrong


def test_demo_model_answers_the_same_alone_and_in_company(product):
    drawn = [draw_held_out(Task.READ, seed) for seed in range(600, 604)]
    assert product.last_answers(drawn) == [product.last_answers([one])[0] for one in drawn]


def test_demo_model_answers_alike_over_tensorrt_llms_executor(drawn, answers, demo_engines, tensorrt_llm):
    """Of every task; over the fake of the executor, which computes in float32 too."""
    engine, _ = tensorrt_engine(CHECKPOINT, demo_engines)
    assert Product(CHECKPOINT, engine).last_answers(drawn) == answers
    engine.close()


def test_demo_checkpoint_stays_under_sixteen_megabytes():
    assert sum(file.stat().st_size for file in Path(CHECKPOINT).iterdir()) <= 16_000_000


def test_demo_checkpoint_in_the_native_layout_answers_the_same_and_converts_back_bit_for_bit(product, tmp_path):
    native, back = tmp_path / "native", tmp_path / "back"
    to_native(CHECKPOINT, native)
    to_original(native, back)
    before, after = load_file(CHECKPOINT / "model.safetensors"), load_file(back / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (back / "config.json").read_text() == (CHECKPOINT / "config.json").read_text()
    drawn = [draw_held_out(task, 700) for task in (Task.READ, Task.COMPARE, Task.DESCRIBE)]
    assert Product(native, torch_engine(native, slots=3)[0]).last_answers(drawn) == product.last_answers(drawn)

"""What the demo model is trained on is what the product will show it: the same tiles, the same prompt."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from jobs.request import ImagePart, Message, Role, TextPart
from jobs.tiling import grid_of
from tools.demo_model.conversation import Task
from tools.demo_model.drawing import draw
from tools.demo_model.example import Encoder
from tools.demo_model.geometry import DEMO
from tools.demo_model.prompt import SYSTEM, question_text
from tools.demo_model.sample import draw_held_out
from tools.demo_model.tiling import cut, grid_for
from tools.demo_model.tokenizer import build_tokenizer
from worker import prompt as product_prompt
from worker import tiles as product_tiles
from worker.engine.config import TilingConfig
from worker.tokenizer import ChatTokenizer

pytestmark = pytest.mark.unit

TILING = TilingConfig(min_tiles=1, max_tiles=DEMO.max_tiles, use_thumbnail=True)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.mark.parametrize("seed", range(12))
def test_training_tiles_equal_the_products_bit_for_bit(seed):
    picture = draw(draw_held_out(Task.READ, seed).scenes[0])
    product = product_tiles.cut(picture, TILING, DEMO.tile)
    assert cut(picture).tobytes() == product.pixels


def test_training_grid_equals_the_products_for_every_ratio():
    rng = Random(3)
    for _ in range(500):
        width, height = rng.randint(20, 1200), rng.randint(20, 1200)
        grid = grid_of(width, height, TILING, DEMO.tile)
        assert grid_for(width, height) == (grid.columns, grid.rows)


@pytest.mark.parametrize("task", list(Task))
def test_training_prompt_equals_the_products(tokenizer, task):
    conversation = draw_held_out(task, 1)
    counts = [len(cut(Image.new("RGB", (scene.width, scene.height)))) for scene in conversation.scenes]
    parts = (*(ImagePart("drawn") for _ in counts), TextPart(question_text(conversation)))
    chat = ChatTokenizer(json.loads(tokenizer.to_str()))
    vocabulary = tokenizer.get_vocab_size()
    builder = product_prompt.PromptBuilder(chat, vocabulary, DEMO.tokens_per_tile, DEMO.context_length)
    product = builder.build((Message(Role.USER, parts),), counts).ids
    encoder = Encoder(tokenizer)
    assert [encoder.context if i >= vocabulary else i for i in product] == encoder.prompt(conversation, counts)


def test_default_system_message_is_the_products():
    assert product_prompt.DEFAULT_SYSTEM == SYSTEM


def test_targets_spell_the_answers_and_their_ends(tokenizer):
    conversation = draw_held_out(Task.FOLLOW_UP, 2)
    example = Encoder(tokenizer).encode(conversation)
    for number, asked in enumerate(conversation.rounds):
        learned = example.targets[(example.targets >= 0) & (example.rounds == number)]
        assert tokenizer.decode(learned.tolist(), skip_special_tokens=False) == f"{asked.answer}<|im_end|>"
    predicted = np.flatnonzero(example.targets >= 0)
    assert (example.ids[predicted[:-1] + 1] == example.targets[predicted[:-1]]).all()


def test_side_task_marks_as_many_cells_as_the_text_has_characters(tokenizer):
    conversation = draw_held_out(Task.READ, 5)
    example = Encoder(tokenizer).encode(conversation)
    scene = conversation.scenes[0]
    assert scene.lettering is not None
    canvases = 1 if len(example.tiles) == 1 else 2
    assert 0 < (example.cell_characters > 0).sum() <= canvases * len(scene.lettering.text)
    assert len(example.cell_characters) == len(example.tiles) * DEMO.tokens_per_tile


def test_tokenizer_spells_quoted_words_letter_by_letter_and_knows_whole_sentence_words(tokenizer):
    tokens = tokenizer.encode('It says "circle".', add_special_tokens=False).tokens
    assert tokens[-8:] == ["c", "i", "r", "c", "l", "e", '"', "."]
    assert "Ġcircle" in tokenizer.encode("a red circle", add_special_tokens=False).tokens


@pytest.mark.parametrize("text", ["Wörter, 你好 and 🙂", "a\n\n b\t", "<image> <|im_end|>"])
def test_tokenizer_gives_any_text_back(tokenizer, text):
    chat = ChatTokenizer(json.loads(tokenizer.to_str()))
    assert chat.whole.decode(chat.encode(text), skip_special_tokens=False) == text


def test_tokenizer_of_the_checkpoint_is_the_one_that_the_code_builds(tokenizer):
    stored = json.loads(Path("models/vlmq-demo/tokenizer.json").read_text(encoding="utf-8"))
    assert stored["model"]["vocab"] == json.loads(tokenizer.to_str())["model"]["vocab"]

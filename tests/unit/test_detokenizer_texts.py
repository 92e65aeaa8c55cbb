"""10,000 random texts through each kind of detokenizer: joined pieces are the whole decode, and nothing comes out that
the whole does not hold."""

import random
from pathlib import Path

import pytest

from tests.fixtures.texts import random_texts, sentencepiece_like
from worker.detokenizer import REPLACEMENT, Detokenizers
from worker.tokenizer import ChatTokenizer

pytestmark = pytest.mark.unit

TEXTS = 10_000


@pytest.fixture(scope="module", params=["byte level", "sentencepiece-like"])
def tokenizer(request: pytest.FixtureRequest, tiny_model: Path) -> ChatTokenizer:
    return ChatTokenizer.load(tiny_model) if request.param == "byte level" else sentencepiece_like()


def _pieces(detokenizers: Detokenizers, ids: list[int]) -> list[str]:
    detokenizer = detokenizers.new()
    return [*(detokenizer.push(i) for i in ids), detokenizer.flush()]


def test_the_pieces_of_any_text_join_to_its_whole_decode(tokenizer: ChatTokenizer) -> None:
    detokenizers = Detokenizers(tokenizer)
    streamed = 0
    for text in random_texts(1, TEXTS):
        ids = tokenizer.encode(text)
        whole = tokenizer.whole.decode(ids, skip_special_tokens=True)
        pieces = _pieces(detokenizers, ids)
        assert "".join(pieces) == whole, (text, ids)
        assert sum(piece.count(REPLACEMENT) for piece in pieces) == whole.count(REPLACEMENT) == text.count(REPLACEMENT)
        streamed += len([piece for piece in pieces if piece])
    assert streamed > 4 * TEXTS


def test_the_pieces_of_a_text_cut_anywhere_differ_from_the_text_in_its_last_character_alone(
    tokenizer: ChatTokenizer,
) -> None:
    """An answer that ends with half a character: U+FFFD comes with `flush`, never before."""
    detokenizers = Detokenizers(tokenizer)
    for text in random_texts(2, 800):
        if REPLACEMENT in text:
            continue
        ids = tokenizer.encode(text)
        whole = tokenizer.whole.decode(ids, skip_special_tokens=True)
        for cut in range(len(ids)):
            *pushed, flushed = _pieces(detokenizers, ids[:cut])
            assert whole.startswith("".join(pushed)), (text, cut)
            assert whole.startswith(("".join(pushed) + flushed).rstrip(REPLACEMENT)), (text, cut)


def test_the_pieces_of_any_ids_hold_all_characters_that_the_ids_spell(tokenizer: ChatTokenizer) -> None:
    """Ids that no text encodes to: lone and cut bytes, special tokens between them."""
    detokenizers = Detokenizers(tokenizer)
    rng = random.Random(3)
    size = tokenizer.whole.get_vocab_size()
    for _ in range(3000):
        ids = [rng.randrange(rng.choice([size, 300])) for _ in range(rng.randrange(1, 30))]
        whole = tokenizer.whole.decode(ids, skip_special_tokens=True)
        joined = "".join(_pieces(detokenizers, ids))
        if REPLACEMENT not in whole or tokenizer is not sentencepiece_like():
            assert joined == whole, ids
        assert joined.count(REPLACEMENT) <= whole.count(REPLACEMENT), ids


def test_bytes_that_never_make_a_character_come_out_as_they_go(tokenizer: ChatTokenizer) -> None:
    """A model may be made to draw one byte for ever (logit_bias): it must neither wait nor cost more and more."""
    detokenizers = Detokenizers(tokenizer)
    lone = tokenizer.id_of("<0xE2>" if tokenizer is sentencepiece_like() else "â")
    word, special = tokenizer.encode(" the")[-1], tokenizer.id_of("<|im_end|>")
    detokenizer = detokenizers.new()
    assert detokenizer.push(word).strip() == "the"
    waiting = 0
    for _ in range(20_000):
        waiting = 0 if detokenizer.push(lone) else waiting + 1
        assert detokenizer.push(special) == ""
        assert waiting < 10
    after = "".join(detokenizer.push(i) for i in tokenizer.encode(" the €")[-6:]) + detokenizer.flush()
    assert after.lstrip(REPLACEMENT) == tokenizer.whole.decode([lone, *tokenizer.encode(" the €")[-6:]])[1:]

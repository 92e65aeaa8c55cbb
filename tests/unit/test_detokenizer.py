"""Incremental decoding: never half a character, and in sum exactly the whole decode."""

import json
import random
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from worker.detokenizer import REPLACEMENT, Detokenizers
from worker.tokenizer import ChatTokenizer

pytestmark = pytest.mark.unit

TEXT = "Ça coûte 5 €, 你好世界 👩‍👩‍👧 — naïve\n\n  <|im_end|> done"


@pytest.fixture(scope="module")
def byte_level(tiny_model: Path) -> ChatTokenizer:
    return ChatTokenizer.load(tiny_model)


@pytest.fixture(scope="module")
def sentencepiece_like() -> ChatTokenizer:
    """BPE over characters with a space mark and byte fallback, as InternLM's."""
    words = ["▁", "▁the", "▁cat", "▁sat", "s", "a", "t", "c", "h", "e", "!", "\n"]
    vocab = {word: k for k, word in enumerate(["<unk>", *[f"<0x{b:02X}>" for b in range(256)], *words])}
    tokenizer = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    return ChatTokenizer(json.loads(tokenizer.to_str()))


def pieces(tokenizer: ChatTokenizer, ids: list[int]) -> list[str]:
    detokenizer = Detokenizers(tokenizer).new()
    return [*(detokenizer.push(i) for i in ids), detokenizer.flush()]


def whole(tokenizer: ChatTokenizer, ids: list[int]) -> str:
    return tokenizer.whole.decode(ids, skip_special_tokens=True)


def test_byte_level_text_comes_back_in_whole_characters(byte_level):
    ids = byte_level.encode(TEXT)
    got = pieces(byte_level, ids)
    assert "".join(got) == TEXT
    assert not any(REPLACEMENT in piece for piece in got)


def test_byte_level_pieces_of_any_ids_join_to_the_whole_decode(byte_level):
    rng = random.Random(0)
    size = byte_level.whole.get_vocab_size()
    for _ in range(300):
        ids = [rng.randrange(size + 20) for _ in range(rng.randrange(1, 40))]
        assert "".join(pieces(byte_level, ids)) == whole(byte_level, ids), ids


def test_special_tokens_emit_no_text_and_other_added_tokens_theirs(byte_level):
    specials = [byte_level.id_of(name) for name in ("<|im_end|>", "<|im_start|>", "<img>")]
    assert pieces(byte_level, [*specials, byte_level.id_of("<tool_call>")]) == ["", "", "", "<tool_call>", ""]


def test_half_a_character_at_the_end_becomes_a_replacement_on_flush(byte_level):
    ids = byte_level.whole.encode("€", add_special_tokens=False).ids
    table = [i for i in range(256) if len(Detokenizers(byte_level).piece(i)) == 1]
    assert table
    detokenizer = Detokenizers(byte_level).new()
    euro = next(i for i in range(2000) if byte_level.whole.id_to_token(i) == "â")
    assert detokenizer.push(euro) == ""
    assert detokenizer.flush() == REPLACEMENT
    assert whole(byte_level, ids) == "€"


def test_sentencepiece_like_text_comes_back_in_whole_characters(sentencepiece_like):
    text = "the cat sat! ça 你 👩‍👧 the\ncat"
    ids = sentencepiece_like.encode(text)
    got = pieces(sentencepiece_like, ids)
    assert "".join(got) == whole(sentencepiece_like, ids)
    assert not any(REPLACEMENT in piece for piece in got)
    assert len([piece for piece in got if piece]) > 10


def test_sentencepiece_like_pieces_of_many_texts_join_to_the_whole_decode(sentencepiece_like):
    rng = random.Random(1)
    for _ in range(200):
        ids = sentencepiece_like.encode("".join(rng.choices(" thecat!é你👩\n", k=20)))
        ids.insert(rng.randrange(len(ids)), sentencepiece_like.id_of("▁the"))
        expected = whole(sentencepiece_like, ids)
        if REPLACEMENT not in expected:
            assert "".join(pieces(sentencepiece_like, ids)) == expected, ids


def test_sentencepiece_like_bytes_without_a_character_lose_nothing_before_them(sentencepiece_like):
    the, lone = sentencepiece_like.id_of("▁the"), sentencepiece_like.id_of("<0xE2>")
    assert "".join(pieces(sentencepiece_like, [the, lone, the, lone])) == f"the{REPLACEMENT} the{REPLACEMENT}"


def test_piece_is_the_token_by_itself(byte_level):
    assert Detokenizers(byte_level).piece(byte_level.encode("a")[0]) == "a"
    assert Detokenizers(byte_level).piece(byte_level.id_of("<|im_end|>")) == ""

"""The tokens of an answer: texts, ends, and that a replay gives the same."""

from pathlib import Path

import pytest

from jobs.job import FinishReason, Token, TopLogprob
from worker.detokenizer import Detokenizers
from worker.engine import generation
from worker.engine.generation import SampledToken
from worker.tokenizer import ChatTokenizer
from worker.transcript import Transcript

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> ChatTokenizer:
    return ChatTokenizer.load(tiny_model)


def transcript(tokenizer, max_tokens=100, stops=(), min_tokens=0):
    return Transcript(Detokenizers(tokenizer), stops, [tokenizer.id_of("<|im_end|>")], max_tokens, min_tokens)


def push_all(made, ids):
    return [made.push(SampledToken(i)) for i in ids]


def test_stop_token_ends_the_answer_without_text(tokenizer):
    made = transcript(tokenizer)
    push_all(made, [*tokenizer.encode("Hi there"), tokenizer.id_of("<|im_end|>")])
    assert made.finish_reason is FinishReason.STOP
    assert "".join(t.text for t in made.tokens) == "Hi there"
    assert made.tokens[-1].text == ""
    assert made.push(SampledToken(5)) is None


def test_last_allowed_token_ends_with_length_and_flushes_half_a_character(tokenizer):
    half = next(i for i in range(2000) if tokenizer.whole.id_to_token(i) == "â")
    made = transcript(tokenizer, max_tokens=2)
    tokens = push_all(made, [*tokenizer.encode("a"), half])
    assert made.finish_reason is FinishReason.LENGTH
    assert [token.text for token in tokens] == ["a", "\ufffd"]


def test_stop_string_ends_the_answer_before_it_and_drops_later_tokens(tokenizer):
    made = transcript(tokenizer, stops=["world"])
    ids = tokenizer.encode("hello wor")
    push_all(made, ids)
    assert made.finish_reason is None
    assert "".join(t.text for t in made.tokens).strip() == "hello"
    push_all(made, tokenizer.encode("ld again"))
    assert made.finish_reason is FinishReason.STOP
    assert "".join(t.text for t in made.tokens) == "hello "
    assert len(made) < len(ids) + len(tokenizer.encode("ld again"))


def test_stop_string_counts_only_after_min_tokens(tokenizer):
    ids = tokenizer.encode("a b a b")
    for least in range(len(ids) + 1):
        made = transcript(tokenizer, stops=["b"], min_tokens=least)
        push_all(made, ids)
        early = "".join(transcript(tokenizer).push(SampledToken(i)).text for i in ids[:least])
        rest = "a b a b"[len(early) :]
        assert "".join(t.text for t in made.tokens) == early + rest.partition("b")[0]
        assert (made.finish_reason is FinishReason.STOP) == ("b" in rest)
        assert len(made) >= least


def test_held_back_beginning_of_a_stop_string_is_released_at_the_end(tokenizer):
    made = transcript(tokenizer, stops=["worlds"])
    push_all(made, [*tokenizer.encode("hello world"), tokenizer.id_of("<|im_end|>")])
    assert "".join(t.text for t in made.tokens) == "hello world"


def test_replay_of_any_part_continues_with_the_same_texts(tokenizer):
    ids = [*tokenizer.encode("你好，world: €5 — ok"), tokenizer.id_of("<|im_end|>")]
    undisturbed = transcript(tokenizer, stops=["okay"])
    push_all(undisturbed, ids)
    for cut in range(len(ids)):
        made = transcript(tokenizer, stops=["okay"])
        made.replay(undisturbed.tokens[:cut])
        push_all(made, ids[cut:])
        assert made.tokens == undisturbed.tokens
        assert made.finish_reason is FinishReason.STOP


def test_replay_of_a_whole_answer_is_finished(tokenizer):
    tokens = tuple(Token(i, "x") for i in tokenizer.encode("abc"))
    made = transcript(tokenizer, max_tokens=len(tokens))
    made.replay(tokens)
    assert made.finish_reason is FinishReason.LENGTH
    assert made.tokens == tokens


def test_logprobs_come_with_the_texts_of_the_likeliest(tokenizer):
    made = transcript(tokenizer)
    first = tokenizer.encode("a")[0]
    token = made.push(SampledToken(first, -0.5, [generation.TopLogprob(first, -0.5)]))
    assert token == Token(first, "a", -0.5, (TopLogprob(first, "a", -0.5),))

"""Several choices as one answer: whose turn it is depends on their tokens alone."""

from collections import deque
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.job import FinishReason, Token
from worker.answer import Answer
from worker.detokenizer import Detokenizers
from worker.engine.generation import SampledToken
from worker.tokenizer import ChatTokenizer
from worker.transcript import Transcript

pytestmark = pytest.mark.unit

MOST = 6


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> ChatTokenizer:
    return ChatTokenizer.load(tiny_model)


def answer_of(tokenizer: ChatTokenizer, choices: int) -> Answer:
    detokenizers, end = Detokenizers(tokenizer), tokenizer.id_of("<|im_end|>")
    return Answer([Transcript(detokenizers, (), [end], MOST, choice=choice) for choice in range(choices)])


def test_tokens_wait_for_their_turn(tokenizer):
    answer = answer_of(tokenizer, 2)
    assert answer.push(1, [SampledToken(300), SampledToken(301)]) == []
    assert [t.choice for t in answer.push(0, [SampledToken(302)])] == [0, 1]
    assert answer.ids_of(1) == [300, 301]
    assert [t.id for t in answer.tokens] == [302, 300]


def test_choice_that_has_ended_is_passed_over(tokenizer):
    answer = answer_of(tokenizer, 3)
    answer.push(2, [SampledToken(300)])
    answer.push(0, [SampledToken(301)])
    assert [t.id for t in answer.end(1, FinishReason.STOP)] == [300]
    assert answer.finish_reasons == (None, FinishReason.STOP, None)
    assert not answer.complete


SCRIPTS = st.lists(st.lists(st.integers(300, 900), max_size=MOST), min_size=1, max_size=4)


@given(scripts=SCRIPTS, order=st.randoms(use_true_random=False), cut=st.integers(0, 24))
def test_order_is_the_same_however_the_engine_interleaves_and_wherever_an_attempt_ends(tokenizer, scripts, order, cut):
    end = tokenizer.id_of("<|im_end|>")
    whole = [ids if len(ids) == MOST else [*ids, end] for ids in scripts]

    def run(answer: Answer, shuffle: bool) -> list[Token]:
        left = [deque(ids[len(answer.ids_of(choice)) :]) for choice, ids in enumerate(whole)]
        while any(left):
            going = [choice for choice, ids in enumerate(left) if ids]
            choice = order.choice(going) if shuffle else going[0]
            answer.push(choice, [SampledToken(left[choice].popleft())])
        assert answer.complete
        return list(answer.tokens)

    first = run(answer_of(tokenizer, len(whole)), shuffle=False)
    assert len(first) == sum(map(len, whole))
    assert run(answer_of(tokenizer, len(whole)), shuffle=True) == first
    continued = answer_of(tokenizer, len(whole))
    continued.replay(first[:cut])
    assert run(continued, shuffle=True) == first

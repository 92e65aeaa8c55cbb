"""Random texts, stop strings and ways to cut a text into tokens: the stream is the text up to the earliest stop, no
piece is ever taken back, and a replay from any cut gives every token the text it had."""

import random
from functools import cache
from pathlib import Path

import pytest

from jobs.job import FinishReason, Token
from tests.fixtures.texts import random_texts, sentencepiece_like
from worker.detokenizer import Detokenizers
from worker.engine.generation import SampledToken
from worker.tokenizer import ChatTokenizer
from worker.transcript import Transcript

pytestmark = pytest.mark.unit

CASES = 1500


@pytest.fixture(scope="module", params=["byte level", "sentencepiece-like"])
def tokenizer(request: pytest.FixtureRequest, tiny_model: Path) -> ChatTokenizer:
    return ChatTokenizer.load(tiny_model) if request.param == "byte level" else sentencepiece_like()


@cache
def _byte_ids(tokenizer: ChatTokenizer) -> dict[int, int]:
    if tokenizer is sentencepiece_like():
        return {byte: tokenizer.id_of(f"<0x{byte:02X}>") for byte in range(256)}
    ids = (tokenizer.encode(chr(byte)) for byte in range(128))
    single = {byte: found[0] for byte, found in enumerate(ids) if len(found) == 1}
    for char in "\u0080\u00bf\u0400\u07ff\u0800\uffff\U00010000\U0010ffff":
        found = tokenizer.encode(char)
        single |= dict(zip(char.encode(), found, strict=True)) if len(found) == len(char.encode()) else {}
    return single


def _cut(tokenizer: ChatTokenizer, text: str, rng: random.Random) -> list[int]:
    """Some way to spell the text: as it encodes, in pieces that are encoded one by one, or byte by byte here and
    there."""
    if rng.random() < 0.3:
        return tokenizer.encode(text)
    ids, single, start = [], _byte_ids(tokenizer), 0
    while start < len(text):
        end = start + rng.randrange(1, 6)
        piece = text[start:end]
        if rng.random() < 0.4 and all(byte in single for byte in piece.encode()):
            ids += [single[byte] for byte in piece.encode()]
        else:
            ids += tokenizer.encode(piece)
        start = end
    return ids


def _stops(text: str, rng: random.Random) -> list[str]:
    """Up to four: pieces of the text, pieces with a wrong end, and strangers; some begin or hold one another."""
    stops = []
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(text))
        stop = text[at : at + rng.randrange(1, 7)]
        stops.append(rng.choice([stop, stop, stop + "#", stop * 2, "Zq", "a"]))
    return stops


def _expected(text: str, stops: list[str]) -> tuple[str, bool]:
    """Letter by letter: the answer ends when a stop string is whole, and is the text before it. Of two that become
    whole with the same letter the longer counts."""
    for end in range(1, len(text) + 1):
        whole = [stop for stop in stops if text[:end].endswith(stop)]
        if whole:
            return text[: end - max(map(len, whole))], True
    return text, False


def _run(made: Transcript, ids: list[int]) -> list[Token]:
    pushed = [made.push(SampledToken(token_id)) for token_id in ids]
    return [token for token in pushed if token is not None]


def test_the_stream_is_the_text_before_the_earliest_stop_and_a_replay_gives_the_same(tokenizer: ChatTokenizer) -> None:
    rng = random.Random(6)
    detokenizers, end = Detokenizers(tokenizer), tokenizer.id_of("<|im_end|>")
    hits = 0
    for case, text in enumerate(random_texts(6, CASES, most=10)):
        ids = _cut(tokenizer, text, rng)
        whole = tokenizer.whole.decode(ids, skip_special_tokens=True)
        stops = _stops(text, rng)
        expected, hit = _expected(whole, stops)
        by_length = rng.random() < 0.5
        asked = (ids, len(ids)) if by_length else ([*ids, end], len(ids) + 9)

        tokens = _run(made := Transcript(detokenizers, stops, [end], asked[1]), asked[0])
        assert "".join(token.text for token in tokens) == expected, (text, ids, stops)
        assert made.finish_reason is (FinishReason.STOP if hit or not by_length else FinishReason.LENGTH)
        released = ""
        for token in tokens:
            released += token.text
            assert expected.startswith(released), "a piece was to be taken back"

        for cut in range(len(tokens) + 1) if case % 10 == 0 else [rng.randrange(len(tokens) + 1)]:
            again = Transcript(detokenizers, stops, [end], asked[1])
            again.replay(tokens[:cut])
            assert [*tokens[:cut], *_run(again, asked[0][cut:])] == tokens
            assert again.tokens == made.tokens and again.finish_reason is made.finish_reason
        hits += hit
    assert CASES * 0.5 < hits < CASES


def test_no_more_is_held_back_than_may_become_a_stop(tokenizer: ChatTokenizer) -> None:
    """What is out lags behind what is certain by less than the longest stop string."""
    rng = random.Random(7)
    detokenizers = Detokenizers(tokenizer)
    for text in random_texts(7, 300):
        stops = _stops(text, rng)
        ids = tokenizer.encode(text)
        plain = Transcript(detokenizers, [], [], len(ids) + 1)
        stopped = Transcript(detokenizers, stops, [], len(ids) + 1)
        certain = released = ""
        for token_id in ids:
            token = stopped.push(SampledToken(token_id))
            if token is None or stopped.finish_reason is not None:
                break
            certain += plain.push(SampledToken(token_id)).text  # type: ignore[union-attr]
            released += token.text
            assert certain.startswith(released)
            held = certain[len(released) :]
            assert held == "" or any(len(held) < len(stop) and stop.startswith(held) for stop in stops)

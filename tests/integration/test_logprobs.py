"""Log-probabilities against transformers' own logits, for choices that differ, and their bytes on the wire."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from api.completion import logprobs_object
from jobs.job import Token
from tests.fixtures.models import Reference
from worker.detokenizer import Detokenizers
from worker.engine.generation import Generation, SampledToken, Sampling
from worker.engine.torch.engine import TorchEngine
from worker.engine.torch.internvl import InternVL
from worker.engine.torch.options import EngineOptions
from worker.generation_of import seed_of
from worker.tokenizer import ChatTokenizer
from worker.transcript import Transcript

pytestmark = pytest.mark.integration

TOP = 5
PROMPT = np.random.default_rng(4).integers(5, 1500, 24).tolist()


@pytest.fixture(scope="module")
def engine(tiny_model: Path, device: torch.device) -> Iterator[TorchEngine]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield TorchEngine(InternVL.load(tiny_model, device, torch.float32), EngineOptions(slots=8, pages=128))
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def choices(engine: TorchEngine) -> dict[str, list[SampledToken]]:
    """Three choices of one prompt, and one that penalties and filters bend."""
    asked = Generation("0", PROMPT, Sampling(temperature=1.0, logprobs=TOP), max_tokens=24)
    for choice in range(3):
        sampling = msgspec.structs.replace(asked.sampling, seed=seed_of(7, choice))
        engine.submit(msgspec.structs.replace(asked, id=str(choice), sampling=sampling))
    bent = Sampling(temperature=0.6, top_p=0.9, repetition_penalty=1.4, logit_bias={700: 20.0}, logprobs=TOP)
    engine.submit(msgspec.structs.replace(asked, id="bent", sampling=bent))
    drawn: dict[str, list[SampledToken]] = {}
    while engine.has_work():
        for output in engine.step():
            drawn.setdefault(output.id, []).extend(output.tokens)
    return drawn


@pytest.mark.parametrize("name", ["0", "1", "2", "bent"])
def test_logprobs_are_the_log_softmax_of_the_references_logits(choices, tiny_reference: Reference, name: str) -> None:
    tokens = choices[name]
    logits = tiny_reference.logits([*PROMPT, *(token.id for token in tokens)])
    expected = torch.log_softmax(logits[len(PROMPT) - 1 : -1].float(), dim=-1)
    for token, row in zip(tokens, expected, strict=True):
        assert token.logprob == pytest.approx(float(row[token.id]), abs=2e-4)
        best = torch.topk(row, TOP)
        assert [top.id for top in token.top] == best.indices.tolist()
        assert [top.logprob for top in token.top] == pytest.approx(best.values.tolist(), abs=2e-4)


def test_choices_differ_and_their_first_tokens_have_one_distribution(choices) -> None:
    assert len({tuple(token.id for token in choices[name]) for name in "012"}) == 3
    firsts = [choices[name][0].top for name in "012"]
    assert [[top.id for top in first] for first in firsts] == [[top.id for top in firsts[0]]] * 3


def test_bytes_on_the_wire_join_to_the_answer_and_are_null_where_a_token_is_no_text(choices, tiny_model: Path) -> None:
    detokenizers = Detokenizers(ChatTokenizer.load(tiny_model))
    for name in "012":
        transcript = Transcript(detokenizers, (), (), len(choices[name]), choice=int(name))
        tokens: list[Token] = [pushed for drawn in choices[name] if (pushed := transcript.push(drawn)) is not None]
        shown = logprobs_object(tokens)["content"]
        assert b"".join(bytes(entry["bytes"]) for entry in shown).decode() == "".join(t.text for t in tokens)
        for entry, token in zip(shown, tokens, strict=True):
            assert bytes(entry["bytes"]).decode() == entry["token"]
            assert len(entry["top_logprobs"]) == TOP
            for likely, top in zip(entry["top_logprobs"], token.top, strict=True):
                whole = "\ufffd" not in top.text
                assert likely["bytes"] == (list(top.text.encode()) if whole else None)

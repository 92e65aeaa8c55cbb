"""Known traps of TensorRT-LLM's executor: how tokens are drawn, and the grammars that guide them."""

from typing import Any

import msgspec
import pytest

from tests.fixtures.engines import (
    ENDS,
    ask,
    drive,
    finishes_of,
    tokens_of,
)
from tests.fixtures.models import Reference
from worker.engine.generation import Finish, Grammar, GrammarKind, Sampling
from worker.engine.protocol import Rejected
from worker.engine.tensorrt.engine import TensorRTEngine

pytestmark = pytest.mark.contract


def test_temperature_of_zero_is_greedy_whatever_comes_with_it(
    trt_engine: TensorRTEngine, tiny_reference: Reference
) -> None:
    generation = ask("a", 91)
    for sampling in (Sampling(top_p=0.9), Sampling(top_p=0.5, min_p=0.1, seed=4), Sampling(top_k=50)):
        outputs = drive(trt_engine, msgspec.structs.replace(generation, sampling=sampling))["a"]
        assert tokens_of(outputs) == tiny_reference.generate(generation.prompt_ids, None, 8)


def test_temperature_alone_draws_and_draws_the_same_with_the_same_seed(
    trt_engine: TensorRTEngine, tiny_reference: Reference
) -> None:
    """Without top_k and top_p the executor would be greedy."""
    generation = ask("a", 92)
    greedy = tiny_reference.generate(generation.prompt_ids, None, 8)
    drawn = [
        tokens_of(drive(trt_engine, msgspec.structs.replace(generation, sampling=Sampling(seed, temperature=1.5)))["a"])
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2] and greedy not in drawn


def test_answer_that_goes_on_does_not_draw_the_numbers_of_its_beginning_again(
    trt_engine: TensorRTEngine, driven_executor: Any
) -> None:
    sampling = Sampling(seed=3, temperature=1.0)
    drive(trt_engine, ask("a", 93, sampling=sampling), ask("b", 93, sampling=sampling, generated=[7, 8, 9]))
    first, second = driven_executor.requests
    assert first.sampling_config.seed != second.sampling_config.seed
    assert second.input_token_ids[-3:] == [7, 8, 9] and second.max_tokens == 5


@pytest.mark.parametrize(
    ("sampling", "why"),
    [
        (Sampling(logprobs=0), "logprobs = 0 cannot be had"),
        (Sampling(logprobs=5), "logprobs = 5 cannot be had"),
        (Sampling(temperature=1.0, top_k=1025), "top_k is 1025"),
    ],
)
def test_what_the_executor_clips_or_dies_of_is_refused_by_name(
    trt_engine: TensorRTEngine, sampling: Sampling, why: str
) -> None:
    with pytest.raises(Rejected, match=why) as caught:
        trt_engine.submit(ask("a", 94, sampling=sampling))
    assert caught.value.code == "invalid_sampling" and not trt_engine.has_work()


def test_sampling_that_the_binding_throws_out_is_refused_before_it_ends_everybody(
    trt: Any, trt_engine: TensorRTEngine, driven_executor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ranges are its own, narrower than ours here."""
    real = trt.SamplingConfig

    def narrow(**given: Any) -> Any:
        if given.get("repetition_penalty", 1.0) > 10:
            raise RuntimeError("Assertion failed: repetitionPenalty.value() <= 10.f")
        return real(**given)

    monkeypatch.setattr(trt, "SamplingConfig", narrow)
    trt_engine.submit(ask("good", 93, max_tokens=20))
    with pytest.raises(Rejected, match=r"TensorRT-LLM does not take .*repetition_penalty.*: Assertion") as caught:
        trt_engine.submit(ask("bad", 94, sampling=Sampling(repetition_penalty=50.0)))
    assert caught.value.code == "invalid_sampling"
    assert finishes_of(drive(trt_engine)) == {"good": Finish.LENGTH} and len(driven_executor.requests) == 1


def _json(schema: str) -> dict[str, Any]:
    return {"grammar": Grammar(GrammarKind.JSON_SCHEMA, schema), "max_tokens": 60}


def test_guide_that_cannot_be_followed_is_refused_before_it_ends_everybody(
    trt_engine: TensorRTEngine, driven_executor: Any
) -> None:
    trt_engine.submit(ask("good", 95, max_tokens=20))
    for schema in ('{"type": "nothing"}', "{", '{"$ref": "#/nowhere"}'):
        with pytest.raises(Rejected) as caught:
            trt_engine.submit(ask("bad", 96, stop_ids=ENDS, **_json(schema)))
        assert caught.value.code == "invalid_json_schema"
    assert finishes_of(drive(trt_engine)) == {"good": Finish.LENGTH} and len(driven_executor.requests) == 1


def test_answer_under_a_grammar_goes_on_where_it_was_lost(trt_engine: TensorRTEngine) -> None:
    """A guide begins at the answer's beginning, whatever the prompt holds of it."""
    schema = (
        '{"type":"object","properties":{"a":{"enum":["red","blue"]}},"required":["a"],"additionalProperties":false}'
    )
    generation = ask("a", 97, stop_ids=ENDS, **_json(schema))
    whole = tokens_of(drive(trt_engine, generation)["a"])
    assert len(whole) > 4
    outputs = drive(trt_engine, msgspec.structs.replace(generation, generated=whole[:3]))
    assert tokens_of(outputs["a"]) == whole[3:]

"""Answers that keep a grammar. Every backend: the torch engine, and TensorRT-LLM's executor over the fake, on the same
checkpoint."""

import json
from typing import Any

import jsonschema
import msgspec
import pytest

from tests.fixtures.engines import (
    ENDS,
    OBJECT,
    EngineKind,
    answer,
    ask,
    drive,
    schema,
    tokens_of,
)
from worker.engine.generation import Finish, Grammar, GrammarKind, Sampling
from worker.engine.protocol import Rejected
from worker.engine.server import ServedEngine
from worker.tokenizer import ChatTokenizer

pytestmark = pytest.mark.contract


def test_json_schema_is_kept_at_any_temperature(engine: ServedEngine, tiny_model: Any) -> None:
    tokenizer = ChatTokenizer.load(tiny_model)
    asked = [
        ask(
            str(n),
            70 + n,
            sampling=Sampling(n, temperature=0.5 + n / 2),
            max_tokens=200,
            stop_ids=ENDS,
            grammar=schema(OBJECT),
        )
        for n in range(5)
    ]
    for outputs in drive(engine, *asked).values():
        assert outputs[-1].finish is Finish.STOP
        text = tokenizer.whole.decode(tokens_of(outputs), skip_special_tokens=True)
        jsonschema.validate(json.loads(text), OBJECT)


def test_json_object_is_one_as_far_as_it_goes(engine: ServedEngine, tiny_model: Any) -> None:
    """Random weights rarely close their brackets; what they give may go on to be an object."""
    grammar = Grammar(GrammarKind.JSON_OBJECT)
    outputs = drive(engine, ask("a", 75, sampling=Sampling(1, 1.0), max_tokens=60, stop_ids=ENDS, grammar=grammar))["a"]
    text = ChatTokenizer.load(tiny_model).whole.decode(tokens_of(outputs), skip_special_tokens=True)
    assert text.lstrip().startswith("{")
    assert outputs[-1].finish is Finish.LENGTH or isinstance(json.loads(text), dict)


def test_answer_under_a_grammar_goes_on_behind_the_tokens_of_an_earlier_attempt(engine: ServedEngine) -> None:
    asked = ask("a", 76, max_tokens=80, stop_ids=ENDS, grammar=schema(OBJECT))
    whole = answer(engine, asked)
    for split in (1, len(whole) // 2, len(whole) - 1):
        assert answer(engine, msgspec.structs.replace(asked, generated=whole[:split])) == whole[split:]


def test_rules_are_kept_or_refused_by_name(kind: EngineKind, engine: ServedEngine) -> None:
    asked = ask("a", 77, stop_ids=ENDS, grammar=Grammar(GrammarKind.LARK, rules='start: "a" "b"'))
    if not kind.rules:
        with pytest.raises(Rejected, match="it cannot be held to rules") as caught:
            engine.submit(asked)
        assert caught.value.code == "invalid_json_schema"
        return
    assert drive(engine, asked)["a"][-1].finish is Finish.STOP


def test_grammar_is_made_ready_beside_the_steps_and_nothing_else_needs_to_be(engine: ServedEngine) -> None:
    assert engine.prepare(ask("a", 78)) is None
    asked = ask("a", 78, max_tokens=80, stop_ids=ENDS, grammar=schema({"enum": [12, 345]}))
    preparing = engine.prepare(asked)
    assert preparing is not None
    preparing.result(60)
    assert drive(engine, asked)["a"][-1].finish is Finish.STOP
    refused = engine.prepare(ask("b", 78, stop_ids=ENDS, grammar=schema("{")))
    assert refused is not None
    with pytest.raises(Rejected):
        refused.result(60)
